"""Config → flat arguments → objects: the only module that knows both sides."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import nn

from latentart.config.data import DataConfig
from latentart.config.denoiser import DenoiserConfig, DiTConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import EmaConfig, LdmEmaConfig, RunConfig, StepsOrEpochs
from latentart.config.pretrained import DiffusersConfig
from latentart.config.vae import AutoencoderConfig, BlocksConfig, DiscriminatorConfig
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas, straight_alpha_bar
from latentart.core.ema import Ema
from latentart.core.networks.autoencoder import Autoencoder, Decoder, Encoder
from latentart.core.networks.blocks import BlockShape, StackShape, set_recompute
from latentart.core.networks.conditioning import Denoiser
from latentart.core.networks.discriminator import PatchDiscriminator
from latentart.core.networks.dit import DiT
from latentart.core.networks.pretrained import PretrainedAutoencoder
from latentart.core.networks.quantizer import VectorQuantizer
from latentart.core.networks.unet import UNet
from latentart.core.randomness import seed_for
from latentart.data.datasets import Crop, CropSet
from latentart.errors import ModelError, extra

CACHE_CROP = (0.8, 1.0)  # the shares that the presets' autoencoders are trained with


AnyAutoencoder: TypeAlias = AutoencoderConfig | DiffusersConfig


def build_autoencoder(config: AnyAutoencoder) -> Autoencoder:
    """Return an autoencoder with fresh weights.

    Raises:
        ModelError: it is one of diffusers', which is not installed.
        ValueError: diffusers cannot build it.
    """
    if isinstance(config, DiffusersConfig):
        return _build_pretrained(config)
    stack = build_stack(config)
    encoder = Encoder(config.latent_channels, stack, patch_size=config.patch_size, has_spread=config.kind == "kl")
    decoder = Decoder(config.latent_channels, stack, patch_size=config.patch_size)
    quantizer = None
    if config.kind == "vq":
        quantizer = VectorQuantizer(config.num_codes, config.latent_channels, decay=config.codebook_decay)
    return Autoencoder(
        encoder, decoder, latent_channels=config.latent_channels, factor=config.factor, quantizer=quantizer
    )


def class_of(config: DiffusersConfig) -> type:
    """Return the class of diffusers that an autoencoder is of; to be found before a device is chosen for new tensors.

    Raises:
        ModelError: diffusers is not installed.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of what its own parts will lose one day
            import diffusers

            return getattr(diffusers, config.class_name)
    except (ImportError, RuntimeError, AttributeError) as error:  # the last two: parts of it do not fit together
        msg = f"this autoencoder is built by diffusers, which is not there ({type(error).__name__})."
        raise ModelError(msg, f"Run {extra('diffusers')}.") from None


def _build_pretrained(config: DiffusersConfig) -> PretrainedAutoencoder:
    build = class_of(config)
    known = inspect.signature(build).parameters
    try:
        network = build(**{name: value for name, value in config.arguments.items() if name in known})
    except Exception as error:  # whatever it meets: a stranger chose what it is built with
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"diffusers cannot build it: {type(error).__name__}: {first}") from None
    return PretrainedAutoencoder(
        network.encoder,
        network.decoder,
        getattr(network, "quant_conv", None),
        getattr(network, "post_quant_conv", None),
        latent_channels=config.latent_channels,
        factor=config.factor,
    )


def build_stack(config: BlocksConfig, conditioning_channels: int = 0) -> StackShape:
    """Return what the stages of a network are."""
    return StackShape(
        widths=config.widths,
        num_blocks=config.blocks_per_stage,
        attention=config.attention,
        middle_attention=config.middle_attention,
        downsampling=config.downsampling,
        upsampling=config.upsampling,
        blocks=BlockShape(config.groups, config.head_channels, config.dropout, conditioning_channels),
    )


def build_discriminator(config: DiscriminatorConfig) -> PatchDiscriminator:
    """Return a discriminator with fresh weights."""
    return PatchDiscriminator(config.base_channels, config.num_layers, config.groups)


def build_denoiser(config: DenoiserConfig, latent_channels: int, num_labels: Sequence[int]) -> Denoiser:
    """Return a denoiser with fresh weights; ``num_labels`` counts the styles, then the labels of other columns."""
    if isinstance(config, DiTConfig):
        return DiT(
            latent_channels,
            num_labels,
            config.width,
            depth=config.depth,
            patch_size=config.patch_size,
            mlp_width=config.mlp_width,
            shape=BlockShape(
                head_channels=config.head_channels,
                dropout=config.dropout,
                conditioning_channels=config.embedding_channels,
            ),
        )
    return UNet(latent_channels, num_labels, build_stack(config, config.embedding_channels))


def build_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """Return the noise schedule."""
    if config.schedule.kind == "straight":
        return NoiseSchedule.from_alpha_bar(straight_alpha_bar(config.num_steps, config.schedule.shift))
    values: dict[str, Any] = config.schedule.model_dump(exclude={"kind"})
    if "offset" in values:
        values["cosine_offset"] = values.pop("offset")
    schedule = NoiseSchedule.from_betas(make_betas(config.schedule.kind, config.num_steps, **values))
    return schedule.to_zero_terminal_snr() if config.zero_terminal_snr else schedule


def prepare_network(network: nn.Module, config: RunConfig) -> None:
    """Switch a network's recomputation of activations and its compilation as the run wants them."""
    set_recompute(network, config.recompute)
    if config.compile:
        import torch._functorch.config

        torch._functorch.config.donated_buffer = False  # the adaptive weight goes backward twice
        network.compile()


def build_ema(network: nn.Module, config: EmaConfig) -> Ema:
    """Return an average that starts at the network's weights."""
    return Ema(network, relative_std=config.relative_std, decay=config.decay)


def build_tracks(network: nn.Module, config: LdmEmaConfig) -> list[Ema]:
    """Return the averages from whose snapshots others can be made."""
    return [Ema(network, relative_std=relative_std) for relative_std in config.tracks]


def build_crop(
    resolution: int, data: DataConfig, seed: int, shares: tuple[float, float] = (1.0, 1.0), *, is_random: bool = True
) -> Crop:
    """Return how a picture becomes a square of ``resolution``; without chance it is the largest one in the middle."""
    return Crop(resolution, seed, *shares, flip=data.flip and is_random, is_random=is_random)


def build_cache_crops(resolution: int, data: DataConfig, seed: int) -> CropSet:
    """Return what the latent cache holds of a picture: the square in its middle, then random ones, none mirrored."""
    plain = data.model_copy(update={"flip": False})
    random = [
        build_crop(resolution, plain, seed_for(seed, "cache crop", number), CACHE_CROP)
        for number in range(data.cache_crops)
    ]
    return CropSet((build_crop(resolution, plain, seed, is_random=False), *random))


def count_steps(length: StepsOrEpochs, num_pictures: int, batch_size: int) -> int:
    """Return a length in optimizer steps; an epoch rounds up to whole batches."""
    if length.steps is not None:
        return length.steps
    batches = (length.epochs or 0) * num_pictures / batch_size
    return max(1, math.ceil(round(batches, 6)))  # 0.07 · 100 is 7.000000000000001


def build_task(config: DiffusionConfig) -> DiffusionTask:
    """Return what the denoiser learns, from its config."""
    return DiffusionTask(
        build_schedule(config),
        config.target,
        config.weighting,
        config.min_snr_gamma,
        timesteps=config.timesteps,
        timestep_mean=config.timestep_mean,
        timestep_std=config.timestep_std,
        floor=config.min_snr_floor,
    )
