"""`latentart bench`: every part has its rate, nothing is changed, and the clocks count right."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.cli.measuring import amount, row_of
from latentart.planning.bench import Rate
from latentart.planning.pictures import rate_beyond
from latentart.planning.rates import Copy, Products, products_of
from latentart.planning.visit import cpu_seconds, forget_peak, held_bytes
from latentart.process.devices import Placement

Run = Callable[..., Any]
DEVICE = torch.device("cpu")
QUICK = ("--minutes", "0.1", "--device", "cpu", "--json")


def test_a_product_counts_two_operations_for_each_pair() -> None:
    """Four products of 1024 x 1024 are 8 · 1024³, at the median of the times."""
    products = Products(DEVICE, torch.float32)

    assert products.flops == 8 * 1024**3
    assert products.rate([1.0, 4.0, 100.0]) == 2 * 1024**3


def test_a_copy_counts_each_byte_once() -> None:
    """A quarter of a gibibyte in half a second is half of one a second, and it arrives."""
    copy = Copy(DEVICE)
    copy.source.fill_(7)
    copy()

    assert copy.rate([0.5]) == 2**29
    assert copy.target.equal(copy.source)


def test_products_are_of_the_type_that_networks_run_in() -> None:
    """bf16 is no faster than float32 everywhere, and float32 would be the wrong limit for it."""
    assert products_of(Placement(DEVICE, "fp32")).factors[0].dtype == torch.float32
    assert products_of(Placement(DEVICE, "bf16")).factors[0].dtype == torch.bfloat16


def test_the_start_of_cleaning_is_no_part_of_its_rate() -> None:
    """Forty more in four seconds more are ten a second; one sample alone is taken as it is, and so is a lucky one."""
    assert rate_beyond([(8, 3.0), (48, 7.0)]) == 10
    assert rate_beyond([(8, 4.0)]) == 2
    assert rate_beyond([(8, 4.0), (48, 4.0)]) == 12


def test_a_line_says_what_it_knows() -> None:
    """A rate from less is marked; what was not measured says why."""
    full = Rate("train ldm", 12.345, 64, 16, 0.021, 2 * 10**9, is_rough=True)

    assert row_of(full) == ("train ldm", "~12.3", "64", "16", "2.1%", "2 GB")
    assert row_of(Rate("clean", 1234.5)) == ("clean", "1,234", "-", "-", "-", "-")
    assert row_of(Rate("sample", note="no time was left"))[0] == "sample: no time was left"


def test_what_the_studio_takes_is_told_in_its_unit() -> None:
    """Seconds, bytes, shares, or that this system does not tell."""
    found = [amount(0.256, "s"), amount(19e6, "bytes"), amount(0.0034, "share"), amount(None, "s")]

    assert found == ["0.26 s", "19 MB", "0.3%", "-"]


def test_a_process_tells_what_it_takes() -> None:
    """This one does; where there is none, or another system, nobody tells."""
    block = bytearray(b"x") * (64 << 20)
    assert (held_bytes(os.getpid()) or len(block)) >= len(block)
    assert (cpu_seconds(os.getpid()) or 1.0) > 0
    assert held_bytes(2**30) is cpu_seconds(2**30) is None
    assert not forget_peak(2**30)


@pytest.mark.slow
def test_every_part_has_its_rate_and_nothing_is_changed(workspace: Path, run: Run, snapshot: Run) -> None:
    """In a trained workspace, on its own pictures."""
    before = snapshot(workspace)

    done = run(workspace, "bench", "--minutes", "5", "--device", "cpu", "--json")

    assert done.code == 0, done.err
    found = json.loads(done.out)
    rates = {rate["name"]: rate for rate in found["rates"]}
    stages = [f"train vae {name}" for name in ("l1", "adversarial", "lpips", "hires")]
    assert list(rates) == ["clean", "encode", "sample, 3 x ddim", "studio", "train ldm", *stages]
    assert all(rate["per_second"] > 0 for rate in rates.values())
    assert rates["train vae hires"]["resolution"] == 64
    assert 0 <= rates["train ldm"]["data_share"] < 1
    assert found["machine"]["precision"] == "fp32"
    assert min(found["machine"]["matrix"], found["machine"]["copy"]) > 0
    waits = {wait["name"]: wait["value"] for wait in found["waits"]}
    assert len(waits) == 7
    assert 0 < waits["first coarse picture"] < waits["fine picture"]
    assert not any("drawn" in note for note in found["notes"])
    assert snapshot(workspace) == before


def test_without_pictures_drawn_ones_are_taken(tmp_path: Path, run: Run) -> None:
    """A preset has none; with one part alone it takes seconds, and leaves nothing."""
    done = run(tmp_path, "bench", "--preset", "demo", "--only", "clean", *QUICK)

    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [rate["name"] for rate in found["rates"]] == ["clean"]
    assert found["notes"] == [
        "there are no pictures yet: measured with the embedded ones, drawn",
        *found["notes"][1:],
    ]
    assert list(tmp_path.iterdir()) == []


def test_what_is_to_be_measured_must_be_said(tmp_path: Path, run: Run) -> None:
    """One line: neither workspace nor preset, both, no such preset, no such part, a config that is wrong."""
    (tmp_path / "latentart.json").write_text('{"preset": "demo", "sead": 1}')
    (tmp_path / "empty").mkdir()

    assert "--preset demo" in run(tmp_path / "empty", "bench").error(3)
    assert "both say what" in run(tmp_path, "bench", "--preset", "demo", "-c", "latentart.json").error(2)
    assert "'dema'" in run(tmp_path, "bench", "--preset", "dema").error(3)
    assert "sead" in run(tmp_path, "bench").error(3)
    assert run(tmp_path, "bench", "--only", "speed").code == 2
