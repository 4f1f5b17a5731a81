"""Whole model folders of networks so small that they are there at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from latentart.builders import build_autoencoder, build_denoiser
from latentart.config.denoiser import DiTConfig, UNetConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.vae import AutoencoderConfig
from latentart.core.latents import LatentNormalizer
from latentart.core.randomness import normal_for
from latentart.kinds import Target
from latentart.model.description import describe_autoencoder
from latentart.model.folder import save_model

STYLES = ["Cubism", "Fauves+Dada:2", "Ukiyo_e"]
GENRES = ["portrait", "sea"]
SMALL = {"groups": 4, "head_channels": 8}
UNET = UNetConfig(widths=[8, 16], attention=["linear", "full"], blocks_per_stage=1, embedding_channels=16, **SMALL)
DIT = DiTConfig(width=16, depth=2, head_channels=8, embedding_channels=16)


def make_model(
    folder: Path, denoiser: UNetConfig | DiTConfig, kind: str, target: Target, styles: Sequence[str] = STYLES
) -> Path:
    """Write a model folder of tiny networks, untrained but for weights that are nowhere zero."""
    config = AutoencoderConfig(
        kind=kind, widths=[8, 16], attention=["none", "linear"], patch_size=2, num_codes=32, **SMALL
    )
    networks: dict[str, nn.Module] = {"autoencoder": build_autoencoder(config)}
    networks["denoiser"] = build_denoiser(denoiser, config.latent_channels, [len(styles), len(GENRES)])
    for name, network in networks.items():
        for number, tensor in enumerate(network.state_dict().values()):
            tensor.copy_(normal_for(0, name, [number], tuple(tensor.shape))[0] / max(1, tensor[0].numel()) ** 0.5)
    normalizer = LatentNormalizer((0.1, -0.2, 0.3, 0.0), (1.1, 0.9, 1.0, 1.2))
    about = describe_autoencoder(config, list(styles), normalizer, resolution=24, uses_tanh=True)
    about |= {"denoiser": denoiser.model_dump(mode="json"), "labels": [{"name": "genre", "values": GENRES}]}
    diffusion = DiffusionConfig(num_steps=100, target=target)
    save_model(folder, about | {"diffusion": diffusion.model_dump(mode="json"), "training": {}}, networks)
    return folder
