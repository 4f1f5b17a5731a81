"""Real processes, ended at any moment: what is on the disk is sound, nothing is left running, the end is the same."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nursery import Nursery, others_of

from latentart.errors import ModelError
from latentart.storage.checkpoints import find_checkpoint, load_checkpoint
from latentart.storage.folders import verify_folder
from latentart.storage.tensors import read_tensors

Run = Callable[..., Any]

ENDLESS = ("ldm.training.steps=100000", "ldm.training.run.checkpoint_every=100000")


@dataclass(frozen=True)
class Training:
    """A process that trains in a workspace, and leads its own session."""

    pid: int
    folder: Path
    nursery: Nursery

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return self.nursery.wait(self.pid)

    def err(self) -> str:
        """Return what it has written to stderr."""
        return (self.folder / "err").read_text()

    def wait_for_steps(self, count: int) -> None:
        """Wait until so many steps are logged."""
        path, until = self.folder / "runs/ldm/metrics.jsonl", time.monotonic() + 60
        while not path.exists() or path.read_text().count('"loss"') < count:
            assert time.monotonic() < until, self.err()
            time.sleep(0.01)

    def left_over(self) -> list[int]:
        """Return those that still run a while after its end: Python's own tracker takes a moment to see it."""
        until = time.monotonic() + 3
        while (found := others_of(self.pid)) and time.monotonic() < until:
            time.sleep(0.02)
        return found


@pytest.fixture
def train(nursery: Nursery, workspace: Path) -> Iterator[Callable[..., Training]]:
    """Start `latentart train ldm` in a workspace without a denoiser; whatever still runs at the end is killed."""
    shutil.rmtree(workspace / "runs/ldm")
    started: list[Training] = []

    def start(*words: str) -> Training:
        started.append(Training(nursery.start(workspace, "train", "ldm", *words), workspace, nursery))
        return started[-1]

    yield start
    for training in started:
        for process in others_of(training.pid):
            os.kill(process, signal.SIGKILL)


def tensors(run: Path) -> dict[str, bytes]:
    """Return the tensors of a run's last checkpoint and of its model."""
    last = max((run / "checkpoints").glob("step-*"))
    paths = [*last.glob("*.safetensors"), *(run / "model").glob("*.safetensors")]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_stopping_signal_saves_the_step_and_leaves_nothing_running(
    train: Callable[..., Training], name: str, code: int
) -> None:
    """Sent to the whole group, as a terminal and a scheduler do: one line, and the step's checkpoint stands."""
    training = train(*ENDLESS)
    training.wait_for_steps(2)

    os.killpg(training.pid, getattr(signal, name))

    assert training.wait() == code
    assert training.left_over() == []
    found = find_checkpoint(training.folder / "runs/ldm")
    assert found is not None
    last = training.err().splitlines()[-1]
    assert last == (
        f"stopped by a signal; step {found.step} is saved in runs/ldm. Run the same command again to go on."
    )
    assert not (training.folder / "runs/ldm/lock").exists()


@pytest.mark.slow
def test_a_request_to_all_processes_saves_and_goes_on(train: Callable[..., Training]) -> None:
    """SIGUSR1 ends neither the run nor a worker; a later SIGTERM ends the one, and the others with it."""
    training = train(*ENDLESS, "data.workers=2")
    training.wait_for_steps(2)
    workers = others_of(training.pid)
    os.killpg(training.pid, signal.SIGUSR1)
    until = time.monotonic() + 30
    while not list((training.folder / "runs/ldm/checkpoints").glob("step-*")) and time.monotonic() < until:
        time.sleep(0.02)
    saved = find_checkpoint(training.folder / "runs/ldm")
    assert saved is not None, training.err()
    training.wait_for_steps(saved.step + 4)
    os.killpg(training.pid, signal.SIGTERM)

    assert training.wait() == 143
    assert len(workers) >= 2
    assert training.left_over() == []
    assert "ended from outside" not in training.err()


@pytest.mark.slow
def test_a_second_interruption_leaves_at_once(train: Callable[..., Training]) -> None:
    """In the middle of a long step: 130, no traceback, nothing saved, nothing left running, and the run is free."""
    training = train(*ENDLESS, "ldm.training.batch_size=600", "data.workers=1", "ldm.training.micro_batch=8")
    training.wait_for_steps(1)
    time.sleep(0.3)
    began = time.monotonic()
    os.kill(training.pid, signal.SIGINT)
    time.sleep(0.1)
    os.kill(training.pid, signal.SIGINT)
    code = training.wait()
    took = time.monotonic() - began

    assert (code, training.err().splitlines()[-1]) == (130, "interrupted. Run the same command again to go on.")
    assert "Traceback" not in training.err()
    assert took < 10
    assert training.left_over() == []
    assert find_checkpoint(training.folder / "runs/ldm") is None
    assert not (training.folder / "runs/ldm/lock").exists()


