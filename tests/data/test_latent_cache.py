"""The latent cache: written in shards, interrupted, gone on with, measured, read, and refused when it is damaged."""

from __future__ import annotations

import hashlib
import json
import pickle
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentart.core.latents import LatentStatistics
from latentart.data import latent_cache
from latentart.data.latent_cache import (
    CACHE_FILE,
    SHARD_BYTES,
    CacheLayout,
    LatentCache,
    cache_key,
    complete_cache,
    discard_shards,
    is_complete,
    shard_path,
    survey,
    write_shards,
)
from latentart.errors import DataError, ResourceError

COUNT = 11
SHAPE = (2, 6, 2, 3)
SOURCE = {"autoencoder": "a", "resolution": 256}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images a shard, so that a few make several."""
    monkeypatch.setattr(latent_cache, "SHARD_IMAGES", 4)


def plan(dtype: str = "fp16") -> CacheLayout:
    """Return the layout of three shards: 4, 4 and 3 images."""
    return CacheLayout.plan(COUNT, SHAPE, dtype)


def encode(indexes: Sequence[int]) -> Tensor:
    """Return moments [n, 2, 6, 2, 3] that depend on the index alone."""
    return torch.stack([torch.randn(SHAPE, generator=torch.Generator().manual_seed(index)) for index in indexes])


def encoded(layout: CacheLayout, shards: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield what the autoencoder makes of the images of some shards, three at a time."""
    for images in layout.batches(shards, 3):
        yield encode(images), torch.tensor(images) % 3, torch.tensor(images)


def write(folder: Path, dtype: str = "fp16") -> list[int]:
    """Write what is missing of the cache and return what was told about the progress."""
    folder.mkdir(exist_ok=True)
    told: list[int] = []
    layout = plan(dtype)
    missing, _ = survey(folder, layout, range(layout.num_shards))
    write_shards(folder, layout, missing, encoded(layout, missing), on_progress=told.append)
    complete_cache(folder, layout, SOURCE)
    return told


