"""`encode`: the cache says what it was made from, goes on, mends itself, is shared by processes, and feeds training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from latentart.config.workspace import resolve
from latentart.core.latents import LatentNormalizer
from latentart.data import latent_cache
from latentart.data.latent_cache import LatentCache
from latentart.layout import Workspace
from latentart.model.folder import load_autoencoder
from latentart.process.devices import Placement
from latentart.training.encode import CacheSource, store_statistics

Run = Callable[..., Any]
CPU = Placement(torch.device("cpu"), "fp32")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pictures a shard, so that a few make several."""
    monkeypatch.setattr(latent_cache, "SHARD_IMAGES", 4)


@pytest.fixture
def fresh(workspace: Path) -> Path:
    """Return a workspace with a trained autoencoder and no cache."""
    shutil.rmtree(workspace / "cache")
    return workspace


def cache_of(workspace: Path) -> Path:
    """Return the one cache of a workspace."""
    (folder,) = (workspace / "cache").iterdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def multiply_pictures(workspace: Path, count: int) -> list[Path]:
    """Make the clean set one of ``count`` pictures, copies of its own in turn, and return their paths in order."""
    index = workspace / "data/index.jsonl"
    entries = [json.loads(line) for line in index.read_text().splitlines()]
    copies = []
    for number in range(count):
        entry = dict(entries[number % len(entries)])
        file = f"copies/{number}.png"
        (workspace / "data/copies").mkdir(exist_ok=True)
        shutil.copy(workspace / "data" / entry["file"], workspace / "data" / file)
        copies.append({**entry, "file": file})
    index.write_text("".join(json.dumps(entry) + "\n" for entry in copies))
    return [workspace / "data" / entry["file"] for entry in copies]


def test_the_cache_says_what_it_was_made_from(run: Run, fresh: Path) -> None:
    """Its description holds every part of its key in clear, the measured statistics, and nothing replaced."""
    done = run(fresh, "encode")

    folder = cache_of(fresh)
    about = json.loads((folder / "cache.json").read_text())
    manifest = json.loads((fresh / "runs/vae/model/MANIFEST.json").read_text())["files"]
    model = json.loads((fresh / "runs/vae/model/model.json").read_text())
    assert done.out == f"cache/{folder.name}\n"
    assert about["source"].pop("autoencoder") == manifest["autoencoder.safetensors"]["sha256"]
    assert len(about["source"].pop("pictures")) == 64
    assert about["source"] == {"resolution": 32, "flip": False, "crops": 0, "seed": 0, "dtype": "fp16"}
    assert (about["layout"]["count"], about["replaced"]) == (15, [])
    assert model["latents"] == {"mean": about["mean"], "std": about["std"]}


def test_variants_are_plain_and_mirrored_for_the_middle_and_each_crop(run: Run, fresh: Path) -> None:
    """The first is what a cache without them holds; a mirrored one is of the mirrored picture; crops differ."""
    plain = LatentCache.open(fresh / run(fresh, "encode").out.strip())
    many = LatentCache.open(fresh / run(fresh, "encode", "data.flip=true", "data.cache_crops=2").out.strip())

    moments = [many.read(range(15), [variant] * 15) for variant in range(6)]
    assert (plain.num_variants, many.num_variants) == (1, 6)
    assert torch.equal(moments[0], plain.read(range(15), [0] * 15))
    assert len({part.numpy().tobytes() for part in moments}) == 6
    assert torch.equal(many.style_id, plain.style_id)


def test_crops_follow_from_the_seed(run: Run, fresh: Path) -> None:
    """The same command gives the same bytes in another workspace; another seed another cache, but only with crops."""
    first = run(fresh, "encode", "data.cache_crops=1").out.strip()
    written = contents(fresh / first)
    shutil.rmtree(fresh / "cache")

    again = run(fresh, "encode", "data.cache_crops=1").out.strip()
    other = run(fresh, "encode", "data.cache_crops=1", "seed=1").out.strip()
    without = [run(fresh, "encode", *seed).out for seed in ((), ("seed=1",))]

    assert (first, written) == (again, contents(fresh / again))
    first_crop, other_crop = (LatentCache.open(fresh / name).read(range(15), [1] * 15) for name in (first, other))
    assert not torch.equal(first_crop, other_crop)
    assert without[0] == without[1]


