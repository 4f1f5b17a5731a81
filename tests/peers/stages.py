"""The stages of an autoencoder: does the reconstruction survive what enters in the course of them?"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from latentart.process.devices import Placement
from latentart.training.train_vae import train_vae
from latentart.workspace.clean_data import clean_data
from latentart.workspace.demo import PICTURES_PER_STYLE, QUICK, QUICK_PICTURES_PER_STYLE, draw_raw
from latentart.workspace.init import init_workspace
from peers.figures import Figure

EVALUATE_EVERY = 25
RISE = 0.10
# the demo's stages, long enough that what enters could do its harm
LONG = (
    "vae.stages.l1.discriminator_start=400",
    "vae.stages.l1.discriminator_warmup=50",
    "vae.stages.l1.ramp=50",
    "vae.stages.adversarial.steps=300",
    "vae.stages.lpips.steps=300",
    "vae.stages.lpips.ramp=50",
    "vae.stages.hires.steps=200",
)


def bench_stages(folder: Path, placement: Placement, *, is_quick: bool) -> Iterator[Figure]:
    """Train the demo's autoencoder through all stages, made longer, and follow its error on held-out pictures."""
    settings = (*(QUICK if is_quick else LONG), f"vae.run.evaluate_every={1 if is_quick else EVALUATE_EVERY}")
    workspace = init_workspace(folder / "work", "demo", None, settings)
    draw_raw(workspace, QUICK_PICTURES_PER_STYLE if is_quick else PICTURES_PER_STYLE)
    clean_data(workspace, quiet=True)
    scores = train_vae(workspace, "all", placement, quiet=True).scores
    stages = {stage.name: stage for stage in workspace.config.vae.stages}
    lines = [json.loads(line) for line in (workspace.vae_run / "metrics.jsonl").read_text().splitlines()]
    followed = [line for line in lines if "held_out_reconstruction" in line]
    # errors at one size are compared: those at another are of other pictures
    for resolution, group in itertools.groupby(followed, lambda line: stages[line["stage"]].resolution):
        errors = [(int(line["step"]), float(line["held_out_reconstruction"])) for line in group]
        yield Figure(
            f"held-out error at {resolution} px", f"{errors[0][1]:.4f} to {errors[-1][1]:.4f}", number=errors[-1][1]
        )
        entered = next((line["step"] for line in lines if "discriminator" in line), errors[-1][0])
        before = [error for step, error in errors if step < entered]
        start = [(entered, min(before))] if before else []
        rise = longest_rise([*start, *((step, error) for step, error in errors if step >= entered)])
        name = f"longest rise by more than {RISE:.0%} after the discriminator's entry, {resolution} px"
        yield Figure(name, f"{rise} steps", rise, "steps")
    yield Figure("scores after all stages", str(scores))


def longest_rise(errors: Sequence[tuple[int, float]], limit: float = RISE) -> int:
    """Return the longest span of steps in which an error stays more than ``limit`` above the lowest before it.

    Args:
        errors: pairs (step, error), in rising order of steps.
        limit: a share of the lowest error.
    """
    longest, lowest, since = 0, float("inf"), None
    for step, error in errors:
        if error <= (1.0 + limit) * lowest:
            since = None
        else:
            since = step if since is None else since
            longest = max(longest, step - since)
        lowest = min(lowest, error)
    return longest
