"""Why the processes that a script starts may never come to their work."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

GUARD = 'Put what the script does below `if __name__ == "__main__":`, as each process that it starts runs it anew.'


def missing_guard() -> str:
    """Return what to do where a script is running that the processes it starts would run once more; else nothing."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if (
        path is None or getattr(main, "__spec__", None) is not None
    ):  # a console or notebook, which nobody runs anew; `python -m`
        return ""
    with suppress(OSError):
        return "" if b"__main__" in Path(path).read_bytes() else GUARD
    return ""
