"""`kill -9` at random moments of both trainings, and the same command again."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from latentart.sampling.settings import read_text
from latentart.storage.checkpoints import find_checkpoint, list_checkpoints
from latentart.storage.folders import verify_folder

SETTINGS = {
    "vae": (
        "vae.stages.l1.steps=6",
        "vae.stages.adversarial.steps=5",
        "vae.stages.lpips.steps=4",
        "vae.run.checkpoint_every=1",
        "vae.run.keep_checkpoints=99",
        "vae.run.preview_every=4",
    ),
    "ldm": (
        "ldm.training.steps=20",
        "ldm.training.run.checkpoint_every=1",
        "ldm.training.run.keep_checkpoints=99",
        "ldm.training.run.preview_every=5",
        "ldm.training.run.ema.tracks=[0.1]",
        "ldm.training.run.ema.snapshot_every=5",
    ),
}


@dataclass
class Tally:
    """What has been counted of kills, and of the runs that came to their end after some."""

    at_start: int = 0
    in_step: int = 0
    in_save: int = 0
    resumed: int = 0
    ends: int = 0
    equal_ends: int = 0

    @property
    def kills(self) -> int:
        """How many there were."""
        return self.at_start + self.in_step + self.in_save


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder that is a run's result."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def content_of_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the tensor files and the state of a checkpoint, but for the learning rate of the last step.

    A stage that was killed between its last checkpoint and its model saves that one again, before any step has set
    the rate; each step sets its own.
    """
    tensors = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    return {**tensors, "state": re.sub(r'"lr": [^,\n]*', "", (folder / "state.json").read_text())}


def steps_logged(run: Path) -> int:
    """Return how many steps are in the log."""
    path = run / "metrics.jsonl"
    return path.read_text().count('"loss"') if path.exists() else 0


def calls_logged(run: Path) -> int:
    """Return how many calls and stages have begun to train: each has cut the log to its checkpoint by then."""
    path = run / "log.txt"
    return path.read_text().count(": steps ") if path.exists() else 0


def is_writing(run: Path) -> bool:
    """Tell whether a folder is half written."""
    names = [name for folder in (run, run / "checkpoints", run / "averages") for name in names_in(folder)]
    return any(name.startswith((".tmp-", ".old-")) for name in names)


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, none if it is not there."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - a glob falls over what vanishes meanwhile
    except FileNotFoundError:
        return []


