"""The model and what is drawn with it; the painter's thread alone comes here."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from latentart.core.seeds import Between, Seed
from latentart.data.datasets import picture_from
from latentart.errors import ModelError, UsageError
from latentart.model.folder import Model
from latentart.model.generate import SamplerSettings, Watch
from latentart.process.memory import explaining_memory
from latentart.sampling.blends import Blend, labels_of
from latentart.sampling.files import choose_paths, holds, require_free, save_frames, save_pictures
from latentart.sampling.film import Film
from latentart.sampling.request import Cell, Kind, OriginRequest, SamplePlan, choose_size
from latentart.sampling.room import require_room
from latentart.sampling.sample import SMALLER, Studio, load_origin, open_origin, settings_in, unit_of
from latentart.sampling.settings import Drawing, describe, hashes_of, read_drawing, require_weights
from latentart.storage.folders import free_path
from latentart.studio.asked import Asked, command_of
from latentart.studio.painter import Event, Job

MOST_REMEMBERED, LARGEST_REMEMBERED = 24, 1024 * 1024  # pictures, pixels of one
LARGEST_LOSSLESS = 640 * 640  # pixels; a larger one is shown as a JPEG, and kept as it is
WALKED_AT_ONCE = 4  # few enough to stop soon


@dataclass(frozen=True)
class Sheet:
    """What is drawn, and how."""

    plan: SamplePlan
    settings: SamplerSettings


class Easel:
    """A model that is loaded when it is first asked for, and again when its folder holds another.

    ``load`` does that; ``settings_of`` gives the workspace's settings of sampling with changes; ``named`` is the folder
    as a command line must name it, None where it need not.
    """

    def __init__(
        self,
        folder: Path,
        samples: Path,
        load: Callable[[], Studio],
        settings_of: Callable[[Mapping[str, Any]], SamplerSettings],
        named: Path | None,
    ) -> None:
        self.folder, self.samples = folder, samples
        self._load, self._settings_of, self._named = load, settings_of, named
        self._studio: Studio | None = None
        self._stamp: object = None
        self._hashes: dict[str, str] = {}
        self._remembered: OrderedDict[str, Image.Image] = OrderedDict()

    def studio(self) -> Studio:
        """Return what draws, of the newest model.

        Raises:
            ModelError: there is none, it is damaged, or it has no denoiser yet.
        """
        stamp = stamp_of(self.folder)
        if self._studio is None or stamp != self._stamp:
            self._studio = None  # the old one's memory is free before the new one's is taken
            self._remembered.clear()
            with explaining_memory():
                made, hashes = self._load(), hashes_of(self.folder, None)
            if stamp_of(self.folder) != stamp:  # a training has written another meanwhile
                return self.studio()
            self._studio, self._stamp, self._hashes = made, stamp, hashes
        return self._studio

    def describe(self, job: Job) -> None:
        """Tell what the page needs to know of the model."""
        studio = self.studio()
        model, usual = studio.model, self._settings_of({})
        assert model.task is not None
        job.tell(
            {
                "version": self._hashes["denoiser"][:16],  # of the weights
                "styles": model.style_names,
                "labels": model.label_columns,
                "resolution": model.resolution,
                "unit": unit_of(model, studio.denoiser),
                "most_steps": model.task.schedule.num_steps,
                "usual": {
                    "steps": min(usual.steps, model.task.schedule.num_steps),
                    "sampler": usual.sampler,
                    "guidance": usual.guidance,
                    "eta": usual.eta,
                },
            }
        )

    def draw(self, asked: Asked, uploads: Mapping[str, Path], job: Job) -> None:
        """Tell every frame on the way and every picture at its end, then the command line that draws the same."""
        began = time.perf_counter()
        studio = self.studio()
        sheet = self._sheet(studio, asked, uploads)
        plan, command = sheet.plan, self._command(studio, asked, sheet)
        for i, picture in enumerate(self._pictures(studio, sheet, job, asked.frames)):
            job.tell({"picture": i, "address": address_of(picture), "width": plan.size[0], "height": plan.size[1]})
        seconds = round(time.perf_counter() - began, 3)
        job.tell({"seconds": seconds, "version": self._hashes["denoiser"][:16], **command})

    def _command(self, studio: Studio, asked: Asked, sheet: Sheet) -> Event:
        """Return the command line, and whether the files that it names are there only once the picture is kept."""
        plan, usual = sheet.plan, (studio.model.resolution,) * 2
        size = plan.size if plan.size != usual else None
        if plan.origin is None:
            return {"command": command_of(asked, size, self._named, None, None), "must_keep": False}
        folder = choose_paths(self.samples, plan, sheet.settings, studio.model, None)[0].parent
        files = [None if one is None else folder / one.name for one in (plan.origin.picture, plan.origin.mask)]
        shown = [None if one is None else one.relative_to(self.samples.parent) for one in files]
        must_keep = not all(one.exists() for one in files if one is not None)
        return {"command": command_of(asked, size, self._named, shown[0], shown[1]), "must_keep": must_keep}

    def picture(self, asked: Asked, uploads: Mapping[str, Path], job: Job) -> Image.Image:
        """Return the first picture of what is asked for."""
        studio = self.studio()
        return self._pictures(studio, self._sheet(studio, asked, uploads), job, 0)[0]

    def keep(self, asked: Asked, uploads: Mapping[str, Path], job: Job) -> Path:
        """Write the picture into the samples, its settings inside, and return its path; a kept one is kept once."""
        studio = self.studio()
        sheet = self._sheet(studio, asked, uploads)
        picture = next(iter(self._pictures(studio, sheet, job, 0)))
        plan = sheet.plan
        (path,) = choose_paths(self.samples, plan, sheet.settings, studio.model, None)
        if plan.origin is not None:
            plan = replace(plan, origin=bring_along(plan.origin, path.parent))
        drawing = Drawing(plan, sheet.settings, self._hashes)
        (described,) = describe(drawing, studio.model)
        path = free_path(path, partial(holds, described=described))
        if not holds(path, described):
            require_free(path)
            save_pictures([picture], [path], [described], mark=sheet.settings.mark)
        return path

    def walk(self, start: Path, end: Path, frames: int, job: Job) -> Path:
        """Write a movie of the way from one kept picture to another, tell how far it is, and return its path.

        Raises:
            UsageError: one is no single picture drawn from noise, or they differ in size.
        """
        studio = self.studio()
        drawings = [self._read_single(path, studio.model) for path in (start, end)]
        plan = plan_walk(drawings[0].plan, drawings[1].plan, frames)
        settings = replace(drawings[0].settings, batch_size=WALKED_AT_ONCE)
        sheet, film = Sheet(plan, settings), Film(plan)
        pictures = self._pictures(studio, sheet, job, 0)
        drawing = Drawing(plan, settings, self._hashes)
        (described,) = describe(drawing, studio.model)
        (path,) = choose_paths(self.samples, plan, settings, studio.model, None, ".webp")
        path = free_path(path, partial(holds, described=described))
        if not holds(path, described):
            require_free(path)
            save_frames(film.cut(pictures), path, described, mark=self._settings_of({}).mark)
        return path

    def _read_single(self, path: Path, model: Model) -> Drawing:
        drawing = read_drawing(path, model, settings_in)
        require_weights(path, drawing, self.folder)
        if len(drawing.plan.cells) != 1 or drawing.plan.origin is not None:
            raise UsageError(f"{path.name} is no single picture drawn from a seed.", "Choose two that are.")
        return drawing

    def _sheet(self, studio: Studio, asked: Asked, uploads: Mapping[str, Path]) -> Sheet:
        """Return the plan of what is asked for.

        Raises:
            UsageError: the model has no such style, label, size or number of steps.
        """
        model = studio.model
        changes: dict[str, Any] = {"steps": asked.steps, "sampler": asked.sampler, "guidance": asked.guidance}
        changes |= {"eta": asked.eta if asked.sampler == "ddim" else None}
        settings = self._settings_of(changes)
        assert model.task is not None
        if settings.steps > model.task.schedule.num_steps:
            raise UsageError(f"The model has {model.task.schedule.num_steps} steps, no more.")
        origin = origin_of(asked, uploads)
        if origin is not None and origin.inverts and (settings.sampler == "ddpm" or settings.eta):
            raise UsageError("To restyle a picture the way down must be without noise.", "Set η to 0, or change ddpm.")
        opened = open_origin(origin)
        given = None if asked.width is None or asked.height is None else (asked.width, asked.height)
        size = choose_size(model, given, unit_of(model, studio.denoiser), opened[0].size if opened else None)
        seeds: list[Seed] = [0] if origin is not None and origin.inverts else asked.places
        cells = tuple(Cell(blend_of(model, asked.styles), seed) for seed in seeds)
        labels = tuple(model.label(f"{column}={value}") for column, value in asked.labels.items())
        plan = SamplePlan(cells=cells, rows=1, columns=1, kind="separate", size=size, labels=labels, origin=origin)
        return Sheet(plan, settings)

    def _pictures(self, studio: Studio, sheet: Sheet, job: Job, frames: int) -> list[Image.Image]:
        """Return the pictures of a plan; a single one is remembered."""
        plan, settings = sheet.plan, sheet.settings
        device, count = studio.placement.device, len(plan.cells)
        key = repr(sheet)
        if (found := self._remembered.get(key)) is not None:
            return [found]
        require_room(studio.model, plan.size, count, settings.batch_size, device, SMALLER, kept=count)

        def see(_first: int, frame: int, pixels: torch.Tensor) -> None:
            job.tell({"frame": frame, "address": address_of(picture_from(pixels[0]), is_rough=True)})

        made: list[Image.Image] = []
        with explaining_memory():
            labels = labels_of(studio.model, studio.denoiser, [cell.style for cell in plan.cells], plan.labels)
            for pixels in studio.generator(compiles=False).batches(
                labels,
                [cell.seed for cell in plan.cells],
                settings,
                size=(plan.size[1], plan.size[0]),
                origin=load_origin(studio, plan),
                watch=Watch(frames, see, job.heed),
            ):
                made += map(picture_from, pixels)
                if plan.kind == "walk":
                    job.tell({"done": len(made), "of": count})
        if count == 1 and plan.size[0] * plan.size[1] <= LARGEST_REMEMBERED:
            self._remembered[key] = made[0]
            if len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        return made


def stamp_of(folder: Path) -> object:
    """Return what changes when another model is written into a folder; None where there is none.

    Raises:
        ModelError: the folder cannot be looked into.
    """
    try:
        found = (folder / "MANIFEST.json").stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror or error}.") from None
    return found.st_mtime_ns, found.st_ino


def blend_of(model: Model, styles: Mapping[str, float]) -> Blend:
    """Return the blend of styles by weights, reckoned as ``parse_blend`` does.

    Raises:
        UsageError: the model has no such style.
    """
    for name in styles:
        if name not in model.style_names:
            model.style_id(name)  # says which is meant
            raise UsageError(f"this model has no style '{name}'.")
    total = sum(map(float, styles.values()))
    return Blend(tuple((name, weight / total) for name, weight in styles.items()))


def origin_of(asked: Asked, uploads: Mapping[str, Path]) -> OriginRequest | None:
    """Return the picture to begin from, None where there is none.

    Raises:
        UsageError: it is no longer here, as after a restart.
    """
    if asked.picture is None:
        return None
    if asked.picture not in uploads or (asked.mask is not None and asked.mask not in uploads):
        raise UsageError("The picture to begin from is no longer here.", "Drop it on the page again.")
    mask = None if asked.mask is None else uploads[asked.mask]
    from_style = asked.from_style if asked.restyle else None
    return OriginRequest(uploads[asked.picture], asked.strength, mask, asked.restyle, from_style)


def bring_along(origin: OriginRequest, folder: Path) -> OriginRequest:
    """Copy the picture to begin from, and its mask, beside what is kept: it is repeated from there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in filter(None, (origin.picture, origin.mask)):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    mask = None if origin.mask is None else folder / origin.mask.name
    return replace(origin, picture=folder / origin.picture.name, mask=mask)


