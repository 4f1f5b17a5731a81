"""Strict configs: frozen, no unknown or duplicate keys, no NaN; every mistake named by its path in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from latentart.errors import ConfigError, nearest

MAX_FILE_BYTES = 4 * 1024 * 1024


class StrictConfig(BaseModel):
    """A frozen group of settings; the docstring below a field says its unit, effect and the source of its default."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises:
        ConfigError: no such file, too large, not JSON, not an object, a duplicate key, NaN or infinity.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            msg = f"{path} is larger than {MAX_FILE_BYTES} bytes, too large for a config."
            raise ConfigError(msg)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        msg = f"there is no config at {path}."
        raise ConfigError(msg, "Make a workspace with `latentart init`, or name a file with --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}."
        raise ConfigError(msg) from None
    value = parse_json(text, str(path))
    if not isinstance(value, dict):
        msg = f"{path} holds a {type(value).__name__}, expected a JSON object."
        raise ConfigError(msg)
    return value


def parse_json(text: str, where: str) -> Any:
    """Return the JSON value in ``text``, refusing duplicate keys, NaN, infinity and absurd nesting."""

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                msg = f"{where}: the key '{key}' stands twice."
                raise ConfigError(msg, "Keep one of them.")
            found[key] = value
        return found

    def refuse(constant: str) -> float:
        msg = f"{where}: {constant} is not a number that can be used."
        raise ConfigError(msg)

    try:
        return json.loads(text, object_pairs_hook=object_of, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        msg = f"{where} is not valid JSON: {str(error) or 'nested too deep'}."
        raise ConfigError(msg) from None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, object by object; lists and values are replaced whole.

    An object whose ``kind`` changes is replaced too: the other kind's settings would not fit it.
    """
    if "kind" in changes and changes["kind"] != base.get("kind"):
        return dict(changes)
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def apply_override(tree: dict[str, Any], text: str) -> dict[str, Any]:
    """Return ``tree`` changed by one ``path.to.key=value``; the value is read as JSON, else as a string.

    A list item is named by its number or, where it has one, by its name: ``vae.stages.l1.steps=100``.

    Raises:
        ConfigError: no ``=``, or a step of the path that does not exist.
    """
    path, equals, raw = text.partition("=")
    if not equals or not path.strip():
        msg = f"'{text}' is not a setting."
        raise ConfigError(msg, "Write it as path.to.key=value, for example ldm.training.batch_size=64.")
    try:
        value = json.loads(raw, parse_constant=str)
    except (json.JSONDecodeError, RecursionError):
        value = raw
    return _replaced(tree, path.strip().split("."), value, path.strip())


def _replaced(node: Any, keys: Sequence[str], value: Any, path: str) -> Any:
    if not keys:
        return merge(node, value) if isinstance(node, dict) and isinstance(value, dict) else value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        names = [item.get("name") if isinstance(item, dict) else None for item in node]
        place = names.index(key) if key in names else int(key) if key.isdigit() and int(key) < len(node) else None
        if place is None:
            known = [name for name in names if name] or [str(i) for i in range(len(node))]
            msg = f"{path}: the list has no item '{key}'.{nearest(key, known)}"
            raise ConfigError(msg, f"It has: {', '.join(known)}.")
        return [_replaced(item, rest, value, path) if i == place else item for i, item in enumerate(node)]
    if not isinstance(node, dict):
        msg = f"{path}: there is nothing below '{key}'."
        raise ConfigError(msg)
    if key not in node:
        msg = f"unknown setting {path}.{nearest(key, node)}"
        raise ConfigError(msg, f"Known there: {', '.join(sorted(node))}.")
    return merge(node, {key: _replaced(node[key], rest, value, path)})


def explain(error: ValidationError, known: Mapping[str, Any], where: str) -> ConfigError:
    """Return one line for pydantic's first complaint: the path, what is wrong, and the nearest name."""
    first = error.errors(include_url=False)[0]
    location = [part for part in first["loc"] if not _is_union_tag(part, first["loc"], known)]
    path = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        parent: Any = known
        for part in location[:-1]:
            parent = parent.get(part, {}) if isinstance(parent, Mapping) else _item(parent, part)
        names = list(parent) if isinstance(parent, Mapping) else []
        return ConfigError(f"{where}: unknown setting {path}.{nearest(str(location[-1]), names)}")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if isinstance(first["input"], (dict, list)) else f" (got {first['input']!r})"
    return ConfigError(f"{where}: {path or 'the config'}: {message}{got}.")


def _item(node: Any, part: Any) -> Any:
    return node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else {}


def _is_union_tag(part: Any, location: Sequence[Any], known: Mapping[str, Any]) -> bool:
    """Tell whether pydantic put a union's chosen kind into the path, which no user wrote."""
    node: Any = known
    for step in location:
        if step is part and isinstance(node, Mapping) and part not in node and node.get("kind") is not None:
            return part != location[-1]
        node = node.get(step, {}) if isinstance(node, Mapping) else _item(node, step)
    return False
