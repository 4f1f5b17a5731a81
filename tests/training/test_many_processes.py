"""Two real processes on one training: the weights of one process, one writer, and one word at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from nursery import Nursery

from latentart.data.pictures.grids import GAP
from latentart.storage.checkpoints import find_checkpoint
from latentart.storage.tensors import read_tensors

Run = Callable[..., Any]

NO_VERDICT = "ldm.training.run.verdict=false"
ENDLESS = (NO_VERDICT, "ldm.training.steps=100000", "ldm.training.run.checkpoint_every=2")
EACH = "ldm.training.run.checkpoint_every=1"

# loses the loss of some steps in the second process, the first time that they are made
SPOIL = """
from collections import Counter
from latentart.core.diffusion.objective import DiffusionTask
from latentart.training.steps.ldm_step import LdmStep
losses, call, visits, at = DiffusionTask.losses, LdmStep.__call__, Counter(), [0]
def noticing(owner, batch, step, lr):
    at[0] = step
    visits[step] += 1
    return call(owner, batch, step, lr)
def spoiled(*given):
    loss, plain = losses(*given)
    is_bad = os.environ["RANK"] == "1" and at[0] in STEPS and visits[at[0]] == 1 and loss.requires_grad
    return (loss * float("nan") if is_bad else loss), plain
LdmStep.__call__, DiffusionTask.losses = noticing, spoiled
"""


@dataclass(frozen=True)
class Pair:
    """Two processes that share a command, and the store through which they meet: torchrun's part."""

    pids: list[int]
    folder: Path
    nursery: Nursery
    store: torch.distributed.Store

    def wait(self) -> tuple[int, int]:
        """Wait for the end of both and return their exit codes."""
        first, second = map(self.nursery.wait, self.pids)
        return first, second

    def said(self, name: str = "err") -> tuple[str, str]:
        """Return what each has written to stderr, or stdout."""
        return (self.folder / f"{name}0").read_text(), (self.folder / f"{name}1").read_text()

    def errors(self) -> list[str]:
        """Return every line of both that names an error or a stop; none of them left a traceback."""
        text = "".join(self.said())
        assert "Traceback" not in text, text
        return [line for line in text.splitlines() if line.startswith(("error: ", "stopped by a signal"))]

    def wait_for_steps(self, count: int) -> None:
        """Wait until so many steps are logged."""
        path, until = self.folder / "runs/ldm/metrics.jsonl", time.monotonic() + 60
        while not path.exists() or path.read_text().count('"loss"') < count:
            assert time.monotonic() < until, self.said()
            time.sleep(0.01)


