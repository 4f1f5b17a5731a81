"""`weights`: the trained networks behind LPIPS, and weights that others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    Overrides,
    QuietOption,
    open_workspace,
    place,
    require_place,
    say,
    tell,
    write_json,
)
from latentart.kinds import Backbone, ModelPart

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[BACKBONE]…", help="vgg16, alexnet, squeezenet, inception; else the workspace's, or vgg16."
    ),
]


Kind = Literal[ModelPart, Backbone, "inception"]


def list_files(as_json: JsonOption = False) -> None:
    """List the backbones: file, size, place, and which are here."""
    from latentart.workspace.weights import list_weights

    rows = list_weights()
    if as_json:
        write_json({"weights": rows})
        return
    for row in rows:
        state = "here" if row["is_there"] else "wrong size" if row["bytes_there"] else "missing"
        if row["bytes_unfinished"]:
            state += f" ({row['bytes_unfinished'] / 2**20:.0f} MB of it fetched)"
        tell(f"{row['backbone']:10}  {row['megabytes']:>5g} MB  {state}: {row['path']}")


def fetch(
    names: Names = None,
    url: Annotated[str | None, typer.Option("--url", help="A folder on another site; else PyTorch's own.")] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Download weights into torch's cache, or go on with it. Size and SHA-256 are checked."""
    from latentart.workspace.weights import choose_weights, fetch_weights

    reports = []
    for report in fetch_weights(choose_weights(names or [], config), url, quiet=quiet):
        reports.append({"backbone": report.backbone, "path": report.path, "was_there": report.was_there})
        if not as_json:
            tell(report.path)
    if as_json:
        write_json({"weights": reports})


def verify(names: Names = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Read whole files and check their SHA-256. Ends with exit code 8 where one is missing or wrong."""
    from latentart.workspace.weights import choose_weights, require_no_fault, verify_weights

    reports = []
    for report in verify_weights(choose_weights(names or [], config)):
        reports.append(report)
        if not as_json and not report.fault:
            tell(f"{report.backbone}: {report.path} is whole")
    if as_json:
        rows = [{"backbone": r.backbone, "path": r.path, "is_whole": not r.fault, "fault": r.fault} for r in reports]
        write_json({"weights": rows})
    require_no_fault(reports)


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pt, .ckpt or .safetensors file, or a folder.")],
    kind: Annotated[Kind, typer.Option("--as", help="The network of the config, or a file behind LPIPS or FID.")],
    overrides: Overrides = None,
    key: Annotated[str | None, typer.Option("--key", help="Where in the file, as ema; else where they fit.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A new model folder; else the run's own.")] = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a model of weights from elsewhere, if every tensor fits. Code in a file never runs."""
    if kind not in ("autoencoder", "denoiser"):
        from latentart.workspace.weights import import_backbone

        report = import_backbone(kind, file)
        write_json({"backbone": report.backbone, "path": report.path}) if as_json else tell(report.path)
        return
    workspace = open_workspace(config, overrides)
    from latentart.workspace.weights_import import import_weights

    require_place(out)
    is_denoiser = kind == "denoiser"
    done = import_weights(
        workspace, file, "denoiser" if is_denoiser else "autoencoder", key, out, place(device, "fp32")
    )
    if as_json:
        found = {"key": done.key, "prefix": done.prefix, "parameters": done.parameters}
        write_json({"model": str(done.model), **found})
        return
    tell(done.model)
    where = f" from '{done.key}'" if done.key else ""
    then = "latentart train ldm" if out is None else f"latentart reconstruct PICTURE --model {done.model}"
    then = f"latentart sample --style all --model {done.model}" if is_denoiser else then
    say(f"{done.parameters / 1e6:.2f} M parameters{where}, all of them fit. Next: {then}")
