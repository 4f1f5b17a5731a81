"""Inception's weights: only the published file is taken, and a network of them gives torchmetrics' FID."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from latentart.errors import DownloadError
from latentart.model.weights.inception import (
    INCEPTION,
    InceptionFeatures,
    check_inception,
    find_inception,
    inception_file,
    load_inception,
)
from latentart.scoring.metrics.frechet import FeatureStatistics, frechet_distance


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let torch keep its files in a folder of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_missing_file_says_what_brings_it(hub: Path) -> None:
    """The name, the size, the place and the command; under the other name it is found too."""
    with pytest.raises(DownloadError, match=r"needs weights-inception-2015-12-05-6726825d\.pth \(91 MB\)") as caught:
        check_inception(inception_file())
    assert caught.value.hint == "Run `latentart weights fetch inception`."

    (hub / INCEPTION.other_name).touch()
    assert inception_file() == hub / INCEPTION.other_name
    (hub / INCEPTION.file_name).touch()
    assert inception_file() == hub / INCEPTION.file_name


def test_another_file_of_that_name_is_refused(hub: Path) -> None:
    """By its size, then by its SHA-256; nothing in it is read."""
    pytest.importorskip("torch_fidelity")
    path = hub / INCEPTION.file_name
    path.write_bytes(b"cut")
    with pytest.raises(DownloadError, match="has 3 bytes, expected 95628359"):
        find_inception()

    with path.open("wb") as file:
        file.truncate(INCEPTION.num_bytes)
    with pytest.raises(DownloadError, match=INCEPTION.file_name):
        find_inception()


def test_a_file_of_something_else_is_refused(hub: Path) -> None:
    """Whole, but no Inception; torch's generator is left as it was."""
    torch.save({"weight": torch.zeros(1)}, hub / "other.pth")
    state = torch.get_rng_state()

    with pytest.raises(DownloadError, match=r"other\.pth does not hold the weights of Inception"):
        load_inception(hub / "other.pth")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_fid_is_that_of_torchmetrics(hub: Path) -> None:
    """With the same random weights: the features are those of the package, FID that of torchmetrics to 0.1 %."""
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    weights = random_weights(extractor)
    torch.save(weights, hub / "random.pth")
    network = load_inception(hub / "random.pth")
    pixels = torch.randint(0, 256, (12, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    real, fake = network(pixels[:6]), network(pixels[6:] // 2)

    peer = FrechetInceptionDistance(feature=Counted(network))
    peer.update(pixels[:6], real=True)
    peer.update(pixels[6:] // 2, real=False)
    statistics = FeatureStatistics(), FeatureStatistics()
    for one, features in zip(statistics, (real, fake), strict=True):
        one.update(features)
    assert real.shape == (6, 2048)
    assert frechet_distance(*statistics) == pytest.approx(float(peer.compute()), rel=1e-3)


class Counted(nn.Module):
    """Inception as torchmetrics takes it."""

    num_features = 2048

    def __init__(self, network: InceptionFeatures) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features."""
        return self.network(pixels)


def random_weights(extractor: object) -> dict[str, Tensor]:
    """Return weights of the right shapes: those that the package begins with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractor, "load_state_dict_from_url", lambda *_args, **_more: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *_args, **_more: None)
        network = extractor.FeatureExtractorInceptionV3("inception", ["2048"])  # type: ignore[attr-defined]
    return dict(network.state_dict())
