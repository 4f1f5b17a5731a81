"""Help and the version are instant and complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart import __version__

HEAVY = {"torch", "torchvision", "torchmetrics", "lpips", "numpy", "PIL", "einops"}
SPY = """
import json, sys
sys.argv = ["latentart", *sys.argv[1:]]
from latentart.cli import main
try:
    main()
except SystemExit as done:
    print(json.dumps([done.code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def modules_after(*words: str, folder: Path) -> set[str]:
    """Return the top-level modules that a new process has after a command that must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", SPY, *words], cwd=folder, capture_output=True, text=True, check=True, env=os.environ
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """Help answers at once: no torch, no pictures, no configs."""
    assert not modules_after("--help", folder=tmp_path) & {*HEAVY, "pydantic"}


def test_the_list_of_presets_imports_nothing_heavy(tmp_path: Path) -> None:
    """Presets are plain values; only typer itself may take pydantic, to read options."""
    assert not modules_after("config", "ls", folder=tmp_path) & HEAVY


def test_configs_import_no_torch(tmp_path: Path) -> None:
    """Looking at a config needs pydantic alone."""
    modules = modules_after("config", "show", "--preset", "demo", folder=tmp_path)

    assert "pydantic" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("words", [(), ("config",), ("train",)])
def test_every_command_has_a_whole_line_of_help(latentart: Callable[..., Any], words: tuple[str, ...]) -> None:
    """The list of commands says of each what it does, and no line is cut."""
    done = latentart(*words, "--help")
    commands = re.findall(r"^  [a-z][a-z-]*  .*", done.out, re.MULTILINE)

    assert done.code == 0
    assert all(re.fullmatch(r"  [a-z-]+ +[A-Z].*\.", line) for line in commands)
    assert "..." not in "".join(commands)


def test_the_help_names_the_path_in_its_order(latentart: Callable[..., Any]) -> None:
    """The commands stand in the order in which they are used."""
    sections = re.findall(r"^(\w+):\n((?:  [a-z].*\n)+)", latentart("-h").out, re.MULTILINE)

    assert {title: re.findall(r"^  ([a-z-]+)  ", text, re.MULTILINE) for title, text in sections} == {
        "Begin": ["demo", "init", "clean-data"],
        "Train": ["plan", "train", "encode", "find-lr", "schedule", "ema"],
        "Draw": ["sample", "reconstruct", "studio"],
        "Judge": ["report", "runs", "evaluate", "info"],
        "More": ["config", "weights", "export", "bench", "doctor"],
    }


@pytest.mark.parametrize("words", [("sample",), ("train", "ldm"), ("clean-data",), ("weights", "import")])
def test_values_have_names_that_people_know(latentart: Callable[..., Any], words: tuple[str, ...]) -> None:
    """No type of Python's stands in the help."""
    shown = latentart(*words, "--help").out

    assert re.search(r"--\w+ (TEXT|PATH|N|X)\b", shown)
    assert not re.search(r"<(str|path|int|float|list)|list\[|range>", shown)


@pytest.mark.parametrize("words", [(), ("config",), ("train",)])
def test_no_words_show_the_help(latentart: Callable[..., Any], words: tuple[str, ...]) -> None:
    """Without a command there is the help, as a usage error and on stderr."""
    done = latentart(*words)

    assert (done.code, done.out) == (2, "")
    assert re.search("^(Commands|Begin):", done.err, re.MULTILINE)


def test_the_version_is_one_line(latentart: Callable[..., Any]) -> None:
    """`--version` ends at once, whatever follows."""
    assert latentart("--version").out == f"latentart {__version__}\n"
    assert latentart("--version", "sample").code == 0


def test_verbose_alone_is_not_enough(latentart: Callable[..., Any]) -> None:
    """An option without a command is a usage error and not silence."""
    done = latentart("--verbose")

    assert done.code == 2
    assert "Missing command" in done.err