@pytest.fixture
def start(nursery: Nursery) -> Iterator[Callable[..., Pair]]:
    """Start a command as two processes in a folder; whatever still runs at the end is killed."""
    started: list[int] = []

    def start(folder: Path, *words: str, before: str = "") -> Pair:
        store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
        place |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
        pids = []
        for rank in range(2):
            environment = {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            said, program = (f"out{rank}", f"err{rank}"), f"{before}\ncli.main()"
            pids.append(nursery.start(folder, *words, said=said, environment=environment, program=program))
        started.extend(pids)
        return Pair(pids, folder, nursery, store)

    yield start
    for pid in started:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def untrained(workspace: Path) -> Path:
    """Return a workspace with an autoencoder, a latent cache and no denoiser."""
    shutil.rmtree(workspace / "runs/ldm")
    return workspace


def files(folder: Path) -> set[str]:
    """Return every file below a folder, by its path."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def largest_difference(ours: Path, theirs: Path) -> float:
    """Return the largest difference of any number in two folders' tensors of weights."""
    names = {path.name for path in theirs.glob("*.safetensors")}
    assert names
    assert names == {path.name for path in ours.glob("*.safetensors")}
    found = []
    for name in names:
        one, other = read_tensors(ours / name), read_tensors(theirs / name)
        assert one.keys() == other.keys()
        found += [(one[key].double() - other[key].double()).abs().max() for key in one]
    return float(torch.stack(found).max())


def metrics(run: Path, name: str) -> list[Any]:
    """Return one number of every step."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if "loss" in line]


def test_two_processes_train_the_denoiser_of_one(story: Any, start: Callable[..., Pair], untrained: Path) -> None:
    """Every weight, moment and average within 1e-5; the same files, written once; one of both speaks."""
    pair = start(untrained, "train", "ldm", "ldm.training.micro_batch=1")

    assert pair.wait() == (0, 0), pair.said()
    folder, alone = untrained / "runs/ldm", story.folder / "runs/ldm"
    step = "checkpoints/step-00000003"
    assert largest_difference(folder / step, alone / step) < 1e-5
    assert files(folder) == files(alone)
    assert pair.said("out") == ("runs/ldm/model\n", "")
    assert pair.said()[1] == ""
    assert metrics(folder, "loss") == pytest.approx(metrics(alone, "loss"), abs=1e-5)
    assert metrics(folder, "loss_t3") == pytest.approx(metrics(alone, "loss_t3"), abs=1e-5)
    assert json.loads((folder / "machine.json").read_text())["processes"] == 2
    assert "2 processes, each with 2 images of a batch" in (folder / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--add-styles", "--from=other/model"])
def test_two_processes_start_from_what_was_trained(
    run: Run, start: Callable[..., Pair], workspace: Path, tmp_path: Path, option: str
) -> None:
    """With a style that is new: the weights of one process within 1e-5, and one config, written once."""
    index = workspace / "data/index.jsonl"
    index.write_text(index.read_text().replace('"style": "Cubism"', '"style": "Art_Deco"', 2))
    if option.startswith("--from"):
        (workspace / "runs/ldm").rename(workspace / "other")
    alone = shutil.copytree(workspace, tmp_path / "alone")
    done = run(alone, "train", "ldm", option, NO_VERDICT)
    assert done.code == 0, done.err

    pair = start(workspace, "train", "ldm", option, NO_VERDICT)

    assert pair.wait() == (0, 0), pair.said()
    found = find_checkpoint(alone / "runs/ldm")
    assert found is not None
    folder = f"runs/ldm/checkpoints/step-{found.step:08d}"
    assert largest_difference(workspace / folder, alone / folder) < 1e-5
    assert (workspace / "latentart.json").read_text() == (alone / "latentart.json").read_text()
    assert pair.said()[1] == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_two_processes_train_the_autoencoder_of_one(
    run: Run, start: Callable[..., Pair], cleaned: Path, tmp_path: Path, kind: str
) -> None:
    """Discriminator and adaptive weight through all stages, or a book of codes in the first: within 1e-5.

    With codes each further stage's first step would part them more: a new Adam divides gradients of about its epsilon,
    where rounding is all there is, by themselves; its moments stay within 1e-6.
    """
    settings = {"kl": (), "vq": ("vae.model.kind=vq", "vae.model.num_codes=16", "--stage", "l1")}[kind]
    alone = shutil.copytree(cleaned, tmp_path / "alone")
    done = run(alone, "train", "vae", *settings)
    assert done.code == 0, done.err

    pair = start(cleaned, "train", "vae", *settings)

    assert pair.wait() == (0, 0), pair.said()
    steps = {path.name for path in (cleaned / "runs/vae/checkpoints").iterdir()}
    assert steps == {path.name for path in (alone / "runs/vae/checkpoints").iterdir()}
    for step in steps:
        folder = f"runs/vae/checkpoints/{step}"
        assert "discriminator.safetensors" in files(cleaned / folder)
        assert largest_difference(cleaned / folder, alone / folder) < 1e-5, step
    assert files(cleaned / "runs") == files(alone / "runs")
    assert pair.said()[1] == ""


def test_a_signal_to_one_saves_and_ends_both(run: Run, start: Callable[..., Pair], untrained: Path) -> None:
    """SIGTERM to the second: 143 from both, one line, the step's checkpoint; one process alone goes on from it."""
    pair = start(untrained, "train", "ldm", *ENDLESS)
    pair.wait_for_steps(2)

    os.kill(pair.pids[1], signal.SIGTERM)

    assert pair.wait() == (143, 143), pair.said()
    found = find_checkpoint(untrained / "runs/ldm")
    assert found is not None
    line = f"stopped by a signal; step {found.step} is saved in runs/ldm. Run the same command again to go on."
    assert pair.errors() == [line]
    assert not (untrained / "runs/ldm/lock").exists()
    again = run(untrained, "train", "ldm", *ENDLESS, "--max-steps", "1")
    assert again.out == f"runs/ldm/checkpoints/step-{found.step + 1:08d}\n", again.err


@pytest.mark.slow
def test_a_limit_ends_both_and_the_same_command_goes_on(
    story: Any, start: Callable[..., Pair], untrained: Path
) -> None:
    """Two calls of two steps and one make the run of three; each call says where it stands."""
    first = start(untrained, "train", "ldm", "--max-steps", "2")
    assert first.wait() == (0, 0), first.said()
    paused = first.said("out")
    second = start(untrained, "train", "ldm", "--max-steps", "2")

    assert second.wait() == (0, 0), second.said()
    assert paused == ("runs/ldm/checkpoints/step-00000002\n", "")
    assert second.said("out") == ("runs/ldm/model\n", "")
    step = "runs/ldm/checkpoints/step-00000003"
    assert largest_difference(untrained / step, story.folder / step) < 1e-5


def test_a_loss_lost_in_one_is_left_out_in_both(start: Callable[..., Pair], untrained: Path) -> None:
    """NaN in the second process only: both leave the update out, and go on with the same weights to the end."""
    pair = start(untrained, "train", "ldm", "ldm.training.steps=4", EACH, before=f"STEPS = (1,){SPOIL}")

    assert pair.wait() == (0, 0), pair.said()
    folder = untrained / "runs/ldm"
    assert metrics(folder, "skipped_steps") == [0, 1, 1, 1]
    assert [loss is None for loss in metrics(folder, "loss")] == [False, True, False, False]
    log = (folder / "log.txt").read_text()
    assert log.count("denoiser: the update of step 2 is left out") == 1
    assert pair.said()[1] == ""


@pytest.mark.slow
def test_both_go_back_together(start: Callable[..., Pair], untrained: Path) -> None:
    """Three in a row lost in the second process: both begin again from the same checkpoint at half the rate."""
    settings = ("ldm.training.steps=8", "ldm.training.run.checkpoint_every=2", "ldm.training.run.max_skipped=3")
    pair = start(untrained, "train", "ldm", *settings, before=f"STEPS = (4, 5, 6){SPOIL}")

    assert pair.wait() == (0, 0), pair.said()
    log = (untrained / "runs/ldm/log.txt").read_text()
    assert log.count("the run goes back to step 4 and on from there with 0.5 times the learning rate") == 1
    assert metrics(untrained / "runs/ldm", "skipped_steps") == [0] * 8


def test_one_that_is_killed_ends_the_other(run: Run, start: Callable[..., Pair], untrained: Path) -> None:
    """SIGKILL to the second: the first says so in one line, exit code 5, its last checkpoint is sound."""
    pair = start(untrained, "train", "ldm", *ENDLESS)
    pair.wait_for_steps(3)

    os.kill(pair.pids[1], signal.SIGKILL)

    assert pair.wait() == (5, -signal.SIGKILL), pair.said()
    assert len(pair.errors()) == 1
    assert pair.errors()[0].startswith("error: another process of this run has ended: rank 1 of 2. ")
    found = find_checkpoint(untrained / "runs/ldm")
    assert found is not None
    assert found.step >= 2
    again = run(untrained, "train", "ldm", *ENDLESS, "--max-steps", "1")
    assert again.out == f"runs/ldm/checkpoints/step-{found.step + 1:08d}\n", again.err


def test_a_batch_that_cannot_be_shared_is_refused(start: Callable[..., Pair], untrained: Path) -> None:
    """Five images for two processes: one line names the setting, and nothing is made."""
    pair = start(untrained, "train", "ldm", "ldm.training.batch_size=5")

    assert pair.wait() == (3, 3), pair.said()
    line = "error: ldm.training.batch_size=5 cannot be shared evenly by 2 processes. "
    assert pair.errors() == [f"{line}It is the batch of all of them together: take a multiple of 2."]
    assert not (untrained / "runs/ldm").exists()


def test_what_one_meets_is_said_once_and_ends_both(start: Callable[..., Pair], untrained: Path) -> None:
    """A lock that another run holds, which the first finds; a full disk; both leave with its code."""
    folder = untrained / "runs/ldm"
    folder.mkdir()
    holder = {"pid": os.getpid(), "started": None, "boot": None, "host": None}
    (folder / "lock").write_text(json.dumps(holder))
    locked = start(untrained, "train", "ldm")
    assert locked.wait() == (5, 5), locked.said()
    errors = locked.errors()
    (folder / "lock").unlink()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))"
    full = start(untrained, "train", "ldm", "ldm.training.steps=9", EACH, before=limit)
    assert full.wait() == (5, 5), full.said()

    assert errors == [
        f"error: runs/ldm is in use by process {os.getpid()}. Wait for it, or delete runs/ldm/lock if it is gone."
    ]
    assert len(full.errors()) == 1
    assert "checkpoints in a row could not be written" in full.errors()[0]


