"""The log of a run: numbers in ``metrics.jsonl``, dated sentences in ``log.txt``. It never stops the run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import SupportsFloat

from latentart.errors import LatentArtError
from latentart.printable import printable
from latentart.process.memory import explain_out_of_memory
from latentart.storage.json_files import object_in
from latentart.storage.whole import require_file, whole_file
from latentart.training.trackers import Trackers, numbers_of

logger = logging.getLogger(__name__)


class RunLog:
    """Appends to the two log files of ``folder``; with ``resume_step`` later metrics are cut away first.

    A fresh run passes ``resume_step=0``. A log that cannot be written is one warning. What is watched goes to
    ``trackers`` too, whom others open and close. Without a folder, as in a process that is not the first, nothing is
    written.
    """

    def __init__(self, folder: Path | None, resume_step: int | None = None, trackers: Trackers | None = None) -> None:
        self._trackers, self._first = trackers or Trackers({}), resume_step or 0
        self._metrics = folder / "metrics.jsonl" if folder else None
        self._text = folder / "log.txt" if folder else None
        self._warned = False
        if folder is None or self._metrics is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._metrics.exists():
                require_file(self._metrics)
                _cut(self._metrics, math.inf if resume_step is None else resume_step)
        except OSError as error:
            self._warn(error)

    def metrics(self, step: int, **scalars: SupportsFloat | str | None) -> None:
        """Append one JSON line; a number that is not finite becomes null."""
        line = {"step": step} | {name: _to_json(value) for name, value in scalars.items()}
        self._append(self._metrics, json.dumps(line, allow_nan=False))
        del line["step"]
        self._trackers.metrics(step, numbers_of(line))

    def picture(self, step: int, path: Path) -> None:
        """Hand a preview to the trackers, if it could be drawn; it lies where it is."""
        if path.is_file():
            self._trackers.picture(step, path)

    def note(self, text: str) -> None:
        """Append a dated line, and log it."""
        logger.info("%s", printable(text))
        self._write(text)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Append what is warned of meanwhile, and the error that ends it: nobody may be there to see the screen.

        The trackers begin with it, so that what becomes of them is in the log.
        """
        handler = _ToLog(self._write)
        package = logging.getLogger("latentart")
        package.addHandler(handler)
        try:
            self._trackers.begin(self._first)
            yield
        except Exception as error:
            known = error if isinstance(error, LatentArtError) else explain_out_of_memory(error)
            self._write(f"ended: {known.message if known else repr(error)}")
            raise
        finally:
            package.removeHandler(handler)

    def _write(self, text: str) -> None:
        now = datetime.now(tz=UTC).astimezone().isoformat(sep=" ", timespec="seconds")
        self._append(self._text, f"{now} {printable(text)}")

    def _append(self, path: Path | None, line: str) -> None:
        if path is None:
            return
        try:
            require_file(path)
            with path.open("a", encoding="utf-8") as file:  # closing flushes, so a killed run loses nothing
                file.write(line + "\n")
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "The log of the run cannot be written, training goes on without it: %s.", error.strerror or error
            )


class _ToLog(logging.Handler):
    """Hands the text of warnings on."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(record.getMessage())


def _to_json(value: SupportsFloat | str | None) -> float | str | None:
    if value is None or isinstance(value, (str, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _cut(path: Path, last_step: float) -> None:
    """Keep the whole lines up to a step; the last line may be torn if the run was killed."""
    with (
        path.open(encoding="utf-8", errors="replace") as old,
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8") as new,
    ):
        new.writelines(line for line in old if line.endswith("\n") and _is_kept(line, last_step))


def _is_kept(line: str, last_step: float) -> bool:
    step = (object_in(line) or {}).get("step")
    return isinstance(step, int) and step <= last_step