class KillTrial:
    """Runs a training in a workspace, killed again and again, beside one that was left alone."""

    def __init__(self, start: Callable[..., Any], art: Path, kind: str) -> None:
        self.start, self.art, self.kind = start, art, kind
        self.run = art / "runs" / kind
        self.chance, self.tally = random.Random(kind), Tally()
        whole = self.begin()
        assert whole.wait() == 0, whole.err()
        self.expected = {path.name: content_of_checkpoint(path) for path in list_checkpoints(self.run)}
        self.model = contents(self.run / "model")
        self.averages = contents(self.run / "averages") if (self.run / "averages").is_dir() else {}
        shutil.rmtree(self.run)

    def begin(self) -> Any:
        """Start the command."""
        return self.start(self.art, "train", self.kind, *SETTINGS[self.kind])

    def kill(self, count: int) -> Tally:
        """Kill it so many times, and let the last one end."""
        while self.tally.kills < count:
            last, calls = self.newest(), calls_logged(self.run)
            child = self.begin()
            self.wait_for_a_moment(child, last, calls)
            if child.kill():
                self.note_kill(last, has_begun=calls_logged(self.run) > calls and steps_logged(self.run) > last)
            else:
                self.note_end(child)
        child = self.begin()
        child.wait()
        self.note_end(child)
        return self.tally

    def newest(self) -> int:
        """Return the step of the newest checkpoint; 0 if there is none."""
        found = list_checkpoints(self.run)
        return int(found[-1].name[5:]) if found else 0

    def wait_for_a_moment(self, child: Any, last: int, calls: int) -> None:
        """Wait for a random moment: sometimes amid the start, else some steps on, half of them amid a write."""
        kind = self.chance.random()
        if kind < 0.1:
            time.sleep(self.chance.uniform(0, 0.5))
            return
        child.wait_for(lambda: calls_logged(self.run) > calls and steps_logged(self.run) > last)
        time.sleep(self.chance.uniform(0, 0.3))
        is_wanted = kind < 0.55
        child.wait_for(lambda: is_writing(self.run) == is_wanted, pause=0.0002)

    def note_kill(self, last: int, *, has_begun: bool) -> None:
        """Count a kill: the newest checkpoint is that of the run left alone, and nothing is lost."""
        is_in_save = is_writing(self.run)
        self.tally.in_save += is_in_save
        self.tally.in_step += not is_in_save and has_begun
        self.tally.at_start += not is_in_save and not has_begun
        found = find_checkpoint(self.run)
        step = found.step if found else 0
        assert step >= last
        assert step == self.newest()
        for path in list_checkpoints(self.run):
            assert content_of_checkpoint(path) == self.expected[path.name], path
        if (self.run / "model").exists():
            verify_folder(self.run / "model")
        self.tally.resumed += 1

    def note_end(self, child: Any) -> None:
        """Count an end: nothing is left over, no step is missing or there twice, and every file is the same."""
        assert child.wait() == 0, child.err()
        assert [path for path in self.run.rglob(".*") if not path.name.startswith(".nfs")] == []
        assert not (self.run / "lock").exists()
        lines = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if "loss" in line]
        assert steps == list(range(1, len(steps) + 1))
        assert {path.name for path in list_checkpoints(self.run)} == set(self.expected)
        for path in list_checkpoints(self.run):
            assert content_of_checkpoint(path) == self.expected[path.name], path
        averages = contents(self.run / "averages") if self.averages else {}
        self.tally.ends += 1
        self.tally.equal_ends += contents(self.run / "model") == self.model and averages == self.averages
        shutil.rmtree(self.run)


@pytest.mark.faults
def test_separate_pictures_outlive_a_killed_sampling(start: Callable[..., Any], workspace: Path) -> None:
    """SIGTERM amid 120 pictures: those that were drawn are there and whole; the same command adds the others alone."""
    words = ("sample", "-s", "Cubism", "--count", "120", "--separate")
    folder = workspace / "samples/Cubism_eta0"
    child = start(workspace, *words)
    assert child.wait_for(lambda: "Cubism_seed20.png" in names_in(folder))
    os.kill(child.pid, signal.SIGTERM)
    code = child.wait()
    kept = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    again = start(workspace, *words)

    assert again.wait() == 0, again.err()
    assert code == -signal.SIGTERM
    assert 20 < len(kept) < 120
    assert all(read_text(folder / name) is not None for name in kept)
    assert len(names_in(folder)) == 120
    assert {name: (folder / name).read_bytes() for name in kept} == kept


@pytest.mark.parametrize("kind", ["vae", "ldm"])
@pytest.mark.parametrize(
    "count", [pytest.param(2, marks=pytest.mark.slow, id="few"), pytest.param(50, marks=pytest.mark.faults, id="all")]
)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(
    start: Callable[..., Any], workspace: Path, score: Callable[[str], None], kind: str, count: int
) -> None:
    """Each checkpoint, the averages and the model are those of a run left alone, byte for byte."""
    shutil.rmtree(workspace / "runs" / kind)

    tally = KillTrial(start, workspace, kind).kill(count)

    moments = f"{tally.at_start} at the start, {tally.in_step} in a step, {tally.in_save} in a save"
    score(
        f"kill -9, train {kind}: {tally.resumed} of {count} resumed ({moments}),"
        f" {tally.equal_ends} of {tally.ends} finished runs equal to the unbroken one"
    )
    assert tally.resumed == tally.kills == count
    assert tally.equal_ends == tally.ends >= 1
