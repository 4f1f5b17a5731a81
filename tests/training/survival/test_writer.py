"""Checkpoints in the background: copies, one at a time, with failures counted, and the old ones safe."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from latentart.errors import ResourceError, TrainingDivergedError
from latentart.storage.checkpoints import checkpoint_folder, find_checkpoint, list_checkpoints, load_checkpoint, step_of
from latentart.storage.folders import verify_folder
from latentart.training.survival import writer as module
from latentart.training.survival.writer import CheckpointWriter


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 4,000 bytes: the system itself refuses, as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def big(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    """Return tensors that a full disk does not take."""
    return {"model": {"w": torch.full((5000,), value)}}


def steps(run: Path) -> list[int]:
    """Return the steps that are saved."""
    return [step_of(folder) for folder in list_checkpoints(run)]


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Hold every write at its first flush until the event is set."""
    event, fsync = threading.Event(), os.fsync

    def waiting(descriptor: int) -> None:
        event.wait()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", waiting)
    return event


def test_an_idle_one_writes_nothing(tmp_path: Path) -> None:
    """Nor does it look at the numbers: the first process does, and tells."""
    with CheckpointWriter(tmp_path, is_idle=True) as writer:
        writer.save(5, big(float("nan")), {})
        writer.check()
        writer.finish()

    assert list(tmp_path.iterdir()) == []


def test_what_changes_after_the_save_does_not_leak(tmp_path: Path, slow_disk: threading.Event) -> None:
    """Weights, moments and JSON go on while the disk is still at it: the checkpoint is that of its moment."""
    weights, state = torch.zeros(1000), {"losses": [1.0], "step": 5}
    with CheckpointWriter(tmp_path) as writer:
        writer.save(5, {"model": {"w": weights, "part": weights[:10]}}, state)
        weights.fill_(7.0)
        state["losses"] = [2.0]
        is_there = checkpoint_folder(tmp_path, 5).exists()
        slow_disk.set()
        writer.finish()
    saved = load_checkpoint(checkpoint_folder(tmp_path, 5))

    assert not is_there
    assert saved.tensors["model"]["w"].eq(0).all()
    assert saved.tensors["model"]["part"].eq(0).all()
    assert saved.state == {"losses": [1.0], "step": 5}


def test_saving_does_not_wait_but_the_next_one_does(tmp_path: Path, slow_disk: threading.Event) -> None:
    """One write at a time, in order."""
    with CheckpointWriter(tmp_path) as writer:
        began = time.monotonic()
        writer.save(1, big(), {})
        returned_after = time.monotonic() - began
        threads = [thread for thread in threading.enumerate() if thread.name == "checkpoint"]
        threading.Timer(0.3, slow_disk.set).start()
        writer.save(2, big(), {})
        waited = time.monotonic() - began
        assert steps(tmp_path)[0] == 1
        writer.finish()

    assert returned_after < 0.25 < waited
    assert len(threads) == 1
    assert steps(tmp_path) == [1, 2]


def test_the_first_one_is_waited_for_before_there_is_a_model(tmp_path: Path, slow_disk: threading.Event) -> None:
    """Where one stands already nothing is waited for; where none could be written there is none."""
    with CheckpointWriter(tmp_path) as writer:
        none = writer.has_one()
        writer.save(1, big(), {})
        threading.Timer(0.1, slow_disk.set).start()
        first = writer.has_one(), steps(tmp_path)
        slow_disk.clear()
        writer.save(2, big(), {})
        second = writer.has_one(), steps(tmp_path)
        slow_disk.set()
        writer.finish()
    with CheckpointWriter(tmp_path / "full") as writer, full_disk():
        writer.save(1, big(), {})
        failed = writer.has_one()

    assert (none, first, second, failed) == (False, (True, [1]), (True, [1]), False)


def test_old_ones_go_only_after_the_new_one_stands(tmp_path: Path, slow_disk: threading.Event) -> None:
    """While the third is being written, the first is there; then the newest two and the milestone are."""
    slow_disk.set()
    with CheckpointWriter(tmp_path, keep=2) as writer:
        for step in (1, 2, 3):
            writer.save(step, big(step), {}, milestones=[1])
        writer.finish()
        slow_disk.clear()
        writer.save(4, big(4), {}, milestones=[1])
        meanwhile = steps(tmp_path)
        slow_disk.set()
        writer.finish()

    assert (meanwhile, steps(tmp_path)) == ([1, 2, 3], [1, 3, 4])
    for folder in list_checkpoints(tmp_path):
        verify_folder(folder)


