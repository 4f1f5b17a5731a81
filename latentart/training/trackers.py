"""Trackers: where else a run's numbers and previews go. None ever stops a run: one that fails is switched off."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from latentart.errors import LatentArtError, extra
from latentart.printable import printable
from latentart.storage.folders import read_json, write_json_atomic

logger = logging.getLogger(__name__)

PATIENCE = 15  # seconds that an upload may hold up the end of a run; what is left lies on the disk


class Tracker(Protocol):
    """Takes the numbers and previews of one run; whatever it raises switches it off."""

    def begin(self, step: int) -> None:
        """Expect later steps than ``step`` from now on, even if some of them came before."""
        ...

    def metrics(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the finite numbers of a step."""
        ...

    def picture(self, step: int, path: Path) -> None:
        """Take the preview of a step."""
        ...

    def close(self) -> None:
        """Bring to the disk what is held back."""
        ...


class Trackers:
    """The trackers of a run as one, opened when the training begins; an error of one is a warning and its end.

    ``build`` has, by the name that people know, what opens each.
    """

    def __init__(self, build: Mapping[str, Callable[[], Tracker]]) -> None:
        self._build: dict[str, Callable[[], Tracker]] = dict(build)
        self._open: dict[str, Tracker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):  # who is in a hurry does not wait for an upload
            self._each(lambda tracker: tracker.close())
        self._open.clear()

    def begin(self, step: int) -> None:
        """Open those that are not open yet, and tell all where the run goes on from."""
        while self._build:
            name, build = self._build.popitem()
            try:
                self._open[name] = build()
            except Exception as error:  # whatever a tracker raises is its own affair
                _warn(name, error)
        self._each(lambda tracker: tracker.begin(step))

    def metrics(self, step: int, scalars: Mapping[str, float]) -> None:
        """Hand on the finite numbers of a step."""
        self._each(lambda tracker: tracker.metrics(step, scalars))

    def picture(self, step: int, path: Path) -> None:
        """Hand on the preview of a step."""
        self._each(lambda tracker: tracker.picture(step, path))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as error:  # as above
                del self._open[name]
                _warn(name, error)
                with contextlib.suppress(Exception):
                    tracker.close()


class TensorBoard:
    """Event files in ``folder``: a run that goes on or back hides what it had written of later steps.

    Raises:
        ImportError: the package is not here.
    """

    def __init__(self, folder: Path) -> None:
        _require("tensorboard", "tensorboard")
        self._folder = folder
        self._writer: Any = None
        self._last = 0

    def begin(self, step: int) -> None:
        """Open a file, unless the one that is open goes on."""
        if self._writer is not None and step >= self._last:
            return
        self.close()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)
        self._last = step

    def metrics(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write a point of each curve."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._last = step

    def picture(self, step: int, path: Path) -> None:
        """Write a page of previews."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as page:
            self._writer.add_image("previews", np.asarray(page.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()
        self._last = step

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """One run of Weights & Biases for a run's folder, however many calls it takes: its id lies in wandb.json there.

    What it has of a step it keeps: steps that a run makes again, after a crash or after going back, are not sent
    twice. It is told the ``settings`` and nothing of the machine; it never asks, and it cannot stop the run.

    Raises:
        ImportError: the package is not here.
    """

    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        wandb: Any = _require("wandb", "wandb")
        self._state = folder / "wandb.json"
        self._id, self._last = _read_state(self._state)
        self._image: Callable[[str], Any] = wandb.Image
        self._teardown: Callable[[], Any] = wandb.teardown
        self._run = _open_run(
            wandb,
            _choose_mode(wandb),
            project=project,
            name=f"{folder.resolve().parent.parent.name} {folder.name}",
            id=self._id,
            resume="allow",
            dir=str(folder),
            config=dict(settings),
            settings=_quiet_settings(wandb),
        )
        self._last = max(self._last, int(self._run.step) - 1)  # what the server knows of
        self._floor = self._last
        self._save()
        logger.info("Weights & Biases: %s", f"offline in {folder / 'wandb'}" if self._run.offline else self._run.url)

    def begin(self, step: int) -> None:
        """Leave out the steps that it has."""
        self._floor = self._last
        if step < self._floor:
            logger.warning("Weights & Biases has steps up to %d already and keeps them as they are", self._floor)

    def metrics(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the numbers of a step that is new."""
        self._send(step, scalars)

    def picture(self, step: int, path: Path) -> None:
        """Send a page of previews of a step that is new."""
        self._send(step, {"previews": self._image(str(path))})
        self._save()

    def close(self) -> None:
        """Send the rest, but hold up the end no longer than ``PATIENCE``."""
        self._save()
        self._run.finish()
        self._teardown()

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        if step > self._floor:
            self._run.log(dict(values), step=step)
            self._last = max(self._last, step)

    def _save(self) -> None:
        write_json_atomic(self._state, {"id": self._id, "step": self._last})


def numbers_of(scalars: Mapping[str, object], skip: Sequence[str] = ("time",)) -> dict[str, float]:
    """Return what of a line of metrics is a finite number, as null and text stand for what is none."""
    return {
        name: float(value)
        for name, value in scalars.items()
        if name not in skip and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _require(package: str, name: str) -> Any:
    """Return a package that an extra installs.

    Raises:
        ImportError: it is not here; the message names the extra.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        msg = f"{error}. Install it with {extra(name)}"
        raise ImportError(msg) from None


def _read_state(path: Path) -> tuple[str, int]:
    """Return the run's id and the last step that was sent; a new id where there is none to read."""
    with contextlib.suppress(LatentArtError):
        match read_json(path):
            case {"id": str(name), "step": int(step)} if name.isalnum():
                return name, step
    return uuid.uuid4().hex[:12], 0


def _choose_mode(wandb: Any) -> str | None:
    """Return where to: as WANDB_MODE wants it; without a key onto the disk, as nobody may be there to be asked."""
    if os.environ.get("WANDB_MODE"):
        return None
    if wandb.login(prompt=False, verify=False):
        return None
    logger.warning("Weights & Biases has no key here: it writes offline; `wandb login`, then `wandb sync` send it.")
    return "offline"


def _open_run(wandb: Any, mode: str | None, **given: Any) -> Any:
    """Return a run; where the server does not answer, one that is written to the disk."""
    try:
        return wandb.init(mode=mode, **given)
    except Exception as error:
        if mode == "offline":
            raise
        first = printable((str(error).splitlines() or [""])[0][:200])
        logger.warning("Weights & Biases does not answer (%s): it writes offline; `wandb sync` sends it.", first)
        wandb.teardown()  # it still holds the run's id
        return wandb.init(mode="offline", **given)


def _quiet_settings(wandb: Any) -> Any:
    return wandb.Settings(
        silent=True,
        console="off",  # leaves stdout and stderr alone
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,  # user, host, arguments
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        init_timeout=2 * PATIENCE,
        finish_timeout=PATIENCE,
        stop_fn=_take_no_notice,
    )


def _take_no_notice() -> None:
    """Stand in for the interrupt that W&B's button to stop would send."""
    logger.warning("Weights & Biases asks the run to stop; a run ends by Ctrl-C, SIGTERM or --max-time.")


def _warn(name: str, error: Exception) -> None:
    first = (str(error).splitlines() or [""])[0] or type(error).__name__
    logger.warning("%s is switched off, the run goes on without it: %s", name, printable(first[:300]))
