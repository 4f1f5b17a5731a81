"""Numbers that are not finite in the real trainings: left out, gone back over, or the end with a report."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.unet import UNet
from latentart.storage.checkpoints import load_checkpoint
from latentart.training.steps import vae_step
from latentart.training.steps.ldm_step import LdmStep
from latentart.training.steps.vae_step import VaeStep
from latentart.training.survival.recovery import find_sound_checkpoint

Run = Callable[..., Any]
LONGER = ("ldm.training.steps=9", "ldm.training.run.checkpoint_every=2", "ldm.training.run.max_skipped=3")


class Faults:
    """Spoils the losses of ``steps``, from 0: every time they are made, or with ``is_once`` the first time only."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: Container[int] = ()
        self.is_once = False
        self._step, self._visits = 0, Counter[int]()
        for kind in (LdmStep, VaeStep):
            patch.setattr(kind, "__call__", self._noticing(kind.__call__))
        losses, reconstruction = DiffusionTask.losses, vae_step.reconstruction_per_image

        def spoiled_losses(*given: Any) -> tuple[Tensor, Tensor]:
            loss, plain = losses(*given)
            return self._spoil(loss), plain

        patch.setattr(DiffusionTask, "losses", spoiled_losses)
        patch.setattr(vae_step, "reconstruction_per_image", lambda *given: self._spoil(reconstruction(*given)))

    def forget(self) -> None:
        """Take the next time that a step is made for the first."""
        self._visits.clear()

    def _noticing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def noticing(owner: Any, batch: Any, step: int, lr: float) -> Any:
            self._step = step
            self._visits[step] += 1
            return call(owner, batch, step, lr)

        return noticing

    def _spoil(self, loss: Tensor) -> Tensor:
        is_bad = self._step in self.steps and not (self.is_once and self._visits[self._step] > 1)
        return loss * float("nan") if is_bad and loss.requires_grad else loss


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Return what spoils losses."""
    with pytest.MonkeyPatch.context() as patch:
        yield Faults(patch)


@pytest.fixture
def untrained(workspace: Path) -> Path:
    """Return a workspace with an autoencoder and no denoiser."""
    shutil.rmtree(workspace / "runs/ldm")
    return workspace


def metrics(run: Path, name: str) -> list[Any]:
    """Return one number of every step."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if "loss" in line]


