"""Part 3: pictures of emoji by category, or of the drawn art, from nothing in minutes; then the judge's word."""

from __future__ import annotations

import json
import time
from pathlib import Path

from latentart.data.synthetic.art import write_raw_folder
from latentart.layout import Workspace
from latentart.sampling.sample import SampleRequest, sample_pictures, settings_from
from latentart.scoring.evaluate_ldm import evaluate_ldm
from latentart.training.encode import encode
from latentart.training.survival.resuming import Call
from latentart.training.train_ldm import train_ldm
from latentart.training.train_vae import train_vae
from latentart.workspace.clean_data import clean_data
from latentart.workspace.init import init_workspace
from part import Part, read_lines

VAE_SHARE, LDM_SHARE = 0.32, 0.7  # of the time that is left when each begins; then come the grid and the judge
TRIAL_STEPS = 40  # of which the first are slow
# of the rate that a short trial finds: previews and checkpoints come on top, and the discriminator, which enters late
LDM_PACE, VAE_PACE = 0.9, 0.75
DRAWN_SIDE, EMOJI_SIDE = 128, 64


def main() -> None:
    """Clean, train both networks for their shares of the time, draw, judge."""
    part = Part()
    side = 32 if part.rehearses else EMOJI_SIDE if part.emoji else DRAWN_SIDE
    raw = part.emoji or draw_art(part, side)
    workspace = init_workspace(part.work / "art", "demo", raw.resolve(), settings_for(part, side))
    clean_data(workspace, quiet=True)
    entries, names = workspace.read_pictures()
    what = "emoji" if part.emoji else "pieces of the drawn art"
    part.figure("pictures", f"{len(entries)} {what} of {side} px in {len(names)} categories")
    train_autoencoder(part, workspace)
    encode(workspace, part.placement, quiet=True)
    train_denoiser(part, workspace)
    with part.trying("grid"):
        sample_settings = settings_from(workspace.config.sample, {})
        request = SampleRequest(styles=("all",), count=2 if part.rehearses else 8)
        model = workspace.ldm_run / "model"
        drawn = sample_pictures(model, workspace.samples, request, sample_settings, part.placement, quiet=True)
        part.picture(drawn.paths[0], "samples")
    with part.trying("judge"):
        judge(part, workspace, names)


