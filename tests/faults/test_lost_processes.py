"""A worker that loads, or one of the processes of a training, killed by `kill -9`."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.storage.checkpoints import find_checkpoint

ENDLESS = (
    "ldm.training.run.verdict=false",
    "ldm.training.steps=100000",
    "ldm.training.run.checkpoint_every=2",
)


def steps_logged(art: Path) -> int:
    """Return how many steps are in the log."""
    path = art / "runs/ldm/metrics.jsonl"
    return path.read_text().count('"loss"') if path.exists() else 0


@pytest.fixture
def untrained(workspace: Path) -> Path:
    """Return a workspace with an autoencoder, a latent cache and no denoiser."""
    shutil.rmtree(workspace / "runs/ldm")
    return workspace


def goes_on(run: Callable[..., Any], art: Path) -> bool:
    """Tell whether one process goes on from the newest checkpoint, which is sound."""
    found = find_checkpoint(art / "runs/ldm")
    again = run(art, "train", "ldm", *ENDLESS, "--max-steps", "1")
    return again.out == f"runs/ldm/checkpoints/step-{(found.step if found else 0) + 1:08d}\n"


@pytest.mark.faults
def test_a_killed_worker_ends_the_run_in_one_line(
    run: Callable[..., Any], start: Callable[..., Any], untrained: Path, score: Callable[[str], None]
) -> None:
    """Either of two: exit code 5, none of the other processes is left, and the run goes on."""
    count, good, chance = 3, 0, random.Random(0)
    for _ in range(count):
        before = steps_logged(untrained)
        child = start(untrained, "train", "ldm", *ENDLESS, "data.workers=2")
        child.wait_for(lambda: steps_logged(untrained) >= before + 2)  # noqa: B023
        workers = [pid for pid in child.others() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(chance.choice(workers), signal.SIGKILL)
        is_told = child.wait() == 5 and "a process that loads data was ended from outside" in child.error()
        until = time.monotonic() + 3
        while (left := child.others()) and time.monotonic() < until:
            time.sleep(0.05)
        good += is_told and not left and goes_on(run, untrained)

    score(f"a loader worker killed: {good} of {count} ended in one line and exit code 5, and went on")
    assert good == count


@pytest.mark.parametrize(
    "count", [pytest.param(1, marks=pytest.mark.slow, id="few"), pytest.param(10, marks=pytest.mark.faults, id="all")]
)
def test_a_killed_rank_ends_the_others_in_one_line(
    run: Callable[..., Any], start: Callable[..., Any], untrained: Path, score: Callable[[str], None], count: int
) -> None:
    """The first or the second of two: the one that is left ends with exit code 5, and one alone goes on."""
    good = 0
    for number in range(count):
        before = steps_logged(untrained)
        store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
        place |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
        ranks = [
            start(untrained, "train", "ldm", *ENDLESS, environment={**place, "RANK": rank, "LOCAL_RANK": rank})
            for rank in ("0", "1")
        ]
        ranks[0].wait_for(lambda: steps_logged(untrained) >= before + 2)  # noqa: B023
        time.sleep(random.Random(number).uniform(0, 0.2))
        lost, left = ranks[number % 2], ranks[1 - number % 2]
        was_killed = lost.kill()
        is_told = left.wait() == 5 and left.error().startswith("error: another process of this run has ended.")
        good += was_killed and is_told and goes_on(run, untrained)

    score(f"a rank of two killed: {good} of {count} ended in one line and exit code 5, and went on")
    assert good == count
