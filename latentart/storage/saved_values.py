"""What a run remembers in plain values, read back from a file that a stranger may have written."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from latentart.errors import ModelError

Kind = TypeVar("Kind")


def from_values(kind: type[Kind], values: object) -> Kind:
    """Return a dataclass of numbers, truths and None; what it does not know is left out, what is missing is default.

    Raises:
        ModelError: a value is of another kind than its field.
    """
    if not isinstance(values, Mapping):
        raise ModelError(f"What was saved as {kind.__name__} is no object.")
    types = typing.get_type_hints(kind)
    given: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            given[field.name] = _checked(field.name, values[field.name], types[field.name])
    return kind(**given)


def _checked(name: str, value: object, wanted: Any) -> object:
    allowed = typing.get_args(wanted) or (wanted,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    if type(value) not in allowed or (isinstance(value, int) and abs(value) >= 2**63):
        words = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
        raise ModelError(f"The saved '{name}' is no {words}.")
    return value
