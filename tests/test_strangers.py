"""What strangers write, drawn at random: settings in pictures, model.json, configs. Each is read or refused."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
import typer.main
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from latentart.config.workspace import preset_tree
from latentart.process.devices import Placement
from latentart.sampling import sample


class Outcome(Protocol):
    """What a command left."""

    code: int
    err: str


GOLDEN = Path(__file__).parent / "golden/model-format-1"
DRAWN: dict[str, Any] = {
    "styles": ["High_Renaissance", {"Cubism": 0.5, "High_Renaissance": 0.5}],
    "seeds": [0, [1, 2.5, 0.5]],
    "grid": [1, 2],
    "size": [32, 64],
    "labels": {},
    "movie": "denoising",
    "init_image": {"file": "a.png", "sha256": hashlib.sha256(b"").hexdigest()},
    "mask": None,
    "invert": None,
    "from_style": "Cubism",
    "strength": 0.5,
    "sampler": "ddim",
    "steps": 4,
    "guidance_interval": [0, 1],
}
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**63, 10**30, 10**400, 1e30, 1e308, 13, 1.5]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["\0", "~nosuchuser/x", "x" * 5000, "\ud800", "\x1b[2J", "/", "..", "A+" * 50]),
)
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(max_size=5), LEAVES, max_size=2)
SAMPLE, MANY = 200, pytest.mark.faults
COUNTS = pytest.mark.parametrize("count", [SAMPLE, pytest.param(10_000, marks=MANY)])


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the path of every value in a tree of JSON."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def spoiled(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return the tree with another value at a path."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = spoiled(tree[path[0]], path[1:], value)
    return copy


@pytest.fixture(scope="module", autouse=True)
def one_tree() -> Iterator[None]:
    """Build the tree of commands once: typer builds it for every call, in longer than most calls take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


def trial(count: int, tree: Mapping[str, Any], attempt: Callable[[Any], Outcome]) -> None:
    """Spoil up to three places of a tree at random, and run a command on it: it works, or one line says why not."""

    @settings(max_examples=count, derandomize=True, database=None, phases=(Phase.generate, Phase.shrink))
    @given(st.lists(st.tuples(st.sampled_from(list(places(dict(tree)))), VALUES), min_size=1, max_size=3))
    def run(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
        changed: Any = dict(tree)
        for path, value in changes:
            with contextlib.suppress(LookupError, TypeError):  # the place went with another
                changed = spoiled(changed, path, value)
        outcome = attempt(changed)
        assert outcome.code != 1, outcome.err
        assert outcome.code == 0 or outcome.err.splitlines()[-1].startswith("error: "), outcome.err
        assert all(letter.isprintable() or letter == "\n" for letter in outcome.err)

    run()


@COUNTS
def test_settings_in_a_picture(
    count: int, tmp_path: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sample --from` a stranger's picture: settings that could be drawn come as far as a file that is in the way."""
    model = sample.load_model(GOLDEN, Placement(torch.device("cpu"), "fp32"))
    monkeypatch.setattr(sample, "load_model", lambda *_: model)  # it stays as it is, and takes longer than all else
    path, taken = tmp_path / "x.webp", tmp_path / "taken.webp"
    taken.touch()
    (tmp_path / "a.png").touch()

    def attempt(changed: Any) -> Outcome:
        info = PngInfo()
        info.add_text("latentart", json.dumps(changed))
        Image.new("RGB", (8, 8)).save(path, "PNG", pnginfo=info)
        return run(tmp_path, "sample", "--from", path, "--model", GOLDEN, "--out", taken, "--device", "cpu")

    assert "taken.webp exists" in attempt(DRAWN).err
    trial(count, DRAWN, attempt)


@COUNTS
def test_a_model_json(count: int, tmp_path: Path, run: Callable[..., Outcome]) -> None:
    """`info` of a stranger's model, whose checksums are right."""
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    manifest = json.loads((folder / "MANIFEST.json").read_text())

    def attempt(changed: Any) -> Outcome:
        content = json.dumps(changed).encode()
        (folder / "model.json").write_bytes(content)
        manifest["files"]["model.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (folder / "MANIFEST.json").write_text(json.dumps(manifest))
        return run(tmp_path, "info", folder)

    trial(count, json.loads((GOLDEN / "model.json").read_text()), attempt)


@COUNTS
def test_a_config(count: int, tmp_path: Path, run: Callable[..., Outcome]) -> None:
    """A command in a stranger's workspace: it reads the config, and looks for pictures where that says."""

    def attempt(changed: Any) -> Outcome:
        (tmp_path / "latentart.json").write_text(json.dumps(changed))
        return run(tmp_path, "evaluate", "vae", "--device", "cpu")

    trial(count, preset_tree("demo"), attempt)
