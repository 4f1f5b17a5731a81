"""Flipped bits, cut files and missing files: in each file of a checkpoint, a model folder and a latent cache."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.data import latent_cache
from latentart.data.latent_cache import LatentCache
from latentart.errors import DataError, ModelError
from latentart.model.folder import load_model
from latentart.process.devices import Placement
from latentart.storage.checkpoints import find_checkpoint, list_checkpoints, load_checkpoint

Run = Callable[..., Any]
CPU = Placement(torch.device("cpu"), "fp32")
NEWEST = "step-00000003"
DAMAGES = pytest.mark.parametrize(
    "flips", [pytest.param(3, id="few"), pytest.param(30, marks=pytest.mark.faults, id="all")]
)


def flipped(path: Path, flips: int) -> Iterator[None]:
    """Flip one random bit of a file at a time; put it back at the end."""
    content, chance = path.read_bytes(), random.Random(path.name)
    for _ in range(flips):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        yield
    path.write_bytes(content)


def cut(path: Path) -> Iterator[None]:
    """Cut a file to nothing, one byte, half and all but one byte, and take it away; put it back at the end.

    The line break at the end of a JSON file says nothing: there it is the byte before.
    """
    content = path.read_bytes()
    whole = len(content.rstrip(b"\n")) if path.suffix == ".json" else len(content)
    for length in (0, 1, whole // 2, whole - 1):
        path.write_bytes(content[:length])
        yield
    path.unlink()
    yield
    path.write_bytes(content)


def files(folder: Path) -> list[Path]:
    """Return the files of a folder."""
    return sorted(path for path in folder.iterdir() if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {path.name: path.read_bytes() for path in files(folder)}


def is_named(path: Path, text: str) -> bool:
    """Tell whether an error names the file that is damaged; a manifest or description may blame its folder."""
    return path.name in text or (path.name in ("MANIFEST.json", "model.json") and str(path.parent) in text)


@pytest.fixture
def denoisers(workspace: Path, run: Run) -> Path:
    """Return a workspace whose denoiser has three checkpoints, of steps 1 to 3."""
    shutil.rmtree(workspace / "runs/ldm")
    each = ("ldm.training.run.checkpoint_every=1", "ldm.training.run.keep_checkpoints=9")
    assert run(workspace, "train", "ldm", *each).code == 0
    return workspace


def count_found(folder: Path, flips: int, find: Callable[[Path], bool]) -> tuple[list[int], list[int]]:
    """Return (found, all) of flips, and of cuts, over every file of a folder."""
    flip = [find(path) for path in files(folder) for _ in flipped(path, flips)]
    cuts = [find(path) for path in files(folder) for _ in cut(path)]
    return [sum(flip), len(flip)], [sum(cuts), len(cuts)]


def tell(score: Callable[[str], None], what: str, counts: tuple[list[int], list[int]], then: str) -> None:
    """Write the score, and look at it."""
    (flip, flips), (cuts, all_cuts) = counts
    score(f"a flipped bit in {what}: {flip} of {flips} found and {then}; cut or missing files: {cuts} of {all_cuts}")
    assert (flip, cuts) == (flips, all_cuts)
    assert flips > 0
    assert all_cuts > 0


@DAMAGES
@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_a_damaged_checkpoint_is_named_and_passed_over(
    denoisers: Path, score: Callable[[str], None], caplog: pytest.LogCaptureFixture, kind: str, flips: int
) -> None:
    """The run goes on from the one before it."""
    run = denoisers / "runs" / kind
    *_, older, newest = list_checkpoints(run)
    step = load_checkpoint(older).step

    def find(path: Path) -> bool:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = find_checkpoint(run)
        return found is not None and found.step == step and is_named(path, caplog.text)

    counts = count_found(newest, flips, find)

    tell(score, f"a checkpoint of train {kind}", counts, "passed over")
    assert load_checkpoint(newest).step > step


@DAMAGES
@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_a_damaged_model_folder_is_named_and_refused(
    workspace: Path, score: Callable[[str], None], kind: str, flips: int
) -> None:
    """Nothing is sampled or encoded with it."""
    folder = workspace / "runs" / kind / "model"

    def find(path: Path) -> bool:
        try:
            load_model(folder, CPU)
        except ModelError as error:
            return is_named(path, str(error))
        return False

    counts = count_found(folder, flips, find)

    tell(score, f"the model of train {kind}", counts, "refused")
    assert load_model(folder, CPU).resolution


@DAMAGES
def test_a_damaged_latent_cache_is_named_and_refused(
    run: Run, workspace: Path, score: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, flips: int
) -> None:
    """In shards and description, as long as nobody has mended it."""
    folder = encode_in_shards(run, workspace, monkeypatch)

    def find(path: Path) -> bool:
        try:
            LatentCache.open(folder, is_thorough=True)
        except DataError as error:
            return is_named(path, str(error))
        return False

    counts = count_found(folder, flips, find)

    tell(score, "a latent cache", counts, "refused")
    assert len(files(folder)) == 5


@pytest.mark.parametrize(
    "flips", [pytest.param(1, marks=pytest.mark.slow, id="few"), pytest.param(5, marks=pytest.mark.faults, id="all")]
)
def test_a_damaged_latent_cache_is_mended_to_the_same_bytes(
    run: Run, workspace: Path, score: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, flips: int
) -> None:
    """`encode`, and so `train ldm`, names the damage and makes again what is damaged, and nothing else."""
    folder = encode_in_shards(run, workspace, monkeypatch)
    whole = contents(folder)

    def find(path: Path) -> bool:
        others = {other: other.stat().st_mtime_ns for other in files(folder) if other.suffix != ".json"} | {path: 0}
        done = run(workspace, "encode")
        is_kept = all(other.stat().st_mtime_ns == time for other, time in others.items() if other != path)
        # without its description a cache is one that was cut short, and goes on without a word
        is_said = is_named(path, done.err) or path.name == "cache.json"
        return done.code == 0 and is_said and is_kept and contents(folder) == whole

    mended = [find(path) for path in files(folder)[-3:] for _ in spoiled(path, whole, flips)]

    score(f"damage in a latent cache: {sum(mended)} of {len(mended)} mended by `encode` to the same bytes")
    assert all(mended)
    assert mended


def spoiled(path: Path, whole: dict[str, bytes], flips: int) -> Iterator[None]:
    """Flip bits of a file and cut it, each time that of a whole cache."""
    for damage in (flipped(path, flips), cut(path)):
        for _ in damage:
            yield
            path.write_bytes(whole[path.name])


def encode_in_shards(run: Run, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the cache anew, in four shards, and return its folder."""
    monkeypatch.setattr(latent_cache, "SHARD_IMAGES", 4)
    shutil.rmtree(workspace / "cache")
    return workspace / run(workspace, "encode").out.strip()


@pytest.mark.parametrize("count", [pytest.param(1, id="few"), pytest.param(5, marks=pytest.mark.faults, id="all")])
def test_a_run_over_a_damaged_checkpoint_ends_with_the_same_bits(
    run: Run, denoisers: Path, score: Callable[[str], None], count: int
) -> None:
    """Whichever file of the newest checkpoint it is: the command goes on from the one before, and says so."""
    checkpoints = denoisers / "runs/ldm/checkpoints"
    whole, model = contents(checkpoints / NEWEST), contents(denoisers / "runs/ldm/model")
    ends = []
    for path in files(checkpoints / NEWEST)[:count]:
        next(flipped(path, 1))
        done = run(denoisers, "train", "ldm", "ldm.training.run.keep_checkpoints=9")
        is_said = f"Skipping the checkpoint {NEWEST}" in done.err
        again = contents(checkpoints / NEWEST)
        is_equal = all(again[name] == whole[name] for name in whole if name.endswith(".safetensors"))
        ends.append(done.code == 0 and is_said and is_equal and contents(denoisers / "runs/ldm/model") == model)

    score(f"train ldm over a damaged newest checkpoint: {sum(ends)} of {len(ends)} ended with the same bits")
    assert ends == [True] * count
