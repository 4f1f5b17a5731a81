"""`report`: a run as one page, `runs`: those of a workspace, kept ones too, and `export`: a model as others use it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    Overrides,
    QuietOption,
    ask,
    find_model,
    open_workspace,
    place,
    require_place,
    say,
    show_table,
    tell,
    write_json,
)
from latentart.cli.planning import FigureOption, size
from latentart.cli.sampling import find_sampling
from latentart.errors import UsageError

if TYPE_CHECKING:
    from latentart.reporting.runs import Run

Network = Literal["vae", "ldm"]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `runs ls` lists it.")]
HEADINGS = ("run", "network", "step", "held-out", "score", "last written", "size", "state")
SCORES = {"recognition": "{:.0%} recognized", "psnr": "{:.1f} dB"}


def report(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A name of `runs ls`, or a folder; else the denoiser's.")
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
    from latentart.config.workspace import CONFIG_NAME

    if run not in (None, "vae", "ldm") and config is None and not Path(CONFIG_NAME).is_file():
        return Path("runs")
    from latentart.layout import Workspace

    return Workspace.open(config).runs


def list_runs(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the runs, the newest first: steps, held-out loss, size."""
    folder = open_workspace(config).runs
    from latentart.reporting.runs import describe, list_runs

    found = [describe(run) for run in list_runs(folder)]
    if as_json:
        write_json({"runs": [run.to_json() for run in found]})
    elif found:
        rows = [HEADINGS, *map(row_of, found)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            tell("  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip())
    else:
        say(f"There are no runs in {folder} yet. Next: latentart train vae")


def row_of(run: Run) -> tuple[str, ...]:
    """Return one line of the table."""
    steps = f"{run.step:,}" if run.planned is None or run.stage else f"{run.step:,} of {run.planned:,}"
    return (
        run.name,
        run.what,
        f"{steps}, {run.stage}" if run.stage else steps,
        "" if run.held_out is None else f"{run.held_out:.4g}",
        SCORES[run.score[0]].format(run.score[1]) if run.score else "",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(run.modified)),
        size(run.num_bytes),
        run.state,
    )


def keep(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.")],
    run: Annotated[Network | None, typer.Argument(metavar="[RUN]", help="vae or ldm; else ldm, if there.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move the present run to a name, so that a training begins anew."""
    folder = open_workspace(config).runs
    from latentart.reporting.report import network_of
    from latentart.reporting.runs import PLACES
    from latentart.reporting.runs import keep as keep_run

    kept = keep_run(folder, name, run)
    if as_json:
        write_json({"run": str(kept)})
        return
    tell(kept)
    model = kept / "model"
    if (model / "denoiser.safetensors").is_file():
        say(f"`latentart sample --style all --model {model}` draws with it.")
    say(f"`latentart runs restore {name}` brings it back. Next: latentart train {PLACES[network_of(kept)]}")


def restore(name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Move a kept run back to where trainings go on."""
    folder = open_workspace(config).runs
    from latentart.reporting.runs import restore as restore_run

    run = restore_run(folder, name)
    if as_json:
        write_json({"run": str(run)})
        return
    tell(run)
    say(f"Next: latentart train {run.name}")


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="As `runs ls` lists it.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another of the same network.")],
    out: FigureOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how two runs differ. Settings, losses, scores, times; a figure."""
    folder = open_workspace(config).runs
    from latentart.data.pictures.figures import choose_path
    from latentart.reporting.compare import compare as compare_runs
    from latentart.reporting.runs import require_run

    runs = require_run(folder, first), require_run(folder, second)
    path = choose_path(folder.parent / f"compare_{first}_{second}.png", out)
    found = compare_runs(*runs, path)
    if as_json:
        write_json({**asdict(found), "figure": str(path)})
        return
    for heading, rows in (("setting", found.settings), ("", found.numbers)):
        if rows:
            show_table((heading, *found.names), rows)
    if not found.settings:
        say("No setting that they are trained by differs.")
    for note in found.notes:
        say(f"warning: {note}")
    tell(path)


def remove(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a run for good, once its name is typed again."""
    folder = open_workspace(config).runs
    from latentart.reporting.runs import describe, remove, require_run

    if not yes:
        row = ", ".join(filter(None, row_of(describe(require_run(folder, name)))))
        if ask(f"{row}\nIt cannot be brought back. Type {name} to delete it: ", "Give --yes.") != name:
            raise UsageError("that is another word; nothing was deleted.")
    num_bytes = remove(folder, name)
    if as_json:
        write_json({"run": name, "size_bytes": num_bytes})
        return
    say(f"{name} is deleted, {size(num_bytes)}.")


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


def web(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or that of an earlier export.")],
    runtime: Annotated[
        Path | None,
        typer.Option("--runtime", metavar="DIR", help="An unpacked onnxruntime-web, to copy; else its CDN is named."),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Weights of 16 bits: half the bytes, nearly the picture.")
    ] = False,
    title: Annotated[str, typer.Option("--title", help="What stands over the page.")] = "Draw",
    model: ModelOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a page for any web host, on which visitors draw in their own browser."""
    from latentart.export.web import export_web

    done = export_web(find_model(model, config), folder, runtime=runtime, is_half=half, title=title)
    if as_json:
        write_json({"folder": str(done.folder), "size_bytes": done.num_bytes, "largest_differences": done.differences})
        return
    tell(done.folder)
    if runtime is None:
        say("Visitors get onnxruntime-web from cdn.jsdelivr.net, checked by its hash; --runtime copies it in instead.")
    import shlex

    look = f"python -m http.server -d {shlex.quote(str(done.folder))}"
    say(f"{size(done.num_bytes)}. To look at it: {look}, then http://localhost:8000")
