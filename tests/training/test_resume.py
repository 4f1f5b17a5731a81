"""Interrupted, repeated, split and cut short: a run ends with the same bits as one that was left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.storage.checkpoints import find_checkpoint

Run = Callable[..., Any]
LAST = {"vae": "step-00000010", "ldm": "step-00000003"}


def tensors(run: Path, checkpoint: str) -> dict[str, bytes]:
    """Return every tensor file of a checkpoint and of the run's model."""
    paths = [*(run / "checkpoints" / checkpoint).glob("*.safetensors"), *(run / "model").glob("*.safetensors")]
    assert paths
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("stop_at", ["vae l1: step 1/", "vae adversarial: step 1/"])
def test_an_interrupted_autoencoder_ends_with_the_same_bits(story: Any, run: Run, cleaned: Path, stop_at: str) -> None:
    """A stop in the middle of a stage saves, ends with 143, and the same command again goes on to the same end."""
    stopped = run(cleaned, "train", "vae", stop_at=stop_at)
    again = run(cleaned, "train", "vae")

    assert "Run the same command again to go on." in stopped.error(143)
    assert again.code == 0
    assert tensors(cleaned / "runs/vae", LAST["vae"]) == tensors(story.folder / "runs/vae", LAST["vae"])


def test_an_interrupted_denoiser_ends_with_the_same_bits(story: Any, run: Run, workspace: Path) -> None:
    """The denoiser's run too; what it had saved can be sampled meanwhile."""
    shutil.rmtree(workspace / "runs/ldm")

    stopped = run(workspace, "train", "ldm", stop_at="ldm: step 1/")
    sampled = run(workspace, "sample", "-s", "Cubism", "--grid", "1x1")
    again = run(workspace, "train", "ldm")

    assert "step 1 is saved in runs/ldm" in stopped.error(143)
    assert (sampled.code, again.code) == (0, 0)
    assert tensors(workspace / "runs/ldm", LAST["ldm"]) == tensors(story.folder / "runs/ldm", LAST["ldm"])


def test_a_stopped_call_that_named_a_checkpoint_goes_on_without_it(run: Run, cleaned: Path) -> None:
    """The one it named is no longer the newest: the same words again would be refused."""
    assert run(cleaned, "train", "vae", "--stage", "l1").code == 0
    words = ("train", "vae", "--stage", "adversarial", "vae.stages.adversarial.steps=4")
    named = ("--resume", "runs/vae/checkpoints/step-00000003")

    stopped = run(cleaned, *words, *named, stop_at="vae adversarial: step 1/")

    assert stopped.error(143).endswith("Run the same command again without --resume to go on.")
    run(cleaned, *words, *named).error(2)
    assert run(cleaned, *words).code == 0


@pytest.mark.slow
def test_stage_by_stage_equals_all(story: Any, run: Run, cleaned: Path) -> None:
    """Four commands make the autoencoder that one makes, and each names the next."""
    said = [
        run(cleaned, "train", "vae", "--stage", stage).err.splitlines()[-1].partition("Next: ")[2]
        for stage in ("l1", "adversarial", "lpips", "hires")
    ]

    assert said == [
        "latentart train vae --stage adversarial",
        "latentart train vae --stage lpips",
        "latentart train vae --stage hires",
        "latentart train ldm",
    ]
    assert tensors(cleaned / "runs/vae", LAST["vae"]) == tensors(story.folder / "runs/vae", LAST["vae"])


@pytest.mark.parametrize("kind", ["vae", "ldm"])
@pytest.mark.parametrize("is_stale", [False, True])
def test_a_run_killed_before_its_model_was_written_writes_it(
    story: Any, run: Run, workspace: Path, kind: str, is_stale: bool
) -> None:
    """The last checkpoint stands, the model is missing or from an earlier step: the same command mends it."""
    model = workspace / "runs" / kind / "model"
    shutil.rmtree(model)
    if is_stale:  # what an earlier stage, or an earlier checkpoint, had left
        (workspace / "runs" / kind / "checkpoints" / LAST[kind]).rename(workspace / "aside")
        first = [] if kind == "ldm" else ["--stage", "l1"]
        shutil.rmtree(workspace / "runs" / kind)
        assert run(workspace, "train", kind, *first, "ldm.training.steps=2").code == 0
        (workspace / "aside").rename(workspace / "runs" / kind / "checkpoints" / LAST[kind])

    done = run(workspace, "train", kind)

    assert done.code == 0
    assert tensors(workspace / "runs" / kind, LAST[kind]) == tensors(story.folder / "runs" / kind, LAST[kind])


def test_a_damaged_newest_checkpoint_is_passed_over(story: Any, run: Run, cleaned: Path) -> None:
    """One flipped bit: the run goes on from the checkpoint before it, and ends the same."""
    run(cleaned, "train", "vae", "--stage", "l1")
    run(cleaned, "train", "vae", "--stage", "adversarial")
    weights = cleaned / "runs/vae/checkpoints/step-00000006/ema.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    done = run(cleaned, "train", "vae")

    assert done.code == 0
    assert "Skipping the checkpoint step-00000006" in done.err
    assert tensors(cleaned / "runs/vae", LAST["vae"]) == tensors(story.folder / "runs/vae", LAST["vae"])


