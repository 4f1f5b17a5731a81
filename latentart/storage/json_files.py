"""JSON files that may come from a stranger, and what the system says of files, in one line that names the path."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentart.errors import ModelError, ResourceError
from latentart.storage.whole import whole_file

MAX_JSON_BYTES = 16 * 2**20  # read, it takes twenty times as much
MAX_JSON_DEPTH = 64
_SEAL = "sha256"
HINTS = {
    errno.ENOSPC: "Free some space on that disk, then run the same command again.",
    errno.EDQUOT: "Free some of your disk quota, then run the same command again.",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "Check who may use that folder."),
    errno.EROFS: "Choose a folder on a disk that can be written to.",
    **dict.fromkeys((errno.EEXIST, errno.EISDIR, errno.ENOTDIR), "Move it away, or choose another name."),
}


def read_json(path: Path) -> Any:
    """Read a JSON file that may come from a stranger: bounded in size and depth, strict about keys and numbers.

    Raises:
        ModelError: missing, not a plain file, over 16 MB, not JSON, a key given twice, NaN or infinity.
        ResourceError: the file cannot be read.
    """
    with file_errors("read", path):
        if not path.is_file():  # also keeps us from waiting on a named pipe
            raise ModelError(f"{path} is missing.")
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ModelError(f"{path} is larger than {MAX_JSON_BYTES} bytes.")
    try:
        return parse_json(content.decode("utf-8"), parse_float=_finite_float, parse_constant=_finite_float)
    except RecursionError:
        raise ModelError(f"{path} is not usable JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise ModelError(f"{path} is not usable JSON: {error}.") from None


class DoubleKeyError(ValueError):
    """A key stands twice in one object, so that nobody knows which value is meant."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:100]!r} is given twice")
        self.key = key


def parse_json(text: str, **numbers: Any) -> Any:
    """Return the JSON value in a text; ``numbers`` are ``parse_int``, ``parse_float`` and ``parse_constant`` of json.

    Raises:
        DoubleKeyError: a key is given twice.
        RecursionError: it is nested more than 64 deep.
        ValueError: it is not JSON.
    """
    value = json.loads(text, object_pairs_hook=_dict_from_pairs, **numbers)
    _require_shallow(value)
    return value


def object_in(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line or file that may be torn or a stranger's; None where there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_json_atomic(path: Path, value: Any) -> None:
    """Write ``value`` as JSON so that ``path`` holds, at every instant, the old text or the new.

    Raises:
        ResourceError: the disk does not take it.
        ValueError: ``value`` holds NaN or infinity.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    with file_errors("write", path), whole_file(path, is_durable=True) as temporary:
        temporary.write_text(text + "\n", encoding="ascii")


def seal_json(value: dict[str, Any]) -> dict[str, Any]:
    """Add the SHA-256 of a JSON object to it, by which ``read_sealed_json`` sees a change."""
    return value | {_SEAL: _digest(value)}


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that was written with its seal, and return it without.

    Raises:
        ModelError: as ``read_json`` does, or a byte of it has changed.
        ResourceError: the file cannot be read.
    """
    value = read_json(path)
    with file_errors("read", path):  # the text too: another letter may be the same number
        is_as_written = path.read_bytes() == f"{json.dumps(value, indent=2)}\n".encode()
    if not isinstance(value, dict) or value.pop(_SEAL, None) != _digest(value) or not is_as_written:
        raise ModelError(f"{path} is damaged: its checksum (SHA-256) does not match.")
    return value


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _require_shallow(value: Any) -> None:
    """Refuse what is nested so deep that whoever walks through it may not come back."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_JSON_DEPTH):
        level = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return
    raise RecursionError


def _dict_from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise DoubleKeyError(key)
        result[key] = value
    return result


def _finite_float(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return float(text)


@contextlib.contextmanager
def file_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn what the operating system says into one line that names the path."""
    try:
        yield
    except OSError as error:
        hint = HINTS.get(error.errno or 0, "")
        raise ResourceError(f"Cannot {doing} {path}: {error.strerror or error}.", hint) from error


def leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of every setting; in a list of named groups each goes by its name."""
    for name, value in tree.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
            value = {str(one["name"]): one for one in value}
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
