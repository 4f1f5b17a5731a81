"""What is installed: name, version, entry point, marker of types, dependencies with floors and reasons, license."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import latentart
from latentart.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
SHIPPED = tomllib.loads(TEXT)["tool"]["setuptools"]["package-data"]["latentart"]
DEPENDENCIES = {
    "torch", "torchvision", "numpy", "pillow", "einops", "lpips", "typer", "rich", "pydantic",
    "safetensors", "matplotlib", "jinja2", "starlette", "uvicorn", "filelock",
}  # fmt: skip


def test_the_version_stands_in_one_place() -> None:
    """The installed version is the package's own."""
    assert PROJECT["dynamic"] == ["version"]
    assert importlib.metadata.version("latentart") == latentart.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", latentart.__version__)


def test_the_command_is_installed() -> None:
    """The console script starts `main`."""
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="latentart")

    assert PROJECT["scripts"] == {"latentart": "latentart.cli:main"}
    assert script.load() is main


def test_types_are_told() -> None:
    """Type checkers read the package's annotations."""
    assert Path(latentart.__file__).with_name("py.typed").is_file()
    assert "py.typed" in SHIPPED


def test_what_is_no_code_is_shipped() -> None:
    """Every other file of the package is named as its data, so that a wheel holds it."""
    folder = Path(latentart.__file__).parent
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }

    assert found == set(SHIPPED)


def test_dependencies_have_floors_and_reasons() -> None:
    """Each with the oldest version that works and, beside it, why it is there."""
    assert {re.split(r"[><=]", line)[0] for line in PROJECT["dependencies"]} == DEPENDENCIES
    assert all(">=" in line for line in PROJECT["dependencies"])
    for line in PROJECT["dependencies"]:
        assert re.search(rf'"{re.escape(line)}",? +# \w.{{10,}}', TEXT), f"{line} has no reason"


def test_python_has_a_floor() -> None:
    """3.11 is the oldest."""
    assert PROJECT["requires-python"] == ">=3.11"


def test_the_license_is_mit() -> None:
    """The file and its name in the metadata agree."""
    assert (PROJECT["license"], PROJECT["license-files"]) == ("MIT", ["LICENSE"])
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
