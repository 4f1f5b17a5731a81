"""Pictures that a browser sends: decoded as clean-data decodes a stranger's, in a process under limits."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from latentart.errors import DataError

if TYPE_CHECKING:
    from latentart.data.cleaning.picture import Decision

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 50_000_000
LONGEST = 1024  # of the shorter side; drawing begins from no larger one
MOST_KEPT = 32


class Uploads:
    """The last pictures that were sent, as clean PNGs in a folder of their own, by ids that follow from these.

    A clean picture that is sent again is the same one, as when what was drawn from it is opened again.
    """

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="latentart-studio-", ignore_cleanup_errors=True)
        self._paths: OrderedDict[str, Path] = OrderedDict()
        self._turn = threading.Lock()

    @property
    def paths(self) -> dict[str, Path]:
        """The pictures by their ids."""
        return dict(self._paths)

    def take(self, content: bytes) -> tuple[str, int, int]:
        """Return id, width and height of a picture's file, brought to sRGB, upright and at most ``LONGEST``.

        Raises:
            DataError: it is no sound picture, or too large a one.
        """
        with self._turn:
            name, home = hashlib.sha256(content).hexdigest()[:16], Path(self._home.name)
            raw = home / "raw"
            raw.mkdir(exist_ok=True)
            try:
                (raw / name).write_bytes(content)
                decision = _clean(name, raw, home)
            finally:
                shutil.rmtree(raw, ignore_errors=True)
            if decision.reason:
                detail = f": {decision.detail}" if decision.detail else ""
                msg = f"That is no picture that can be used ({decision.reason.replace('_', ' ')}{detail})."
                raise DataError(msg)
            clean = home / decision.file
            name = hashlib.sha256(clean.read_bytes()).hexdigest()[:16]
            path = home / f"from_{name}.png"
            clean.replace(path)
            self._paths[name] = path
            self._paths.move_to_end(name)
            if len(self._paths) > MOST_KEPT:
                self._paths.popitem(last=False)[1].unlink(missing_ok=True)
            return name, decision.width, decision.height

    def close(self) -> None:
        """Delete them all."""
        self._home.cleanup()


def _clean(name: str, raw: Path, out: Path) -> Decision:
    from latentart.data.cleaning.picture import CleanRules, decide_pictures  # takes long to load
    from latentart.data.cleaning.raw_file import RawFile

    rules = CleanRules(
        min_bytes=1,
        min_side=8,
        max_side=LONGEST,
        max_aspect=16.0,
        file_format="png",
        max_pixels=MOST_PIXELS,
        time_limit=20.0,
    )
    (decision,) = decide_pictures([(RawFile(name, "from"), "from")], raw=raw, out=out, rules=rules, workers=1)
    return decision
