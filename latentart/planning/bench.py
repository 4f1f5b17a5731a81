"""`latentart bench`: what this machine does in a second, with a workspace's own networks and pictures.

Launch: ``latentart bench`` in a workspace, or ``latentart bench --preset NAME`` anywhere. `latentart plan` says how
long a training will last, this how fast each part of the path is; both try the same trainings, in a folder that goes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from latentart.config.vae import StageConfig
from latentart.data.index import style_names
from latentart.data.synthetic.art import STYLES, write_raw_folder
from latentart.errors import ResourceError
from latentart.layout import Workspace
from latentart.model.folder import autoencoder_config
from latentart.planning.estimate import Part
from latentart.planning.phases import scratch_workspace, with_perceptual_weights, write_autoencoder
from latentart.planning.pictures import MOST_PICTURES, RAW_SAMPLE, find_pictures, sample_raw, take_some
from latentart.planning.plan import scratch_folder
from latentart.planning.process import call_apart
from latentart.planning.rates import MachineRates, Measured, measure_drawing, measure_encoding, measure_machine
from latentart.planning.trial import WARMING, Trial, try_training
from latentart.planning.visit import FINE_PICTURE, Wait, visit
from latentart.process.host_memory import file_bytes
from latentart.training.run import describe_machine

logger = logging.getLogger(__name__)

SHARES = {
    "clean": 1,
    "encode": 1,
    "sample": 2,
    "studio": 2,
    "ldm": 2,
    "vae": 1,
}  # of the time, each line's; those of a stage last
FEWEST, MOST = 16, 256  # pictures that are encoded
LARGEST_DRAWN = 256  # pixels
TRIED = 0.6  # of a training's time; the rest is a start of its process and of its networks

Result = TypeVar("Result")


@dataclass(frozen=True)
class Rate:
    """One line of a bench.

    Attributes:
        per_second: pictures a second; None where nothing was measured, and ``note`` says why.
        data_share: share of a training step spent waiting for data. memory: at the peak, bytes.
        is_rough: derived from smaller batches or fewer steps.
    """

    name: str
    per_second: float | None = None
    resolution: int | None = None
    batch_size: int | None = None
    data_share: float | None = None
    memory: int | None = None
    is_rough: bool = False
    note: str = ""

    def of(self, found: Measured | str) -> Rate:
        """Return this line with what was measured, or with why nothing was."""
        if isinstance(found, str):
            return replace(self, note=found)
        rough = not found.is_whole
        return replace(self, per_second=found.rate, batch_size=found.batch_size, memory=found.memory, is_rough=rough)


@dataclass
class Bench:
    """What a machine does.

    Attributes:
        machine: the most that its device does. rates: of each part. waits: of the studio.
        notes: sentences, as on where pictures come from.
    """

    machine: MachineRates
    rates: list[Rate] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return all as plain values, with what it was measured on and when."""
        about = {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **describe_machine()}
        rates, waits = ([asdict(one) for one in found] for found in (self.rates, self.waits))
        return {"about": about, "machine": asdict(self.machine), "rates": rates, "waits": waits, "notes": self.notes}


def bench(workspace: Workspace, device: str | None, minutes: float, parts: Sequence[str] = ()) -> Bench:
    """Measure the named parts, else all: clean, encode, vae, ldm, sample, studio; for about so many minutes.

    A part that is begun in time is measured to its end, and the start of its process is no part of it: on a busy
    machine the whole lasts longer.

    Raises:
        DataError: no picture is sound.
        ResourceError: no room for the trials, or no such device.
    """
    deadline = time.monotonic() + 60 * minutes
    with scratch_folder(workspace) as scratch:
        logger.info("measuring the machine")
        found = Bench(call_apart(measure_machine, Trial(scratch_workspace(workspace, scratch), None, device, 0.0)))
        trials = Trials(workspace, device, scratch, found.notes, found.waits)
        left = [(part, *work) for part, works in trials.works().items() for work in works if not parts or part in parts]
        while left:
            seconds = (deadline - time.monotonic()) * SHARES[left[0][0]] / sum(SHARES[part] for part, *_ in left)
            _, name, work = left.pop(0)
            logger.info("measuring %s", name)
            is_in_time = seconds > 0 or not found.rates  # of one line there is always time
            found.rates.append(work(name, seconds) if is_in_time else Rate(name, note="no time was left"))
    return found


