"""`evaluate`: what the autoencoder and the denoiser are worth, in numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    Overrides,
    QuietOption,
    open_workspace,
    place,
    say,
    show_table,
    tell,
    write_json,
)
from latentart.cli.sampling import EtaOption, GuidanceOption, SamplerOption, StepsOption
from latentart.errors import UsageError

if TYPE_CHECKING:
    from latentart.scoring.evaluate_ldm import LdmEvaluation
    from latentart.scoring.evaluate_vae import VaeEvaluation

PER_STYLE = 50
WORDS = {
    "frechet": "Fréchet distance, 0 is alike",
    "kernel": "kernel distance x 1000, 0 is alike",
    "precision": "precision, of samples near real ones",
    "recall": "recall, of real ones near samples",
    "density": "density, 1 is alike",
    "coverage": "coverage, of real ones by samples",
}


def evaluate_vae(
    overrides: Overrides = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="Held-out pictures; else up to 2048.")
    ] = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score the autoencoder on pictures it never saw. Per style, its latents, and the grid it leaves."""
    workspace = open_workspace(config, overrides)
    from latentart.scoring.evaluate_vae import evaluate_vae as run_evaluate

    placement = place(device, workspace.config.vae.run.precision)
    found = run_evaluate(workspace, model or workspace.vae_run / "model", placement, count=count, quiet=quiet)
    if as_json:
        write_json(found.to_json())
        return
    show_vae(found)


def evaluate_ldm(
    overrides: Overrides = None,
    per_style: Annotated[
        int, typer.Option("--per-style", "-n", min=1, max=100_000, help="Samples of each style.")
    ] = PER_STYLE,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**62, help="Of the first sample of each style.")] = 0,
    steps: StepsOption = None,
    sampler: SamplerOption = None,
    eta: EtaOption = None,
    guidance: GuidanceOption = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score samples by a judge trained on real pictures. Recognition, distances, copies; offline."""
    if guidance is not None and not math.isfinite(guidance):
        msg = f"--guidance {guidance} is no number to reckon with."
        raise UsageError(msg)
    workspace = open_workspace(config, overrides)
    from latentart.sampling.sample import settings_from
    from latentart.scoring.evaluate_ldm import evaluate_ldm as run_evaluate

    how: dict[str, Any] = {"steps": steps, "sampler": sampler, "eta": eta, "guidance": guidance}
    settings = settings_from(workspace.config.sample, how)
    placement = place(device, workspace.config.sample.precision)
    folder = model or workspace.ldm_run / "model"
    found = run_evaluate(workspace, folder, settings, placement, per_style=per_style, seed=seed, quiet=quiet)
    if found is None:  # another of the processes that share the work speaks
        return
    if as_json:
        write_json(found.to_json())
        return
    show_ldm(found)


def show_ldm(found: LdmEvaluation) -> None:
    """Write a table of the styles, one of the measures, then what the pictures are."""
    scores, copies = found.scores, found.scores.copies
    styles: list[tuple[str, ...]] = []
    for row in scores.styles:
        ours = (str(row.samples), share(row.recognized), share(row.recognized_real), row.taken_for or "-")
        styles.append((row.style, *ours, "-" if row.copies is None else str(row.copies)))
    total = "-" if copies.found is None else str(copies.found)
    both = (share(scores.recognized), share(scores.recognized_real))
    styles.append(("all", str(found.samples.total), *both, "", total))
    show_table(("style", "samples", "recognized", "real ones", "taken for", "copies"), styles, fold=(0, 4))
    if scores.drawn:
        measures: list[tuple[str, ...]] = []
        for name, words in WORDS.items():
            scale = 1000 if name == "kernel" else 1
            pair = (scores.measures[name], scores.real_measures[name])
            measures.append((words, *(with_error(one.value * scale, one.error * scale) for one in pair)))
        show_table(("against real pictures", "samples", "other real ones"), measures)
    if found.inception is not None:
        fid = found.inception
        error = math.nan if fid.kid_error is None else 1000 * fid.kid_error
        tell(
            f"FID {fid.fid:.2f}, KID x 1000 {with_error(1000 * fid.kid, error)}: {found.samples.total} "
            f"samples against {fid.real_pictures} real pictures; compare only with as many"
        )
    if copies.found is not None:
        chance = f"of pictures never seen {share(copies.by_chance)} count as copies too"
        among = f"{copies.searched:,} of {copies.training:,}" if copies.searched < copies.training else copies.searched
        tell(f"copies: {copies.found} of {found.samples.total} samples, among {among} training pictures; {chance}")
    else:
        say("Too few pictures are held out to say which samples are copies.")
    if found.is_mixed:
        say("Few pictures are held out: samples are compared with training pictures too, that the judge did not see.")
    tell(found.confusion)
    tell(found.pairs)


def share(value: float | None) -> str:
    """Return a share in percent."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.1%}"


def with_error(value: float, error: float) -> str:
    """Return a number with its standard error, or that there are too few pictures to tell one."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.3g} ± {error:.2g}" if math.isfinite(error) else f"{value:.3g} (too few pictures for an error)"


def show_vae(found: VaeEvaluation) -> None:
    """Write a table of the styles, one of the latents' channels, then the grid and the picture."""
    styles: list[tuple[str, ...]] = []
    for row in found.rows:
        numbers = (row.psnr, row.ssim, row.lpips, row.frechet)
        shown = (
            "-" if value is None else f"{value:.{digits}f}" for value, digits in zip(numbers, (2, 4, 4, 4), strict=True)
        )
        styles.append((row.style, str(row.pictures), *shown))
    show_table(("style", "pictures", "PSNR dB", "SSIM", "LPIPS", "Fréchet"), styles)
    latents: list[tuple[str, ...]] = []
    for i, (channel, normalized) in enumerate(zip(found.latents.channels, found.normalized_std, strict=True)):
        numbers = (channel.mean, channel.std, normalized, channel.posterior_std)
        latents.append((str(i), *(f"{value:.3f}" for value in numbers), "DEAD" if channel.is_dead else ""))
    show_table(("channel", "mean", "std", "std, normalized", "of the posterior", ""), latents)
    kl = "" if found.latents.kl is None else f"KL {found.latents.kl:.3f} nats an element, "
    tell(
        f"latents: {found.latents.dead} of {len(found.latents.channels)} channels dead, {kl}"
        f"greatest correlation of two channels {found.latents.correlation:.2f}"
    )
    tell(f"grid in flat colors: {found.grid_levels:.2f} of 255 levels, {found.grid_verdict}")
    if found.inception is not None:
        tell(f"FID of reconstructions {found.inception.fid:.2f} over {found.inception.real_pictures} pictures")
    tell(found.worst)
