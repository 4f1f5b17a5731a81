"""onnxruntime in PyTorch's place while pictures are drawn on a CPU: the same pictures to one gray level, sooner."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.conditioning import Denoiser
from latentart.errors import UsageError
from latentart.model.generate import Generator, SamplerSettings
from latentart.model.onnx import Decode, open_session, require_onnx, run_session, write_onnx
from latentart.process.devices import Placement


def require_engine(settings: SamplerSettings, placement: Placement) -> None:
    """Refuse what onnxruntime cannot do here, where it is asked for.

    Raises:
        DownloadError: it is not installed.
        UsageError: a GPU, bf16, autoguidance or compilation is wanted.
    """
    if settings.engine != "onnx":
        return
    wrong = {
        f"--device {placement.device}": placement.device.type != "cpu",
        "bf16": placement.precision != "fp32",
        "autoguidance": settings.autoguidance is not None,
        "sample.compile": settings.compile,
    }
    if unfit := [name for name, is_asked in wrong.items() if is_asked]:
        msg = f"--engine onnx does not go with {unfit[0]}."
        raise UsageError(msg, "Leave one out; it takes --device cpu and sample.precision=fp32.")
    require_onnx()


def through_onnx(generator: Generator) -> Generator:
    """Return a generator whose denoiser and decoder run in onnxruntime."""
    return replace(
        generator, denoiser=OnnxDenoiser(generator.denoiser), autoencoder=OnnxAutoencoder(generator.autoencoder)
    )


class OnnxNetwork:
    """A network that is written as ONNX when it first meets a size of maps, which takes a second or more."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self.network, self.names = network, names
        self._sessions: dict[torch.Size, Any] = {}
        self._turn = threading.Lock()

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return what the network makes of a batch."""
        size = tensors[0].shape[1:]
        with self._turn:
            if size not in self._sessions:
                self._sessions[size] = self._open(tensors)
        inputs = {name: one.contiguous() for name, one in zip(self.names, tensors, strict=True)}
        return run_session(self._sessions[size], inputs)

    def _open(self, tensors: Sequence[Tensor]) -> Any:
        pair = {name: torch.cat([one[:1]] * 2) for name, one in zip(self.names, tensors, strict=True)}
        with TemporaryDirectory() as folder:
            write_onnx(self.network, pair, "made", path := Path(folder) / "network.onnx")
            return open_session(path)


class OnnxDenoiser(Denoiser):
    """A denoiser's double."""

    def __init__(self, denoiser: Denoiser) -> None:
        nn.Module.__init__(self)  # its weights are the other's
        self.factor, self.denoiser = denoiser.factor, denoiser
        self.run = OnnxNetwork(denoiser, ("x_t", "t", "labels"))

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the prediction ``[B, Z, h, w]``, see ``Denoiser``."""
        self.require_size(x_t)
        embedding = self.denoiser.style_embedding
        return self.run(x_t, t, style_id if style_id.is_floating_point() else embedding.weights_of(style_id))

    def null_like(self, style_id: Tensor) -> Tensor:
        """Return labels of the form of ``style_id`` that say nothing."""
        return self.denoiser.null_like(style_id)


class OnnxAutoencoder(Autoencoder):
    """An autoencoder's double, whose way in is PyTorch's."""

    def __init__(self, autoencoder: Autoencoder) -> None:
        parts = {"latent_channels": autoencoder.latent_channels, "factor": autoencoder.factor}
        super().__init__(autoencoder.encoder, autoencoder.decoder, quantizer=autoencoder.quantizer, **parts)
        self.uses_tanh = autoencoder.uses_tanh
        self.run = OnnxNetwork(Decode(autoencoder), ("latents",))

    def decode(self, z: Tensor) -> Tensor:
        """Return images ``[B, 3, H, W]`` (float32) of latents ``[B, Z, h, w]`` at the autoencoder's own scale."""
        return self.run(z)
