"""How the figures of a test are shown and kept, and what the environment asks for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.process.devices import Placement, choose_device
from peers.figures import Figure, describe_bench

THREADS = torch.get_num_threads()  # the suite runs on one

Show = Callable[[Iterable[Figure]], dict[str, Figure]]


@pytest.fixture(autouse=True)
def all_threads(request: pytest.FixtureRequest, one_thread: None) -> Iterator[None]:
    """Give what is measured all threads that there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS if request.node.get_closest_marker("peers") else before)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def is_quick() -> bool:
    """Tell whether a look is enough."""
    return bool(os.environ.get("PEERS_QUICK"))


@pytest.fixture(scope="session")
def own_pictures() -> Path | None:
    """Return the folder of one's own pictures."""
    return Path(os.environ["PEERS_PICTURES"]) if "PEERS_PICTURES" in os.environ else None


@pytest.fixture(scope="session")
def placement() -> Placement:
    """Return where everything runs."""
    precision: Any = os.environ.get("PEERS_PRECISION", "auto")
    return Placement(choose_device(os.environ.get("PEERS_DEVICE")), precision)


@pytest.fixture
def on_gpu(placement: Placement) -> bool:
    """Tell whether it is CUDA: some bars differ."""
    return placement.device.type == "cuda"


@pytest.fixture
def show(request: pytest.FixtureRequest, placement: Placement, *, is_quick: bool) -> Iterator[Show]:
    """Write each figure as it comes and return all by name; a quick look ends there, before any bar."""
    found: list[Figure] = []

    def write(figures: Iterable[Figure]) -> dict[str, Figure]:
        print()  # noqa: T201 - it is what -s shows
        for figure in figures:
            print(f"{figure.name}: {figure.value}", flush=True)  # noqa: T201
            found.append(figure)
        if is_quick:
            pytest.skip("a look: no bar is held")
        return {figure.name: figure for figure in found}

    yield write
    if folder := os.environ.get("PEERS_OUT"):
        about = {**describe_bench(placement), "test": request.node.nodeid}
        path = Path(folder) / f"{request.path.stem}-{request.node.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"about": about, "figures": [asdict(one) for one in found]}, indent=2))