@pytest.mark.slow
def test_a_picture_that_one_process_cannot_read_ends_both(start: Callable[..., Pair], cleaned: Path) -> None:
    """Of so few pictures none may be gone; who misses it says its name."""
    lines = [json.loads(line) for line in (cleaned / "data/index.jsonl").read_text().splitlines()]
    for line in lines[2:]:
        (cleaned / "data" / line["file"]).unlink()

    pair = start(cleaned, "train", "vae")

    assert pair.wait() == (4, 4), pair.said()
    assert len(pair.errors()) == 1
    assert "gone or broken" in pair.errors()[0]


@pytest.mark.slow
def test_two_processes_draw_the_pictures_of_one(run: Run, start: Callable[..., Pair], workspace: Path) -> None:
    """Five pictures, three from the one and two from the other: the same pixels but for rounding, in a grid and single.

    Of single pictures each process writes its own.
    """
    import numpy as np
    from PIL import Image

    alone = run(workspace, "sample", "-s", "Cubism", "--grid", "1x5", "--out", "alone.png")
    assert alone.code == 0, alone.err
    pair = start(workspace, "sample", "-s", "Cubism", "--grid", "1x5", "--out", "both.png")

    assert pair.wait() == (0, 0), pair.said()
    assert pair.said("out") == ("both.png\n", "")
    ours, theirs = (np.int16(Image.open(workspace / name)) for name in ("both.png", "alone.png"))
    assert np.abs(ours - theirs).max() <= 1
    pair = start(workspace, "sample", "-s", "Cubism", "-n", "5", "--separate", "--out", "singles")
    assert pair.wait() == (0, 0), pair.said()
    singles = [np.int16(Image.open(workspace / f"singles/Cubism_seed{i}.png")) for i in range(5)]
    assert pair.said("out") == ("".join(f"singles/Cubism_seed{i}.png\n" for i in range(5)), "")
    for i, single in enumerate(singles):
        left = GAP + i * (single.shape[1] + GAP)
        assert np.abs(single - theirs[GAP : GAP + single.shape[0], left : left + single.shape[1]]).max() <= 1
