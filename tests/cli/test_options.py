"""The options of every command, the words they take, and how arguments are told from settings."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer

import latentart
from latentart.cli import app
from latentart.cli.options import only_settings, parse_grid, split_arguments
from latentart.config.workspace import schema
from latentart.errors import UsageError

CONFIG = {"-c", "-cfg", "--config"}
QUIET = {"-q", "--quiet"}
CALL = {"--resume", "--minutes", "--max-time", "--max-steps", "--allow-changed-data"}
OPTIONS = {
    "": {"--version", "--verbose", "-v", "--install-completion", "--show-completion"},
    "demo": {"--quick", "--minutes", "--device", "--json", *QUIET},
    "init": {"--preset", "--data"},
    "clean-data": {"--out", "--dry-run", "--near-duplicates", "--sheet", "--sheet-only", "--json", *CONFIG, *QUIET},
    "encode": {"--device", "--json", *CONFIG, *QUIET},
    "sample": {"--style", "-s", "--grid", "--count", "-n", "--seed", "--steps", "--sampler", "--eta", "--guidance"}
    | {"--interval", "--autoguidance", "--label", "--size", "--walk", "--movie", "--init-image", "--strength", "--mask"}
    | {
        "--invert",
        "--from-style",
        "--from",
        "--separate",
        "--engine",
        "--out",
        "--model",
        "--device",
        "--json",
        *CONFIG,
        *QUIET,
    },
    "ema": {"--relative-std", "--step", "--out", "--json", *CONFIG},
    "reconstruct": {"--size", "--out", "--model", "--device", "--json", *CONFIG},
    "evaluate vae": {"--count", "-n", "--model", "--device", "--json", *CONFIG, *QUIET},
    "evaluate ldm": {
        *("--per-style", "-n", "--seed", "--steps", "--sampler", "--eta", "--guidance"),
        *("--model", "--device", "--json", *CONFIG, *QUIET),
    },
    "export onnx": {"--model", "--json", *CONFIG},
    "export card": {"--model", "--device", "--json", *CONFIG, *QUIET},
    "export web": {"--runtime", "--half", "--title", "--model", "--json", *CONFIG},
    "weights list": {"--json"},
    "weights fetch": {"--url", "--json", *CONFIG, *QUIET},
    "weights verify": {"--json", *CONFIG},
    "weights import": {"--as", "--key", "--out", "--device", "--json", *CONFIG},
    "studio": {"--model", "--port", "--host", "--open", "--no-open", "--device"},
    "runs ls": {"--json", *CONFIG},
    "runs keep": {"--json", *CONFIG},
    "runs restore": {"--json", *CONFIG},
    "runs compare": {"--out", "--json", *CONFIG},
    "runs rm": {"--yes", "--json", *CONFIG},
    "report": {"--out", "--json", *CONFIG},
    "bench": {"--preset", "--only", "--minutes", "--device", "--json", *CONFIG},
    "plan": {"--seconds", "--device", "--json", *CONFIG},
    "find-lr vae": {"--stage", "--from", "--to", "--steps", "--out", "--device", "--json", *CONFIG, *QUIET},
    "find-lr ldm": {"--from", "--to", "--steps", "--out", "--device", "--json", *CONFIG, *QUIET},
    "schedule": {"--kind", "--image", "--columns", "--out", "--json", *CONFIG},
    "info": {"--json", *CONFIG},
    "doctor": {"--json"},
    "config ls": {"--json"},
    "config show": {"--preset", *CONFIG},
    "config validate": CONFIG,
    "config schema": set(),
    "config diff": {"--preset", *CONFIG},
    "train vae": {"--stage", "--minutes", *CALL, "--device", "--json", *CONFIG, *QUIET},
    "train ldm": {"--from", "--add-styles", "--minutes", *CALL, "--device", "--json", *CONFIG, *QUIET},
}


def options_of(command: Any, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield every command's name and options, but for those that only show help."""
    options = {word for one in command.params for word in (*one.opts, *one.secondary_opts) if word.startswith("-")}
    below = getattr(command, "commands", {})
    if not below or options:
        yield name, options
    for word, child in below.items():
        yield from options_of(child, f"{name} {word}".strip())


def test_the_options_are_these() -> None:
    """New knobs belong into the config: an option is for what changes from one call to the next."""
    assert dict(options_of(typer.main.get_command(app))) == OPTIONS


def words_of(path: Path) -> Iterator[str]:
    """Yield every text in a file that people may read, with {} for what is put in: no docstrings, no comments."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def is_setting(path: str, node: Any) -> bool:
    """Tell whether a path with {} for any one name leads to a setting of a schema's node."""
    name, _, rest = path.partition(".")
    nodes = [node, *(schema()["$defs"][ref.rpartition("/")[2]] for ref in re.findall(r"'\$ref': '([^']+)'", str(node)))]
    below = [child for one in nodes for key, child in one.get("properties", {}).items() if name in (key, "{}")]
    return not path or any(is_setting(rest, child) for child in below) or ("items" in node and is_setting(rest, node))


