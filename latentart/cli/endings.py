"""How a command ends that fails: one line and its exit code, also where many processes fail together."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from latentart.cli.options import write_error


def end(message: str, hint: str, exit_code: int) -> NoReturn:
    """Write the line and leave; of the processes that `torchrun` started only the first to meet an error writes."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from latentart.process.last_words import first_to_end

        is_first, exit_code = first_to_end(exit_code)
        if not is_first:
            sys.exit(exit_code)
    write_error(message, hint)
    sys.exit(exit_code)