def test_later_damaged_ones_do_not_count_among_the_newest(tmp_path: Path) -> None:
    """A run that fell back over step 90 keeps the newest of those it makes now."""
    with CheckpointWriter(tmp_path, keep=2) as writer:
        writer.save(90, big(), {})
        writer.finish()
        (checkpoint_folder(tmp_path, 90) / "state.json").write_text("")
        for step in (1, 2, 3, 4):
            writer.save(step, big(), {})
        writer.finish()

    assert steps(tmp_path) == [3, 4, 90]


def test_a_full_disk_warns_keeps_the_old_and_tries_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two failures in a row are two lines; room again, and it is saved and the count begins anew."""
    with CheckpointWriter(tmp_path) as writer:
        writer.save(1, big(), {})
        writer.wait()
        for first in (2, 5):
            with full_disk():
                for step in (first, first + 1):
                    writer.save(step, big(), {})
                    writer.wait()
            writer.save(first + 2, big(), {})
            writer.finish()

    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines] == [
        f"step {step} is not saved ({count} of 3 in a row), older checkpoints stay"
        for step, count in ((2, 1), (3, 2), (5, 1), (6, 2))
    ]
    assert all("too large" in line and "model.safetensors" in line for line in lines)
    assert steps(tmp_path) == [4, 7]


def test_the_third_failure_in_a_row_ends_the_run(tmp_path: Path) -> None:
    """As a resource error with what the disk said; what stood stands, and nothing half lies about."""
    with CheckpointWriter(tmp_path) as writer:
        writer.save(1, big(), {})
        writer.wait()
        with full_disk():
            for step in (2, 3, 4):
                writer.save(step, big(), {})
            with pytest.raises(ResourceError, match=r"3 checkpoints in a row could not be written\. .*too large"):
                writer.wait()
        with pytest.raises(ResourceError, match="3 checkpoints in a row"):
            writer.check()

    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert find_checkpoint(tmp_path) is not None


def test_the_last_save_of_a_run_must_stand(tmp_path: Path) -> None:
    """No later one makes up for it."""
    with CheckpointWriter(tmp_path) as writer, full_disk():
        writer.save(1, big(), {})
        with pytest.raises(ResourceError, match="too large"):
            writer.finish()


def test_a_vanished_folder_is_made_again(tmp_path: Path) -> None:
    """Somebody deletes the run in its middle: the next checkpoint stands all the same."""
    with CheckpointWriter(tmp_path / "run") as writer:
        writer.save(1, big(), {})
        writer.finish()
        (tmp_path / "run").rename(tmp_path / "gone")
        writer.save(2, big(), {})
        writer.finish()

    assert steps(tmp_path / "run") == [2]


def test_what_cannot_be_saved_is_said_at_once(tmp_path: Path) -> None:
    """Numbers that are not finite and a state that is no JSON never reach the thread."""
    with CheckpointWriter(tmp_path) as writer:
        with pytest.raises(TrainingDivergedError, match="'w' of the model is not finite"):
            writer.save(1, big(float("nan")), {})
        with pytest.raises(ValueError, match="JSON"):
            writer.save(1, big(), {"loss": float("inf")})

    assert list(tmp_path.iterdir()) == []


def test_a_bug_in_the_thread_is_raised_in_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never passes in silence."""
    monkeypatch.setattr(module, "prune_checkpoints", lambda *_, **__: 1 / 0)
    with CheckpointWriter(tmp_path) as writer:
        writer.save(1, big(), {})
        with pytest.raises(ZeroDivisionError):
            writer.wait()


def test_an_error_waits_for_the_write_and_an_interruption_does_not(tmp_path: Path, slow_disk: threading.Event) -> None:
    """An error must not cost the checkpoint before it; who presses Ctrl-C twice wants to leave."""
    writers: list[CheckpointWriter] = []

    def leave(run: Path, error: BaseException) -> None:
        with CheckpointWriter(run) as writer:
            writers.append(writer)
            writer.save(1, big(), {})
            raise error

    threading.Timer(0.3, slow_disk.set).start()
    with pytest.raises(KeyError):
        leave(tmp_path / "a", KeyError())
    assert steps(tmp_path / "a") == [1]

    slow_disk.clear()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        leave(tmp_path / "b", KeyboardInterrupt())
    took = time.monotonic() - began
    module.atexit.unregister(writers[-1]._end_process)
    slow_disk.set()
    writers[-1].wait()

    assert took < 3
