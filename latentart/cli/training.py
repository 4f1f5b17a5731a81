"""`train vae` and `train ldm`."""

from __future__ import annotations

from typing import Annotated

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    Overrides,
    QuietOption,
    open_workspace,
    place,
    say,
    write_json,
)


def train_vae(
    overrides: Overrides = None,
    stage: Annotated[str, typer.Option("--stage", help="l1, adversarial, lpips, hires, or all that is left.")] = "all",
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the autoencoder: one stage, or all from where it stands."""
    workspace = open_workspace(config, overrides)
    from latentart.recipes.train_vae import train_vae as run_train_vae

    result = run_train_vae(workspace, stage, place(device), quiet=quiet)
    if as_json:
        scores = result.scores.to_json() if result.scores else None
        write_json({"model": str(result.model), "stages": result.stages, "scores": scores})
        return
    typer.echo(result.model)
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
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the denoiser on the cached latents. It goes on from where it stands."""
    workspace = open_workspace(config, overrides)
    from latentart.recipes.train_ldm import train_ldm as run_train_ldm

    result = run_train_ldm(workspace, place(device, workspace.config.ldm.training.run.precision), quiet=quiet)
    if as_json:
        write_json({"model": str(result.model), "is_new": result.is_new})
        return
    typer.echo(result.model)
    done = f"Previews: {result.preview}." if result.is_new else "Nothing was left to do: the denoiser is finished."
    say(f"{done} Next: latentart sample --style all")
