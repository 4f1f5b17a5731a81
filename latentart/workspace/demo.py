"""`latentart demo`: the whole path in one command, on the embedded data set or on the workspace's own pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentart.config.workspace import CONFIG_NAME
from latentart.data.synthetic.art import write_raw_folder
from latentart.layout import Workspace
from latentart.process.devices import Placement
from latentart.sampling.request import SampleRequest
from latentart.sampling.sample import sample_pictures, settings_from
from latentart.training.train_ldm import train_ldm
from latentart.training.train_vae import train_vae
from latentart.workspace.clean_data import clean_data
from latentart.workspace.init import init_workspace
from latentart.workspace.minutes import TimeGiven, fit_ldm, fit_vae

logger = logging.getLogger(__name__)

SHOWN_STYLE = "High_Renaissance"
PICTURES_PER_STYLE = 128
PICTURE_SIDE = 96
COLUMNS = 8  # of the grid
VAE_SHARE = 0.4  # of the minutes
QUICK_PICTURES_PER_STYLE = 8
QUICK = (
    "vae.stages.l1.steps=6",
    "vae.stages.l1.discriminator_start=3",
    "vae.stages.l1.discriminator_warmup=1",
    "vae.stages.l1.ramp=1",
    "vae.stages.adversarial.steps=3",
    "vae.stages.lpips.steps=3",
    "vae.stages.hires.steps=3",
    "ldm.training.steps=8",
    "sample.steps=4",
)


@dataclass(frozen=True)
class DemoResult:
    """Where the grid and the workspace lie, how long it took in seconds, and a style to ask for next."""

    grid: Path
    workspace: Path
    seconds: float
    style: str


def demo(
    folder: Path,
    placement: Placement,
    overrides: Sequence[str],
    *,
    is_quick: bool = False,
    quiet: bool = False,
    minutes: float | None = None,
) -> DemoResult:
    """Draw or take pictures, clean them, train both networks and draw one row of samples per style.

    Done again it goes on where it was, and finished work is skipped. With more ``minutes`` than before the denoiser is
    trained for longer; what an autoencoder has learned stays, as the denoiser hangs on it.
    """
    began = time.monotonic()
    if (folder / CONFIG_NAME).is_file():
        workspace = Workspace.open(folder / CONFIG_NAME, overrides)
    else:
        workspace = init_workspace(folder, "demo", None, (*(QUICK if is_quick else ()), *overrides))
    if workspace.config.data.raw == "raw" and workspace.config.preset == "demo":
        draw_raw(workspace, QUICK_PICTURES_PER_STYLE if is_quick else PICTURES_PER_STYLE)
    clean_data(workspace, quiet=quiet)
    _, names = workspace.read_pictures()
    settings = settings_from(workspace.config.sample, {})
    if minutes is not None:
        left = 60 * minutes - (time.monotonic() - began)
        given = TimeGiven(minutes=VAE_SHARE * minutes, seconds=VAE_SHARE * left)
        workspace = fit_vae(workspace, "all", placement, given)
    is_new = bool(train_vae(workspace, "all", placement, quiet=quiet).stages)
    if minutes is not None:
        spent = 0.0 if is_new else 60 * sum({stage.fitted_minutes or 0.0 for stage in workspace.config.vae.stages})
        left = 60 * minutes - spent - (time.monotonic() - began)
        drawn = COLUMNS * len(names) * settings.passes
        given = TimeGiven(minutes=(1 - VAE_SHARE) * minutes, seconds=left, drawn=drawn)
        workspace = fit_ldm(workspace, placement, given)
    trained = train_ldm(workspace, placement, quiet=quiet)
    result = sample_pictures(
        trained.model,
        workspace.samples,
        SampleRequest(styles=("all",), count=COLUMNS),
        settings,
        placement,
        quiet=quiet,
    )
    style = SHOWN_STYLE if SHOWN_STYLE in names else names[0]
    return DemoResult(result.paths[0], folder, time.monotonic() - began, style)


def draw_raw(workspace: Workspace, pictures_per_style: int) -> None:
    """Draw the embedded pictures where there is no raw folder yet: one that is there may be the user's own."""
    if workspace.raw.exists():
        return
    logger.info("drawing the embedded pictures into %s", workspace.raw)
    part = workspace.raw.with_name("raw.part")
    write_raw_folder(part, seed=workspace.config.seed, pictures_per_style=pictures_per_style, size=PICTURE_SIDE)
    part.rename(workspace.raw)