def test_the_metrics_of_a_resumed_run_have_no_step_twice(run: Run, cleaned: Path) -> None:
    """What came after the checkpoint is cut away before it is made again."""
    run(cleaned, "train", "vae", "--stage", "l1", stop_at="vae l1: step 1/")
    run(cleaned, "train", "vae", "--stage", "l1")

    lines = (cleaned / "runs/vae/metrics.jsonl").read_text().splitlines()
    assert [line["step"] for line in map(json.loads, lines) if "loss" in line] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_other_pictures_on_resume_are_refused(run: Run, workspace: Path, snapshot: Run, kind: str) -> None:
    """A picture less: exit code 4, the run as it was, and the way out."""
    index = workspace / "data/index.jsonl"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[1:]))
    before = snapshot(workspace)

    line = run(workspace, "train", kind).error(4)

    assert f"the pictures have changed since runs/{kind} began (15 pictures then, 14 now, not all the same)" in line
    assert f"move runs/{kind} away" in line
    assert snapshot(workspace) == before


def test_a_style_that_is_gone_is_named(run: Run, workspace: Path) -> None:
    """Which styles came or went says more than a count."""
    index = workspace / "data/index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(line for line in lines if '"Cubism"' not in line))

    line = run(workspace, "train", "vae").error(4)

    assert "(styles gone: Cubism)" in line


ONE_CYCLE = 'ldm.training.optimizer.schedule={"kind":"onecycle"}'


@pytest.fixture
def finished(run: Run, workspace: Path) -> Path:
    """Return a workspace whose denoiser's one cycle of 20 steps has ended."""
    shutil.rmtree(workspace / "runs/ldm")
    assert run(workspace, "train", "ldm", ONE_CYCLE, "ldm.training.steps=20").code == 0
    return workspace


def rates(workspace: Path, kind: str = "ldm") -> list[float]:
    """Return the learning rate of every update of a network."""
    lines = map(json.loads, (workspace / "runs" / kind / "metrics.jsonl").read_text().splitlines())
    return [line["lr"] for line in lines if "lr" in line]


@pytest.mark.parametrize("other", [ONE_CYCLE, 'ldm.training.optimizer.schedule={"kind":"constant","warmup_steps":0}'])
def test_a_finished_cycle_made_longer_does_not_leap(run: Run, finished: Path, snapshot: Run, other: str) -> None:
    """From 8e-9 to the heights at once: refused, with the word that begins a new cycle, and nothing changes."""
    before = snapshot(finished)

    line = run(finished, "train", "ldm", other, "ldm.training.steps=40").error(6)
    wrong = run(finished, "train", "ldm", ONE_CYCLE, "ldm.training.steps=40", "ldm.training.new_cycle_at=10").error(6)

    assert "the last update in runs/ldm had a learning rate of 8e-09; with these settings it would leap to " in line
    assert "Begin a new cycle with ldm.training.new_cycle_at=20, or put the steps back." in line
    assert "it would leap to " in wrong
    assert snapshot(finished) == before


def test_a_finished_cycle_goes_on_with_a_new_one(run: Run, finished: Path) -> None:
    """Asked for by its word: the rate rises as it did at first, and an interruption in between changes nothing."""
    words = ("train", "ldm", ONE_CYCLE, "ldm.training.steps=40", "ldm.training.new_cycle_at=20")

    stopped = run(finished, *words, "--max-steps", "5")
    done = run(finished, *words)

    assert (stopped.code, done.code) == (0, 0), done.err
    found = rates(finished)
    assert len(found) == 40
    assert found[20:] == found[:20]


def test_a_cycled_momentum_reaches_the_optimizers(run: Run, cleaned: Path) -> None:
    """Of both trainings: their checkpoints hold the β1 of their last updates; by default it is that of the config."""
    for kind, optimizer in (("vae", "vae.optimizer"), ("ldm", "ldm.training.optimizer")):
        cycled = f'{optimizer}.schedule={{"kind":"onecycle","cycle_momentum":true}}'
        for setting, first in ((cycled, 0.95), (f'{optimizer}.schedule={{"kind":"onecycle"}}', None)):
            stage = ["--stage", "l1"] if kind == "vae" else []
            assert run(cleaned, "train", kind, *stage, setting).code == 0
            checkpoint = find_checkpoint(cleaned / "runs" / kind)
            assert checkpoint is not None
            config = checkpoint.state["config"][kind]
            wanted = (config["training"] if kind == "ldm" else config)["optimizer"]["betas"]
            for group in checkpoint.state["optimizers"]["optimizer"]["param_groups"]:
                assert group["betas"] == pytest.approx([first or wanted[0], wanted[1]])
            if first:
                shutil.rmtree(cleaned / "runs" / kind)


