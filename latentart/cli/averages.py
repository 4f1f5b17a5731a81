"""`ema`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from latentart.cli.options import ConfigOption, JsonOption, open_workspace, require_place, say, tell, write_json


def ema(
    relative_std: Annotated[
        float, typer.Option("--relative-std", help="Width of the average as a share of the run, such as 0.13.")
    ],
    step: Annotated[int | None, typer.Option("--step", help="A step with snapshots; else the last.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The model folder; else runs/ldm/model-std….")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a model by another average of the weights."""
    workspace = open_workspace(config)
    require_place(out)
    from latentart.workspace.ema import synthesize

    made = synthesize(workspace, relative_std, step, out)
    if as_json:
        write_json({**asdict(made), "model": str(made.model)})
        return
    tell(made.model)
    say(
        f"The average of width {made.relative_std:g} at step {made.step}, from {made.snapshots} snapshots; its profile "
        f"misses by {made.miss:.2%}. Next: latentart sample --style all --model {made.model}"
    )