def check_kills(train: Callable[..., Training], count: int) -> None:
    """Kill a run ``count`` times at random moments, then let it end: as one that was left alone."""
    settings = (f"ldm.training.steps={20 + 4 * count}", "ldm.training.run.checkpoint_every=1")
    whole = train(*settings)
    assert whole.wait() == 0, whole.err()
    run = whole.folder / "runs/ldm"
    expected, chance, last = tensors(run), random.Random(0), 0
    shutil.rmtree(run)
    for _ in range(count):
        training = train(*settings)
        training.wait_for_steps(last + 1)
        time.sleep(chance.uniform(0, 0.25))
        os.kill(training.pid, signal.SIGKILL)
        assert training.wait() == -signal.SIGKILL, training.err()
        found = find_checkpoint(run)
        assert found is not None or last == 0
        assert (found.step if found else 0) >= last - 1
        last = found.step if found else 0
        if (run / "model").exists():
            verify_folder(run / "model")
    done = train(*settings)

    assert done.wait() == 0, done.err()
    assert tensors(run) == expected
    assert [path.name for path in run.rglob(".*")] == []
    steps = [line["step"] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())]
    assert sorted(set(steps)) == list(range(1, 21 + 4 * count))


def test_a_killed_run_ends_as_one_left_alone(train: Callable[..., Training]) -> None:
    """SIGKILL in steps and in writes, and the same command again: bit for bit, and no leftovers."""
    check_kills(train, 1)


@pytest.mark.faults
def test_a_run_killed_fifty_times_ends_as_one_left_alone(train: Callable[..., Training]) -> None:
    """The same, fifty times."""
    check_kills(train, 50)


def test_a_flipped_bit_in_any_file_of_a_checkpoint_is_found(story: Any, tmp_path: Path) -> None:
    """In each file of a real one: refused by name, while safetensors alone would load it."""
    folder = tmp_path / "step-00000003"
    shutil.copytree(story.folder / "runs/ldm/checkpoints/step-00000003", folder)
    chance, silent = random.Random(0), 0
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for _ in range(5):
            changed = bytearray(content)
            changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(ModelError):
                load_checkpoint(folder)
            if path.suffix == ".safetensors":
                silent += is_silent(path)
        path.write_bytes(content)

    assert silent > 5
    assert load_checkpoint(folder).step == 3


def is_silent(path: Path) -> bool:
    """Tell whether a file that was changed can be read all the same."""
    try:
        read_tensors(path)
    except ModelError:
        return False
    return True


@pytest.mark.parametrize("cut", [0, 1, 7, 0.5, -2])
def test_a_cut_file_of_a_checkpoint_is_found(story: Any, tmp_path: Path, cut: float) -> None:
    """Each file at each length is refused by name."""
    folder = tmp_path / "step-00000003"
    shutil.copytree(story.folder / "runs/ldm/checkpoints/step-00000003", folder)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[: int(cut * len(content))] if isinstance(cut, float) else content[:cut])
        with pytest.raises(ModelError, match=path.name):
            load_checkpoint(folder)
        path.write_bytes(content)


@pytest.mark.slow
def test_a_full_disk_in_mid_run_ends_it_at_the_third_failure(run: Run, workspace: Path) -> None:
    """Each failure is a line, the older checkpoint stands, exit code 5; with room again the run goes on."""
    shutil.rmtree(workspace / "runs/ldm")
    each = ("ldm.training.run.checkpoint_every=1", "ldm.training.steps=6")
    assert run(workspace, "train", "ldm", *each, "--max-steps", "1").code == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        full = run(workspace, "train", "ldm", *each)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    stands = sorted(path.name for path in (workspace / "runs/ldm/checkpoints").iterdir())
    again = run(workspace, "train", "ldm", *each)

    line = full.error(5)
    assert "3 checkpoints in a row could not be written. Cannot write runs/ldm/checkpoints/.tmp-step-00000004" in line
    for step in (2, 3, 4):
        assert f"step {step} is not saved ({step - 1} of 3 in a row), older checkpoints stay: " in full.err
    assert "step 4 is not saved (3 of 3" in (workspace / "runs/ldm/log.txt").read_text()
    assert stands == ["step-00000001"]
    assert again.code == 0
