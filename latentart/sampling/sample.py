"""`latentart sample`: styles × seeds → a grid, single pictures or a movie, each with its settings inside.

Launch: ``latentart sample --style High_Renaissance --eta 0.8 --grid 4x4``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from latentart.config.sample import SampleConfig
from latentart.core.diffusion.samplers import usual_spacing
from latentart.core.networks.conditioning import Denoiser
from latentart.data.datasets import picture_from, pixels_from
from latentart.data.pictures.stills import LARGEST
from latentart.errors import UsageError
from latentart.model.averages import Average
from latentart.model.folder import Model, load_model, require_denoiser
from latentart.model.generate import Generator, Origin, SamplerSettings, Watch
from latentart.model.onnx_engine import require_engine, through_onnx
from latentart.process.devices import Placement
from latentart.process.distributed import Ranks, join_ranks, read_ranks, wait_for_all
from latentart.process.progress import Progress
from latentart.process.reductions import collect_for_first, of_first
from latentart.sampling.autoguidance import build_weak, choose_weak
from latentart.sampling.blends import labels_of, parse_blend
from latentart.sampling.files import (
    choose_paths,
    holds,
    make_grid,
    remove_unfinished,
    require_ending,
    require_free,
    save_frames,
    save_pictures,
)
from latentart.sampling.film import FRAMES, Film
from latentart.sampling.reconstruct import open_picture
from latentart.sampling.request import OriginRequest, SamplePlan, SampleRequest, choose_size, make_plan
from latentart.sampling.room import require_room
from latentart.sampling.settings import NOT_DESCRIBED, Drawing, describe, hashes_of, read_drawing, require_weights
from latentart.storage.folders import free_path

logger = logging.getLogger(__name__)

BLACK = (0, 0, 0)
SMALLER = "Give a smaller --size, fewer pictures, or a smaller sample.batch_size."


@dataclass(frozen=True)
class SampleResult:
    """The files, whether this call made any of them, and the first seed that none of them used."""

    paths: list[Path]
    is_new: bool
    next_seed: int


def settings_from(config: SampleConfig, changes: dict[str, Any]) -> SamplerSettings:
    """Return the config's sampling settings with the options that were given on top."""
    changes = {name: value for name, value in changes.items() if value is not None}
    if "guidance" in changes:  # asked for on its own, it is what the config's autoguidance gives way to
        changes = {"autoguidance": None} | changes
    values = config.model_dump(exclude={"precision"}) | changes
    values["spacing"] = values["spacing"] or usual_spacing(values["sampler"], values["steps"])
    return SamplerSettings(**values)


def settings_in(about: Mapping[str, Any]) -> SamplerSettings:
    """Return the sampler's settings inside a picture, held to what a config may say.

    Raises:
        ValueError: one is of another kind or out of range.
    """
    known = SamplerSettings.__dataclass_fields__.keys() - set(NOT_DESCRIBED)
    found = {"noise_limit": None} | {name: about[name] for name in known if name in about}  # there was none at first
    config = SampleConfig.model_validate(found)
    return SamplerSettings(**config.model_dump(include=set(known), exclude_unset=True))


def sample_pictures(
    model_folder: Path,
    samples: Path,
    request: SampleRequest,
    settings: SamplerSettings,
    placement: Placement,
    *,
    quiet: bool = False,
) -> SampleResult:
    """Draw what is asked for; what was drawn before with the same settings is left as it is.

    Raises:
        ModelError: there is no model, it has no denoiser, or autoguidance finds no weak network.
        DataError: the picture to begin from, or its mask, cannot be read.
        UsageError: an unknown style or label, a size or number of steps that cannot be, or a file in the way.
    """
    if settings.engine == "onnx":
        require_engine(settings, placement)
    model = load_model(model_folder, placement)
    studio, settings = equip(model, model_folder, settings, placement)
    if request.origin is not None and request.origin.from_style is not None:
        parse_blend(model, request.origin.from_style)
    opened = open_origin(request.origin)
    plan = make_plan(model, request, unit_of(model, studio.denoiser), opened[0].size if opened else None)
    drawing = Drawing(plan, settings, hashes_of(model_folder, studio.weak.sha256 if studio.weak else None))
    out = request.movie or request.out
    return draw(studio, drawing, samples, out, quiet=quiet)