class Trials:
    """Tries the parts of a path on some pictures, each apart.

    What people should know besides goes to ``notes``, what they wait for in the studio to ``waits``.
    """

    def __init__(
        self, workspace: Workspace, device: str | None, scratch: Path, notes: list[str], waits: list[Wait]
    ) -> None:
        self.device, self.scratch, self.waits = device, scratch, waits
        self.autoencoder = autoencoder_config(workspace)
        if not _is_clean(workspace) and not _has_files(workspace.raw):
            workspace = draw_pictures(workspace, scratch)
            notes.append("there are no pictures yet: measured with the embedded ones, drawn")
        self.workspace = workspace
        self.cleaned = None if _is_clean(workspace) else sample_raw(workspace, scratch)
        self.pictures = self.cleaned or find_pictures(workspace, scratch)
        names = [stage.name for stage in workspace.config.vae.stages]
        workspace.name_outside("vae.perceptual.weights")
        self.tried, lacking = with_perceptual_weights(scratch_workspace(workspace, scratch), names)
        self.config = self.tried.config
        if self.autoencoder.kind == "diffusers":
            write_autoencoder(self.tried, names, self.autoencoder)
        notes += lacking

    def works(self) -> dict[str, list[tuple[str, Callable[[str, float], Rate]]]]:
        """Return the names of each part's lines, and what makes one in so many seconds; the longest come last."""
        settings, is_ours = self.config.sample, self.autoencoder.kind != "diffusers"
        stages = self.config.vae.stages if is_ours else ()
        return {
            "clean": [("clean", self.clean)],
            "encode": [("encode", self.encode)],
            "sample": [(f"sample, {settings.steps} x {settings.sampler}", self.sample)],
            "studio": [("studio", self.studio)],
            "ldm": [("train ldm", self.ldm)],
            "vae": [(f"train vae {stage.name}", partial(self.vae, stage)) for stage in stages],
        }

    def clean(self, name: str, _: float) -> Rate:
        """Return what cleaning a sample of the raw files says."""
        if self.cleaned is None and not _has_files(self.workspace.raw):
            return Rate(name, note=f"there are no files in {self.workspace.raw}")
        return Rate(name, (self.cleaned or sample_raw(self.workspace, self.scratch)).clean_rate)

    def encode(self, name: str, seconds: float) -> Rate:
        """Encode a few pictures, then as many as there is time for."""
        began, found = time.monotonic(), self._try(measure_encoding, self._trial("few", seconds, FEWEST))
        if isinstance(found, Measured):
            more = min(MOST, self.pictures.count, int((seconds - time.monotonic() + began) * found.rate / 2))
            if more >= 2 * FEWEST:
                found = self._try(measure_encoding, self._trial("more", seconds, more))
        return Rate(name, resolution=self.config.ldm.training.resolution).of(found)

    def sample(self, name: str, seconds: float) -> Rate:
        """Draw pictures."""
        trial = Trial(self.tried, None, self.device, seconds, libraries=file_bytes())
        return Rate(name, resolution=self.config.ldm.training.resolution).of(self._try(measure_drawing, trial))

    def ldm(self, name: str, seconds: float) -> Rate:
        """Train the denoiser for a while."""
        return self._train(name, self.config.ldm.training.resolution, self._trial("ldm", seconds, FEWEST))

    def vae(self, stage: StageConfig, name: str, seconds: float) -> Rate:
        """Train a stage for a while, with all that takes part in it in the end."""
        parts: tuple[Part, ...] = ("whole",) if stage.weights.adversarial > 0 else ("before",)
        trial = replace(self._trial("vae", seconds, MOST_PICTURES), stage=stage.name, parts=parts)
        return self._train(name, stage.resolution, trial)

    def studio(self, name: str, seconds: float) -> Rate:
        """Open the page of a workspace apart, and draw one picture after the other on it."""
        workspace, one = self._trial("studio", seconds, FEWEST).workspace, Rate(name, batch_size=1)
        try:
            self.waits += visit(workspace, style_names(self.pictures.entries), self.device, seconds)
        except ResourceError as error:
            return replace(one, note=error.message)
        (fine,) = (wait.value for wait in self.waits if wait.name == FINE_PICTURE)
        return replace(one, per_second=1 / (fine or 1), resolution=self.config.ldm.training.resolution)

    def _trial(self, name: str, seconds: float, number: int) -> Trial:
        """Return a trial on so many of the pictures, in a folder of its own, that ends before its training does."""
        tried = Workspace(self.scratch / name, self.config)
        if not tried.folder.exists():
            take_some(self.pictures, number, tried.data)
            take_some(replace(self.pictures, entries=self.pictures.entries[:1]), 1, tried.folder / WARMING)
            write_autoencoder(tried, style_names(self.pictures.entries), self.autoencoder)
        return Trial(tried, None, self.device, TRIED * seconds, ending=float("inf"), libraries=file_bytes())

    def _train(self, name: str, resolution: int, trial: Trial) -> Rate:
        one, found = Rate(name, resolution=resolution, batch_size=trial.batch_size), self._try(try_training, trial)
        if isinstance(found, str):
            return replace(one, note=found)
        rate = trial.batch_size / found.step[trial.parts[0]]
        waiting = None if found.tried else found.data_share
        return replace(one, per_second=rate, data_share=waiting, memory=found.memory, is_rough=bool(found.tried))

    def _try(self, work: Callable[[Trial], Result], trial: Trial) -> Result | str:
        """Return what a trial finds; a sentence where its memory does not suffice."""
        try:
            return call_apart(work, trial)
        except ResourceError as error:
            return f"does not fit: {error.message}"


def draw_pictures(workspace: Workspace, scratch: Path) -> Workspace:
    """Return a workspace like this one whose raw folder holds a few of the embedded pictures."""
    config = workspace.config
    side = max(config.ldm.training.resolution, *(stage.resolution for stage in config.vae.stages)) * 5 // 4
    side = min(side, config.data.max_side, LARGEST_DRAWN)
    count = RAW_SAMPLE // len(STYLES)
    write_raw_folder(scratch / "drawn", seed=config.seed, pictures_per_style=count, size=side)
    changes = {"raw": "drawn", "root": "none", "label": "style", "min_bytes": 0, "min_side": 1}
    return Workspace(scratch, config.model_copy(update={"data": config.data.model_copy(update=changes)}))


def _is_clean(workspace: Workspace) -> bool:
    return (workspace.data / "index.jsonl").is_file()


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))
