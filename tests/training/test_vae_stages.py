"""The autoencoder's run as a user sees it: kinds, what stages pass on, held-out pictures, what the log says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.data.held_out import split_held_out
from latentart.data.index import read_index
from latentart.storage.checkpoints import find_checkpoint, load_checkpoint

Run = Callable[..., Any]
VQ = ("vae.model.kind=vq", "vae.model.num_codes=16")


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def tensors(run: Path) -> dict[str, bytes]:
    """Return every tensor file of a run."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*.safetensors")}


def test_a_quantized_autoencoder_goes_the_whole_way(run: Run, cleaned: Path) -> None:
    """Train, encode, denoise, sample, reconstruct, all as with kl; the book's use is logged."""
    photo = next((cleaned / "data").glob("*/*.png"))

    trained = [run(cleaned, "train", kind, *VQ) for kind in ("vae", "ldm")]
    sampled = run(cleaned, "sample", "-s", "all", "--grid", "1x3")
    again = run(cleaned, "reconstruct", photo)

    assert [done.code for done in (*trained, sampled, again)] == [0, 0, 0, 0], sampled.err
    lines = [line for line in metrics(cleaned / "runs/vae") if "loss" in line]
    assert all(0 < line["codebook_usage"] <= 1 and 1 <= line["perplexity"] <= 16 for line in lines)
    assert all("commitment" in line and "kl" not in line for line in lines)
    assert json.loads((cleaned / "runs/ldm/model/model.json").read_text())["autoencoder"]["kind"] == "vq"


@pytest.mark.parametrize(
    "stop_at",
    [
        "vae l1: step 1/",
        pytest.param("vae lpips: step 1/", marks=pytest.mark.slow),
        pytest.param("vae hires: step 1/", marks=pytest.mark.slow),
    ],
)
def test_every_new_part_resumes_bit_for_bit(run: Run, cleaned: Path, stop_at: str) -> None:
    """Codebook, transforms, warm-up, ramp, R1 and plateau follow from step and state, wherever a run is cut."""
    settings = (
        *VQ,
        "vae.discriminator.r1=1",
        "vae.discriminator.r1_every=2",
        "vae.discriminator.plateau_steps=1",
        "vae.discriminator.plateau_gain=0.99",
        "vae.stages.l1.discriminator_start=plateau",
        "vae.stages.l1.steps=4",
        "vae.stages.lpips.discriminator_warmup=1",
        "vae.stages.lpips.ramp=3",
        "vae.stages.hires.keep_optimizer=true",
        "vae.stages.hires.start_from=raw",
        "vae.stages.hires.epochs=0.8",
        "vae.stages.hires.weights.equivariance=0.3",
    )
    assert run(cleaned, "train", "vae", *settings).code == 0
    whole = tensors(cleaned / "runs/vae")
    (cleaned / "runs").rename(cleaned / "aside")

    stopped = run(cleaned, "train", "vae", *settings, stop_at=stop_at)
    again = run(cleaned, "train", "vae", *settings)

    assert (stopped.code, again.code) == (143, 0)
    mine = tensors(cleaned / "runs/vae")
    last = max(name for name in whole if name.startswith("checkpoints"))[: len("checkpoints/step-00000000")]
    assert {name: mine[name] for name in whole if name.startswith((last, "model"))} == {
        name: content for name, content in whole.items() if name.startswith((last, "model"))
    }


def test_held_out_pictures_are_scored_and_never_trained_on(run: Run, cleaned: Path) -> None:
    """Without the held-out files a training runs to where it scores: it never asks for them."""
    entries = read_index(cleaned / "data/index.jsonl")
    _, held_out = split_held_out(entries, 0.2)
    run(cleaned, "train", "vae", "--stage", "l1", "data.held_out=0.2")
    scores = [line for line in metrics(cleaned / "runs/vae") if "psnr" in line]
    for index in held_out:
        (cleaned / "data" / entries[index].file).unlink()

    stopped = run(cleaned, "train", "vae", "--stage", "adversarial", "data.held_out=0.2", "vae.run.evaluate_every=9")

    assert (len(held_out), [line["pictures"] for line in scores]) == (3, [3])
    assert scores[0]["is_held_out"] is True
    assert {"psnr", "ssim", "lpips", "frechet", "held_out_reconstruction"} <= scores[0].keys()
    assert "vae adversarial: step 3/3" in stopped.err  # every step was made, then there was nothing to score
    assert "too many pictures are gone" in stopped.error(4)