def test_what_a_hint_names_exists() -> None:
    """The commands, options and settings in all that is said: none was renamed or never there."""
    groups = {" ".join(name.split()[:1]) for name in OPTIONS}
    every = set().union(*OPTIONS.values()) | {"--help", "--nproc-per-node", "--shm-size"}
    wrong = []
    for path in sorted(Path(latentart.__file__).parent.rglob("*.py")):
        for text in words_of(path):
            said = re.findall(r"`latentart ([^`]*)`|(?:Next:|&&) latentart (.*)", text)
            for command in filter(None, chain(*said)):
                words = re.match(r"(?:-v )?((?:[a-z][a-z-]*(?: |$))*)", command)[1].split()
                name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in OPTIONS or n in groups), "")
                options = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", command)) - {"-v"}
                wrong += [command] * ((bool(words) and not name) or not options <= OPTIONS.get(name, set()))
            wrong += set(re.findall(r"(?<![\w<-])--[a-z][a-z-]*[a-z](?![\w-])", text)) - every
            settings = re.findall(
                r"(?<![\w./'-])(?:data|vae|ldm|sample|tracking)(?:\.(?:(?!pkl|py\b)[a-z_]\w*|\{\}))+", text
            )
            wrong += [one for one in settings if not is_setting(one, schema())]

    assert wrong == []


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("find-lr", "vae"), "--steps 1000000000"),
        (("plan",), "--seconds inf"),
        (("bench",), "--minutes inf"),
        (("train", "vae"), "--minutes inf"),
        (("evaluate", "ldm"), "--per-style 1000000000"),
        (("evaluate", "ldm"), f"--seed {2**63}"),
    ],
)
def test_what_no_machine_ends_is_refused(latentart: Callable[..., Any], words: tuple[str, ...], option: str) -> None:
    """In one line that names the most, before anything is built or a list of it is made."""
    outcome = latentart(*words, *option.split())

    assert outcome.code == 2
    assert option.split()[0] in outcome.err
    assert "must be at most" in outcome.err


@pytest.mark.parametrize(
    ("text", "cells"), [("4x4", (4, 4)), ("4X4", (4, 4)), ("2×3", (2, 3)), (" 1x64 ", (1, 64)), ("64x01", (64, 1))]
)
def test_a_grid_is_rows_by_columns(text: str, cells: tuple[int, int]) -> None:
    """A grid is two whole numbers with a cross between them."""
    assert parse_grid(text) == cells


@pytest.mark.parametrize(
    "text",
    ["", "4", "x", "4x", "x4", "0x3", "3x0", "-1x2", "axb", "65x1", "100x100", "4x4x4", "4 x 4", "1e1x2", "4.0x4"],
)
def test_any_other_grid_is_refused(text: str) -> None:
    """Anything else is a usage error that says how a grid is written."""
    with pytest.raises(UsageError) as caught:
        parse_grid(text)

    assert caught.value.message == f"'{text}' is not a grid."
    assert "each from 1 to 64, as 4x4" in caught.value.hint


def test_settings_are_told_from_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word with an equals sign is a setting, but for one that names what exists."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    long = f"vae.stages=[{' ' * 5000}]"

    assert split_arguments(["raw", "seed=1", "a=b", "vae.stages.l1.steps=5", "$schema=x", long]) == (
        ["raw", "a=b"],
        ["seed=1", "vae.stages.l1.steps=5", "$schema=x", long],
    )
    assert split_arguments(["./seed=1", "=1", "1=2", "a b=c"]) == (["./seed=1", "=1", "1=2", "a b=c"], [])
    assert split_arguments(None) == ([], [])


def test_only_settings_refuses_other_words() -> None:
    """A word that is no setting is named."""
    with pytest.raises(UsageError, match="'hires' is not a setting"):
        only_settings(["seed=1", "hires"])


@pytest.mark.parametrize("words", [("-c",), ("--config",), ("-cfg",)])
def test_the_config_has_three_names(latentart: Callable[..., Any], tmp_path: Path, words: tuple[str, ...]) -> None:
    """`-c`, `--config` and the seed's `-cfg` all name the config."""
    path = tmp_path / "other.json"
    path.write_text('{"preset": "demo", "seed": 7}', encoding="utf-8")

    done = latentart("config", "show", *words, path)

    assert done.code == 0
    assert '"seed": 7' in done.out


def test_a_terminal_without_letters_gets_them_escaped(tmp_path: Path) -> None:
    """In an ASCII locale names and signs come out readable, and paths as their bytes."""
    (tmp_path / "raw" / "é").mkdir(parents=True)
    for i in range(22):
        (tmp_path / "raw" / "é" / f"{i}.jpg").write_bytes(b"")
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "latentart", "clean-data", "raw", "--out", "out", "-q", "data.workers=1"]

    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)

    assert done.returncode == 4, done.stderr
    assert b"\\u2026 and 2 more dropped" in done.stdout
    assert b"dropped \\udcc3\\udca9/0.jpg" in done.stdout
