"""Every count in a config has an upper bound that a machine survives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from latentart.config.workspace import resolve, schema
from latentart.data.loading import choose_workers
from latentart.errors import ConfigError
from latentart.process.host_memory import available_bytes, most_processes

SEEDS = {"Config.seed"}


def whole_numbers(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Return every place of a JSON Schema where a whole number may stand, with what it says there."""
    if isinstance(node, dict):
        if node.get("type") == "integer":
            yield path, node
        for key, value in node.items():
            yield from whole_numbers(value, f"{path}.{key}".replace(".properties", "").removeprefix("$defs."))
    elif isinstance(node, list):
        for item in node:
            yield from whole_numbers(item, path)


def test_every_whole_number_has_an_upper_bound() -> None:
    """Of steps 2**31, which cost time alone; seeds of 63 bits; the rest far less."""
    tree = {"Config": {key: value for key, value in schema().items() if key != "$defs"}, **schema()["$defs"]}
    found = {
        path: node.get("maximum", node.get("exclusiveMaximum", float("inf")))
        for name, part in tree.items()
        for path, node in whole_numbers(part, name)
        if "discriminator_start" not in path  # a step of the stage; beyond its end it never begins
    }

    assert len(found) > 40
    assert {path: most for path, most in found.items() if most > 2**31 and path not in SEEDS} == {
        "DataConfig.max_pixels": 2**32,
        "DataConfig.min_bytes": 2**40,
    }


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data.workers", 1_000_000_000),
        ("sample.batch_size", 2**30),
        ("ldm.training.batch_size", 2**30),
        ("ldm.model.embedding_channels", 2**30),
        ("vae.discriminator.num_layers", 1000),
        ("ldm.training.epochs", 1e300),
        ("data.max_side", 10**9),
    ],
)
def test_what_no_machine_survives_is_refused(setting: str, value: float) -> None:
    """By its path, before anything is built."""
    others = ["ldm.training.steps=null"] if setting.endswith("epochs") else []

    with pytest.raises(ConfigError, match=setting):
        resolve({}, [f"{setting}={json.dumps(value)}", *others])


def test_no_more_processes_start_than_the_machine_bears() -> None:
    """Twice its cores, and what the memory has room for; one at least."""
    cores = len(os.sched_getaffinity(0))

    assert most_processes(1) == 2 * cores
    assert most_processes((available_bytes(torch.device("cpu")) or 0) * 2) == 1
    assert choose_workers(1000, "cuda") <= 2 * cores
