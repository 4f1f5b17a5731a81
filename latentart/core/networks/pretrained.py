"""An autoencoder whose encoder and decoder others wrote and trained, behind our contract."""

from __future__ import annotations

from torch import Tensor, nn

from latentart.core.networks.autoencoder import Autoencoder


class PretrainedAutoencoder(Autoencoder):
    """Encoder and decoder, and the 1x1 convolutions of moments and latents that latent diffusion has between them.

    Its tensors have the names that they have there. An encoder that returns the mean alone makes the posterior a point.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        quant_conv: nn.Module | None = None,
        post_quant_conv: nn.Module | None = None,
        *,
        latent_channels: int,
        factor: int,
    ) -> None:
        super().__init__(encoder, decoder, latent_channels=latent_channels, factor=factor)
        self.quant_conv, self.post_quant_conv = quant_conv, post_quant_conv

    def encode_raw(self, images: Tensor) -> Tensor:
        """Return moments ``[B, 2Z, h, w]``, or the mean alone ``[B, Z, h, w]``."""
        found = self.encoder(images)
        return found if self.quant_conv is None else self.quant_conv(found)

    def freeze_encoder(self) -> None:
        """Keep everything that latents hang on as it is."""
        super().freeze_encoder()
        if self.quant_conv is not None:
            self.quant_conv.requires_grad_(requires_grad=False)

    def decode_raw(self, z: Tensor) -> Tensor:
        """Return images ``[B, 3, f·h, f·w]`` of latents ``[B, Z, h, w]``."""
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))
