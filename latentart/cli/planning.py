"""`plan`, `find-lr` and `schedule`: what to know before a training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    Overrides,
    QuietOption,
    only_settings,
    open_workspace,
    place,
    say,
    tell,
    write_json,
)
from latentart.errors import UsageError
from latentart.printable import duration

if TYPE_CHECKING:
    from latentart.planning.estimate import Phase
    from latentart.training.find_lr import Sweep
    from latentart.training.steps.range_test import RangeResult


SecondsOption = Annotated[float, typer.Option("--seconds", min=1, max=86_400, help="How long to try, about, in all.")]


class ScheduleName(StrEnum):
    """A kind of noise schedule, or all."""

    COSINE = "cosine"
    LINEAR = "linear"
    QUADRATIC = "quadratic"
    SIGMOID = "sigmoid"
    STRAIGHT = "straight"
    ALL = "all"


FigureOption = Annotated[Path | None, typer.Option("--out", help="The figure's file, .svg or .png; else its own name.")]


def plan(
    overrides: Overrides = None,
    seconds: SecondsOption = 60,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the trainings will take. Steps, time, memory and disk, from a short trial on this machine."""
    workspace = open_workspace(config, overrides)
    from latentart.planning.plan import plan as run_plan

    found = run_plan(workspace, device, seconds)
    if as_json:
        write_json(found.to_json())
        return
    if not found.phases:
        say("Nothing is left to train.")
        return
    rows: list[tuple[str, ...]] = [("phase", "steps", "steps/s", "time", "memory", "disk")]
    rows += map(row_of, found.phases)
    rows.append((f"start of {found.commands} commands", "-", "-", duration(found.start * found.commands), "-", "-"))
    rows.append(("in all", "", "", duration(found.seconds), "", size(found.disk)))
    for row in rows:
        tell(f"{row[0]:22}{row[1]:>9}{row[2]:>10}{row[3]:>14}{row[4]:>10}{row[5]:>10}".rstrip())
    counted = "" if found.is_clean else " (estimated from a sample of the raw folder)"
    say(f"{found.pictures:,} pictures{counted}; {size(found.disk_free)} of the disk are free.")
    for line in found.advice:
        say(f"- {line}")


def row_of(phase: Phase) -> tuple[str, ...]:
    """Return one line of the table."""
    return (
        phase.name,
        f"{phase.steps:,}" if phase.steps is not None else "-",
        f"{phase.steps_per_second:.3g}" if phase.steps_per_second else "-",
        "does not fit" if phase.failed else "~" * phase.is_rough + duration(phase.seconds),
        size(phase.memory) if phase.memory else "-",
        size(phase.disk),
    )


def size(num_bytes: int) -> str:
    """Return a size in the decimal unit that fits."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes / 1e3:.3g} kB"


LowOption = Annotated[float, typer.Option("--from", help="The first learning rate.")]
HighOption = Annotated[float, typer.Option("--to", help="The last one.")]
StepsOption = Annotated[
    int, typer.Option("--steps", min=20, max=100_000, help="Updates, each at a higher rate than the last.")
]


def find_vae_rate(
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option("--stage", help="The stage to test; else the first.")] = None,
    low: LowOption = 1e-7,
    high: HighOption = 10.0,
    steps: StepsOption = 200,
    out: FigureOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the peak learning rate of the autoencoder by a range test. No run is touched."""
    workspace, sweep = open_workspace(config, overrides), build_sweep(low, high, steps)
    from latentart.data.pictures.figures import choose_path
    from latentart.training.find_lr import find_vae_rate as run_test

    first = workspace.config.vae.stages[0].name
    name = first if stage in (None, "all") else stage
    if stage == "all":
        say(f"One stage is tested at a time: this is the first, {first}.")
    path = choose_path(workspace.folder / f"find-lr-vae-{name}.svg", out)
    result, tested = run_test(workspace, name, place(device), sweep, quiet=quiet)
    key = f"vae.stages.{tested.name}.lr" if tested.lr is not None else "vae.optimizer.lr"
    now = tested.lr or workspace.config.vae.optimizer.lr
    write_range(result, key, now, f"autoencoder, stage {tested.name}", path, as_json=as_json)


