"""`train vae` and `train ldm`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    MinutesOption,
    Overrides,
    QuietOption,
    open_workspace,
    place,
    say,
    speaks,
    tell,
    write_json,
)
from latentart.errors import StoppedBySignal, UsageError

if TYPE_CHECKING:
    from latentart.training.loop import Pause
    from latentart.training.survival.resuming import Call

ResumeOption = Annotated[
    str, typer.Option("--resume", metavar="auto|PATH|never", help="The newest sound checkpoint, that one, or none.")
]
MaxTimeOption = Annotated[
    str | None, typer.Option("--max-time", metavar="8h|90m|3600", help="Save and stop after this time.")
]
MaxStepsOption = Annotated[
    int | None, typer.Option("--max-steps", min=1, help="Save and stop after this many steps of this call.")
]
AllowOption = Annotated[
    bool, typer.Option("--allow-changed-data", help="Go on though pictures or labels have changed; ids stay.")
]
BeginOption = Annotated[
    Path | None, typer.Option("--from", metavar="MODEL", help="Begin an empty run with the weights of a model folder.")
]
AddOption = Annotated[
    bool, typer.Option("--add-styles", help="Go on with styles that are new, in a quarter more steps.")
]

_UNITS = {"h": 3600, "m": 60, "s": 1, "": 1}


def train_vae(
    overrides: Overrides = None,
    stage: Annotated[str, typer.Option("--stage", help="l1, adversarial, lpips, hires, or all that is left.")] = "all",
    minutes: MinutesOption = None,
    resume: ResumeOption = "auto",
    max_time: MaxTimeOption = None,
    max_steps: MaxStepsOption = None,
    allow_changed_data: AllowOption = False,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the autoencoder: one stage, or all from where it stands."""
    workspace = open_workspace(config, overrides)
    call = build_call(resume, max_time, max_steps, may_change_data=allow_changed_data)
    from latentart.training.train_vae import train_vae as run_train_vae

    placement = place(device)
    if minutes is not None:
        from latentart.workspace.minutes import TimeGiven, fit_vae

        workspace = fit_vae(workspace, stage, placement, TimeGiven(minutes=minutes, path=config))
    with hinting(resume):
        result = run_train_vae(workspace, stage, placement, call, quiet=quiet)
    if not speaks():
        return
    if as_json:
        scores = result.scores.to_json() if result.scores else None
        paused = {"paused_at": result.pause.step if result.pause else None}
        write_json({"model": str(result.model), "stages": result.stages, "scores": scores, **paused})
        return
    if result.pause:
        say_paused(result.pause, workspace.vae_run, resume)
        return
    tell(result.model)
    names = [known.name for known in workspace.config.vae.stages]
    last = names[-1] if stage == "all" else stage
    following = names[names.index(last) + 1 :]
    then = f"latentart train vae --stage {following[0]}" if following else "latentart train ldm"
    if result.stages:
        say(f"{result.scores}; pictures over their reconstructions: {result.preview}. Next: {then}")
    else:
        say(f"Nothing was left to do: {'every stage' if stage == 'all' else stage} is finished. Next: {then}")


def train_ldm(
    overrides: Overrides = None,
    begin_with: BeginOption = None,
    add_styles: AddOption = False,
    minutes: MinutesOption = None,
    resume: ResumeOption = "auto",
    max_time: MaxTimeOption = None,
    max_steps: MaxStepsOption = None,
    allow_changed_data: AllowOption = False,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the denoiser on the cached latents. It goes on from where it stands."""
    workspace = open_workspace(config, overrides)
    call = build_call(resume, max_time, max_steps, may_change_data=allow_changed_data)
    call = replace(call, adds_styles=add_styles, begin_with=begin_with)
    from latentart.training.train_ldm import train_ldm as run_train_ldm

    placement = place(device, workspace.config.ldm.training.run.precision)
    if minutes is not None:
        from latentart.workspace.minutes import TimeGiven, fit_ldm

        workspace = fit_ldm(workspace, placement, TimeGiven(minutes=minutes, path=config))
    if add_styles:
        from latentart.workspace.minutes import add_steps

        workspace = add_steps(workspace, call.resume, config)
    with hinting(resume):
        result = run_train_ldm(workspace, placement, call, quiet=quiet)
    if not speaks():
        return
    if as_json:
        paused = {"paused_at": result.pause.step if result.pause else None}
        write_json({"model": str(result.model), "is_new": result.is_new, **paused})
        return
    if result.pause:
        say_paused(result.pause, workspace.ldm_run, resume)
        return
    tell(result.model)
    done = f"Previews: {result.preview}." if result.is_new else "Nothing was left to do: the denoiser is finished."
    say(f"{done} Next: latentart sample --style all")


def parse_duration(text: str) -> int:
    """Return the seconds of a duration written as 8h, 90m or 3600.

    Raises:
        UsageError: it is none, or not at least a second.
    """
    match = re.fullmatch(r"(\d{1,9})([hms]?)", text, re.ASCII)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if seconds < 1:
        msg = f"'{text}' is not a duration."
        raise UsageError(msg, "Write whole hours, minutes or seconds, as 8h, 90m or 3600.")
    return seconds


def build_call(resume: str, max_time: str | None, max_steps: int | None, *, may_change_data: bool) -> Call:
    """Return what the options ask for.

    Raises:
        UsageError: a duration that is none, or a checkpoint that is not there.
    """
    seconds = parse_duration(max_time) if max_time is not None else None
    if resume not in ("auto", "never") and not Path(resume).is_dir():
        msg = f"--resume: there is no checkpoint folder '{resume}'."
        raise UsageError(msg, "Give auto, never, or a folder as runs/vae/checkpoints/step-00001000.")
    from latentart.training.survival.resuming import Call

    words: dict[str, Literal["auto", "never"]] = {"auto": "auto", "never": "never"}
    return Call(
        resume=words.get(resume, Path(resume)),
        max_seconds=seconds,
        max_steps=max_steps,
        may_change_data=may_change_data,
    )


@contextlib.contextmanager
def hinting(resume: str) -> Iterator[None]:
    """Say of a call that a signal ends how it goes on: a checkpoint that was named is no longer the newest."""
    try:
        yield
    except StoppedBySignal as stopped:
        if resume != "auto":
            stopped.hint = "Run the same command again without --resume to go on."
        raise


def say_paused(pause: Pause, run: Path, resume: str) -> None:
    """Say why a call ended before the training did, and how it goes on; its checkpoint goes to stdout."""
    tell(run / "checkpoints" / f"step-{pause.step:08d}")
    option = "" if resume == "auto" else " without --resume"
    say(f"Stopped by --max-{pause.limit}: step {pause.step} is saved. Run the same command again{option} to go on.")