def weights(run: Path, step: int) -> dict[str, bytes]:
    """Return every tensor file of a checkpoint."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def all_finite(run: Path) -> bool:
    """Tell whether no checkpoint and no model of a run holds another number."""
    folders = [load_checkpoint(folder).tensors for folder in (run / "checkpoints").iterdir()]
    assert folders
    return all(
        bool(value.isfinite().all())
        for tensors in folders
        for part in tensors.values()
        for value in part.values()
        if value.is_floating_point()
    )


def test_a_run_without_faults_has_the_same_bits(story: Any, run: Run, untrained: Path, faults: Faults) -> None:
    """To look for faults, more than one checkpoint, and parts as large as the batch change nothing."""
    done = run(untrained, "train", "ldm", "ldm.training.micro_batch=4", "ldm.training.run.checkpoint_every=1")

    assert done.code == 0, done.err
    assert weights(untrained / "runs/ldm", 3) == weights(story.folder / "runs/ldm", 3)
    assert metrics(untrained / "runs/ldm", "skipped_steps") == [0, 0, 0]


def test_one_bad_update_is_left_out_and_said(run: Run, untrained: Path, faults: Faults) -> None:
    """The run goes on to its end; the step is counted, warned of in the log, and has no loss in the metrics."""
    faults.steps = (3,)

    done = run(untrained, "train", "ldm", *LONGER)

    folder = untrained / "runs/ldm"
    assert done.code == 0, done.err
    assert metrics(folder, "skipped_steps") == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert [loss is None for loss in metrics(folder, "loss")] == [step == 3 for step in range(9)]
    assert "denoiser: the update of step 4 is left out" in (folder / "log.txt").read_text()
    assert all_finite(folder)


@pytest.mark.slow
def test_a_stop_amid_bad_updates_changes_nothing(run: Run, untrained: Path, faults: Faults, tmp_path: Path) -> None:
    """The row goes on to be counted where the run goes on: the end has the same bits."""
    faults.steps = (0, 1, 4)
    whole = shutil.copytree(untrained, tmp_path / "whole")
    assert run(whole, "train", "ldm", *LONGER).code == 0

    stopped = run(untrained, "train", "ldm", *LONGER, stop_at="ldm: step 1/")
    again = run(untrained, "train", "ldm", *LONGER)

    assert (stopped.code, again.code) == (143, 0), again.err
    assert weights(untrained / "runs/ldm", 9) == weights(whole / "runs/ldm", 9)
    assert metrics(untrained / "runs/ldm", "skipped_steps") == [1, 2, 2, 2, 3, 3, 3, 3, 3]


def test_a_row_of_bad_updates_goes_back_once_at_half_the_rate(run: Run, untrained: Path, faults: Faults) -> None:
    """To the checkpoint before it, none is saved meanwhile; metrics are those of the second way, its rate is kept."""
    faults.steps, faults.is_once = (4, 5, 6), True

    done = run(untrained, "train", "ldm", *LONGER, "ldm.training.optimizer.schedule.warmup_steps=500")

    folder = untrained / "runs/ldm"
    rates, log = metrics(folder, "lr"), (folder / "log.txt").read_text()
    assert done.code == 0, done.err
    assert "3 updates in a row" in log
    assert "the run goes back to step 4 and on from there with 0.5 times the learning rate" in log
    assert metrics(folder, "skipped_steps") == [0] * 9
    assert rates[3:6] == pytest.approx([rates[0] * 4, rates[0] * 2.5, rates[0] * 3])  # it is still rising
    state = load_checkpoint(folder / "checkpoints/step-00000009").state["optimizers"]["numbers"]
    assert (state["rate_factor"], state["in_a_row"]) == (0.5, 0)
    assert not (folder / "diverged.json").exists()


@pytest.mark.slow
def test_a_run_that_went_back_and_was_stopped_goes_on_at_its_lower_rate(
    run: Run, untrained: Path, faults: Faults, tmp_path: Path
) -> None:
    """The factor is in the checkpoint: the end has the same bits."""
    faults.steps, faults.is_once = (4, 5, 6), True
    whole = shutil.copytree(untrained, tmp_path / "whole")
    assert run(whole, "train", "ldm", *LONGER).code == 0
    faults.forget()

    stopped = run(untrained, "train", "ldm", *LONGER, stop_at="ldm: step 5/")
    again = run(untrained, "train", "ldm", *LONGER)

    assert (stopped.code, again.code) == (143, 0), again.err
    assert "the learning rate is 0.5 times that of the config" in again.err
    assert weights(untrained / "runs/ldm", 9) == weights(whole / "runs/ldm", 9)


@pytest.mark.parametrize(("first_bad", "step"), [(0, "the start"), (5, "step 4")])
def test_a_run_that_diverges_again_ends_with_a_report(
    run: Run, untrained: Path, faults: Faults, first_bad: int, step: str
) -> None:
    """Exit code 7, one line that names the report, and nothing saved that is not finite."""
    faults.steps = range(first_bad, 100)

    line = run(untrained, "train", "ldm", *LONGER).error(7)

    folder = untrained / "runs/ldm"
    assert f"the denoiser diverged at step {first_bad + 3}: 3 updates in a row had to be left out (loss nan" in line
    assert "runs/ldm/diverged.json says more" in line
    assert f"goes back to {step} and on" in (folder / "log.txt").read_text()
    found = json.loads((folder / "diverged.json").read_text())
    assert (found["step"], found["rate_factor"], found["values"]["loss"]) == (first_bad + 3, 0.5, "nan")
    assert found["last_losses"][-3:] == ["nan"] * 3
    assert found["gradient_norms"].keys() >= {"conv_in", "conv_out"}
    index = (untrained / "data/index.jsonl").read_text().splitlines()
    assert len(found["pictures"]) == 4
    assert set(found["pictures"]) <= set(range(len(index)))
    assert first_bad == 0 or all_finite(folder)
    assert not (folder / "lock").exists()


@pytest.mark.slow
def test_a_report_is_put_aside_once_the_run_has_passed_the_place(run: Run, untrained: Path, faults: Faults) -> None:
    """It stays while the run stands before it; the end leaves it under another name."""
    faults.steps = range(5, 100)
    run(untrained, "train", "ldm", *LONGER).error(7)
    folder = untrained / "runs/ldm"
    report = (folder / "diverged.json").read_bytes()
    faults.steps = ()

    assert run(untrained, "train", "ldm", *LONGER, "--max-steps", "1").code == 0
    before = (folder / "diverged.json").exists(), (folder / "diverged-passed.json").exists()
    assert run(untrained, "train", "ldm", *LONGER).code == 0

    assert before == (True, False)
    assert not (folder / "diverged.json").exists()
    assert (folder / "diverged-passed.json").read_bytes() == report


class Asker(logging.Handler):
    """Asks its own process for a checkpoint when a text is warned of for the first time."""

    def __init__(self, text: str) -> None:
        super().__init__(logging.WARNING)
        self.text, self.is_done = text, False

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a warning."""
        if not self.is_done and self.text in record.getMessage():
            self.is_done = True
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.slow
def test_going_back_holds_if_the_run_ends_at_once(run: Run, untrained: Path, faults: Faults) -> None:
    """A checkpoint saved amid bad updates is not what the next call goes on from: it lies aside."""
    faults.steps = (4, 5, 6)
    asker, numbers = Asker("the update of step 6 is left out"), logging.getLogger("latentart.training.steps.numbers")
    numbers.addHandler(asker)
    try:
        run(untrained, "train", "ldm", *LONGER).error(7)
    finally:
        numbers.removeHandler(asker)
    left = sorted(path.name for path in (untrained / "runs/ldm/checkpoints").iterdir())
    faults.steps = ()
    again = run(untrained, "train", "ldm", *LONGER)

    assert left == ["left-step-00000006", "step-00000004"]
    assert again.code == 0
    assert "denoiser: steps 4 to 9" in again.err


