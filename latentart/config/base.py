"""Strict configs: frozen, no unknown or duplicate keys, no NaN; every mistake named by its path in one line."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator

from latentart.errors import ConfigError, nearest, plain
from latentart.storage import json_files
from latentart.storage.whole import require_file

MAX_FILE_BYTES = 4 * 1024 * 1024
SAME_SETTINGS = {"kl", "vq", "adamw", "muon"}  # kinds of one group: a change of kind keeps what else is set
MAX_OFFERED = 3  # paths of a name that stands in several places
_FORM = "A config is a JSON file, such as `latentart init` writes."
MOST = 1e30  # of a number with a fraction; 3.4e38 is the end of 32 bits
MAX_DIGITS = 100  # longer whole numbers are read as infinity, which no field takes


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("is an empty text")
    return text


def _leads_somewhere(path: str) -> str:
    if "\0" in path:
        raise ValueError("has a letter that may not stand there")
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError("begins with a user who has no home here") from None
    return path


Words = Annotated[str, AfterValidator(_says_something)]
PathOrNone = Annotated[str, AfterValidator(_leads_somewhere)]
PathText = Annotated[Words, AfterValidator(_leads_somewhere)]


class StrictConfig(BaseModel):
    """A frozen group of settings; the docstring below a field says its unit, effect and the source of its default."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )

    @field_validator("*")
    @classmethod
    def _fits_networks(cls, value: Any) -> Any:
        """Refuse a number that is infinite for networks, which reckon in 32 bits."""
        if isinstance(value, float) and abs(value) > MOST:
            raise ValueError(f"must be at most {MOST:g}")
        return value


def require_divisor(name: str, divisor: int, of: str, number: int, most: int) -> None:
    """Refuse a number that does not divide another, and say which up to ``most`` would.

    Raises:
        ValueError: so it is.
    """
    if number % divisor:
        would = ", ".join(str(n) for n in range(1, most + 1) if number % n == 0)
        raise ValueError(f"{name} {divisor} does not divide {of} {number}: {would} would")


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises:
        ConfigError: no such file, too large, not UTF-8, not JSON, not an object, or a duplicate key.
    """
    try:
        require_file(path)
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        msg = f"there is no config at {path}."
        raise ConfigError(msg, "Make a workspace with `latentart init`, or name a file with --config.") from None
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}."
        raise ConfigError(msg, _FORM) from None
    except UnicodeDecodeError:
        msg = f"{path} is not UTF-8 text."
        raise ConfigError(msg, _FORM) from None
    if len(content) > MAX_FILE_BYTES:
        msg = f"{path} is larger than {MAX_FILE_BYTES} bytes, too large for a config."
        raise ConfigError(msg, _FORM)
    value = parse_json(text, str(path))
    if not isinstance(value, dict):
        held = "a list" if isinstance(value, list) else "a single value"
        msg = f"{path} holds {held}, expected a JSON object."
        raise ConfigError(msg, _FORM)
    return value


def parse_json(text: str, where: str) -> Any:
    """Return the JSON value in ``text``; NaN and infinity pass, so that the field that refuses them names its path.

    Raises:
        ConfigError: it is not JSON, nested too deep, or a key stands twice.
    """
    try:
        return _json_value(text, where)
    except RecursionError:
        raise ConfigError(f"{where} is nested too deep.", _FORM) from None
    except json.JSONDecodeError as error:
        msg = f"{where} is not valid JSON: {error.msg} in line {error.lineno}."
        raise ConfigError(msg, _FORM) from None


def _json_value(text: str, where: str) -> Any:
    def whole(digits: str) -> float:
        return int(digits) if len(digits) <= MAX_DIGITS else math.inf

    def fraction(digits: str) -> float:
        number = float(digits)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number  # 1e5 steps are 100000

    try:
        return json_files.parse_json(text, parse_int=whole, parse_float=fraction)
    except json_files.DoubleKeyError as error:
        msg = f"{where}: the key '{error.key}' stands twice."
        raise ConfigError(msg, "Keep one of them.") from None


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, object by object; lists and values are replaced whole.

    An object whose ``kind`` changes is replaced too, where the other kind's settings would not fit it.
    """
    kinds = {str(base["kind"]), str(changes.get("kind", base["kind"]))} if "kind" in base else set()
    if len(kinds - SAME_SETTINGS) > 1:
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
        value = _json_value(raw, path)
    except (json.JSONDecodeError, RecursionError):
        value = raw
    return _replaced(tree, path.strip().split("."), value, path.strip(), tree)