def test_a_set_too_small_to_hold_out_is_scored_on_what_it_has(run: Run, cleaned: Path) -> None:
    """And the log says that the pictures were trained on."""
    done = run(cleaned, "train", "vae", "--stage", "l1", "data.held_out=0")

    assert done.code == 0
    assert "on 15 training pictures" in (cleaned / "runs/vae/log.txt").read_text()


@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_another_share_held_out_is_refused_on_resume(run: Run, workspace: Path, snapshot: Run, kind: str) -> None:
    """Pictures that were trained on would be scored."""
    before = snapshot(workspace)

    line = run(workspace, "train", kind, "data.held_out=0.3").error(4)

    assert f"data.held_out was 0.02 when runs/{kind} began and is 0.3." in line
    assert snapshot(workspace) == before


def test_the_error_on_held_out_pictures_is_followed(run: Run, cleaned: Path) -> None:
    """Every so many steps, and at the end of each stage."""
    run(cleaned, "train", "vae", "vae.run.evaluate_every=2")

    steps = [line["step"] for line in metrics(cleaned / "runs/vae") if "held_out_reconstruction" in line]

    assert steps == [2, 3, 4, 6, 8, 10]


def test_the_error_on_held_out_pictures_is_of_the_stages_own_kind(run: Run, cleaned: Path) -> None:
    """A stage that trains by squares is followed by squares: of one picture, what its PSNR says."""
    run(cleaned, "train", "vae", "--stage", "l1", "vae.stages.l1.reconstruction=l2", "vae.stages.l1.steps=1")

    last = next(line for line in metrics(cleaned / "runs/vae") if "psnr" in line)

    assert last["pictures"] == 1
    squares = 4 / 10 ** (last["psnr"] / 10)  # there what lies beyond -1…1 counts as the edge
    assert last["held_out_reconstruction"] == pytest.approx(squares, rel=0.01)


def test_the_log_tells_of_the_discriminator(run: Run, cleaned: Path) -> None:
    """A plateau that starts it stands in the log with its step."""
    run(
        cleaned,
        *("train", "vae", "--stage", "l1", "vae.stages.l1.discriminator_start=plateau"),
        *("vae.discriminator.plateau_steps=1", "vae.discriminator.plateau_gain=0.99"),
    )

    assert "step 2: the reconstruction error is on a plateau" in (cleaned / "runs/vae/log.txt").read_text()
    begun = [line["step"] for line in metrics(cleaned / "runs/vae") if "discriminator" in line]
    assert begun == [3]


def test_a_stage_too_short_for_its_discriminator_says_so(run: Run, cleaned: Path) -> None:
    """Nobody shall wait for a term that never comes."""
    done = run(cleaned, "train", "vae", "--stage", "l1", "vae.stages.l1.discriminator_start=3")

    assert done.code == 0
    assert "the discriminator moves nothing in this stage" in (cleaned / "runs/vae/log.txt").read_text()


@pytest.mark.parametrize("kind", ["vae", "ldm"])
def test_dropped_features_follow_from_the_step(run: Run, workspace: Path, kind: str) -> None:
    """With dropout too, an interrupted run ends with the bits of one that was left alone."""
    dropout = f"{kind}.model.dropout=0.3"
    (workspace / f"runs/{kind}").rename(workspace / "first")
    assert run(workspace, "train", kind, dropout).code == 0
    whole = (workspace / f"runs/{kind}/model/MANIFEST.json").read_text()
    (workspace / f"runs/{kind}").rename(workspace / "second")

    stopped = run(workspace, "train", kind, dropout, stop_at="step 1/")
    again = run(workspace, "train", kind, dropout)

    assert (stopped.code, again.code) == (143, 0)
    assert (workspace / f"runs/{kind}/model/MANIFEST.json").read_text() == whole


def test_a_stage_may_leave_the_latents_as_they_are(run: Run, cleaned: Path) -> None:
    """It trains the decoder alone: of the average it began with, the encoder stays bit for bit. No first stage can."""
    line = run(cleaned, "train", "vae", "--stage", "l1", "vae.stages.l1.trainable=decoder").error(2)
    assert "vae.stages.l1.trainable: there is no trained encoder that the decoder could go with." in line
    assert run(cleaned, "train", "vae", "--stage", "l1").code == 0
    assert run(cleaned, "train", "vae", "--stage", "adversarial", "vae.stages.adversarial.trainable=decoder").code == 0
    former, later = (load_checkpoint(cleaned / f"runs/vae/checkpoints/step-0000000{step}") for step in (3, 6))

    same = {
        name for name, value in former.tensors["ema"].items() if torch.equal(value, later.tensors["autoencoder"][name])
    }
    assert same >= {name for name in former.tensors["ema"] if name.startswith("encoder.")}
    assert "decoder.conv_out.weight" not in same