def plan_walk(start: SamplePlan, end: SamplePlan, frames: int) -> SamplePlan:
    """Return the pictures on the way from one plan's only picture to another's: seeds on the arc, weights in a line.

    Raises:
        UsageError: they differ in size.
    """
    if start.size != end.size:
        raise UsageError("The two pictures differ in size.", "Walk between two of one size.")
    first, last = start.cells[0], end.cells[0]
    shares = [i / (frames - 1) for i in range(frames)]
    inner = [Cell(blend_between(first.style, last.style, u), Between(first.seed, last.seed, u)) for u in shares[1:-1]]
    kind: Kind = "walk"
    return replace(start, cells=(first, *inner, last), rows=1, columns=1, kind=kind)


def blend_between(start: Blend, end: Blend, share: float) -> Blend:
    """Return what lies ``share`` of the way from one blend to another."""
    weights: dict[str, float] = {}
    for blend, part in ((start, 1 - share), (end, share)):
        for name, weight in blend.parts:
            weights[name] = weights.get(name, 0.0) + part * weight
    return Blend(((next(iter(weights)), 1.0),)) if len(weights) == 1 else Blend(tuple(weights.items()))


def address_of(picture: Image.Image, *, is_rough: bool = False) -> str:
    """Return a picture as an address that a page can show."""
    buffer = io.BytesIO()
    if is_rough or picture.width * picture.height > LARGEST_LOSSLESS:
        picture.save(buffer, "JPEG", quality=85 if is_rough else 95)
        kind = "jpeg"
    else:
        picture.save(buffer, "PNG", compress_level=1)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