def draw_art(part: Part, side: int) -> Path:
    """Draw the embedded styles, somewhat larger than they are trained at."""
    write_raw_folder(part.work / "raw", seed=0, pictures_per_style=12 if part.rehearses else 192, size=side * 5 // 4)
    return part.work / "raw"


def settings_for(part: Part, side: int) -> list[str]:
    """Return how the demo's preset is changed: one stage, wider networks, steps that are set later."""
    batch = 8 if part.rehearses else 64
    stage = {
        "name": "l1",
        "steps": TRIAL_STEPS,
        "resolution": side,
        "batch_size": batch,
        "weights": {"adversarial": 0.05},
        "discriminator_start": 0.8,
        "discriminator_warmup": 2 if part.rehearses else 50,
        "ramp": 2 if part.rehearses else 100,
        "lr": 2e-3,
    }
    never = 1_000_000
    settings = [
        f"data.max_side={side * 5 // 4}",
        "data.balance_styles=true",
        f"vae.stages={json.dumps([stage])}",
        f"vae.run.evaluate_every={never}",
        f"vae.run.preview_every={never}",
        f"vae.run.checkpoint_every={never}",
        f"ldm.training.resolution={side}",
        f"ldm.training.batch_size={2 * batch}",
        f"ldm.training.run.preview_every={never}",
        f"ldm.training.run.checkpoint_every={never}",
        f"ldm.training.run.evaluate_every={never}",
        "sample.steps=4" if part.rehearses else "sample.steps=40",
    ]
    if not part.rehearses:
        settings += [
            "vae.model.widths=[48,96,192]",
            "vae.discriminator.base_channels=32",
            "ldm.model.size=S",
            "ldm.model.head_channels=32",
            "ldm.model.dropout=0.1",
            "ldm.training.optimizer.lr=1e-3",
        ]
    return settings


def train_autoencoder(part: Part, workspace: Workspace) -> None:
    """Train the autoencoder for its share of what is left, by a rate that a short trial finds."""
    began, seconds = time.monotonic(), VAE_SHARE * part.left()
    trial = Workspace(
        workspace.folder.with_name("vae-trial"),
        with_data_of(workspace, "vae.stages.l1.steps=100000", "vae.run.log_every=1"),
    )
    train_vae(trial, "all", part.placement, Call(max_steps=trial_steps(part)), quiet=True)
    steps = steps_for(part, trial.vae_run, VAE_PACE * (seconds - (time.monotonic() - began)))
    length = [f"vae.stages.l1.steps={steps}"]
    done = Workspace.open(workspace.config_path, length)
    part.peak()
    limit = Call(max_seconds=1.2 * seconds)  # should the trial be wrong, there is still a model
    result = train_vae(done, "all", part.placement, limit, quiet=True)
    scores = f", {result.scores}" if result.scores else ", stopped before its end"
    if result.preview:
        part.picture(result.preview, "reconstructions")
    took = time.monotonic() - began
    part.figure("autoencoder", f"{steps} steps in {took:.0f} s with its trial, {part.peak():.1f} GB{scores}")


def with_data_of(workspace: Workspace, *settings: str) -> object:
    """Return a config whose clean pictures are those of another workspace."""
    return Workspace.open(workspace.config_path, [f"data.root={workspace.data.resolve()}", *settings]).config


def trial_steps(part: Part) -> int:
    """Return how many steps a trial has."""
    return 4 if part.rehearses else TRIAL_STEPS


def steps_for(part: Part, run: Path, seconds: float) -> int:
    """Return how many steps fit into so many seconds, by the times that a trial logged."""
    lines = [line for line in read_lines(run / "metrics.jsonl") if "time" in line]
    later = lines[len(lines) // 2 :]
    rate = (later[-1]["step"] - later[0]["step"]) / max(1e-6, later[-1]["time"] - later[0]["time"])
    part.figure(f"{run.name}, rate of the trial", f"{rate:.1f} steps/s", numbers={"steps/s": rate})
    if part.rehearses:
        return 8
    start = 8.0  # of the run itself: processes that load pictures
    return max(20, int(rate * (seconds - start)))


def train_denoiser(part: Part, workspace: Workspace) -> None:
    """Train the denoiser likewise, on the latents that are there."""
    began, seconds = time.monotonic(), LDM_SHARE * part.left()
    trial = Workspace.open(workspace.config_path, ["ldm.training.steps=100000", "ldm.training.run.log_every=1"])
    train_ldm(trial, part.placement, Call(max_steps=trial_steps(part)), quiet=True)
    trial.ldm_run.rename(trial.ldm_run.with_name("ldm-trial"))
    left = seconds - (time.monotonic() - began)
    steps = steps_for(part, trial.ldm_run.with_name("ldm-trial"), LDM_PACE * left)
    final = Workspace.open(workspace.config_path, [f"ldm.training.steps={steps}"])
    part.peak()
    result = train_ldm(final, part.placement, Call(max_seconds=left), quiet=True)
    stopped = f", stopped at {result.pause.step}" if result.pause else ""
    seen = (result.pause.step if result.pause else steps) * final.config.ldm.training.batch_size
    took = time.monotonic() - began
    numbers = {"steps": steps, "images": seen, "seconds": took}
    value = f"{steps} steps{stopped}, {seen:,} images in {took:.0f} s with its trial, {part.peak():.1f} GB"
    part.figure("denoiser", value, numbers=numbers)


def judge(part: Part, workspace: Workspace, names: list[str]) -> None:
    """Score samples as `latentart evaluate ldm` does."""
    settings = settings_from(workspace.config.sample, {"steps": 4 if part.rehearses else 20})
    per_style = 2 if part.rehearses else max(8, 256 // len(names))
    model = workspace.ldm_run / "model"
    found = evaluate_ldm(workspace, model, settings, part.placement, per_style=per_style, quiet=True)
    assert found is not None
    part.picture(found.confusion, "confusion")
    part.picture(found.pairs, "closest")
    scores = found.scores
    share = scores.recognized / scores.recognized_real if scores.recognized_real else 0.0
    copies = "unknown" if scores.copies.found is None else scores.copies.found
    value = f"{scores.recognized:.1%} recognized, of real ones {scores.recognized_real:.1%}; {copies} copies"
    measures = {name: one.value for name, one in scores.measures.items()}
    numbers = {"recognized": scores.recognized, "real": scores.recognized_real, **measures}
    part.figure("judge", value, "95 % of real ones", is_met=share >= 0.95, numbers=numbers)


if __name__ == "__main__":
    main()
