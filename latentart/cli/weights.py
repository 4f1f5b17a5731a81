"""`weights`: the trained networks behind LPIPS."""

from __future__ import annotations

from typing import Annotated

import typer

from latentart.cli.options import ConfigOption, JsonOption, QuietOption, write_json

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[BACKBONE]…", help="vgg16, alexnet, squeezenet; else the workspace's, or vgg16."),
]


def list_files(as_json: JsonOption = False) -> None:
    """List the backbones: file, size, place, and which are here."""
    from latentart.recipes.weights import list_weights

    rows = list_weights()
    if as_json:
        write_json({"weights": rows})
        return
    for row in rows:
        state = "here" if row["is_there"] else "wrong size" if row["bytes_there"] else "missing"
        if row["bytes_unfinished"]:
            state += f" ({row['bytes_unfinished'] / 2**20:.0f} MB of it fetched)"
        typer.echo(f"{row['backbone']:10}  {row['megabytes']:>5g} MB  {state}: {row['path']}")


def fetch(
    names: Names = None,
    url: Annotated[str | None, typer.Option("--url", help="A folder on another site; else PyTorch's own.")] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Download weights into torch's cache, or go on with it. Size and SHA-256 are checked."""
    from latentart.recipes.weights import choose_weights, fetch_weights

    reports = []
    for report in fetch_weights(choose_weights(names or [], config), url, quiet=quiet):
        reports.append({"backbone": report.backbone, "path": report.path, "was_there": report.was_there})
        if not as_json:
            typer.echo(report.path)
    if as_json:
        write_json({"weights": reports})


def verify(names: Names = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Read whole files and check their SHA-256. Ends with exit code 8 where one is missing or wrong."""
    from latentart.recipes.weights import choose_weights, require_no_fault, verify_weights

    reports = []
    for report in verify_weights(choose_weights(names or [], config)):
        reports.append(report)
        if not as_json and not report.fault:
            typer.echo(f"{report.backbone}: {report.path} is whole")
    if as_json:
        rows = [{"backbone": r.backbone, "path": r.path, "is_whole": not r.fault, "fault": r.fault} for r in reports]
        write_json({"weights": rows})
    require_no_fault(reports)
