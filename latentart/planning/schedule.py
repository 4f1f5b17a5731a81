"""`latentart schedule`: noise schedules as curves, and what they leave of a real picture at even steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentart.builders import build_crop, build_schedule
from latentart.config.ldm import DiffusionConfig
from latentart.config.workspace import Config
from latentart.core.diffusion.process import add_noise
from latentart.core.diffusion.schedules import NoiseSchedule
from latentart.core.pixels import to_images, to_pixels
from latentart.core.randomness import normal_for
from latentart.data.datasets import picture_from
from latentart.data.pictures.figures import new_figure, save_figure
from latentart.data.pictures.grids import GAP, tile_grid
from latentart.data.synthetic.art import draw_picture
from latentart.errors import DataError
from latentart.layout import Workspace
from latentart.sampling.reconstruct import open_picture

SIDE = 96  # pixels of a picture in a strip
SHOWN_STYLE = "High_Renaissance"


@dataclass(frozen=True)
class Curve:
    """A schedule under its name, and whether it is the one that the config trains with."""

    name: str
    schedule: NoiseSchedule
    is_own: bool

    def level(self, t: int) -> dict[str, float | int | None]:
        """Return t, ᾱ and log-SNR = log(ᾱ/(1-ᾱ)), natural; None where no signal is left."""
        alpha_bar = float(self.schedule.alpha_bar[t])
        log_snr = float(self.schedule.snr[t].log()) if alpha_bar > 0 else None
        return {"t": t, "alpha_bar": alpha_bar, "log_snr": log_snr}

    def half(self) -> int:
        """Return the first t at which there is at least as much noise as signal, ᾱ ≤ ½; T where none is."""
        return int((self.schedule.alpha_bar > 0.5).sum())


def all_kinds() -> list[str]:
    """Return the names of all kinds of schedules."""
    union = DiffusionConfig.model_fields["schedule"].annotation
    return [str(kind.model_fields["kind"].default) for kind in get_args(union)]


def build_curves(config: DiffusionConfig, kinds: Sequence[str]) -> list[Curve]:
    """Return the config's own schedule, or those of the kinds: the own kind with its settings, others with defaults."""
    own = config.schedule.kind
    curves = []
    for kind in dict.fromkeys(kinds or [own]):
        chosen = config
        if kind != own:
            values = {**config.model_dump(), "schedule": {"kind": kind}, "target": "v"}  # any schedule can have v
            chosen = DiffusionConfig.model_validate(values)
        curves.append(Curve(kind, build_schedule(chosen), kind == own))
    return curves


def even_steps(num_steps: int, columns: int) -> list[int]:
    """Return ``columns`` timesteps from 0 to T-1, evenly, both ends included."""
    return [round(i * (num_steps - 1) / max(columns - 1, 1)) for i in range(columns)]


def find_picture(workspace: Workspace | None, image: Path | None, config: Config) -> tuple[Tensor, str]:
    """Return pixels uint8 [3, 96, 96] of the picture to noise, and where it is from.

    It is ``image``, else the first of the clean set, else a drawn one.

    Raises:
        DataError: ``image`` is no picture.
    """
    crop = build_crop(SIDE, config.data, config.seed, is_random=False)
    path = image or _first_clean(workspace)
    if path is None:
        return crop.cut(draw_picture(SHOWN_STYLE, 0, 0, (SIDE, SIDE)), 0, 0), f"a drawn picture ({SHOWN_STYLE})"
    return crop.cut(open_picture(path), 0, 0), str(path)


def _first_clean(workspace: Workspace | None) -> Path | None:
    if workspace is None:
        return None
    try:
        entries, _ = workspace.read_pictures()
    except DataError:
        return None
    path = workspace.data / entries[0].file if entries else None
    return path if path and path.is_file() else None


def noise_strip(pixels: Tensor, schedule: NoiseSchedule, steps: Sequence[int]) -> Image.Image:
    """Return a picture at each of the steps, side by side, with the same noise in all; in pixels, not latents."""
    x0 = to_images(pixels[None]).expand(len(steps), -1, -1, -1)
    eps = normal_for(0, "schedule eps", [0], tuple(pixels.shape)).expand_as(x0)
    x_t = add_noise(x0, eps, schedule.alpha_bar[torch.tensor(steps)])
    return tile_grid([picture_from(picture) for picture in to_pixels(x_t.clamp(-1, 1))], 1, len(steps))


def draw_schedules(curves: Sequence[Curve], pixels: Tensor, columns: int, path: Path) -> None:
    """Write the figure: ᾱ and log-SNR over t, and below them a strip for each schedule."""
    strip_height = 8.0 * (SIDE + 2 * GAP) / (columns * (SIDE + GAP) + GAP)
    with new_figure(8.0, 2.9 + len(curves) * (strip_height + 0.32)) as figure:
        ratios = [2.7, *[strip_height + 0.3] * len(curves)]
        grid = figure.add_gridspec(1 + len(curves), 2, height_ratios=ratios)
        left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
        for curve in curves:
            t = np.arange(curve.schedule.num_steps)
            log_snr = curve.schedule.snr.log().numpy()
            label = f"{curve.name} (the config's)" if curve.is_own and len(curves) > 1 else curve.name
            left.plot(t, curve.schedule.alpha_bar.numpy(), label=label, linewidth=1.3)
            right.plot(t, np.where(np.isfinite(log_snr), log_snr, np.nan), label=label, linewidth=1.3)
        left.set(title="ᾱ, the share of signal", xlabel="t", ylim=(-0.02, 1.02))
        right.set(title="log-SNR = log(ᾱ/(1-ᾱ))", xlabel="t")
        left.legend(frameon=False, fontsize=8)
        for row, curve in enumerate(curves, start=1):
            steps = even_steps(curve.schedule.num_steps, columns)
            axes = figure.add_subplot(grid[row, :])
            axes.imshow(np.asarray(noise_strip(pixels, curve.schedule, steps)), interpolation="none")
            centers = [GAP + i * (SIDE + GAP) + SIDE / 2 for i in range(columns)]
            axes.set_xticks(centers, [f"t={t}" for t in steps], fontsize=7)
            axes.set_yticks([])
            axes.set_title(f"{curve.name}, in pixels", fontsize=8, loc="left")
            axes.grid(visible=False)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        save_figure(figure, path)


def describe_curves(curves: Sequence[Curve], columns: int) -> list[dict[str, Any]]:
    """Return the numbers of each schedule: its levels at even steps and where half of the signal is gone."""
    return [
        {
            "kind": curve.name,
            "is_the_configs": curve.is_own,
            "num_steps": curve.schedule.num_steps,
            "half_noise_at_t": curve.half(),
            "levels": [curve.level(t) for t in even_steps(curve.schedule.num_steps, columns)],
        }
        for curve in curves
    ]
