"""Reading, merging and overriding: every mistake is one line that names the place."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from latentart.config.base import MAX_FILE_BYTES, apply_override, merge, parse_json, read_json_object
from latentart.config.workspace import Config, preset_tree, resolve
from latentart.errors import ConfigError, plain

TREE: dict[str, Any] = {
    "seed": 0,
    "curve": {"kind": "cosine", "offset": 0.1},
    "stages": [{"name": "l1", "steps": 1}, {"name": "hires", "steps": 2}],
    "widths": [32, 64],
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value in line 1"),
        (b"{\n  'seed': 1}", "in line 2"),
        (b"[1]", "holds a list, expected a JSON object"),
        (b"null", "holds a single value, expected a JSON object"),
        (b'{"seed": 1, "seed": 2}', "the key 'seed' stands twice"),
        (b'{"data": {"raw": "a", "raw": "b"}}', "the key 'raw' stands twice"),
        (b'{"a":' * 100_000, "nested too deep"),
        ("{'é'}".encode("latin-1"), "is not UTF-8 text"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8 text"),
        (b" " * (MAX_FILE_BYTES + 1), "too large for a config"),
    ],
)
def test_a_file_that_is_no_config_is_named_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    """What cannot be read as one JSON object of single keys is refused, with the file's path."""
    path = tmp_path / "latentart.json"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        read_json_object(path)

    assert str(path) in caught.value.message
    assert reason in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    """A folder given as a config is a known error."""
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_json_object(tmp_path)


@pytest.mark.parametrize("name", ["missing.json", "no/folder/here.json", "x" * 300])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    """A path that leads nowhere is a known error, whatever the reason."""
    with pytest.raises(ConfigError, match=r"there is no config at|cannot be read"):
        read_json_object(tmp_path / name)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    """Windows editors put one before the text."""
    path = tmp_path / "latentart.json"
    path.write_text('{"seed": 1}', encoding="utf-8-sig")

    assert read_json_object(path) == {"seed": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e5", 100_000), ("64.0", 64), ("0.5", 0.5), ("1e-4", 1e-4), ("1e400", math.inf), ("9" * 5000, math.inf)],
)
def test_numbers_keep_their_kind(text: str, value: float) -> None:
    """A whole number is whole however it is written; what is too large is infinite and left to the field to refuse."""
    found = parse_json(text, "here")

    assert found == value
    assert type(found) is type(value)


@settings(max_examples=25)
@given(st.recursive(st.integers() | st.booleans() | st.text() | st.none(), lambda x: st.dictionaries(st.text(), x)))
def test_any_json_is_read_as_it_was_written(value: Any) -> None:
    """Reading is the inverse of writing."""
    assert parse_json(json.dumps(value), "here") == value


def test_objects_merge_and_other_values_are_replaced() -> None:
    """A change reaches into objects; lists and values are taken whole."""
    merged = merge(TREE, {"curve": {"offset": 0.2}, "widths": [8], "seed": 5})

    assert merged == TREE | {"curve": {"kind": "cosine", "offset": 0.2}, "widths": [8], "seed": 5}
    assert TREE["curve"]["offset"] == 0.1


def test_another_kind_replaces_the_object() -> None:
    """The settings of the old kind do not stay behind."""
    assert merge(TREE, {"curve": {"kind": "linear"}})["curve"] == {"kind": "linear"}
    assert merge(TREE, {"curve": {"kind": "cosine"}})["curve"] == TREE["curve"]


def test_a_stray_kind_does_not_replace_an_object_without_one() -> None:
    """Only objects that have kinds can change theirs."""
    assert merge({"a": 1}, {"kind": "x"}) == {"a": 1, "kind": "x"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("seed=7", 7),
        ("seed= 7", 7),
        ("seed=7x", "7x"),
        ("seed=", ""),
        ("seed=a=b", "a=b"),
        ("seed=null", None),
        ("seed=true", True),
        ("seed=True", "True"),
        ('seed="7"', "7"),
        ("seed=1e3", 1000),
        ("seed=[1, 2]", [1, 2]),
        ("seed=[1, 2", "[1, 2"),
        ("seed=" + "[" * 100_000, "[" * 100_000),
        ("seed=" + "9" * 5000, math.inf),
    ],
)
def test_a_value_is_read_as_json_else_as_text(setting: str, value: Any) -> None:
    """What follows the first equals sign is JSON where it can be."""
    assert apply_override(TREE, setting)["seed"] == value


