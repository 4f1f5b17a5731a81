"""FID and KID from features, and where real ones are kept."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from latentart.layout import Workspace
from latentart.process.devices import Placement
from latentart.scoring.fid import find_real_features, load_if_there, score_inception
from latentart.scoring.metrics.kernel_distance import kernel_distance

CPU = Placement(torch.device("cpu"), "fp32")


class Means(nn.Module):
    """A small network in the place of Inception: mean colors, and how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, pixels: Tensor) -> Tensor:
        """Return three features."""
        self.asked += 1
        return pixels.float().mean((2, 3))


def test_real_features_are_kept(cleaned: Path) -> None:
    """Of every clean picture, in the index's order; the second call asks no network."""
    workspace, network = Workspace.open(cleaned / "latentart.json"), Means()

    first = find_real_features(workspace, network, CPU, quiet=True)  # type: ignore[arg-type]
    asked = network.asked
    again = find_real_features(workspace, network, CPU, quiet=True)  # type: ignore[arg-type]

    assert first.shape == (15, 3)
    assert torch.equal(first, again)
    assert network.asked == asked == 1


def test_scores_are_those_of_the_formulas() -> None:
    """FID of two Gaussians apart by 3 is about 9; KID of few is that of all, its error that of halves."""
    draw = torch.Generator().manual_seed(0)
    real, fake = torch.randn(400, 4, generator=draw), torch.randn(400, 4, generator=draw)
    fake[:, 0] += 3

    found = score_inception(real, fake)

    assert found.fid == pytest.approx(9.0, abs=1.0)
    assert found.kid == pytest.approx(kernel_distance(real, fake))
    assert found.kid_error is not None
    assert 0.01 * found.kid < found.kid_error < 0.5 * found.kid
    assert found.real_pictures == 400


def test_the_error_of_kid_is_that_of_repeated_draws() -> None:
    """Over twenty pairs of sets from the same two distributions KID differs as much as its error says."""
    draw = torch.Generator().manual_seed(1)

    found = [
        score_inception(torch.randn(60, 3, generator=draw), 0.7 + torch.randn(60, 3, generator=draw)) for _ in range(20)
    ]

    kids, errors = torch.tensor([[one.kid, one.kid_error] for one in found]).unbind(1)
    assert 0.5 < float(errors.mean() / kids.std()) < 2


@pytest.mark.parametrize(("num_real", "num_fake"), [(2, 2), (3, 3), (2, 50), (50, 3)])
def test_too_few_pictures_have_no_error(num_real: int, num_fake: int) -> None:
    """Of fewer than four there are no two halves: nothing is said, where it was once exactly 0."""
    draw = torch.Generator().manual_seed(2)

    found = score_inception(torch.randn(num_real, 3, generator=draw), torch.randn(num_fake, 3, generator=draw))

    assert found.kid_error is None


def test_four_pictures_have_an_error() -> None:
    """It is more than 0."""
    draw = torch.Generator().manual_seed(2)

    found = score_inception(torch.randn(4, 3, generator=draw), torch.randn(4, 3, generator=draw))

    assert found.kid_error is not None
    assert found.kid_error > 0


def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line with what to do; not by every process."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert load_if_there(CPU, is_silent=True) is None
        assert caplog.text == ""
        assert load_if_there(CPU) is None
    assert "FID and KID are left out: FID needs" in caplog.text
