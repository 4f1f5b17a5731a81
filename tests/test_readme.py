"""What the README promises: its commands exist, its two lines are those that are checked, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from latentart.cli import app
from latentart.config.presets import PRESETS
from latentart.config.workspace import resolve
from latentart.data.cleaning.report import REMEDIES
from latentart.errors import LatentArtError
from latentart.model.weights.perceptual import BACKBONES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "examples/guides").glob("*.md"))]
README, *_ = TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
ALL = "\n".join(TEXTS)
MAIN_LINE = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/latentart demo"
TEST_LINE = 'python3 -m venv .venv && .venv/bin/pip install ".[test]" && .venv/bin/python -m pytest'

CODE_LINES = [
    line for text in TEXTS for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
]
COMMANDS = sorted(
    {
        *(line for line in CODE_LINES if line.startswith("latentart ")),
        *(line for text in TEXTS for line in re.findall(r"`(latentart [^`]+)`", text)),
    }
)


def test_the_two_lines_of_a_fresh_machine() -> None:
    """The opening has exactly two command lines: the main job, then the tests."""
    opening = README.partition("\n## ")[0]

    assert re.findall(r"```sh\n(.*?)\n```", opening, re.DOTALL) == [MAIN_LINE, TEST_LINE]
    assert opening.startswith("# latentart\n\nlatentart turns your own folder of pictures into")
    assert opening.index("![") < opening.index(MAIN_LINE)
    assert len(README.splitlines()) <= 200


def test_ci_runs_the_test_line_as_it_stands() -> None:
    """What is checked is what a reader types."""
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()

    assert lines.count(TEST_LINE) == 1
    assert "set -euo pipefail" in lines
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_readme_shows_enough_commands() -> None:
    """The reading of the README that the next test relies on finds what is there."""
    assert len(COMMANDS) > 15
    assert "latentart sample --style High_Renaissance --eta 0.8 --grid 4x4" in COMMANDS


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_parses(line: str) -> None:
    """Command, options and values exist; settings are settings that the default config takes."""
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if "--help" in words:
        assert words == ["--help"]
        return

    context = command.make_context(line, words)

    settings = [word for word in context.params.get("overrides") or [] if "=" in word]
    assert resolve({}, settings).to_text() != resolve({}).to_text() or not settings


def test_every_command_is_in_the_table() -> None:
    """No command is left for the reader to find."""
    shown = {" ".join(line.split()[1:3]) for line in COMMANDS}
    commands: Any = typer.main.get_command(app)
    names = {name for name in commands.commands if name != "train"} | {"train vae", "train ldm"}

    assert [name for name in sorted(names) if not any(f"{line} ".startswith(f"{name} ") for line in shown)] == []


def test_links_lead_somewhere() -> None:
    """Every relative link is a file of the repository, and every guide is linked to."""
    found = {
        (page.parent / link).resolve(): f"{page.name}: {link}"
        for page, text in zip(PAGES, TEXTS, strict=True)
        for link in re.findall(r"\]\(([^)#]+)", text)
        if "://" not in link
    }

    assert {ROOT / "examples/demo.png", *PAGES[1:]} <= found.keys()
    assert [link for path, link in found.items() if not path.exists()] == []


def test_presets_backbones_and_exit_codes_are_those_of_the_code() -> None:
    """The tables name what there is, and all of it."""
    for name in PRESETS:
        assert f"| `{name}` |" in README
    for known in BACKBONES.values():
        assert f"| `{known.file_name}` | {known.megabytes:g} MB |" in ALL
    assert [reason for reason in REMEDIES if f"`{reason}`" not in ALL] == []
    codes = [kind.exit_code for kind in LatentArtError.__subclasses__() if 1 < kind.exit_code < 128]
    assert all(f"\n| {code} |" in ALL for code in codes)


def test_the_layout_names_every_module() -> None:
    """The tree shows each folder and file of the package's top level, but for what every package has."""
    tree = ALL.partition("## The package")[2].partition("## ")[0]
    paths = [path for path in (ROOT / "latentart").iterdir() if not path.name.startswith(("_", ".", "py.typed"))]

    assert [path.name for path in paths if path.name not in tree] == []


def test_every_setting_that_is_named_exists() -> None:
    """A full key in the text, with or without a value, is one of the config's."""
    named = set(re.findall(r"`((?:data|vae|ldm|sample|tracking)\.(?!py`)[a-z_0-9.]+)(?:=[^`]*)?`", ALL))
    config = resolve({})

    assert len(named) > 20
    assert [key for key in sorted(named) if not _leads_to_a_setting(config, key)] == []
    assert not _leads_to_a_setting(config, "vae.stages.l1.speed")


def _leads_to_a_setting(node: Any, key: str) -> bool:
    for name in key.split("."):
        items = {item.name: item for item in node} if isinstance(node, tuple) else vars(node)
        if name not in items:
            return False
        node = items[name]
    return True
