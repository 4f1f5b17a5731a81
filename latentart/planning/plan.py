"""`latentart plan`: how long the trainings of a workspace will last on this machine, and what they need.

Launch: ``latentart plan`` in a workspace, before anything or in the middle of it. The runs are only read.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from latentart.builders import build_denoiser
from latentart.config.denoiser import MILLIONS, advise, advise_size
from latentart.config.workspace import Config
from latentart.errors import ResourceError
from latentart.layout import Workspace
from latentart.planning.estimate import Phase
from latentart.planning.phases import Planner
from latentart.planning.pictures import Pictures, find_pictures
from latentart.planning.process import time_start

logger = logging.getLogger(__name__)

GB = 1e9


@dataclass(frozen=True)
class Plan:
    """What is to come.

    Attributes:
        phases: in their order. start: seconds that each of ``commands`` needs before it begins.
        pictures: how many there are; ``is_clean`` tells whether they are cleaned yet.
        memory_available, disk_free: bytes, before. advice: sentences.
    """

    phases: list[Phase]
    start: float
    commands: int
    pictures: int
    is_clean: bool
    memory_available: int | None
    disk_free: int
    advice: list[str]

    @property
    def seconds(self) -> float:
        """Everything, starts included."""
        return sum(phase.seconds for phase in self.phases) + self.start * self.commands

    @property
    def disk(self) -> int:
        """The bytes that are still to be written."""
        return sum(phase.disk for phase in self.phases)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "phases": [asdict(phase) for phase in self.phases],
            "start_seconds": self.start,
            "commands": self.commands,
            "seconds": self.seconds,
            "disk": self.disk,
            "disk_free": self.disk_free,
            "memory_available": self.memory_available,
            "pictures": self.pictures,
            "is_clean": self.is_clean,
            "advice": self.advice,
        }


def plan(workspace: Workspace, device: str | None, seconds: float) -> Plan:
    """Try every training that is not finished for some ``seconds`` in all, and say what the rest will take.

    Raises:
        DataError: there are no pictures.
        ResourceError: no room for the trials.
    """
    with scratch_folder(workspace) as scratch:
        pictures = find_pictures(workspace, scratch)
        planner = Planner(workspace, device, seconds, scratch, pictures)
        phases = [*planner.clean(), *planner.stages(), *planner.denoiser()]
        start = time_start() if phases else 0.0
    free = shutil.disk_usage(workspace.folder).free
    commands = len({phase.name.split()[0] for phase in phases} - {"encode"})
    found = Plan(
        phases,
        start,
        commands,
        pictures.count,
        not pictures.raw_files,
        planner.available,
        free,
        planner.advice,
    )
    return replace(found, advice=[*planner.advice, *find_shortages(found), say_size(workspace.config, pictures)])


@contextlib.contextmanager
def scratch_folder(workspace: Workspace) -> Iterator[Path]:
    """Make a folder in the workspace's cache, on its disk and safe to delete; it goes again, also after a signal.

    Raises:
        ResourceError: it cannot be made.
    """
    try:
        workspace.cache.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix="plan-", dir=workspace.cache, ignore_cleanup_errors=True)
    except OSError as error:
        msg = f"{workspace.cache} cannot be written: {error.strerror or error}."
        raise ResourceError(msg, "Make room, or check who may use that folder.") from None

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, leave) for number in heeded}
    try:
        with made as folder:
            yield Path(folder)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError):  # it holds caches
            workspace.cache.rmdir()


def find_shortages(plan: Plan) -> list[str]:
    """Return a sentence for each phase that needs more memory than there is, and one where the disk is too small."""
    advice = [
        f"{phase.name} needs {phase.memory / GB:.3g} GB of memory, and {plan.memory_available / GB:.3g} GB are left: "
        + ("set ldm.training.micro_batch" if phase.name == "ldm" else "lower the stage's batch_size")
        + ", or recompute=true of its run"
        for phase in plan.phases
        if phase.memory is not None and plan.memory_available is not None and phase.memory > plan.memory_available
    ]
    if plan.disk > plan.disk_free:
        need, free = plan.disk / GB, plan.disk_free / GB
        advice.append(f"the disk is too small: {need:.3g} GB are to be written, and {free:.3g} GB are free")
    return advice


def say_size(config: Config, pictures: Pictures) -> str:
    """Return whether the denoiser's size fits the number of pictures, by the rule of thumb that training knows too."""
    with torch.random.fork_rng(devices=[]):
        network = build_denoiser(config.ldm.model, config.vae.model.latent_channels, [pictures.num_styles])
    count = sum(parameter.numel() for parameter in network.parameters())
    size = advise_size(pictures.num_training)
    fits = (
        f"{count / 1e6:.3g} M parameters for {pictures.num_training} pictures: by our rule of thumb that fits "
        f"(size {size}, some {MILLIONS[size]:g} M)"
    )
    return f"denoiser: {advise(pictures.num_training, count) or fits}"
