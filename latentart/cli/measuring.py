"""`bench`: what this machine does in a second."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    Overrides,
    only_settings,
    open_workspace,
    say,
    tell,
    write_json,
)
from latentart.cli.planning import size
from latentart.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from latentart.layout import Workspace
    from latentart.planning.bench import Rate


class Part(StrEnum):
    """A part of the path."""

    CLEAN = "clean"
    ENCODE = "encode"
    VAE = "vae"
    LDM = "ldm"
    SAMPLE = "sample"
    STUDIO = "studio"


def bench(
    overrides: Overrides = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A preset, in place of the workspace.")] = None,
    only: Annotated[list[Part] | None, typer.Option("--only", help="This part alone; may be repeated.")] = None,
    minutes: Annotated[
        float,
        typer.Option("--minutes", min=0.1, max=1440, help="How long it measures, about; slow starts come on top."),
    ] = 3,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how fast this machine is. Pictures a second that it cleans, encodes, trains on and draws; changes nothing."""
    with choose_workspace(preset, config, overrides) as workspace:
        from latentart.planning.bench import bench as run_bench

        found = run_bench(workspace, device, minutes, [part.value for part in only or ()])
    if as_json:
        write_json(found.to_json())
        return
    machine = found.machine
    tell(
        f"{machine.device}, {machine.precision}: products of matrices {machine.matrix / 1e9:,.0f} GFLOP/s, "
        f"copies {machine.copy / 1e9:.3g} GB/s"
    )
    for row in [("part", "images/s", "pixels", "batch", "waiting", "memory"), *map(row_of, found.rates)]:
        tell(f"{row[0]:24}{row[1]:>10}{row[2]:>8}{row[3]:>7}{row[4]:>9}{row[5]:>10}".rstrip())
    for wait in found.waits:
        tell(f"{wait.name:28}{amount(wait.value, wait.unit):>10}  {wait.note}".rstrip())
        if wait.value is not None and wait.value > wait.wanted:
            say(f"- {wait.name}: more than the {amount(wait.wanted, wait.unit)} of a small model on two idle cores")
    for line in found.notes:
        say(f"- {line}")
    say("- waiting: the share of a training step that is spent on waiting for pictures; ~: reckoned from less")


@contextlib.contextmanager
def choose_workspace(preset: str | None, config: Path | None, overrides: list[str] | None) -> Iterator[Workspace]:
    """Give the workspace, or one of a preset in a folder that goes again.

    Raises:
        UsageError: a preset and a config are named.
        ConfigError: there is neither workspace nor preset, or the config is wrong.
    """
    from latentart.config.workspace import CONFIG_NAME, resolve

    if preset is None:
        if config is None and not Path(CONFIG_NAME).is_file():
            msg = f"{Path.cwd()} is not a workspace: it has no {CONFIG_NAME}."
            raise ConfigError(msg, "Go into your workspace, or name a preset, as `latentart bench --preset demo`.")
        yield open_workspace(config, overrides)
        return
    if config is not None:
        msg = "--preset and --config both say what to measure."
        raise UsageError(msg, "Give one of them.")
    settings = resolve({"preset": preset}, only_settings(overrides))
    from latentart.layout import Workspace

    with tempfile.TemporaryDirectory(prefix="latentart-bench-", ignore_cleanup_errors=True) as folder:
        yield Workspace(Path(folder), settings)


def amount(value: float | None, unit: str) -> str:
    """Return a number of seconds, bytes or a share as text."""
    if value is None:
        return "-"
    return f"{value:.2f} s" if unit == "s" else size(int(value)) if unit == "bytes" else f"{value:.1%}"


def row_of(rate: Rate) -> tuple[str, ...]:
    """Return one line of the table."""
    if rate.per_second is None:
        return (f"{rate.name}: {rate.note}", "", "", "", "", "")
    return (
        rate.name,
        "~" * rate.is_rough + (f"{rate.per_second:,.0f}" if rate.per_second >= 100 else f"{rate.per_second:.3g}"),
        str(rate.resolution or "-"),
        str(rate.batch_size or "-"),
        f"{rate.data_share:.1%}" if rate.data_share is not None else "-",
        size(rate.memory) if rate.memory else "-",
    )
