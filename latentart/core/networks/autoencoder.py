"""The autoencoder, variational or vector-quantized: images ↔ moments ↔ images.

Encoder: compression stack (ResNet blocks, optional linear attention, resampler, none after the last), middle block
(ResNet, linear attention, ResNet), post-encoder convolution to the moments. Decoder: the same, mirrored, with
``torch.nn.Upsample``. Where ``patch_size`` is above 1, squares of pixels become channels before the first stage and are
laid out again after the last (Shi et al. 1609.05158), which leaves out the costly layers at full size.

``encode`` returns moments, never a draw, so that callers own the randomness. With a quantizer the posterior is a point
and ``decode`` quantizes first, so all that works with latents works with either kind.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.latents import point_moments
from latentart.core.networks.attention import unit_gain
from latentart.core.networks.blocks import StackShape
from latentart.core.networks.quantizer import VectorQuantizer


class Encoder(nn.Module):
    """Images ``[B, 3, H, W]`` to moments ``[B, 2Z, H/f, W/f]``, ``f = patch_size · 2 ** (number of stages - 1)``.

    Without a spread it returns the mean alone, ``[B, Z, H/f, W/f]``.
    """

    def __init__(
        self, latent_channels: int, stack: StackShape, *, patch_size: int = 1, has_spread: bool = True
    ) -> None:
        super().__init__()
        widths, self.patch_size = stack.widths, patch_size
        self.conv_in = unit_gain(nn.Conv2d(3 * patch_size**2, widths[0], 3, padding=1))
        self.stages = stack.build_down()
        self.middle = stack.build_middle()
        self.conv_out = unit_gain(nn.Conv2d(widths[-1], latent_channels * (1 + has_spread), 3, padding=1))
        if has_spread:
            start_quiet(self.conv_out, latent_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return mean ⊕ logvar on dim 1, or the mean alone."""
        x = self.conv_in(functional.pixel_unshuffle(images, self.patch_size))
        for stage in self.stages:
            x, _ = stage(x)
        return self.conv_out(self.middle(x))


def start_quiet(to_moments: nn.Conv2d, latent_channels: int, std: float = 0.05) -> None:
    """Let every posterior begin with a small constant spread.

    At PyTorch's own start the spread is 1, as large as the mean: the decoder then sees little but noise, and
    hundreds of steps pass before it learns more than the average color of a patch.
    """
    with torch.no_grad():
        to_moments.weight[latent_channels:] = 0.0
        assert to_moments.bias is not None
        to_moments.bias[latent_channels:] = 2.0 * math.log(std)


def start_flat(to_pixels: nn.Conv2d, patch_size: int) -> None:
    """Let all pixels of a patch begin alike, so that no grid has to be unlearned (ICNR, Aitken et al. 1707.02937)."""
    with torch.no_grad():
        for parameter in to_pixels.parameters():
            parameter.copy_(parameter[:: patch_size**2].repeat_interleave(patch_size**2, dim=0))


class Decoder(nn.Module):
    """Latents ``[B, Z, h, w]`` to images ``[B, 3, f·h, f·w]``, before the output activation."""

    def __init__(self, latent_channels: int, stack: StackShape, *, patch_size: int = 1) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.conv_in = unit_gain(nn.Conv2d(latent_channels, stack.widths[-1], 3, padding=1))
        self.middle = stack.build_middle()
        self.stages = stack.build_up(has_skips=False)
        self.conv_out = unit_gain(nn.Conv2d(stack.widths[0], 3 * patch_size**2, 3, padding=1))
        start_flat(self.conv_out, patch_size)

    def forward(self, z: Tensor) -> Tensor:
        """Return images, roughly within -1…1 but unbounded."""
        x = self.middle(self.conv_in(z))
        for stage in self.stages:
            x = stage(x)
        return functional.pixel_shuffle(self.conv_out(x), self.patch_size)


class Autoencoder(nn.Module):
    """Encoder and decoder with a Gaussian posterior (Kingma & Welling 1312.6114) or a quantizer between them.

    ``uses_tanh`` bounds the decoder's output; a training stage switches it, since training from scratch with it
    leaves blobs (the seed's experience).
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        latent_channels: int,
        factor: int,
        quantizer: VectorQuantizer | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.quantizer = quantizer
        self.latent_channels = latent_channels
        self.factor = factor
        self.uses_tanh = False

    def encode(self, images: Tensor) -> Tensor:
        """Return the moments ``[B, 2Z, h, w]`` (float32) of images ``[B, 3, H, W]`` in -1…1.

        Raises:
            ValueError: height or width is no multiple of the factor.
        """
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            msg = f"height and width must be multiples of {self.factor}: got {height}x{width}"
            raise ValueError(msg)
        found = self.encode_raw(images).float()
        return found if found.shape[1] == 2 * self.latent_channels else point_moments(found)

    def encode_raw(self, images: Tensor) -> Tensor:
        """Return what the encoder makes of images: moments, or where there is no spread the mean alone."""
        return self.encoder(images)

    def decode(self, z: Tensor) -> Tensor:
        """Return images ``[B, 3, H, W]`` (float32) of latents ``[B, Z, h, w]`` at the autoencoder's own scale."""
        return self.render(z if self.quantizer is None else self.quantizer(z).z)

    def render(self, z: Tensor) -> Tensor:
        """Decode latents that are quantized already, where there is a quantizer."""
        images = self.decode_raw(z).float()
        return torch.tanh(images) if self.uses_tanh else images

    def decode_raw(self, z: Tensor) -> Tensor:
        """Return what the decoder makes of latents, before the output activation."""
        return self.decoder(z)

    def freeze_encoder(self) -> None:
        """Keep everything that latents hang on as it is."""
        self.encoder.requires_grad_(requires_grad=False)

    @property
    def last_weight(self) -> Tensor:
        """The weight of the decoder's last convolution, by whose gradient losses are weighed against each other."""
        return [layer.weight for layer in self.decoder.modules() if isinstance(layer, nn.Conv2d)][-1]