def digest(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize(("dtype", "stored"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_what_was_written_is_read(tmp_path: Path, dtype: str, stored: torch.dtype) -> None:
    """Any rows in any variants, in the order asked for, as float32 of the stored half precision."""
    write(tmp_path / "cache", dtype)

    cache = LatentCache.open(tmp_path / "cache")
    rows = cache.read([10, 0, 5, 5], [1, 0, 0, 1])

    expected = encode(range(COUNT)).to(stored).float()
    assert (len(cache), cache.num_variants, cache.latent_shape) == (COUNT, 2, (3, 2, 3))
    assert cache.style_id.tolist() == [index % 3 for index in range(COUNT)]
    assert cache.replaced == []
    assert rows.dtype == torch.float32
    assert torch.equal(rows, expected[[10, 0, 5, 5], [1, 0, 0, 1]])


def test_a_shard_says_what_its_rows_show(tmp_path: Path) -> None:
    """Its file alone holds moments, style and the index of each picture."""
    write(tmp_path)

    shard = load_file(shard_path(tmp_path, 1))

    assert torch.equal(shard["moments"], encode(range(4, 8)).half())
    assert (shard["index"].tolist(), shard["style_id"].tolist()) == ([4, 5, 6, 7], [1, 2, 0, 1])


def test_a_reader_takes_the_shards_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of another shard size is read by its own."""
    write(tmp_path)
    monkeypatch.setattr(latent_cache, "SHARD_IMAGES", 7)

    rows = LatentCache.open(tmp_path).read([10, 6], [0, 1])

    assert torch.equal(rows, encode(range(COUNT)).half().float()[[10, 6], [0, 1]])


@pytest.mark.parametrize("variants", [1, 2, 6, 34])
def test_shards_stay_small_whatever_an_image_needs(monkeypatch: pytest.MonkeyPatch, variants: int) -> None:
    """More variants make fewer images a shard; there is at least one, and every image has its place."""
    monkeypatch.setattr(latent_cache, "SHARD_IMAGES", 1024)
    layout = CacheLayout.plan(5000, (variants, 8, 64, 64), "fp16")

    images = [image for shard in range(layout.num_shards) for image in layout.images(shard)]

    assert layout.shard_images == 1024 // variants
    assert layout.shard_images * variants * 8 * 64 * 64 * 2 <= SHARD_BYTES
    assert images == list(range(5000))
    assert CacheLayout.plan(5, (34, 64, 256, 256), "fp16").shard_images == 1


def test_batches_do_not_cross_shards() -> None:
    """So that a shard's bytes do not depend on which others are missing."""
    assert list(plan().batches([0, 2], 3)) == [[0, 1, 2], [3], [8, 9, 10]]


def test_statistics_are_those_of_what_is_stored(tmp_path: Path) -> None:
    """Mean and deviation over all images and variants, as measured directly."""
    write(tmp_path)

    direct = LatentStatistics()
    direct.update(encode(range(COUNT)).half().flatten(0, 1))
    assert LatentCache.open(tmp_path).normalizer.mean == pytest.approx(direct.normalizer().mean, abs=1e-12)
    assert LatentCache.open(tmp_path).normalizer.std == pytest.approx(direct.normalizer().std, abs=1e-12)


def test_progress_rises_to_the_count(tmp_path: Path) -> None:
    """It is told after every batch and ends at the number of images."""
    assert write(tmp_path) == [3, 4, 7, 8, 11]


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 4])
def test_an_interrupted_cache_goes_on_to_the_same_bytes(tmp_path: Path, batches: int) -> None:
    """Stop anywhere: it is not complete; write again: what is whole is kept, and every file is as in one go."""
    write(tmp_path / "whole")
    cut = tmp_path / "cut"
    cut.mkdir()

    def stopping() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for number, batch in enumerate(encoded(plan(), range(3))):
            if number == batches:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        write_shards(cut, plan(), range(3), stopping(), on_progress=lambda _: None)
    was_complete, kept = is_complete(cut), sorted(digest(cut))
    told = write(cut)

    assert not was_complete
    assert kept == [shard_path(cut, shard).name for shard in range(batches // 2)]
    assert told[-1] == COUNT - 4 * (batches // 2)
    assert is_complete(cut)
    assert digest(cut) == digest(tmp_path / "whole")


def break_shard(path: Path, damage: str) -> None:
    """Make a shard one that does not count as whole."""
    content, tensors = path.read_bytes(), load_file(path)
    if damage == "gone":
        path.unlink()
    elif damage in ("empty", "torn", "longer", "noise"):
        path.write_bytes({"empty": b"", "torn": content[:-10], "longer": content + b"x", "noise": b"\xff" * 50}[damage])
    else:
        changes = {
            "dtype": {"moments": tensors["moments"].bfloat16()},
            "shape": {"moments": tensors["moments"].transpose(3, 4).contiguous()},
            "variants": {"moments": tensors["moments"][:, :1].contiguous()},
            "count": {"moments": tensors["moments"][:2]},
            "styles": {"style_id": tensors["style_id"][:2]},
        }
        save_file({**tensors, **changes[damage]}, path)


DAMAGES = ["gone", "empty", "torn", "longer", "noise", "dtype", "shape", "variants", "count", "styles"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_shard_that_is_not_whole_is_seen_and_written_again(tmp_path: Path, damage: str) -> None:
    """Cut by a full disk, or of another layout: the cache says so, and one shard is encoded again."""
    write(tmp_path)
    expected = digest(tmp_path)
    break_shard(shard_path(tmp_path, 1), damage)

    found = survey(tmp_path, plan(), range(3))
    with pytest.raises(DataError, match=r"latent cache at .* is damaged .*`latentart encode`: it mends it\."):
        LatentCache.open(tmp_path)
    told = write(tmp_path)

    assert found == ([1], [])
    assert told == [3, 4]
    assert digest(tmp_path) == expected


def test_a_cache_is_not_completed_over_a_missing_shard(tmp_path: Path) -> None:
    """Another process took it away meanwhile: no cache.json claims that it is there."""
    write(tmp_path)
    (tmp_path / CACHE_FILE).unlink()
    shard_path(tmp_path, 2).unlink()

    with pytest.raises(DataError, match=r"shard-00002\.safetensors is damaged"):
        complete_cache(tmp_path, plan(), SOURCE)

    assert not is_complete(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"not finite for images 6 to 7\. Train it again"),
        (float("inf"), r"not finite for images 6 to 7\. Train it again"),
        (-1e5, r"of images 6 to 7 reach 1e\+05, more than fp16 holds \(65504\)\. Set data\.cache_dtype=bf16\."),
    ],
)
def test_moments_that_cannot_be_kept_are_refused(tmp_path: Path, value: float, message: str) -> None:
    """Whether the autoencoder or half precision is at fault; nothing of that shard counts as whole or stays behind."""

    def wild() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for images in plan().batches(range(3), 2):
            moments = encode(images)
            if 6 in images:
                moments[0, 1, 2, 0, 0] = value
            yield moments, torch.tensor(images), torch.tensor(images)

    with pytest.raises(DataError, match=message):
        write_shards(tmp_path, plan(), range(3), wild(), on_progress=lambda _: None)

    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.safetensors"]


def test_bf16_holds_what_fp16_does_not(tmp_path: Path) -> None:
    """The advice in the line works."""
    layout = CacheLayout.plan(1, SHAPE, "bf16")
    batch = (torch.full((1, *SHAPE), 1e5), torch.zeros(1), torch.zeros(1))

    write_shards(tmp_path, layout, [0], iter([batch]), on_progress=lambda _: None)

    torch.testing.assert_close(load_file(shard_path(tmp_path, 0))["moments"].float(), batch[0], rtol=0.01, atol=0)


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A real limit of the system, met in mid-write: what is whole stays, the temporary file goes."""
    write_shards(tmp_path, plan(), [0], encoded(plan(), [0]), on_progress=lambda _: None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(ResourceError, match=r"^Cannot write .*shard-00001.*Make room .* it goes on\.$") as caught:
            write_shards(tmp_path, plan(), [1], encoded(plan(), [1]), on_progress=lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.safetensors"]


def test_replaced_pictures_are_recorded_and_their_shards_can_be_let_go(tmp_path: Path) -> None:
    """Rows that show another picture than their own are found in the shards and stand in cache.json."""

    def without_5_and_9() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for moments, style_id, index in encoded(plan(), range(3)):
            yield moments, style_id, torch.where((index == 5) | (index == 9), index + 1, index)

    write_shards(tmp_path, plan(), range(3), without_5_and_9(), on_progress=lambda _: None)
    found = survey(tmp_path, plan(), range(3))
    complete_cache(tmp_path, plan(), SOURCE)
    recorded = json.loads((tmp_path / CACHE_FILE).read_text())["replaced"], LatentCache.open(tmp_path).replaced
    discard_shards(tmp_path, plan(), [5])

    assert found == ([], [5, 9])
    assert recorded == ([5, 9], [5, 9])
    assert not is_complete(tmp_path)
    assert survey(tmp_path, plan(), range(3)) == ([1], [9])


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "noise"])
def test_a_damaged_description_says_so(tmp_path: Path, damage: str) -> None:
    """One line that names the folder and what to do."""
    write(tmp_path)
    path = tmp_path / CACHE_FILE
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * 50}[damage])

    with pytest.raises(DataError, match=r"latent cache at .* is damaged"):
        LatentCache.open(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"layout": {}},
        {"layout": {"count": "x", "shape": [2, 6, 2, 3], "dtype": "fp16", "shard_images": 4}},
        {"layout": {"count": 11, "shape": 3, "dtype": "fp16", "shard_images": 4}},
        {"layout": {"count": 11, "shape": [2, 6, 2, 3], "dtype": "fp8", "shard_images": 4}},
        {"layout": {"count": 11, "shape": [2, 6, 2, 3], "dtype": "fp16", "shard_images": 0}},
        {"mean": 1},
        {"replaced": None},
        None,
    ],
)
def test_a_description_of_the_wrong_content_says_so(tmp_path: Path, change: dict[str, object] | None) -> None:
    """Sound JSON of the wrong content is damage too."""
    write(tmp_path)
    about = json.loads((tmp_path / CACHE_FILE).read_text())
    (tmp_path / CACHE_FILE).write_text(json.dumps([1] if change is None else {**about, **change}))

    with pytest.raises(DataError, match="is damaged"):
        LatentCache.open(tmp_path)


def test_a_shard_lost_after_opening_says_so(tmp_path: Path) -> None:
    """Shards are mapped when they are first asked for."""
    write(tmp_path)
    cache = LatentCache.open(tmp_path)
    cache.read([0], [0])
    for shard in range(3):
        shard_path(tmp_path, shard).unlink()

    rows = cache.read([1], [1])

    assert torch.equal(rows, encode([1])[:, 1].half().float())
    with pytest.raises(DataError, match="is damaged"):
        cache.read([4], [0])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count open files")
def test_reading_keeps_no_file_open(tmp_path: Path) -> None:
    """Half a million pictures are hundreds of shards: more than many systems let a process open."""
    write(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))

    cache = LatentCache.open(tmp_path)
    cache.read(range(COUNT), [0] * COUNT)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_cache_crosses_into_another_process_without_its_moments(tmp_path: Path) -> None:
    """A worker maps its own."""
    write(tmp_path)
    cache = LatentCache.open(tmp_path)
    unread = len(pickle.dumps(cache))
    rows = cache.read(range(COUNT), [1] * COUNT)

    content = pickle.dumps(cache)

    assert len(content) == unread
    assert torch.equal(pickle.loads(content).read(range(COUNT), [1] * COUNT), rows)


def test_the_key_covers_everything_the_moments_depend_on() -> None:
    """Each ingredient alone makes another folder; the same in any order make the same."""
    sources = [SOURCE, {**SOURCE, "autoencoder": "b"}, {**SOURCE, "resolution": 128}, {**SOURCE, "flip": True}]

    keys = [cache_key(source) for source in sources]

    assert len(set(keys)) == 4
    assert keys[0] == cache_key(dict(reversed(SOURCE.items())))
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