def _offer(name: str, known: Collection[str], tree: Mapping[str, Any] | None) -> str:
    """Offer what an unknown name stands for: its whole path, where it is known elsewhere, else the nearest name."""
    leaves: dict[str, list[str]] = {}
    for path in _paths(tree or {}):
        leaves.setdefault(path.rpartition(".")[2], []).append(path)
    offered = nearest(name, known)
    if difflib.get_close_matches(name, known, n=1, cutoff=0.8):  # a slip, though the name stands elsewhere too
        return offered
    if name not in leaves and not offered:
        name = next(iter(difflib.get_close_matches(name, leaves, n=1, cutoff=0.75)), name)
    if name not in leaves:
        return offered
    return f" Its whole path is {' or '.join(leaves[name][:MAX_OFFERED])}."


def _paths(node: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every setting; an item of a list by its name, where it has one."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            here = f"{path}.{key}" if path else str(key)
            yield here
            yield from _paths(value, here)
    elif isinstance(node, list):
        for item in node[:1]:  # one shows how it is written
            if isinstance(item, Mapping) and "name" in item:
                yield from _paths(item, f"{path}.{item['name']}")


def _replaced(node: Any, keys: Sequence[str], value: Any, path: str, tree: Mapping[str, Any]) -> Any:
    if not keys:
        return merge(node, value) if isinstance(node, dict) and isinstance(value, dict) else value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        numbers = {str(i): i for i in range(len(node))}
        names = {str(item["name"]): i for i, item in enumerate(node) if isinstance(item, dict) and "name" in item}
        places = numbers | names
        if key not in places:
            known = list(names or numbers)
            msg = f"{path}: the list has no item '{key}'.{nearest(key, known)}"
            raise ConfigError(msg, f"It has: {', '.join(known)}.")
        return [_replaced(item, rest, value, path, tree) if i == places[key] else item for i, item in enumerate(node)]
    if not isinstance(node, dict):
        msg = f"{path}: there is nothing below '{key}'."
        raise ConfigError(msg)
    # Another kind's settings are not in the tree: whether one exists is left to the validation.
    if key not in node and (rest or "kind" not in node):
        msg = f"unknown setting {path}.{_offer(key if rest else keys[-1], node, tree)}"
        raise ConfigError(msg, f"Known there: {', '.join(sorted(node))}.")
    return merge(node, {key: _replaced(node.get(key), rest, value, path, tree)})


def explain(
    error: ValidationError, schema: Mapping[str, Any], where: str, tree: Mapping[str, Any] | None = None
) -> ConfigError:
    """Return one line for pydantic's first complaint: the path, what is wrong, and the nearest name."""
    mistakes = error.errors(include_url=False)
    first = mistakes[0]
    if first["type"] == "json_invalid":
        is_deep = "recursion" in first["msg"]
        reason = (
            "is nested too deep" if is_deep else "holds text that is no Unicode, such as a name in another encoding"
        )
        return ConfigError(f"{where} {reason}.")
    steps, known = _locate(first["loc"], schema)
    path = ".".join(steps)
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{where}: unknown setting {path}.{_offer(steps[-1], known, tree)}")
    context, given = first.get("ctx", {}), first["input"]
    choices = re.findall(r"'([^']*)'", str(context.get("expected_tags", context.get("expected", ""))))
    # of a setting that may be of several kinds, each complains
    same = [plain(each["msg"]) for each in mistakes if _locate(each["loc"], schema)[0] == steps]
    message = " or ".join([same[0], *(each.removeprefix("must be ") for each in same[1:])])
    if first["type"].startswith("union_tag"):  # pydantic's own words are about tags
        message = f"kind must be one of {', '.join(choices)}" if choices else "kind must be named"
        given = context.get("tag")
    shown = "" if isinstance(given, (dict, list)) else json.dumps(given, ensure_ascii=False)
    got = f" (got {shown[:40]}{'…' if len(shown) > 40 else ''})" if shown else ""
    tag = context.get("tag", given)
    place = f"{where}: {path}: " if path else f"{where}: "
    return ConfigError(f"{place}{message}{got}.{nearest(tag, choices) if isinstance(tag, str) else ''}")


def _locate(location: Sequence[int | str], schema: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the path as a user writes it, without the kinds pydantic puts in, and the names known at its last step."""
    node, steps, known = schema, [], []
    for part in location:
        node = _followed(node, schema)
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
            continue
        kinds = [one for one in node.get("anyOf", []) if one.get("type") != "null"]
        if len(kinds) > 1:  # the part says of which kind it is no value
            continue
        node = _followed(kinds[0], schema) if kinds else node
        properties = node.get("properties", {})
        steps.append(str(part))
        known = list(properties)
        node = properties.get(part, {}) if properties else node.get("items", {})
    return steps, known


def _followed(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
