"""The weights of the Inception network behind FID and KID: a file that others publish, checked before it is read."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from latentart.errors import DownloadError, extra
from latentart.model.weights.perceptual import hub_folder
from latentart.storage.download import find_fault


@dataclass(frozen=True)
class InceptionFile:
    """The file: TensorFlow's network of 2015-12-05, in which FID is defined, as PyTorch weights."""

    file_name: str = "weights-inception-2015-12-05-6726825d.pth"
    other_name: str = "pt_inception-2015-12-05-6726825d.pth"
    num_bytes: int = 95_628_359
    sha256: str = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
    source: str = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0"

    @property
    def megabytes(self) -> float:
        """The file's size as people read it."""
        return round(self.num_bytes / 2**20)


INCEPTION = InceptionFile()


def inception_file() -> Path:
    """Return where torch keeps the file: under either of the names that it is published by, else the usual one."""
    usual, other = (hub_folder() / name for name in (INCEPTION.file_name, INCEPTION.other_name))
    with contextlib.suppress(OSError):  # a home that this user may not read
        return other if other.is_file() and not usual.is_file() else usual
    return usual


def check_inception(path: Path) -> Path:
    """Return the file after a look at all of it.

    Raises:
        DownloadError: it is missing or not whole.
    """
    if not path.is_file():
        msg = f"FID needs {INCEPTION.file_name} ({INCEPTION.megabytes:g} MB), and there is no such file at {path}."
        raise DownloadError(msg, "Run `latentart weights fetch inception`.")
    if fault := find_fault(path, INCEPTION.num_bytes, INCEPTION.sha256):
        raise DownloadError(f"{path} {fault}.", "Run `latentart weights fetch inception`.")
    return path


def find_inception() -> Path:
    """Return the file where all is here that FID needs.

    Raises:
        DownloadError: the package that knows the network is not installed, or the file is missing or not whole.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        msg = "FID needs the package torch-fidelity, which is not installed."
        raise DownloadError(msg, f"Run {extra('fid')}.")
    return check_inception(inception_file())


class InceptionFeatures(nn.Module):
    """Maps pixels uint8 ``[B, 3, H, W]`` to the 2048 features of FID, float32 ``[B, 2048]``."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        file = io.BytesIO()  # the package would unpickle the file itself, whatever lies in it
        torch.save(weights, file)
        file.seek(0)
        with torch.random.fork_rng(devices=[]):  # its layers begin with random weights
            self.network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=file)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features; pictures are brought to 299 pixels as TensorFlow 1 did."""
        features: Tensor = self.network(pixels)[0]
        return features


def load_inception(path: Path) -> InceptionFeatures:
    """Return the network of a file.

    Raises:
        DownloadError: it cannot be read, or holds something else.
    """
    with contextlib.suppress(Exception):  # torch's own words explain how to run a stranger's code
        return InceptionFeatures(torch.load(path, map_location="cpu", weights_only=True))
    raise DownloadError(f"{path} does not hold the weights of Inception.", "Fetch the file again.")
