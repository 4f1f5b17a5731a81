"""`latentart report`: one run as one page that opens anywhere."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentart.errors import UsageError
from latentart.kinds import ModelPart
from latentart.printable import counted, duration
from latentart.reporting.page import Page, Preview, render, require_replaceable, write_page
from latentart.reporting.run_charts import draw_charts
from latentart.reporting.thumbnails import make_thumbnail, make_thumbnails, thin_evenly
from latentart.scoring.run_history import HELD_OUT_LOSS, LOG, METRICS, RunHistory, Trace, read_end
from latentart.scoring.verdict import judge_run
from latentart.storage.json_files import object_in

OUT = "report.html"
NETWORKS: Mapping[str, ModelPart] = {"vae": "autoencoder", "ldm": "denoiser"}
MAX_PREVIEWS, LEAST_PREVIEWS = 24, 8
MAX_PREVIEW_BYTES = 48 * 10**6  # of their files; to decode so much takes most of the time of a report
LAST_SIDES, LAST_BYTES = (1000, 2000), 700_000
SMALL_SIDES, SMALL_BYTES = (260, 520), 70_000  # 24 of them, and the last, are 3.1 MB of text
LOG_LINES, SCORE_LINES, SCORE_NAMES = 40, 20, 40
MAX_VERDICT_ROWS = 50
PREVIEW = re.compile(r"step-(\d{1,15})\.png")


@dataclass(frozen=True)
class ReportResult:
    """Where the page lies, and how large it is."""

    path: Path
    num_bytes: int


def find_run(runs: Path, asked: str | None) -> Path:
    """Return the run that is meant: by its name in ``runs``, a path, else the denoiser's, else the other.

    Raises:
        UsageError: there is none.
    """
    candidates = [runs / name for name in ("ldm", "vae")]
    if asked is not None:
        candidates = [runs / asked] if asked in NETWORKS else list(dict.fromkeys([Path(asked), runs / asked]))
    for folder in candidates:
        if any((folder / name).is_file() for name in (METRICS, "config.json", "log.txt")):
            return folder
    msg = f"there is no run at {' or '.join(map(str, candidates))}."
    raise UsageError(msg, "Name a run, as `latentart runs ls` lists them, or its folder; or train first.")


def report(run: Path, out: Path | None = None) -> ReportResult:
    """Write the page of a run; an older report is replaced, any other file is not.

    Raises:
        UsageError: something else lies where the page would go.
        ResourceError: the disk does not take it.
    """
    path = out or run / OUT
    require_replaceable(path)
    return ReportResult(path, write_page(path, render("page.html.j2", build_page(run))))


def build_page(run: Path) -> Page:
    """Read a run, however damaged, and return what its page shows."""
    config = read_object(run / "config.json")
    what = network_of(run)
    kept = "" if run.name in NETWORKS else f", {run.name}"
    history = RunHistory(run, what)
    with ThreadPoolExecutor(1) as beside:  # pictures are decoded while the numbers are read and drawn
        pictures = beside.submit(read_previews, run / "previews")
        unread = _read_history(history)
        charts = draw_charts(history)
        previews, unreadable = pictures.result()
    planned = planned_steps(config, read_object(run / "model/model.json"), history)
    return Page(
        title=f"{what.capitalize()}: {run.resolve().parent.parent.name}{kept}",
        subtitle=f"{run} · {time.strftime('%Y-%m-%d %H:%M')}",
        verdict=verdict_of(history, planned),
        facts=describe_facts(history, planned),
        last_preview=previews[-1] if previews else None,
        previews=previews[:-1],
        charts=charts,
        verdicts=list_verdicts(history),
        scores=read_scores(run / "evaluations.jsonl", history),
        machine={name: _show(value) for name, value in read_object(run / "machine.json").items()},
        config=read_end(run / "config.json").strip().splitlines(),
        log=read_end(run / LOG).splitlines()[-LOG_LINES:],
        notes=[*unread, *_notes(history, unreadable)],
    )


def _read_history(history: RunHistory) -> list[str]:
    """Take in a run's numbers, and return what there is to say where the system does not give them."""
    try:
        history.read()
    except OSError as error:
        return [f"{METRICS} cannot be read: {error.strerror or error}."]
    return []


def planned_steps(config: Mapping[str, Any], about: Mapping[str, Any], history: RunHistory) -> int | None:
    """Return how many steps the run, or its present stage, is to have; None where nobody says.

    What epochs come to stands in the model that the run wrote: of a stage only once that is finished.
    """
    steps: Any = None
    with contextlib.suppress(LookupError, TypeError):
        if history.what == "denoiser":
            steps = config["ldm"]["training"]["steps"] or about["training"]["ldm"]["steps"]
        else:
            steps = {stage["name"]: stage["steps"] for stage in config["vae"]["stages"]}[list(history.stages)[-1]]
            if not steps and (last := about["training"]["vae"]["step"]) >= history.last_step:
                steps = last - history.first_step
    return steps if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0 else None