def test_a_cycle_may_be_stretched_before_it_has_come_down(run: Run, workspace: Path) -> None:
    """Half of the way up or down the rate changes by less than the tenfold."""
    shutil.rmtree(workspace / "runs/ldm")
    run(workspace, "train", "ldm", ONE_CYCLE, "ldm.training.steps=20", "--max-steps", "10")

    assert run(workspace, "train", "ldm", ONE_CYCLE, "ldm.training.steps=30").code == 0


def test_a_stage_stretched_at_its_end_does_not_leap(run: Run, cleaned: Path) -> None:
    """The autoencoder's too."""
    long = "vae.stages.l1.steps=20"
    run(cleaned, "train", "vae", "--stage", "l1", long, "--max-steps", "19")

    line = run(cleaned, "train", "vae", "--stage", "l1", "vae.stages.l1.steps=60").error(6)

    assert "it would leap to " in line
    assert "Begin a new cycle with vae.stages.l1.new_cycle_at=20, or put the steps back." in line
    assert run(cleaned, "train", "vae", "--stage", "l1", long).code == 0


def test_a_finished_stage_is_made_longer_by_its_word(run: Run, cleaned: Path) -> None:
    """Without it the line names it; with it the rate rises as it did at first, and an interruption changes nothing."""
    words = ("train", "vae", "--stage", "l1")
    run(cleaned, *words, "vae.stages.l1.steps=4")

    refused = run(cleaned, *words, "vae.stages.l1.steps=8")
    longer = (*words, "vae.stages.l1.steps=8", "vae.stages.l1.new_cycle_at=4")
    outcomes = [run(cleaned, *longer, "--max-steps", "1"), run(cleaned, *longer), run(cleaned, *longer)]

    assert "stage l1 is finished at step 4 of 8; vae.stages.l1.new_cycle_at=4 makes it longer" in refused.err
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], outcomes[0].err
    assert "stage l1 is finished\nNothing was left to do" in outcomes[2].err
    found = rates(cleaned, "vae")
    assert len(found) == 8
    assert found[4:] == found[:4]


@pytest.mark.slow
def test_an_autoencoder_trained_on_since_is_named(run: Run, cleaned: Path, snapshot: Run) -> None:
    """The latents are others, the pictures are not: the denoiser's run is refused with the true reason."""
    run(cleaned, "train", "vae", "--stage", "l1")
    run(cleaned, "train", "ldm")
    run(cleaned, "train", "vae")
    before = snapshot(cleaned)

    line = run(cleaned, "train", "ldm").error(6)

    assert "the autoencoder has been trained on since runs/ldm began" in line
    assert "Move runs/ldm away" in line
    assert snapshot(cleaned) == before


@pytest.mark.parametrize(
    ("kind", "setting", "said"),
    [
        ("vae", "vae.model.widths=[8,8,8]", "vae.model.widths was [8, 8, 16] and is [8, 8, 8]."),
        ("vae", "vae.discriminator.base_channels=16", "vae.discriminator.base_channels was 8 and is 16."),
        ("vae", "vae.optimizer.kind=muon", 'vae.optimizer.kind was "adamw" and is "muon".'),
        ("ldm", "ldm.model.widths=[8,24]", "ldm.model.widths was [8, 16] and is [8, 24]."),
        ("ldm", "ldm.diffusion.target=x0", 'ldm.diffusion.target was "v" and is "x0".'),
        ("ldm", "ldm.diffusion.schedule.kind=linear", 'ldm.diffusion.schedule.kind was "cosine" and is "linear".'),
        ("ldm", "ldm.diffusion.weighting=learned", 'ldm.diffusion.weighting was "'),
        ("ldm", "ldm.training.run.ema.tracks=[0.1]", "ldm.training.run.ema.tracks was [] and is [0.1]."),
    ],
)
def test_another_architecture_on_resume_is_refused(
    run: Run, workspace: Path, snapshot: Run, kind: str, setting: str, said: str
) -> None:
    """Weights never go into another network or process: one line with what has changed, and the run as it was."""
    before = snapshot(workspace)

    line = run(workspace, "train", kind, setting).error(6)

    assert f"the checkpoint in runs/{kind} does not fit the config: {said}" in line
    assert f"Put the config back as it was (runs/{kind}/config.json)" in line
    assert snapshot(workspace) == before


@pytest.mark.slow
def test_a_stage_shortened_below_where_it_stands_is_finished(run: Run, cleaned: Path) -> None:
    """Fewer steps than are made already: the stage ends there, and the next one goes on from it."""
    run(cleaned, "train", "vae", "--stage", "l1", stop_at="vae l1: step 2/")

    ended = run(cleaned, "train", "vae", "--stage", "l1", "vae.stages.l1.steps=1")
    following = run(cleaned, "train", "vae", "--stage", "adversarial")

    assert (ended.code, following.code) == (0, 0)
