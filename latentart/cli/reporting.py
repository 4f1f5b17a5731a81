"""`report` and `export`: a run as one page, a model as others use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    Overrides,
    QuietOption,
    find_model,
    place,
    require_place,
    say,
    tell,
    write_json,
)
from latentart.cli.sampling import find_sampling


def report(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="vae, ldm, or a run's folder; else the denoiser's.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The page's file; else report.html in the run.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run as one HTML page. Curves, previews, verdict, scores; it opens without a network."""
    from latentart.reporting.report import find_run, report

    require_place(out)
    result = report(find_run(_find_runs(run, config), run), out)
    if as_json:
        write_json({"path": str(result.path), "size_bytes": result.num_bytes})
        return
    tell(result.path)
    say(f"{result.num_bytes / 1e6:.1f} MB; open it in a browser.")


def _find_runs(run: str | None, config: Path | None) -> Path:
    """Return the folder of the workspace's runs; a run that is named by its path needs no workspace."""
    if run is not None and run not in ("vae", "ldm"):
        return Path("runs")
    from latentart.layout import Workspace

    return Workspace.open(config).ldm_run.parent


def onnx(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or that of an earlier export.")],
    model: ModelOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the networks as ONNX, and a script that draws with them and needs no PyTorch."""
    from latentart.export.onnx import export_onnx

    done = export_onnx(find_model(model, config), folder)
    if as_json:
        write_json({"folder": str(done.folder), "largest_differences": done.differences})
        return
    tell(done.folder)
    found = ", ".join(f"{name} {value:.1e}" for name, value in done.differences.items())
    say(f"Largest difference from PyTorch: {found}. Next: python {done.folder / 'sample.py'} --help")


def card(
    overrides: Overrides = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write README.md into the model folder: styles, a picture, training, scores, limits."""
    settings, _, folder = find_sampling(model, config, overrides)
    from latentart.export.card import write_card
    from latentart.sampling.sample import settings_from

    path = write_card(folder, settings_from(settings, {}), place(device, settings.precision), quiet=quiet)
    if as_json:
        write_json({"path": str(path)})
        return
    tell(path)
    say("Fill in its license; the words are yours to change.")
