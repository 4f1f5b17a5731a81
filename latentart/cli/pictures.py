"""`clean-data` and `encode`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    show_table,
    speaks,
    split_folder,
    tell,
    write_json,
)
from latentart.errors import UsageError
from latentart.kinds import NearDuplicates

if TYPE_CHECKING:
    from latentart.data.cleaning.report import CleanReport

SHOWN_FILES = 20


def clean_data(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[RAW] [KEY=VALUE]…", help="The raw folder; else the config's.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The clean folder; else the config's data.root.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and write nothing.")] = False,
    near_duplicates: Annotated[
        NearDuplicates | None,
        typer.Option("--near-duplicates", help="Pictures that look the same; else the config's data.near_duplicates."),
    ] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="Also a page: what was kept, flagged, dropped.")] = False,
    sheet_only: Annotated[bool, typer.Option("--sheet-only", help="That page of what is cleaned already.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn the raw folder into a clean data set. The raw folder stays as it is."""
    raw, settings = split_folder(arguments, "The clean folder is named with --out.")
    if dry_run and (sheet or sheet_only):
        raise UsageError("--dry-run writes nothing, and so no sheet.", "Give one of them.")
    if near_duplicates:
        settings.append(f"data.near_duplicates={near_duplicates}")
    if not dry_run:
        require_place(out)
    from latentart.config.denoiser import expect_of_few
    from latentart.config.workspace import CONFIG_NAME, resolve
    from latentart.data.cleaning.clean import NothingKeptError
    from latentart.workspace.clean_data import READ, clean_into

    if raw is not None and out is not None and config is None and not Path(CONFIG_NAME).is_file():
        data = resolve({}, settings).data
        following = f"latentart init my-art data.root={shlex.quote(str(out.absolute()))}"
    else:
        workspace = open_workspace(config, settings)
        data, following = workspace.config.data, "latentart train vae"
        workspace.name_outside(*READ, raw=raw)
        raw, out = raw or workspace.raw, out or workspace.data
    if sheet or sheet_only:
        from latentart.reporting.sheet import require_place_for_sheet, write_sheet

        require_place_for_sheet(out)
    if sheet_only:
        drawn = write_sheet(out, raw)
        write_json({"sheet": str(drawn)}) if as_json else tell(drawn)
        return
    try:
        report = clean_into(raw, out, data, dry_run=dry_run, quiet=quiet)
    except NothingKeptError as error:
        if as_json:
            write_json(error.report.to_json())
        else:
            show_report(error.report)
        raise
    page = write_sheet(out, raw) if sheet else None
    if as_json:
        write_json(report.to_json() | ({"sheet": str(page)} if page else {}))
        return
    show_report(report)
    if few := expect_of_few(report.kept):
        say(f"warning: {few}")
    if page:
        tell(page)
    if dry_run:
        say("Nothing was written: --dry-run.")
    else:
        say(f"The clean pictures lie in {out}, the report in {out / 'report.json'}. Next: {following}")


def show_report(report: CleanReport) -> None:
    """Write the report as a table: kept and dropped per style, then the files dropped or flagged, and the warnings."""
    rows: list[tuple[str, ...]] = []
    for style, counts in report.styles.items():
        reasons = {reason: n for reason, n in counts.items() if reason != "kept"}
        shown = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))
        rows.append((style, str(counts["kept"]), str(sum(reasons.values())), shown))
    rows.append(("all", str(report.kept), str(report.num_dropped), ""))
    show_table(("style", "kept", "dropped", "reasons"), rows)
    if report.balance:
        tell(report.balance)
    for verb, files in (("dropped", report.dropped), ("flagged", report.flagged)):
        shown_files = [item for item in files if item.reason != "missing"][:SHOWN_FILES]  # a table's words, perhaps
        for item in shown_files:
            detail = f" ({item.detail})" if item.detail else ""
            tell(f"{verb} {item.source}: {item.reason}{detail}")
        if len(files) > len(shown_files):
            tell(f"… and {len(files) - len(shown_files)} more {verb}; report.json names every one")
    for conflict in report.conflicts[:SHOWN_FILES]:
        tell(f"under several styles: {', '.join(conflict.sources)}; the first was kept")
    for warning in report.warnings[:SHOWN_FILES]:
        say(f"warning: {warning}")
    if len(report.warnings) > SHOWN_FILES:
        say(f"… and {len(report.warnings) - SHOWN_FILES} more warnings; report.json has every one")


def encode(
    overrides: Overrides = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the latent cache up to date. `train ldm` does it by itself."""
    workspace = open_workspace(config, overrides)
    from latentart.training.encode import encode as run_encode

    folder = run_encode(workspace, place(device, workspace.config.ldm.training.run.precision), quiet=quiet)
    if not speaks():
        return
    if as_json:
        write_json({"cache": str(folder)})
        return
    tell(folder)
    say("Next: latentart train ldm")
