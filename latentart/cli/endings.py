"""How a command ends that fails: one line and its exit code, also where many processes fail together."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from latentart.cli.options import write_error
from latentart.errors import DataError, ModelError, ResourceError, plain

NEXT = {
    DataError.exit_code: "Bring back a sound copy, or name another.",
    ResourceError.exit_code: "Make room or mend the rights, then run the same command again.",
    ModelError.exit_code: "Bring back a sound copy, or train it anew.",
}
"""What to do next, by exit code, where an error that came up deep below does not say."""


def end_wrong_words(error: Any) -> NoReturn:
    """Write in one line what typer finds wrong with the words of a call; a group that is called bare shows its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    context = error.ctx
    hint = f"See `{context.command_path} --help`." if context is not None else ""
    message = plain(error.format_message()).rstrip(".")
    end(f"{message}{'' if message.endswith('?') else '.'}", hint, error.exit_code)


def is_one_of_many() -> bool:
    """Tell whether `torchrun` has started this process with others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def end(message: str, hint: str, exit_code: int) -> NoReturn:
    """Write the line and leave; of the processes that `torchrun` started only the first to meet an error writes."""
    if is_one_of_many():
        from latentart.process.last_words import first_to_end

        is_first, exit_code = first_to_end(exit_code)
        if not is_first:
            sys.exit(exit_code)
    write_error(message, hint or NEXT.get(exit_code, ""), is_stop=exit_code > 128)
    sys.exit(exit_code)