def test_weights_that_are_no_longer_finite_are_not_saved(run: Run, untrained: Path) -> None:
    """A rate far too large: the numbers of the first update are sound, what it makes of the weights is not."""
    each_step = ("ldm.training.run.checkpoint_every=1",)
    line = run(
        untrained,
        "train",
        "ldm",
        *LONGER,
        *each_step,
        "ldm.training.optimizer.lr=1e30",
        "ldm.training.optimizer.weight_decay=1e30",
    ).error(7)

    folder = untrained / "runs/ldm"
    assert "is not finite: no checkpoint is written" in line
    assert "runs/ldm/diverged.json says more. Lower the learning rate" in line
    assert not list(folder.glob("checkpoints/*"))
    assert not (folder / "model").exists()


def test_fewer_steps_than_a_row_are_no_way_out(run: Run, untrained: Path, faults: Faults) -> None:
    """A run of three steps, all bad, does not end as if it were trained."""
    faults.steps = range(100)

    assert "3 updates in a row" in run(untrained, "train", "ldm").error(7)


def test_what_was_saved_amid_bad_updates_is_not_gone_back_to(run: Run, untrained: Path, faults: Faults) -> None:
    """Its weights are finite and may be the cause: the checkpoint before it is taken."""
    faults.steps = (8,)
    assert run(untrained, "train", "ldm", *LONGER).code == 0
    folder = untrained / "runs/ldm"

    sound = find_sound_checkpoint(folder, None)
    newest = load_checkpoint(folder / "checkpoints/step-00000009")

    assert sound is not None
    assert (sound.step, newest.state["optimizers"]["numbers"]["in_a_row"]) == (8, 1)
    assert find_sound_checkpoint(folder, newest) is newest
    assert find_sound_checkpoint(folder / "gone", sound) is sound