def sample_again(
    source: Path,
    model_folder: Path,
    samples: Path,
    out: Path | None,
    config: SampleConfig,
    placement: Placement,
    *,
    quiet: bool = False,
) -> SampleResult:
    """Draw a picture or movie once more, from the settings inside it.

    Raises:
        ModelError: there is no model, or it is not the one that the picture was drawn with.
        DataError: a file that it was drawn from is gone or changed.
        UsageError: the picture holds no settings, or a file is in the way.
    """
    model = load_model(model_folder, placement)
    denoiser, task = require_denoiser(model, model_folder)
    drawing = read_drawing(source, model, settings_in)
    require_weights(source, drawing, model_folder)
    choose_size(model, drawing.plan.size, unit_of(model, denoiser), None)
    if drawing.settings.steps > task.schedule.num_steps:
        raise UsageError(f"{source} took {drawing.settings.steps} steps, more than the model has.")
    weak_hash = drawing.hashes.get("weak_denoiser")
    weak = choose_weak(model, model_folder, weak_hash) if weak_hash else None
    settings = replace(drawing.settings, **config.model_dump(include=set(NOT_DESCRIBED)))
    studio = Studio(model, denoiser, placement, weak)
    suffix = source.suffix.lower()
    suffix = suffix if drawing.plan.is_movie or suffix in LARGEST else ".png"
    return draw(studio, replace(drawing, settings=settings), samples, out, quiet=quiet, suffix=suffix)


@dataclass(frozen=True)
class Studio:
    """What draws: a model, where it runs, and autoguidance's weak network."""

    model: Model
    denoiser: Denoiser
    placement: Placement
    weak: Average | None

    def generator(self, *, compiles: bool) -> Generator:
        """Return the networks, ready to draw."""
        model, task = self.model, self.model.task
        assert task is not None
        weak = None if self.weak is None else build_weak(self.denoiser, self.weak)
        for network in (self.denoiser, weak) if compiles else ():
            if network is not None:
                network.compile()
        return Generator(
            model.autoencoder, self.denoiser, model.normalizer, task, self.placement, model.resolution, weak
        )


def equip(
    model: Model, folder: Path, settings: SamplerSettings, placement: Placement
) -> tuple[Studio, SamplerSettings]:
    """Return what draws with these settings, and the settings as they then hold.

    Raises:
        ModelError: the model has no denoiser, or autoguidance finds no weak network.
        UsageError: a number of steps that cannot be.
    """
    denoiser, task = require_denoiser(model, folder)
    if not 1 <= settings.steps <= task.schedule.num_steps:
        msg = f"--steps {settings.steps} is not within 1 to {task.schedule.num_steps}, the model's own steps."
        raise UsageError(msg)
    if settings.autoguidance is None:
        return Studio(model, denoiser, placement, None), settings
    # it takes the other's place
    return Studio(model, denoiser, placement, choose_weak(model, folder)), replace(settings, guidance=1.0)


def unit_of(model: Model, denoiser: Denoiser) -> int:
    """Return what the sides of a model's pictures are multiples of, in pixels."""
    return model.autoencoder.factor * denoiser.factor


def draw(
    studio: Studio, drawing: Drawing, samples: Path, out: Path | None, *, quiet: bool, suffix: str = ".png"
) -> SampleResult:
    """Draw those of the files that are not there yet, and write them; many processes share the drawing.

    Raises:
        ResourceError: they need more memory than there is.
    """
    plan, batch_size = drawing.plan, drawing.settings.batch_size
    count = len(plan.cells)
    kept = min(batch_size, count) if plan.kind == "separate" else count
    require_room(studio.model, plan.size, count, batch_size, studio.placement.device, SMALLER, kept=kept)
    with join_ranks(read_ranks(), studio.placement.device):
        return _draw(studio, drawing, samples, out, quiet=quiet, suffix=suffix)


def _draw(
    studio: Studio, drawing: Drawing, samples: Path, out: Path | None, *, quiet: bool, suffix: str
) -> SampleResult:
    plan, settings, model = drawing.plan, drawing.settings, studio.model
    described = describe(drawing, model)
    paths = choose_paths(samples, plan, settings, model, out, suffix)
    if plan.kind != "separate":
        require_ending(paths[0], plan, described[0])
    if out is None:
        paths = [free_path(path, partial(holds, described=text)) for path, text in zip(paths, described, strict=True)]
    if read_ranks().is_first:
        remove_unfinished(paths)
    missing = of_first([i for i, path in enumerate(paths) if not holds(path, described[i])], len(paths))
    if not missing:
        return SampleResult(paths, is_new=False, next_seed=plan.next_seed)
    for i in missing:
        require_free(paths[i])
    wait_for_all()  # a picture that another has drawn by now would be in the way
    if plan.kind == "separate":
        wanted = replace(plan, cells=tuple(plan.cells[i] for i in missing))
        places = iter(missing[read_ranks().part(len(missing))])
        for pixels in draw_batches(studio, wanted, settings, quiet=quiet):
            for one, i in zip(pixels, places, strict=False):
                save_pictures([picture_from(one)], [paths[i]], [described[i]], mark=settings.mark)
        return SampleResult(paths, is_new=True, next_seed=plan.next_seed)
    film = Film(plan)
    pictures = make_pictures(studio, plan, settings, film, quiet=quiet)
    if pictures and plan.is_movie:
        save_frames(film.cut(pictures), paths[0], described[0], mark=settings.mark)
    elif pictures:
        save_pictures([make_grid(plan, pictures)], paths, described, mark=settings.mark)
    return SampleResult(paths, is_new=True, next_seed=plan.next_seed)