@pytest.mark.parametrize("place", ["l1", "0"])
def test_a_list_item_goes_by_name_or_number(place: str) -> None:
    """An item is reached by its name, else by its number; the other items stay."""
    changed = apply_override(TREE, f"stages.{place}.steps=5")

    assert changed["stages"] == [{"name": "l1", "steps": 5}, TREE["stages"][1]]
    assert TREE["stages"][0]["steps"] == 1


def test_an_item_of_a_plain_list_can_be_changed() -> None:
    """Lists of numbers go by number."""
    assert apply_override(TREE, "widths.1=96")["widths"] == [32, 96]


def test_an_object_in_an_override_is_merged() -> None:
    """A whole object may be given; what it leaves out stays."""
    assert apply_override(TREE, 'curve={"offset": 0.5}')["curve"] == {"kind": "cosine", "offset": 0.5}


def test_settings_of_another_kind_follow_its_choice() -> None:
    """After a change of kind the new kind's settings can be given."""
    changed = apply_override(apply_override(TREE, "curve.kind=linear"), "curve.beta_end=0.03")

    assert changed["curve"] == {"kind": "linear", "beta_end": 0.03}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed", "'seed' is not a setting. Write it as path.to.key=value"),
        ("=5", "'=5' is not a setting."),
        ("sede=5", "unknown setting sede. Did you mean 'seed'?"),
        ("crve.offset=5", "unknown setting crve.offset. Did you mean 'curve'?"),
        ("seed.x=5", "seed.x: there is nothing below 'x'."),
        ("stages.l2.steps=5", "stages.l2.steps: the list has no item 'l2'. Did you mean 'l1'? It has: l1, hires."),
        ("widths.2=5", "widths.2: the list has no item '2'."),
        ("widths.²=5", "widths.²: the list has no item '²'."),
        ("widths.-1=5", "widths.-1: the list has no item '-1'."),
        ('curve={"offset": 1, "offset": 2}', "curve: the key 'offset' stands twice."),
    ],
)
def test_a_setting_that_leads_nowhere_is_named(setting: str, message: str) -> None:
    """A wrong step of the path is refused with the nearest name."""
    with pytest.raises(ConfigError) as caught:
        apply_override(TREE, setting)

    assert str(caught.value).startswith(message)


def spoiled(node: Any, value: Any) -> Any:
    """Return a tree with a value in every place but those that say of which kind a group is."""
    if isinstance(node, dict):
        return {key: child if key == "kind" else spoiled(child, value) for key, child in node.items()}
    return [spoiled(child, value) for child in node] if node and isinstance(node, list) else value


@pytest.mark.parametrize("value", [None, 0.3, -1, 10**30, float("inf"), "", "\x1b" * 200, [], [1] * 9, {}, {"a": 1}])
def test_no_word_of_pydantic_is_left(value: Any) -> None:
    """Whatever is wrong with a setting, in all of them at once."""
    with pytest.raises(ValidationError) as caught:
        Config.model_validate_json(json.dumps(spoiled(preset_tree("demo"), value)), strict=True)

    theirs = re.compile("Input|Tuple|List|String|Field|should|valid|instance|character|1 letters|1 items")
    words = {plain(one["msg"]) for one in caught.value.errors() if one["type"] != "extra_forbidden"}
    assert {one for one in words if theirs.search(one)} == set()


def test_a_number_that_is_infinite_for_networks_is_refused() -> None:
    """They reckon in 32 bits; torch would say so in a traceback, or nothing at all."""
    with pytest.raises(ConfigError, match=r"adaptive_limit: must be at most 1e\+30 \(got 1e\+300\)"):
        resolve({"preset": "demo"}, ["vae.discriminator.adaptive_limit=1e300"])
