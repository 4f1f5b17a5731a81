"""What the machine can do is counted right, and every figure says its numbers to programs as well."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentart.data.latent_cache import LatentCache
from latentart.process.devices import Placement
from peers.cache import reading_and_copy_rate
from peers.clean import bench_clean
from peers.figures import describe_bench
from peers.limits import bench_limits, count_flops, decode_all, shares_of_matrix_rate, time_in_turns, write_rate

DEVICE = torch.device("cpu")


def test_works_are_timed_in_turns() -> None:
    """Ours, theirs, ours: a machine that gets busier meets both."""
    done: list[str] = []

    times = time_in_turns([partial(done.append, "ours"), partial(done.append, "theirs")], rounds=3)

    assert done == ["ours", "theirs"] * 3
    assert [len(seconds) for seconds in times] == [3, 3]


def test_arithmetic_is_that_of_convolutions_both_ways() -> None:
    """A convolution of 3 x 3 from 2 to 4 channels at 8 x 8: 2 · 9 · 2 · 4 · 64, and as much again for its weights."""
    conv = torch.nn.Conv2d(2, 4, 3, padding=1)
    x = torch.zeros(1, 2, 8, 8)

    once = 2 * 9 * 2 * 4 * 64
    assert count_flops(lambda: conv(x)) == once
    assert count_flops(lambda: torch.autograd.backward(conv(x).sum())) == 2 * once


def test_shares_are_rates_by_cost_over_the_limit() -> None:
    """Ten images a second of 2 GFLOP are a fifth of 100 GFLOP/s; ours is the first."""
    costs, shares = shares_of_matrix_rate("tiny", {"ours": 2e9, "theirs": 5e9}, {"ours": 10.0, "theirs": 8.0}, 1e11)

    assert (costs.name, costs.value) == ("tiny, arithmetic", "ours 2.00, theirs 5.00 GFLOP per image")
    assert (costs.number, costs.unit) == (2e9, "FLOP")
    assert shares.value == "ours 20%, theirs 40% of 100 GFLOP/s"
    assert shares.number == pytest.approx(0.2)
    assert shares.numbers == pytest.approx({"ours": 0.2, "theirs": 0.4})


@pytest.mark.slow
def test_the_limits_are_figures_with_units() -> None:
    """At least float32 and the copy; bf16 only where the machine has instructions for it."""
    figures = {figure.name: figure for figure in bench_limits(Placement(DEVICE, "fp32"))}

    has_bf16 = Placement(DEVICE, "auto").precision == "bf16"
    assert list(figures) == ["matrix rate, float32", *["matrix rate, bf16"] * has_bf16, "copy rate"]
    for figure in figures.values():
        assert float(figure.value.split()[0]) == pytest.approx(figure.number / 1e9, rel=0.05, abs=0.5)
    assert [figure.unit for figure in figures.values()] == ["FLOP/s"] * (1 + has_bf16) + ["B/s"]


def test_the_disk_is_left_as_it_was(tmp_path: Path) -> None:
    """What is written to measure the disk goes again."""
    assert write_rate(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_decoding_reaches_the_last_byte(tmp_path: Path) -> None:
    """A picture cut short is an error, so none is passed over."""
    path = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 50).save(path)
    decode_all([path], 1)
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(OSError, match="truncated"):
        decode_all([path], 1)


def test_it_is_said_what_all_ran_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as it was typed, when, and on which device, by how many threads of which torch."""
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/latentart", "plan", "my disk"])

    about = describe_bench(Placement(DEVICE, "fp32"))

    assert about["command"] == "latentart plan 'my disk'"
    assert (about["device"], about["precision"]) == ("cpu", "fp32")
    assert (about["torch"], about["threads"]) == (torch.__version__, torch.get_num_threads())
    assert about["date"][4] == about["date"][7] == "-"
    assert "somewhere" not in str(about)


@pytest.mark.slow
def test_cleaning_is_measured_beside_its_limits(tmp_path: Path) -> None:
    """Few scans: all rates are of one count of pictures, ratios are of those rates, and PSNR is that of real ones."""
    figures = {figure.name: asdict(figure) for figure in bench_clean(tmp_path, 4)}

    plain, ours, decoding = (
        figures[name]["number"] for name in ("plain pipeline", "clean-data", "full decoding alone")
    )
    assert figures["clean-data over plain pipeline"]["number"] == ours / plain
    assert figures["clean-data over full decoding alone"]["number"] == ours / decoding
    assert figures["clean-data's pictures, share of the disk's rate"]["number"] > 0
    assert 35 < figures["PSNR of reduced decoding, worst picture"]["number"] < 60


@pytest.mark.slow
def test_reading_latents_is_slower_than_copying_them(story: Any) -> None:
    """In bytes a second, as the cache counts them: no reader can be faster than the copy it ends with."""
    (folder,) = (story.folder / "cache").glob("latents-*")
    cache = LatentCache.open(folder)

    read, copied = reading_and_copy_rate(cache, batch_size=16)

    assert 0 < read * 2 * cache.layout.shape[1] * cache.layout.shape[2] * cache.layout.shape[3] < copied