def make_pictures(
    studio: Studio, plan: SamplePlan, settings: SamplerSettings, film: Film, *, quiet: bool
) -> list[Image.Image]:
    """Return the pictures of a plan; of many processes, each of which draws a part, only the first gets any."""
    blank = torch.zeros(0, 3, plan.size[1], plan.size[0], dtype=torch.uint8)
    drawn = torch.cat([blank, *draw_batches(studio, plan, settings, film, quiet=quiet)])
    pixels = collect_for_first(drawn, [len(_part_of(plan, rank)) for rank in range(read_ranks().world_size)])
    return [] if pixels is None else [picture_from(one) for one in pixels]


def _part_of(plan: SamplePlan, rank: int) -> range:
    """Return which cells a process draws: all of a movie of the denoising, whose steps are looked at, the first."""
    every = range(len(plan.cells))
    if plan.kind == "denoising":
        return every if rank == 0 else range(0)
    return every[Ranks(rank, read_ranks().world_size).part(len(every))]


def draw_batches(
    studio: Studio, plan: SamplePlan, settings: SamplerSettings, film: Film | None = None, *, quiet: bool
) -> Iterator[Tensor]:
    """Yield the pixels uint8 ``[B, 3, H, W]`` of this process's part of a plan, a batch at a time, as it is drawn."""
    ranks = read_ranks()
    mine, done = _part_of(plan, ranks.rank), 0
    generator = studio.generator(compiles=settings.compile)
    generator = through_onnx(generator) if settings.engine == "onnx" else generator
    origin = load_origin(studio, plan)
    labels = labels_of(studio.model, studio.denoiser, [cell.style for cell in plan.cells], plan.labels)
    with Progress("sample", len(mine), quiet=quiet or not ranks.is_first) as progress:
        for pixels in generator.batches(
            labels[mine.start : mine.stop],
            [plan.cells[i].seed for i in mine],
            settings,
            size=(plan.size[1], plan.size[0]),
            origin=origin,
            watch=Watch(FRAMES - 1, film.see) if film is not None and plan.kind == "denoising" else None,
        ):
            yield pixels
            done += len(pixels)
            progress.update(done)


def open_origin(request: OriginRequest | None) -> tuple[Image.Image, Image.Image | None] | None:
    """Return the picture to begin from and its mask.

    Raises:
        DataError: one cannot be read.
        UsageError: they differ in size.
    """
    if request is None:
        return None
    picture = open_picture(request.picture)
    if request.mask is None:
        return picture, None
    mask = open_picture(request.mask, BLACK).convert("L")  # what is transparent stays
    if mask.size != picture.size:
        sizes = f"{mask.width}x{mask.height}, {request.picture} {picture.width}x{picture.height}"
        raise UsageError(f"{request.mask} has {sizes}: they must be of one size.", "Scale the mask.")
    return picture, mask


def load_origin(studio: Studio, plan: SamplePlan) -> Origin | None:
    """Return the picture to begin from at the plan's size: the largest part in its middle of that shape.

    Raises:
        UsageError: its mask is white nowhere in that part.
    """
    request, opened = plan.origin, open_origin(plan.origin)
    if request is None or opened is None:
        return None
    picture, mask = (None if one is None else ImageOps.fit(one, plan.size, Image.Resampling.LANCZOS) for one in opened)
    assert picture is not None
    inverted_as = None
    if request.inverts:
        inverted_as = studio.denoiser.null_like(torch.zeros(1, dtype=torch.int64))
        if request.from_style is not None:
            blend = parse_blend(studio.model, request.from_style)
            inverted_as = labels_of(studio.model, studio.denoiser, [blend], plan.labels)
    shown = None if mask is None else (pixels_from(mask)[:1] >= 128).float()
    if mask is not None and shown is not None and not shown.any():
        gray = f"the lightest gray there is {mask.getextrema()[1]} of 255, and what is transparent stays"
        hint = f"White is what is painted anew, within the part drawn: {gray}."
        raise UsageError(f"{request.mask} is white nowhere.", hint)
    if shown is not None and shown.all() and read_ranks().is_first:
        logger.warning("%s is white everywhere: nothing of the picture stays, as only black does", request.mask)
    return Origin(pixels_from(picture), request.strength, shown, inverted_as)