@pytest.mark.parametrize("is_described", [False, True])
def test_an_incomplete_cache_goes_on_to_the_same_bytes(run: Run, fresh: Path, is_described: bool) -> None:
    """One shard gone, another torn, a temporary file left by a killed process: the two are made again, no other."""
    run(fresh, "encode")
    folder = cache_of(fresh)
    whole = contents(folder)
    kept = (folder / "shard-00000.safetensors").stat().st_mtime_ns
    (folder / "shard-00001.safetensors").unlink()
    (folder / "shard-00003.safetensors").write_bytes(whole["shard-00003.safetensors"][:-5])
    (folder / ".tmp-shard-00001.safetensors-999999999").write_bytes(b"half")
    if not is_described:
        (folder / "cache.json").unlink()

    done = run(fresh, "encode")

    assert done.code == 0
    assert "encode: step 7/7" in done.err
    assert contents(folder) == whole
    assert (folder / "shard-00000.safetensors").stat().st_mtime_ns == kept


def test_training_mends_a_shard_with_a_changed_byte(run: Run, fresh: Path) -> None:
    """A training that goes on reads every shard's checksum first, and makes the one anew that does not match."""
    run(fresh, "encode")
    folder = cache_of(fresh)
    whole = contents(folder)
    shard = folder / "shard-00000.safetensors"
    changed = bytearray(whole[shard.name])
    changed[-7] ^= 1
    shard.write_bytes(changed)

    done = run(fresh, "train", "ldm", "ldm.training.steps=4", "--quiet")

    assert done.code == 0, done.err
    assert "its checksum (SHA-256) does not match" in done.err
    assert contents(folder) == whole


def test_a_run_clears_what_a_killed_one_left_in_previews(run: Run, workspace: Path) -> None:
    """Half a picture under a temporary name goes at the next run; whole ones stay."""
    previews = workspace / "runs/ldm/previews"
    previews.mkdir(exist_ok=True)
    (previews / ".tmp-step-00000003.png-999999999").write_bytes(b"half")
    (previews / "mine.png").write_bytes(b"whole")

    assert run(workspace, "train", "ldm", "ldm.training.steps=4", "--quiet").code == 0

    assert not list(previews.glob(".tmp-*"))
    assert (previews / "mine.png").is_file()


def test_a_complete_cache_mends_the_model_folder(run: Run, workspace: Path) -> None:
    """Killed between cache and model folder: the statistics of the whole set are put there by the next run."""
    run(workspace, "encode")
    before = contents(workspace / "runs/vae/model")
    opened = Workspace(workspace, resolve(json.loads((workspace / "latentart.json").read_text()), ()))
    store_statistics(opened, load_autoencoder(opened, CPU), LatentNormalizer((0.5,) * 4, (2.0,) * 4))
    between = contents(workspace / "runs/vae/model")

    done = run(workspace, "encode")

    assert "the latent cache is up to date" in done.err
    assert between != before
    assert contents(workspace / "runs/vae/model") == before


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("data.flip=true", "flip was False and is True"),
        ("data.cache_dtype=bf16", "dtype was fp16 and is bf16"),
        ("ldm.training.resolution=16", "resolution was 32 and is 16"),
        ("data.cache_crops=1", "crops was 0 and is 1"),
    ],
)
def test_a_cache_of_another_setting_is_said_to_be_out_of_date(run: Run, fresh: Path, setting: str, reason: str) -> None:
    """Why, what the old one holds on disk, and that it may go; it stays as it is."""
    run(fresh, "encode")
    old = cache_of(fresh)
    before = contents(old)

    done = run(fresh, "encode", setting)

    assert f"the latent cache {old.name} is out of date: {reason}" in done.err
    assert "older caches in cache: 1, 0.0 MB; they are safe to delete" in done.err
    assert contents(old) == before
    assert len(list((fresh / "cache").iterdir())) == 2


