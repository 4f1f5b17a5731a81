"""A trained model in a script or notebook: pictures by style and seed, reconstructions, latents.

It goes the way of `latentart sample` and `reconstruct`: the same settings give the same pictures, pixel for pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from latentart.api.words import speaking_of_arguments
from latentart.config.base import explain
from latentart.config.sample import SampleConfig
from latentart.core.pixels import to_pixels
from latentart.data.datasets import picture_from, pixels_from
from latentart.data.pictures.decode import flatten_image
from latentart.errors import UsageError
from latentart.kinds import Precision, Sampler, Spacing
from latentart.model.codec import decode_latents, encode_pixels
from latentart.model.folder import load_model
from latentart.process.devices import Placement, choose_device
from latentart.process.progress import Progress
from latentart.sampling.blends import labels_of, parse_blend
from latentart.sampling.reconstruct import choose_side, fit, fitted_size, open_picture, pass_through, refuse_huge
from latentart.sampling.request import choose_size
from latentart.sampling.room import require_room
from latentart.sampling.sample import equip, settings_from, unit_of

Picture = str | Path | Image.Image
Size = int | tuple[int, int]


class SampleOptions(TypedDict, total=False):
    """How pictures are drawn: the group ``sample`` of a workspace's config; None or nothing leaves a default.

    Attributes:
        sampler: ddim, which takes ``eta``; ddpm; or without noise euler, heun, dpmpp_2m, unipc.
        steps: of denoising, 1 to the model's own number.
        spacing: which of the model's steps are visited; else what suits the sampler.
        eta: noise of ddim, 0…1: 0 none, 1 as much as ddpm.
        guidance: pull towards the style, from 0 on; 1 is none.
        guidance_interval: noise levels that are guided, (low, high) within 0 clean … 1 noise.
        guidance_rescale: back to the contrast of unguided predictions, 0…1.
        autoguidance: pull away from an early average of the run, in place of guidance; 1 is none.
        x0_limit: predicted clean latents are clamped to so many standard deviations.
        noise_limit: most noise against signal that drawing begins at, where the network predicts noise or with log_snr.
        batch_size: pictures drawn at once; it changes speed and memory, not the pictures.
        compile: compile the denoiser first, which takes a minute.
    """

    sampler: Sampler | None
    steps: int | None
    spacing: Spacing | None
    eta: float | None
    guidance: float | None
    guidance_interval: tuple[float, float] | None
    guidance_rescale: float | None
    autoguidance: float | None
    x0_limit: float | None
    noise_limit: float | None
    batch_size: int | None
    compile: bool | None


@speaking_of_arguments()
def load(folder: str | Path, *, device: str = "auto", precision: Precision = "auto") -> LoadedModel:
    """Return the model in a folder such as ``runs/ldm/model``, or ``runs/vae/model`` of an autoencoder alone.

    ``device`` is cpu, cuda, cuda:1 or mps; auto is the best there is. ``precision`` is fp32 or bf16; auto is bf16 where
    the device has instructions for it.

    Raises:
        ModelError: it is missing, damaged, or of a newer version.
        ResourceError: there is no such device.
        UsageError: there is no such precision.
    """
    return LoadedModel(absolute(folder), device, SampleConfig(**_checked({"precision": precision})))


class LoadedModel:
    """A trained model: ``load`` and ``OpenWorkspace.model`` make one.

    Attributes:
        folder: where it was loaded from.
    """

    def __init__(self, folder: Path, device: str, defaults: SampleConfig) -> None:
        self.folder, self._defaults = folder, defaults
        self._placement = place(device, defaults.precision)
        self._model = load_model(folder, self._placement)

    def __repr__(self) -> str:
        """Say where it is from and what it draws."""
        where, count = self._placement.device, len(self.style_names)
        return f"<LoadedModel {self.folder}: {count} styles, {self.resolution} px, on {where}>"

    @property
    def style_names(self) -> list[str]:
        """The styles that it draws."""
        return self._model.style_names

    @property
    def label_values(self) -> dict[str, list[str]]:
        """The values of each column of labels that it knows beside the style; most models know none."""
        return self._model.label_columns

    @property
    def resolution(self) -> int:
        """Side of the pictures that it draws where no size is asked for, in pixels."""
        return self._model.resolution

    @speaking_of_arguments()
    def sample(
        self,
        style: str,
        seeds: Iterable[float] = range(4),
        *,
        labels: Mapping[str, str] | None = None,
        size: Size | None = None,
        progress: bool = False,
        **options: Unpack[SampleOptions],
    ) -> list[Image.Image]:
        """Return one RGB picture for each seed; each is that of `latentart sample --seed`, whatever is drawn beside it.

        ``style`` may be a blend, ``"Cubism:0.6+Ukiyo_e:0.4"``; ``labels`` are further ones, ``{"genre": "portrait"}``.
        Seed 3.25 lies a quarter of the way from seed 3 to seed 4. ``size`` is (width, height) in pixels, or one number
        for both. ``options`` are those of ``SampleOptions``; else the workspace's, where the model was opened from one.

        Raises:
            UsageError: an unknown style, label or option, or a value out of its range.
            ModelError: there is no denoiser yet, or autoguidance finds no early average of the run.
            ResourceError: the memory does not suffice for one picture.
        """
        model, wanted = self._model, list(seeds)
        if not all(0 <= seed < math.inf for seed in wanted):
            msg = f"seeds are numbers from 0 on: got {wanted}."
            raise UsageError(msg)
        if "precision" in options:
            msg = "sample: precision is chosen when the model is loaded."
            raise UsageError(msg)
        settings = settings_from(self._defaults, _checked(options))
        studio, settings = equip(model, self.folder, settings, self._placement)
        shape = (size, size) if isinstance(size, int) else size
        width, height = choose_size(model, shape, unit_of(model, studio.denoiser), None)
        count, hint = len(wanted), "Draw fewer or smaller pictures at a time."
        require_room(model, (width, height), count, settings.batch_size, self._placement.device, hint, kept=count)
        others = [model.label(f"{column}={value}") for column, value in (labels or {}).items()]
        blends = [parse_blend(model, style)] * len(wanted)
        told = labels_of(model, studio.denoiser, blends, others)
        generator = studio.generator(compiles=settings.compile)
        with Progress("sample", len(wanted), quiet=not progress) as shown:
            pixels = generator(told, wanted, settings, shown.update, size=(height, width))
        return [picture_from(one) for one in pixels]

    @speaking_of_arguments()
    def reconstruct(self, picture: Picture, *, size: int | None = None) -> Image.Image:
        """Return what is left of a picture, given as a file or as a Pillow image, after the way to latents and back.

        As `latentart reconstruct` does, its shorter side goes to ``size`` pixels, else to the model's resolution, and
        the middle is taken where a side is no multiple of what one latent stands for.

        Raises:
            DataError: the picture cannot be read.
            UsageError: the size is less than one latent, or too much for a picture.
        """
        _, images_hat = pass_through(self._fit(picture, size), self._model, self._placement)
        return picture_from(to_pixels(images_hat)[0])

    @speaking_of_arguments()
    def encode(self, pictures: Picture | Sequence[Picture], *, size: int | None = None) -> Tensor:
        """Return the latents ``x0`` of one or several pictures, ``[B, Z, h, w]`` float32 on the CPU.

        They are the mean of the posterior, normalized: about mean 0 and standard deviation 1 in each channel over the
        training set, which is what the denoiser works in. Pictures are brought to size as by ``reconstruct``.

        Raises:
            DataError: a picture cannot be read.
            UsageError: as ``reconstruct``, or the pictures come to different sizes.
        """
        several = [pictures] if isinstance(pictures, (str, Path, Image.Image)) else list(pictures)
        fitted = [self._fit(picture, size) for picture in several]
        if not fitted:
            msg = "there is no picture to encode."
            raise UsageError(msg)
        if len(sizes := {f"{picture.width}x{picture.height}" for picture in fitted}) != 1:
            msg = f"pictures of {len(sizes)} sizes cannot be one tensor: {', '.join(sorted(sizes))}."
            raise UsageError(msg, "Encode those of one shape together.")
        model, placement = self._model, self._placement
        batches = (pixels_from(picture)[None] for picture in fitted)
        latents = [encode_pixels(one, model.autoencoder, model.normalizer, placement).cpu() for one in batches]
        return torch.cat(latents)

    @speaking_of_arguments()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Return the RGB pictures of latents ``[B, Z, h, w]``, on any device: the inverse of ``encode``.

        Raises:
            UsageError: they are of another shape.
        """
        model, channels = self._model, self._model.autoencoder.latent_channels
        if latents.ndim != 4 or latents.shape[1] != channels or not latents.numel():
            msg = f"latents of this model have the shape [B, {channels}, h, w]: got {list(latents.shape)}."
            raise UsageError(msg)
        placed = latents.to(self._placement.device, torch.float32)
        pixels = decode_latents(placed, model.autoencoder, model.normalizer, self._placement)
        return [picture_from(one) for one in pixels]

    def _fit(self, picture: Picture, size: int | None) -> Image.Image:
        """Return a picture as the autoencoder takes it."""
        side = choose_side(self._model, size)
        name = "the picture" if isinstance(picture, Image.Image) else str(picture)
        opened = flatten_image(picture) if isinstance(picture, Image.Image) else open_picture(Path(picture))
        refuse_huge(name, fitted_size(opened, side), self._model, self._placement)
        return fit(opened, side, self._model.autoencoder.factor)


def absolute(path: str | Path) -> Path:
    """Return a path that stays true where the current folder changes."""
    return Path(path).expanduser().absolute()


def place(device: str, precision: Precision = "auto") -> Placement:
    """Return where and in which type networks run; the device auto is the best there is.

    Raises:
        ResourceError: there is no such device.
    """
    return Placement(choose_device(None if device == "auto" else device), precision)


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are given, once they are known to be sound.

    Raises:
        UsageError: one is unknown or out of its range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return SampleConfig.model_validate(given).model_dump(include=set(given))
    except ValidationError as error:
        raise UsageError(explain(error, SampleConfig.model_json_schema(), "sample").message) from None
