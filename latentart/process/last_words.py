"""The one line of a run of many processes that fails: whoever meets the cause says it, the others leave as it does."""

from __future__ import annotations

import os
import time
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from latentart.process.meeting import has_agent, restart

_PATIENCE = 2.0  # seconds in which who has seen the cause has the word before who only sees that another is gone
_ANSWER_WITHIN = timedelta(seconds=5)
_answer: tuple[bool, int] | None = None


def first_to_end(code: int, *, is_echo: bool = False) -> tuple[bool, int]:
    """Tell whether this process is the one to say why the run fails, and with which code it ends: the first one's.

    The processes ask the store of the `torchrun` that started them, which outlives them; without one each speaks for
    itself. ``is_echo`` is for who only sees that another is gone. Asked again, the answer is the same.
    """
    global _answer
    if _answer is None:
        _answer = _ask(code, is_echo=is_echo)
    return (True, code) if _answer[0] else _answer


def _ask(code: int, *, is_echo: bool) -> tuple[bool, int]:
    if not has_agent():
        return True, code
    key = f"latentart end {restart()}"
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(host, port, is_master=False, timeout=_ANSWER_WITHIN, wait_for_workers=False)
        until = time.monotonic() + _PATIENCE
        while is_echo and time.monotonic() < until and not store.check([key]):
            time.sleep(0.05)
        if store.add(key, 1) == 1:
            store.set(f"{key} code", str(code))
            return True, code
        return False, int(store.get(f"{key} code"))
    except (RuntimeError, ValueError, KeyError):  # nobody can be asked
        return True, code