@pytest.mark.slow
def test_a_stage_goes_back_to_the_end_of_the_one_before(run: Run, cleaned: Path, faults: Faults) -> None:
    """Its own checkpoint is still to come; the next stage has the whole rate again."""
    assert run(cleaned, "train", "vae", "--stage", "l1").code == 0
    faults.forget()
    faults.steps, faults.is_once = (1, 2), True

    done = run(cleaned, "train", "vae", "--stage", "adversarial", "vae.run.max_skipped=2")
    factor = load_checkpoint(cleaned / "runs/vae/checkpoints/step-00000006").state["optimizers"]["numbers"]
    faults.steps = ()
    rest = run(cleaned, "train", "vae", "--stage", "lpips")

    folder = cleaned / "runs/vae"
    assert (done.code, rest.code) == (0, 0), done.err + rest.err
    assert "autoencoder in stage adversarial: the update of step 5 is left out" in done.err  # the run's, as in the log
    assert "the run goes back to step 3 and on" in (folder / "log.txt").read_text()
    assert factor["rate_factor"] == 0.5
    last = load_checkpoint(folder / "checkpoints/step-00000008").state["optimizers"]["numbers"]
    assert last["rate_factor"] == 1.0
    assert all_finite(folder)


def test_an_autoencoder_that_diverges_again_ends_with_a_report(run: Run, cleaned: Path, faults: Faults) -> None:
    """Parts of the loss and gradients of both networks."""
    faults.steps = range(1, 100)

    line = run(cleaned, "train", "vae", "vae.run.max_skipped=2").error(7)

    assert "the autoencoder in stage l1 diverged at step 3: 2 updates in a row" in line
    found = json.loads((cleaned / "runs/vae/diverged.json").read_text())
    assert found["losses"]["reconstruction"] == "nan"
    assert found["losses"]["kl"] > 0
    assert {"encoder", "decoder"} <= found["gradient_norms"].keys()
    assert len(found["pictures"]) == 4


def test_parts_of_a_batch_are_trained_and_said(run: Run, untrained: Path) -> None:
    """The log names their size; auto takes all at once where memory cannot be tried."""
    parts = run(untrained, "train", "ldm", "ldm.training.micro_batch=3")
    shutil.rmtree(untrained / "runs/ldm")
    auto = run(untrained, "train", "ldm", "ldm.training.micro_batch=auto")

    assert (parts.code, auto.code) == (0, 0), parts.err + auto.err
    assert "batches of 4 go through the network in parts of 3" in parts.err
    assert ("in parts of 4" in auto.err) or torch.cuda.is_available()


def test_full_memory_ends_a_training_in_one_line(run: Run, untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 5, and the setting to lower; the run can go on."""

    def refuse(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(UNet, "forward", refuse)
        line = run(untrained, "train", "ldm").error(5)

    assert "the GPU's memory is full: 2.00 GiB were asked for. Set ldm.training.micro_batch=auto" in line
    assert run(untrained, "train", "ldm").code == 0


def test_full_memory_in_a_stage_names_the_stage(run: Run, cleaned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting to lower stands there whole, though the command says `all`."""

    def refuse(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    assert run(cleaned, "train", "vae", "--stage", "l1").code == 0
    monkeypatch.setattr(Autoencoder, "encode", refuse)
    line = run(cleaned, "train", "vae").error(5)

    assert "2.00 GiB were asked for. Lower vae.stages.adversarial.batch_size, or set vae.run.recompute=true" in line