def test_a_stage_goes_on_from_the_weights_its_config_names(run: Run, cleaned: Path) -> None:
    """With a rate of nearly nothing a stage ends where it began: at the former's average, or at its last weights."""
    run(cleaned, "train", "vae", "--stage", "l1")
    former = find_checkpoint(cleaned / "runs/vae")
    still = ("vae.stages.adversarial.lr=1e-30", "vae.stages.adversarial.steps=1", "vae.optimizer.weight_decay=0")

    run(cleaned, "train", "vae", "--stage", "adversarial", *still, "vae.stages.adversarial.start_from=raw")

    now = find_checkpoint(cleaned / "runs/vae")
    assert former is not None
    assert now is not None
    name = "decoder.conv_in.weight"
    assert now.tensors["autoencoder"][name].equal(former.tensors["autoencoder"][name])
    assert not now.tensors["autoencoder"][name].equal(former.tensors["ema"][name])


def test_recomputed_activations_end_with_the_same_bits(story: Any, run: Run, cleaned: Path) -> None:
    """The switch costs time and saves memory; the result is the same."""
    done = run(cleaned, "train", "vae", "vae.run.recompute=true")

    assert done.code == 0
    model = "runs/vae/model/autoencoder.safetensors"
    assert (cleaned / model).read_bytes() == (story.folder / model).read_bytes()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("vae.model.latent_channels=2", "vae.model.latent_channels was 4 and is 2."),
        ("vae.model.kind=vq", 'vae.model.kind was "kl" and is "vq".'),
        ("vae.discriminator.base_channels=16", "vae.discriminator.base_channels was 8 and is 16."),
    ],
)
def test_weights_of_another_architecture_name_the_setting(run: Run, cleaned: Path, setting: str, said: str) -> None:
    """Refused before the first step, with what the run began with."""
    run(cleaned, "train", "vae", "--stage", "l1")

    line = run(cleaned, "train", "vae", "--stage", "adversarial", setting).error(6)

    assert "the checkpoint in runs/vae does not fit the config" in line
    assert said in line
    assert "config.json" in line


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("vae.stages.l1.resolution=30", "stage l1: resolution 30 is no multiple of f = 4: 32 is"),
        ("vae.model.groups=3", "groups 3 does not divide width 8: 1, 2, 4, 8 would"),
        ("vae.discriminator.groups=3", "groups 3 does not divide base_channels 8: 1, 2, 4, 8 would"),
        (
            "vae.stages.l1.discriminator_start=plataeu",
            "vae.stages.0.discriminator_start: give a step (0, 1, 2 …), a share",
        ),
        ("vae.stages.l1.discriminator_start=1.5", "vae.stages.0.discriminator_start: give a step"),
        ("vae.stages.l1.discriminator_start=-1", "vae.stages.0.discriminator_start: give a step"),
        ("vae.stages.l1.discriminator_start=true", "vae.stages.0.discriminator_start: give a step"),
        ("vae.discriminator.num_layers=4", "num_layers 4 are too many for the 32 px of stage l1: at most 3 would do"),
        ("vae.stages.l1.trainable=encoder", "vae.stages.0.trainable"),
        ("vae.stages.l1.start_from=average", "vae.stages.0.start_from"),
        ("vae.model.num_codes=1", "vae.model.num_codes"),
        ("vae.discriminator.loss=wgan", "vae.discriminator.loss"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_first_step(
    run: Run, cleaned: Path, setting: str, said: str
) -> None:
    """One line with the field, and what would do where that can be said."""
    line = run(cleaned, "train", "vae", setting).error(3)

    assert said in line
    assert not (cleaned / "runs").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own tracer asks for it
def test_a_compiled_run_ends_near_the_plain_one(run: Run, cleaned: Path, story: Any) -> None:
    """torch.compile changes rounding, not names or results."""
    done = run(cleaned, "train", "vae", "--stage", "l1", "vae.run.compile=true")

    assert done.code == 0
    plain = [line["loss"] for line in metrics(story.folder / "runs/vae") if "loss" in line][:3]
    compiled = [line["loss"] for line in metrics(cleaned / "runs/vae") if "loss" in line]
    assert compiled == pytest.approx(plain, rel=1e-3)
    checkpoint = find_checkpoint(cleaned / "runs/vae")
    assert checkpoint is not None
    assert not any("_orig_mod" in name for name in checkpoint.tensors["autoencoder"])