def test_what_changed_since_an_older_cache_is_said_in_words() -> None:
    """Weights and pictures changed, settings were one thing and are another; a source without them is no crash."""
    source = CacheSource("a", "p", 256, flip=True, crops=0, seed=0, dtype="fp16")
    older = asdict(source)

    assert source.changes_since(older) == []
    assert source.changes_since({**older, "autoencoder": "b", "resolution": 128}) == [
        "the autoencoder changed",
        "resolution was 128 and is 256",
    ]
    assert len(source.changes_since({})) == 7


def test_other_pictures_and_another_autoencoder_are_said(run: Run, fresh: Path) -> None:
    """Both at once; a folder of an older version or of a killed process is counted and never in the way."""
    run(fresh, "encode")
    (fresh / "cache/latents-killed").mkdir()
    (fresh / "cache/latents-killed/shard-00000.safetensors").write_bytes(bytes(3 * 10**6))
    (fresh / "data/index.jsonl").write_text("".join((fresh / "data/index.jsonl").read_text().splitlines(True)[:9]))
    shutil.rmtree(fresh / "runs/vae")
    run(fresh, "train", "vae", "--stage", "l1")

    done = run(fresh, "encode")
    (cache_of_9 := fresh / done.out.strip() / "cache.json").write_text("{}")
    after = run(fresh, "encode", "data.flip=true")

    assert "is out of date: the autoencoder changed, the pictures changed" in done.err
    assert "older caches in cache: 2, 3.0 MB" in done.err
    assert f"{cache_of_9.parent.name} is out of date: another version of latentart made it" in after.err


def test_a_lost_picture_is_replaced_recorded_and_made_again(run: Run, fresh: Path) -> None:
    """Another takes its place with its own style; while it is gone nothing changes; once it is back its shard is."""
    pictures = multiply_pictures(fresh, 110)
    folder = fresh / run(fresh, "encode").out.strip()
    whole = contents(folder)
    shutil.rmtree(fresh / "cache")
    content = pictures[42].read_bytes()
    pictures[42].write_bytes(content[:100])

    lost = run(fresh, "encode")
    without = contents(folder)
    still_lost = run(fresh, "encode")
    unchanged = contents(folder)
    pictures[42].write_bytes(content)
    back = run(fresh, "encode")

    shard = load_file(folder / "shard-00010.safetensors")
    assert "data/copies/42.png is gone or broken since it was cleaned; another takes its place (1 of 110" in lost.err
    assert json.loads(without["cache.json"])["replaced"] == [42]
    assert without["shard-00010.safetensors"] != whole["shard-00010.safetensors"]
    assert "up to date" in still_lost.err
    assert unchanged == without
    assert "pictures that are back since they were encoded: 1" in back.err
    assert "encode: step 4/4" in back.err
    assert contents(folder) == whole
    assert shard["index"].tolist() == [40, 41, 42, 43]


def test_the_replaced_picture_brings_its_own_style(run: Run, fresh: Path) -> None:
    """The last picture of a style is gone: what is shown in its place belongs to the next."""
    pictures = multiply_pictures(fresh, 110)
    whole = LatentCache.open(fresh / run(fresh, "encode").out.strip())
    shutil.rmtree(fresh / "cache")
    pictures[4].unlink()

    without = LatentCache.open(fresh / run(fresh, "encode").out.strip())

    assert whole.style_id[4] != whole.style_id[5]
    assert without.style_id[4] == whole.style_id[5]
    assert torch.equal(without.read([4], [0]), whole.read([5], [0]))