def read_previews(folder: Path) -> tuple[list[Preview], int]:
    """Return at most 24 pages of previews as small pictures, the last one larger; and how many cannot be read.

    Of large files there are fewer, 8 at least.
    """
    with contextlib.suppress(OSError):
        found = {int(m[1]): path for path in folder.iterdir() if (m := PREVIEW.fullmatch(path.name))}
        affordable = MAX_PREVIEW_BYTES * len(found) // max(1, sum(path.stat().st_size for path in found.values()))
        chosen = thin_evenly(sorted(found), max(LEAST_PREVIEWS, min(MAX_PREVIEWS, affordable)))
        small = make_thumbnails([found[step] for step in chosen[:-1]], SMALL_SIDES, SMALL_BYTES)
        last = [make_thumbnail(found[step], LAST_SIDES, LAST_BYTES) for step in chosen[-1:]]
        pictures = [*small, *last]
        previews = [Preview(step, one) for step, one in zip(chosen, pictures, strict=True) if one is not None]
        return previews, pictures.count(None)
    return [], 0


def describe_facts(history: RunHistory, planned: int | None) -> dict[str, str]:
    """Return the figures at the top of the page."""
    facts = {"steps": f"{history.last_step:,}"}
    if planned and not history.stages:
        facts["steps"] += f" of {planned:,}"
    if history.stages:
        facts["stage"] = list(history.stages)[-1]
    rate = history.traces.get("images_per_second", Trace())
    values = {
        "time": duration(history.seconds) if history.seconds else "",
        "images per second": _number(rate.last),
        "held-out loss": _number(history.fixed.get(HELD_OUT_LOSS[history.what])),
        "recognized": _share(history.fixed.get("recognition")),
        "skipped updates": _number(history.fixed.get("skipped_steps") or None),
        "wait for data": _share(history.fixed.get("data_share")),
    }
    done, seconds = history.last_step - history.first_step, history.seconds - history.seconds_before
    if planned and 0 < done < planned and seconds:
        stage = f" of {facts['stage']}" if history.stages else ""
        values["left"] = duration(seconds / done * (planned - done)) + stage
    return facts | {name: value for name, value in values.items() if value}


def list_verdicts(history: RunHistory) -> list[list[str]]:
    """Return the verdicts so far, one row for those alike in a row, with the evidence of the last of these."""
    rows: list[list[str]] = []
    first = 0
    for said in history.said:
        kind = said.verdict.kind.replace("_", " ")
        if rows and rows[-1][1] == kind:
            rows[-1] = [f"{first:,} to {said.step:,}", kind, said.verdict.evidence]
        else:
            first = said.step
            rows.append([f"{said.step:,}", kind, said.verdict.evidence])
    return rows[-MAX_VERDICT_ROWS:]


def read_scores(path: Path, history: RunHistory) -> list[list[str]]:
    """Return the scores that a run's training took and its newest evaluations: a row each, below one of their names."""
    rows: list[dict[str, str]] = []
    scored = [name for name in ("psnr", "ssim", "lpips", "frechet") if name in history.fixed]
    if scored:
        rows.append({"step": f"{history.last_step:,}", **{name: _number(history.fixed[name]) for name in scored}})
    entries = map(object_in, read_end(path).splitlines()[-SCORE_LINES:])
    rows += [dict(list(_flatten(entry).items())[:SCORE_NAMES]) for entry in entries if entry]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([row.get(name, "") for name in names] for row in rows)] if names else []


def _flatten(entry: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return an evaluation's numbers and words by their dotted names, two levels deep; lists are left out."""
    found: dict[str, str] = {}
    for name, value in entry.items():
        if isinstance(value, dict) and prefix.count(".") < 1:
            found |= _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (str, int, float)):
            found[f"{prefix}{name}"] = _show(value)[:200]
    return found


def network_of(run: Path) -> ModelPart:
    """Return what a run trains: by its name, else by whether its metrics, or before these its log, have stages."""
    if run.resolve().name in NETWORKS:
        return NETWORKS[run.resolve().name]
    for name, sign in ((METRICS, b'"stage":'), (LOG, b" stage ")):
        with contextlib.suppress(OSError):
            if (run / name).is_file():
                with (run / name).open("rb") as file:
                    if start := file.read(2**16):
                        return "autoencoder" if sign in start else "denoiser"
    return "denoiser"


def verdict_of(history: RunHistory, planned: int | None) -> tuple[str, str, str] | None:
    """Return the verdict by all that is known now, none where that is too early; without a plan nothing is finished."""
    if not history.traces:
        return None
    now = judge_run(history.to_history(planned or history.last_step - history.first_step + 1))
    if now.kind == "too_early" and not history.said:
        return None
    return now.kind.replace("_", " "), now.evidence, now.advice


def _notes(history: RunHistory, unreadable: int) -> list[str]:
    notes = [] if history.traces else ["There are no numbers of this run yet."]
    if history.reader.torn:
        are, were = ("is", "was") if history.reader.torn == 1 else ("are", "were")
        lines = counted(history.reader.torn, "line")
        notes.append(f"{lines} of {METRICS} {are} torn or foreign and {were} left out.")
    if history.reader.stride > 1:
        notes.append(f"Of the lines of single steps one in {history.reader.stride:,} was read.")
    if unreadable:
        notes.append(f"{counted(unreadable, 'preview')} could not be read.")
    return notes


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one where there is none."""
    return object_in(read_end(path)) or {}


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