def find_ldm_rate(
    overrides: Overrides = None,
    low: LowOption = 1e-7,
    high: HighOption = 10.0,
    steps: StepsOption = 200,
    out: FigureOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the peak learning rate of the denoiser by a range test. No run is touched."""
    workspace, sweep = open_workspace(config, overrides), build_sweep(low, high, steps)
    from latentart.data.pictures.figures import choose_path
    from latentart.training.find_lr import find_ldm_rate as run_test

    path = choose_path(workspace.folder / "find-lr-ldm.svg", out)
    training = workspace.config.ldm.training
    result = run_test(workspace, place(device, training.run.precision), sweep, quiet=quiet)
    write_range(result, "ldm.training.optimizer.lr", training.optimizer.lr, "denoiser", path, as_json=as_json)


def build_sweep(low: float, high: float, steps: int) -> Sweep:
    """Return what the options ask for.

    Raises:
        UsageError: the range is none.
    """
    if not 0 < low < high < float("inf"):
        msg = f"--from {low:g} --to {high:g} is no range of learning rates."
        raise UsageError(msg, "Give two numbers above 0, the smaller one first.")
    from latentart.training.find_lr import Sweep

    return Sweep(low, high, steps)


def write_range(result: RangeResult, key: str, now: float, what: str, path: Path, *, as_json: bool) -> None:
    """Draw what a test found and write the setting that follows from it."""
    from latentart.training.find_lr import describe_range, draw_range

    draw_range(result, f"range test of the {what}", path)
    setting = "" if result.peak is None else f"{key}={result.peak:.1e}"
    if as_json:
        write_json({"figure": str(path), "config_has": now, **describe_range(result, setting)})
        return
    if result.peak is None:
        say("The loss never fell below its start in this range: try another with --from and --to, or more --steps.")
    else:
        tell(setting)
        end = "" if result.has_diverged else " The loss did not diverge: the range may end too early, see --to."
        steepest = f" and falls fastest at {result.steepest:.1e}" if result.steepest else ""
        say(f"The loss is lowest at {result.peak:.1e}{steepest}. The config has {now:g}.{end}")
    say(f"The curve: {path}")


def schedule(
    overrides: Overrides = None,
    kind: Annotated[
        list[ScheduleName] | None, typer.Option("--kind", help="Else the config's; may be repeated.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="The picture to noise; else the first clean one.")
    ] = None,
    columns: Annotated[int, typer.Option("--columns", min=2, max=32, help="Steps shown in a strip.")] = 8,
    out: FigureOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw noise schedules and what they leave of a picture. Needs no workspace."""
    from latentart.config.workspace import CONFIG_NAME, resolve

    has_workspace = config is not None or Path(CONFIG_NAME).is_file()
    workspace = open_workspace(config, overrides) if has_workspace else None
    settings = workspace.config if workspace else resolve({}, only_settings(overrides))
    from latentart.data.pictures.figures import choose_path
    from latentart.planning.schedule import all_kinds, build_curves, describe_curves, draw_schedules, find_picture

    path = choose_path((workspace.folder if workspace else Path()) / "schedule.svg", out)
    names = [one.value for one in kind or []]
    curves = build_curves(settings.ldm.diffusion, all_kinds() if "all" in names else names)
    pixels, source = find_picture(workspace, image, settings)
    draw_schedules(curves, pixels, columns, path)
    if as_json:
        write_json({"figure": str(path), "picture": source, "schedules": describe_curves(curves, columns)})
        return
    tell(path)
    for curve in curves:
        end = curve.level(curve.schedule.num_steps - 1)["alpha_bar"]
        say(f"{curve.name}: half of it is noise from t = {curve.half()} on; ᾱ ends at {end:.3g}")
    say(f"The strips show {source} in pixels; training noises latents, in which details last less long.")