def test_too_many_lost_pictures_end_encode(run: Run, fresh: Path) -> None:
    """Two of 110 are more than 1 %: one line names them, and no cache claims to be whole."""
    pictures = multiply_pictures(fresh, 110)
    for number in (7, 70):
        pictures[number].unlink()

    line = run(fresh, "encode").error(4)

    assert "cleaned, 2 of 110: data/copies/7.png; data/copies/70.png." in line
    assert "`latentart clean-data`" in line
    assert not (cache_of(fresh) / "cache.json").exists()


SMALL_SHARDS = """
from latentart import cli
from latentart.data import latent_cache

if __name__ == "__main__":
    latent_cache.SHARD_IMAGES = 4
    cli.main()
"""


def torchrun(workspace: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `latentart` as two processes in a workspace, four pictures a shard."""
    (workspace / "small.py").write_text(SMALL_SHARDS)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "small.py"]
    path = os.pathsep.join(str(Path(part).resolve()) for part in sys.path)
    return subprocess.run(
        [sys.executable, *launcher, *words],
        cwd=workspace,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_make_the_cache_of_one(run: Run, fresh: Path) -> None:
    """Each takes every other shard; cache and model folder have the bytes of a single process; the first speaks."""
    name = run(fresh, "encode").out.strip()
    single = contents(fresh / "cache"), contents(fresh / "runs/vae/model")
    shutil.rmtree(fresh / "cache")

    done = torchrun(fresh, "encode")

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name]
    assert (contents(fresh / "cache"), contents(fresh / "runs/vae/model")) == single
    shown = [line for line in done.stderr.splitlines() if line.startswith("encode: ")]
    assert shown[-1].startswith("encode: step 8/8 ")
    assert not [line for line in shown if "/7" in line]


@pytest.mark.slow
def test_a_process_that_fails_ends_all(run: Run, fresh: Path) -> None:
    """A broken picture in the second process's share: its line is there, and no cache claims to be whole."""
    entries = [json.loads(line) for line in (fresh / "data/index.jsonl").read_text().splitlines()]
    (fresh / "data" / entries[5]["file"]).unlink()

    done = torchrun(fresh, "encode")

    assert done.returncode != 0
    assert f"cleaned, 1 of 15: data/{entries[5]['file']}: No such file" in done.stderr
    assert "Traceback" not in done.stderr.partition("error: ")[0]
    assert not (cache_of(fresh) / "cache.json").exists()


@pytest.mark.slow
def test_worker_processes_change_nothing_in_either_training(run: Run, story: Any, cleaned: Path) -> None:
    """Pictures decoded and latents drawn in two other processes: the same bits in both models."""
    for words in ("train vae", "encode", "train ldm"):
        assert run(cleaned, *words.split(), "data.workers=2").code == 0

    for kind in ("vae", "ldm"):
        ours, theirs = (contents(folder / "runs" / kind / "model") for folder in (cleaned, story.folder))
        assert ours.keys() == theirs.keys()
        assert {name for name in ours if ours[name] != theirs[name]} == set()


@pytest.mark.parametrize("kind", ["vae", "ldm"])
@pytest.mark.slow
def test_balanced_styles_change_what_is_trained_on(run: Run, story: Any, workspace: Path, kind: str) -> None:
    """The switch reaches both trainings: with styles of unlike size the weights become others."""
    shutil.rmtree(workspace / "runs" / kind)
    words = ("train", kind, *(("--stage", "l1") if kind == "vae" else ()))
    run(workspace, *words)
    plain = contents(workspace / "runs" / kind / "model")
    shutil.rmtree(workspace / "runs" / kind)

    done = run(workspace, *words, "data.balance_styles=true")

    weights = f"{'autoencoder' if kind == 'vae' else 'denoiser'}.safetensors"
    assert done.code == 0
    assert contents(workspace / "runs" / kind / "model")[weights] != plain[weights]
