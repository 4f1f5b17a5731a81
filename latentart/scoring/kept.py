"""What is measured once and kept in a folder of the cache: read where it is sound, made anew where it is not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from latentart.errors import ModelError
from latentart.storage.folders import commit_folder, verify_folder
from latentart.storage.tensors import read_tensors, write_tensors

logger = logging.getLogger(__name__)

Found = TypeVar("Found")


def kept(
    folder: Path,
    name: str,
    read: Callable[[dict[str, Tensor]], Found | None],
    make: Callable[[], dict[str, Tensor]],
    *,
    again: str = "made anew",
) -> Found:
    """Return what ``read`` makes of the tensors in ``folder/name.safetensors``, which ``make`` measures where needed.

    They are measured where there is no such folder, where it is damaged, and where ``read`` returns None or refuses
    them with a KeyError or ModelError: then they are not what is wanted. ``again`` says what a damaged folder is.

    Raises:
        ResourceError: the disk does not take them.
    """
    file = f"{name}.safetensors"
    if folder.is_dir():
        try:
            verify_folder(folder)
            if (found := read(read_tensors(folder / file))) is not None:
                return found
        except (ModelError, KeyError, FileNotFoundError) as error:
            logger.warning("%s is %s: %s", folder, again, error)
    tensors = make()
    commit_folder(folder, lambda temporary: write_tensors(temporary / file, tensors), replace=True)
    made = read(tensors)
    assert made is not None, f"{folder} refuses what it was just given"
    return made
