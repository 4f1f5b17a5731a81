"""What strangers write, drawn at random: settings in pictures, model.json, configs. Each is read or refused."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from latentart.config.workspace import preset_tree, resolve
from latentart.core.latents import LatentNormalizer
from latentart.core.networks.autoencoder import Autoencoder
from latentart.errors import LatentArtError
from latentart.model.description import read_description
from latentart.model.folder import Model
from latentart.sampling.sample import settings_in
from latentart.sampling.settings import read_drawing

GOLDEN = json.loads((Path(__file__).parent / "golden/model-format-1/model.json").read_text())
DRAWN: dict[str, Any] = {
    "styles": ["A", {"A": 0.5, "B": 0.5}],
    "seeds": [0, 1.5],
    "grid": [1, 2],
    "size": [32, 64],
    "labels": {"genre": "x"},
    "movie": "walk",
    "init_image": {"file": "a.png", "sha256": "0"},
    "mask": {"file": "a.png", "sha256": "0"},
    "invert": {"file": "a.png", "sha256": "0"},
    "from_style": "A",
    "strength": 0.5,
    "sampler": "ddim",
    "steps": 4,
    "guidance_interval": [0, 1],
    "autoencoder": "0",
}
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**63, 10**30, 10**400, 1e30, 1e308, 13, 1.5]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\0", "~nosuchuser/x", "x" * 5000, "\ud800", "\x1b[2J", "/", "..", "A+" * 50]),
)
VALUES = st.recursive(LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part))
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


def trial(count: int, tree: Mapping[str, Any], read: Callable[[Any], object]) -> None:
    """Spoil up to three places of a tree at random, and read it: it is read, or a known error says why not."""

    @settings(max_examples=count, derandomize=True, database=None)
    @given(st.lists(st.tuples(st.sampled_from(list(places(dict(tree)))), VALUES), min_size=1, max_size=3))
    def attempt(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
        changed: Any = dict(tree)
        for path, value in changes:
            with contextlib.suppress(LookupError, TypeError):  # the place went with another
                changed = spoiled(changed, path, value)
        with contextlib.suppress(LatentArtError):
            read(changed)

    attempt()


@COUNTS
def test_settings_in_a_picture(count: int) -> None:
    """`sample --from` a stranger's picture."""
    networks = (torch.nn.Identity(), torch.nn.Identity())
    autoencoder = Autoencoder(*networks, latent_channels=1, factor=1)  # type: ignore[arg-type]
    about = {"style_names": ["A", "B"], "resolution": 32, "labels": [{"name": "genre", "values": ["x", "y"]}]}
    model = Model(about, autoencoder, LatentNormalizer((0.0,), (1.0,)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.png"

        def read(changed: Any) -> object:
            info = PngInfo()
            info.add_text("latentart", json.dumps(changed))
            Image.new("RGB", (8, 8)).save(path, pnginfo=info)
            return read_drawing(path, model, settings_in)

        trial(count, DRAWN, read)


@COUNTS
def test_a_model_json(count: int) -> None:
    """`info` of a stranger's model."""
    trial(count, GOLDEN, lambda changed: read_description(changed, Path("model.json")))


@COUNTS
def test_a_config(count: int) -> None:
    """Every command in a stranger's workspace."""
    tree = preset_tree("demo")

    def read(changed: Any) -> object:
        return resolve(changed) if isinstance(changed, dict) else None

    trial(count, tree, read)
