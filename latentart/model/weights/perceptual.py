"""The weights of LPIPS: a backbone's own file, and the linear layers that the lpips package carries."""

from __future__ import annotations

import importlib.resources
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from latentart.core.networks.perceptual import PerceptualDistance, build_random_slices
from latentart.core.randomness import generator_for
from latentart.errors import DownloadError, ModelError
from latentart.kinds import Backbone, PerceptualKind
from latentart.model.weights.foreign import load_pickled
from latentart.storage.download import find_fault


@dataclass(frozen=True)
class BackboneFile:
    """Where a backbone's weights come from and where its features are read.

    Attributes:
        sha256: of the whole file; its first letters stand in the name.
        linear: name of the linear layers in the lpips package.
        cuts: end of each slice in the network's ``features``.
    """

    file_name: str
    num_bytes: int
    sha256: str
    linear: str
    cuts: tuple[int, ...]

    @property
    def megabytes(self) -> float:
        """The file's size as people read it."""
        return round(self.num_bytes / 2**20, 0 if self.num_bytes > 10 * 2**20 else 1)


BACKBONES: dict[Backbone, BackboneFile] = {
    "vgg16": BackboneFile(
        "vgg16-397923af.pth",
        553_433_881,
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "vgg",
        (4, 9, 16, 23, 30),
    ),
    "alexnet": BackboneFile(
        "alexnet-owt-7be5be79.pth",
        244_408_911,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "alex",
        (2, 5, 8, 10, 12),
    ),
    "squeezenet": BackboneFile(
        "squeezenet1_1-b8a52dc0.pth",
        4_958_839,
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        "squeeze",
        (2, 5, 8, 10, 11, 12, 13),
    ),
}
SOURCE = "https://download.pytorch.org/models"


def hub_folder() -> Path:
    """Return the folder where torch keeps downloaded weights; honours TORCH_HOME and XDG_CACHE_HOME."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def hub_file(backbone: Backbone) -> Path:
    """Return where torch keeps the backbone's weight file, if it is there."""
    return hub_folder() / BACKBONES[backbone].file_name


def find_weights(backbone: Backbone, path: Path | None = None) -> Path:
    """Return the backbone's weight file.

    Raises:
        DownloadError: it is not there; says which file, its size, its place, and what brings it or does without.
    """
    known = BACKBONES[backbone]
    wanted = path or hub_file(backbone)
    if wanted.is_file():
        return wanted
    msg = (
        f"the LPIPS backbone '{backbone}' needs {known.file_name} ({known.megabytes:g} MB), "
        f"and there is no such file at {wanted}."
    )
    where = " and set vae.perceptual.weights=null" if path else ""
    hint = (
        f"Run `latentart weights fetch {backbone}`{where}, name another place with vae.perceptual.weights=PATH, "
        "or try without weights: vae.perceptual.backbone=random."
    )
    raise DownloadError(msg, hint)


def check_weights(backbone: Backbone, path: Path | None = None) -> Path:
    """Return the backbone's weight file after a look at all of it.

    A file under torchvision's own name has to be torchvision's, bit for bit; one under another name has to fit.

    Raises:
        DownloadError: it is not there, cut, damaged, or of something else.
        ResourceError: it cannot be read.
    """
    known, weights = BACKBONES[backbone], find_weights(backbone, path)
    is_named_so = weights.name == known.file_name
    if is_named_so and (fault := find_fault(weights, known.num_bytes, known.sha256)):
        hint = "Fetch the file again." if path else f"Run `latentart weights fetch {backbone}`."
        raise DownloadError(f"{weights} {fault}.", hint)
    load_perceptual(backbone, weights)
    return weights


def load_perceptual(backbone: Backbone, path: Path | None = None) -> PerceptualDistance:
    """Return LPIPS over a trained backbone.

    Raises:
        DownloadError: the backbone's weight file is not here, or not that backbone's.
    """
    known = BACKBONES[backbone]
    weights = find_weights(backbone, path)
    features = _build_features(backbone)
    loaded = _read_foreign(weights)
    own = {name.removeprefix("features."): value for name, value in loaded.items() if name.startswith("features.")}
    expected = {name: value.shape for name, value in features.state_dict().items()}
    if {name: value.shape for name, value in own.items()} != expected:
        msg = f"{weights} does not hold the weights of {backbone}."
        raise DownloadError(msg, f"Expected torchvision's {known.file_name}.")
    features.load_state_dict(own, assign=True)
    slices = [features[start:end] for start, end in zip((0, *known.cuts), known.cuts, strict=False)]
    return PerceptualDistance(slices, load_linear_layers(known.linear))


def load_linear_layers(name: str) -> list[Tensor]:
    """Return the non-negative channel weights that LPIPS learned for a backbone: bundled in the lpips package."""
    resource = importlib.resources.files("lpips") / "weights" / "v0.1" / f"{name}.pth"
    with importlib.resources.as_file(resource) as path:
        loaded = _read_foreign(path)
    return [loaded[key].flatten() for key in sorted(loaded)]


def _build_features(backbone: Backbone) -> nn.Sequential:
    import torchvision

    builders = {
        "vgg16": torchvision.models.vgg16,
        "alexnet": torchvision.models.alexnet,
        "squeezenet": torchvision.models.squeezenet1_1,
    }
    with torch.device("meta"):  # no memory and no random weights for layers that a file will fill
        features = builders[backbone](weights=None).features
    for layer in features.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # a slice's output must stay as it is when the next one runs
    return features


def _read_foreign(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch file that others publish: tensors only, no code."""
    try:
        loaded = load_pickled(path)
    except ModelError as error:
        raise DownloadError(error.message, "Fetch the file again.") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        msg = f"{path} holds something else than named tensors."
        raise DownloadError(msg, "Fetch the file again.")
    return loaded


def build_perceptual(backbone: PerceptualKind, weights: str | None = None) -> PerceptualDistance:
    """Return the LPIPS network of a backbone; ``weights`` names its file where that is not in its usual place.

    Raises:
        DownloadError: the backbone's weight file is not here, or not that backbone's.
    """
    if backbone == "random":
        slices = build_random_slices(generator_for(0, "perceptual"))
        widths = [part[-2].out_channels for part in slices if isinstance(part, nn.Sequential)]
        return PerceptualDistance(slices, [torch.full((int(width),), 1.0) for width in widths])  # type: ignore[arg-type]
    return load_perceptual(backbone, Path(weights).expanduser() if weights else None)
