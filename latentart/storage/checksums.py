"""SHA-256: of files, and of the values that a cache follows from."""

from __future__ import annotations

import hashlib
import json
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any


def sha256_of(source: Path | BufferedReader | BufferedRandom) -> str:
    """Return the SHA-256 of a file, or of the rest of an open one, as 64 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return sha256_of(file)
    return hashlib.file_digest(source, "sha256").hexdigest()


def key_of(value: Any) -> str:
    """Return the name part of a cache: 16 hex digits over the JSON value that it follows from."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
