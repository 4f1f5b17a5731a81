"""What a GPU machine without a network is brought: wheels that are missing there, and emoji cut into categories."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# what .ci/gpu needs, by the name to import and by that of the wheel; torch and torchvision must be there
NEEDED = {
    "annotated_types": "annotated-types",
    "diffusers": "diffusers",
    "einops": "einops",
    "filelock": "filelock",
    "huggingface_hub": "huggingface-hub",
    "jinja2": "jinja2",
    "lpips": "lpips",
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "rich": "rich",
    "safetensors": "safetensors",
    "typer": "typer",
    "typing_inspection": "typing-inspection",
}
CARRIED = ("annotated-types", "diffusers", "filelock", "lpips", "pydantic", "typing-inspection")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def missing() -> list[str]:
    """Return the wheels that this Python lacks."""
    return [wheel for name, wheel in NEEDED.items() if find_spec(name) is None]


def fetch_wheels(folder: Path, python: str = "3.12") -> float:
    """Fetch the wheels for CPython on Linux, x86-64, and return their size in MB."""
    folder.mkdir(parents=True, exist_ok=True)
    for_there = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:", "--no-deps"]
    for platform in PLATFORMS:
        for_there += ["--platform", platform]
    download = [sys.executable, "-m", "pip", "download", "--quiet", *for_there, "--dest", str(folder)]
    subprocess.run([*download, *CARRIED], check=True)
    # pydantic wants one very version of its core
    (pydantic,) = folder.glob("pydantic-[0-9]*.whl")
    subprocess.run([*download, f"pydantic-core=={core_of(pydantic)}"], check=True)
    return sum(path.stat().st_size for path in folder.glob("*.whl")) / 1e6


def core_of(wheel: Path) -> str:
    """Return the version of pydantic-core that a wheel of pydantic asks for."""
    import zipfile

    with zipfile.ZipFile(wheel) as opened:
        (name,) = (one for one in opened.namelist() if one.endswith(".dist-info/METADATA"))
        found = re.search(r"Requires-Dist: pydantic-core==([\w.]+)", opened.read(name).decode())
    assert found is not None, f"{wheel.name} names no version of pydantic-core"
    return found[1]


def install_wheels(wheels: Path, target: Path) -> None:
    """Unpack carried wheels into a folder for PYTHONPATH."""
    found = sorted(map(str, wheels.glob("*.whl")))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*install, *found], check=True)


def fetch_emoji(folder: Path) -> tuple[int, float]:
    """Fetch pictures of 64 px and lay them by category; return how many there are, and their size in MB."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    from emoji import fetch

    count = fetch(folder)
    return count, sum(path.stat().st_size for path in folder.rglob("*.png")) / 1e6
