"""The latent cache: written, interrupted, gone on with, read, and refused when it is damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latentart.core.latents import LatentStatistics
from latentart.data import latent_cache
from latentart.data.latent_cache import CACHE_FILE, LatentCache, cache_key, is_complete, shard_path, write_cache
from latentart.errors import DataError

COUNT = 11
STYLES = [i % 3 for i in range(COUNT)]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images a shard, so that a few make several."""
    monkeypatch.setattr(latent_cache, "SHARD_IMAGES", 4)


def encode(indexes: Sequence[int]) -> Tensor:
    """Return moments [n, 2, 6, 2, 3] that depend on the index alone."""
    rows = [torch.randn(2, 6, 2, 3, generator=torch.Generator().manual_seed(index)) for index in indexes]
    return torch.stack(rows)


def write(folder: Path, encoder: Callable[[Sequence[int]], Tensor] = encode) -> list[int]:
    """Write the cache and return what it told about its progress."""
    told: list[int] = []
    write_cache(folder, COUNT, encoder, STYLES, batch_size=3, on_progress=told.append)
    return told


def digest(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Any rows in any variants, in the order asked for, as float32 of the stored half precision."""
    write(tmp_path / "cache")

    cache = LatentCache.open(tmp_path / "cache")
    rows = cache.read([10, 0, 5, 5], [1, 0, 0, 1])

    expected = encode(range(COUNT)).half().float()
    assert (len(cache), cache.num_variants, cache.latent_shape) == (COUNT, 2, (3, 2, 3))
    assert cache.style_id.tolist() == STYLES
    assert rows.dtype == torch.float32
    assert torch.equal(rows, expected[[10, 0, 5, 5], [1, 0, 0, 1]])


def test_statistics_are_those_of_what_is_stored(tmp_path: Path) -> None:
    """Mean and deviation over all images and variants, as measured directly."""
    write(tmp_path)

    direct = LatentStatistics()
    direct.update(encode(range(COUNT)).half().flatten(0, 1))
    assert LatentCache.open(tmp_path).normalizer.mean == pytest.approx(direct.normalizer().mean, abs=1e-12)
    assert LatentCache.open(tmp_path).normalizer.std == pytest.approx(direct.normalizer().std, abs=1e-12)


def test_progress_rises_to_the_count(tmp_path: Path) -> None:
    """It never falls and ends at the number of images."""
    told = write(tmp_path)

    assert told == sorted(told)
    assert told[-1] == COUNT


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 4])
def test_an_interrupted_cache_goes_on_to_the_same_bytes(tmp_path: Path, calls: int) -> None:
    """Stop anywhere: it is not complete; write again: what is whole is kept, and every file is as in one go."""
    write(tmp_path / "whole")
    left = calls

    def stopping(indexes: Sequence[int]) -> Tensor:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return encode(indexes)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cut", stopping)
    was_complete = is_complete(tmp_path / "cut")
    kept = digest(tmp_path / "cut")
    write(tmp_path / "cut")

    assert not was_complete
    assert len(kept) == calls // 2
    assert is_complete(tmp_path / "cut")
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_a_finished_shard_is_not_encoded_again(tmp_path: Path) -> None:
    """Going on asks only for the images of the missing shard."""
    write(tmp_path)
    (tmp_path / CACHE_FILE).unlink()
    shard_path(tmp_path, 1).unlink()
    asked: list[int] = []

    def watching(indexes: Sequence[int]) -> Tensor:
        asked.extend(indexes)
        return encode(indexes)

    write(tmp_path, watching)

    assert asked == [4, 5, 6, 7]


def test_a_torn_shard_is_written_again(tmp_path: Path) -> None:
    """A file cut by a full disk or a lost power does not count as whole."""
    write(tmp_path)
    expected = digest(tmp_path)
    content = shard_path(tmp_path, 2).read_bytes()
    shard_path(tmp_path, 2).write_bytes(content[:-10])
    shard_path(tmp_path, 0).write_bytes(b"")

    write(tmp_path)

    assert digest(tmp_path) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_moments_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    """NaN, infinity and what half precision cannot hold: the message names the images, and nothing counts as whole."""

    def wild(indexes: Sequence[int]) -> Tensor:
        moments = encode(indexes)
        if 6 in indexes:
            moments[0, 1, 2, 0, 0] = value
        return moments

    with pytest.raises(DataError, match="not finite for images 4 to 7"):
        write(tmp_path, wild)

    assert not is_complete(tmp_path)
    assert not shard_path(tmp_path, 1).exists()


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "noise"])
@pytest.mark.parametrize("name", [CACHE_FILE, "shard-00001.safetensors"])
def test_a_damaged_cache_says_so(tmp_path: Path, name: str, damage: str) -> None:
    """One line that names the folder and what to do."""
    write(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * 50}[damage])

    with pytest.raises(DataError, match=r"latent cache at .* is damaged .*Delete that folder"):
        LatentCache.open(tmp_path)


@pytest.mark.parametrize("about", [{}, {"count": 11}, {"count": "x"}, [1], {"count": 11, "mean": 1, "std": 2}])
def test_a_description_that_lacks_something_says_so(tmp_path: Path, about: object) -> None:
    """Sound JSON of the wrong content is damage too."""
    write(tmp_path)
    (tmp_path / CACHE_FILE).write_text(json.dumps(about))

    with pytest.raises(DataError, match="is damaged"):
        LatentCache.open(tmp_path)


def test_the_key_covers_everything_the_moments_depend_on() -> None:
    """Each ingredient alone makes another folder; the same make the same."""
    keys = [
        cache_key("a", "d", 256, flip=True),
        cache_key("b", "d", 256, flip=True),
        cache_key("a", "e", 256, flip=True),
        cache_key("a", "d", 128, flip=True),
        cache_key("a", "d", 256, flip=False),
    ]

    assert len(set(keys)) == 5
    assert keys[0] == cache_key("a", "d", 256, flip=True)
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
