"""What lies on a disk as JSON, read back as values of known kinds: a stranger may have written it."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from latentart.errors import ModelError

Kind = TypeVar("Kind")
_MAX_WHOLE = 2**63


class Saved(BaseModel):
    """What a JSON object must hold: values of these kinds, finite ones; what a newer version adds is left out."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


Content = TypeVar("Content", bound=Saved)


def read_saved(kind: type[Content], value: object, path: Path, otherwise: str = "is damaged") -> Content:
    """Return the JSON value of a file as what it must hold; ``otherwise`` says what the file is if it does not.

    Raises:
        ModelError: it does not; the message names the file, the place in it and what should be there.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ModelError(f"{path} {otherwise}: {fault_of(error)}.") from None


def fault_of(error: ValidationError) -> str:
    """Return the first mistake in a short line: its place, and what should be there."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"].startswith("union_tag"):  # of which pydantic speaks as tags
        return f"{place[:100]}: its kind is unknown"
    if first["type"] == "missing":
        return f"{place[:100]} is missing"
    if first["type"] == "model_type":  # of which pydantic names our class
        return f"{place[:100] or 'it'} is no object"
    words = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return f"{place[:100]}: {words[:100]}" if place else words[:100]


def from_values(kind: type[Kind], values: object) -> Kind:
    """Return a dataclass of numbers, truths and None; what it does not know is left out, what is missing is default.

    Raises:
        ModelError: a value is of another kind than its field.
    """
    if not isinstance(values, Mapping):
        raise ModelError(f"What was saved as {kind.__name__} is no object.")
    given: dict[str, Any] = {}
    for name, wanted in typing.get_type_hints(kind).items():
        if name not in values:
            continue
        try:
            given[name] = TypeAdapter(wanted, config=Saved.model_config).validate_python(values[name])
        except ValidationError as error:
            raise ModelError(f"The saved '{name}' is damaged: {fault_of(error)}.") from None
        if isinstance(given[name], int) and abs(given[name]) >= _MAX_WHOLE:
            raise ModelError(f"The saved '{name}' is too large.")
    return kind(**given)
