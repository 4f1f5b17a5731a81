"""What a run is trained on: pictures, styles and labels, which a run that goes on finds as they were, or may not.

Ids never shift: styles and labels that are gone keep theirs, new ones come behind them where networks have
room or are given it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentart.data.index import IndexEntry, index_fingerprint, twins_fingerprint
from latentart.errors import DataError, LatentArtError, ModelError, ResourceError
from latentart.layout import Workspace
from latentart.model.folder import find_autoencoder, weights_hash
from latentart.model.labels import describe_labels
from latentart.storage.checkpoints import list_checkpoints
from latentart.storage.folders import read_json

logger = logging.getLogger(__name__)

ALLOW, ADD = "--allow-changed-data", "--add-styles"


def describe_pictures(entries: Sequence[IndexEntry], style_names: list[str], held_out: float) -> dict[str, Any]:
    """Return what a run is trained on: one that goes on must find it unchanged, unless its call allows a change."""
    twins = twins_fingerprint(entries)
    return {
        "fingerprint": index_fingerprint(entries),
        "num_pictures": len(entries),
        "style_names": style_names,
        "held_out": held_out,
        **({"twins": twins} if twins else {}),  # what look the same are held out together
    }


def describe_latents(workspace: Workspace) -> dict[str, Any]:
    """Return what a denoiser's run is trained on: pictures, labels, and the autoencoder whose latents it learns."""
    entries, names = workspace.read_pictures()
    return {
        **describe_pictures(entries, names, workspace.config.data.held_out),
        **describe_labels(entries, workspace.config.ldm.labels),
        "autoencoder": weights_hash(find_autoencoder(workspace)),
    }


def settle_data(
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    run: Path,
    *,
    may_change: bool,
    may_grow: bool,
    option: str = ALLOW,
) -> tuple[dict[str, Any], list[str]]:
    """Return the data that a run goes on with, names in the order of their ids, and in words what has changed.

    ``may_change`` is for a call that allows other pictures, labels and held-out pictures than the run began with, by
    that ``option``; ``may_grow`` for networks that have room for new styles, which a denoiser has to be given.

    Raises:
        DataError: they differ and may not, or there are new ones that the denoiser has no room for.
        ModelError: the autoencoder that made the latents differs.
    """
    settled = {**now, "style_names": _in_order(saved["style_names"], now["style_names"])}
    settled |= {"latents": saved["latents"]} if "latents" in saved else {}  # the scale that the weights know
    if _columns(saved) == _columns(now) != []:
        pairs = zip(saved["labels"], now["labels"], strict=True)
        settled["labels"] = [{**new, "values": _in_order(old["values"], new["values"])} for old, new in pairs]
    changed = {name for name in saved.keys() | settled.keys() if saved.get(name) != settled.get(name)}
    if not changed:
        return settled, []
    flatter = "pictures held out from here on may have been trained on, so their numbers may flatter"
    if changed == {"twins"}:
        return settled, [f"warning: other pictures count as looking the same than when {run} began; {flatter}"]
    if not may_change or "autoencoder" in changed or _columns(saved) != _columns(now):
        option = ALLOW if may_grow or not new_names(saved, now) else ADD
        raise _refusal(saved, now, run, changed, None if may_change else option)
    if not may_grow and (new := new_names(saved, now)):
        msg = f"the denoiser in {run} has no room for what is new: {', '.join(new)}."
        raise DataError(msg, f"Make room with {ADD}, leave these out of the clean set, or {begin_anew(run)}.")
    said = f"warning: the data have changed, as {option} allows: {_differences(saved, now)}"
    return settled, [f"{said}; {flatter}"]


def warn_if_held_out_was_seen(workspace: Workspace, run: Path, model: Path) -> None:
    """Say where pictures that are held out now may have been trained on, since the set was another one then."""
    there = list_checkpoints(run)
    if not there or model.resolve() != (run / "model").resolve():
        return
    entries, names = workspace.read_pictures()
    now = describe_pictures(entries, names, workspace.config.data.held_out)
    with contextlib.suppress(ModelError, ResourceError, LookupError, TypeError):  # a damaged one says nothing
        saved = read_json(there[-1] / "state.json")["state"]["data"]
        if any(saved.get(name) != now.get(name) for name in ("fingerprint", "held_out", "twins")):
            logger.warning(
                "the data have changed since %s was trained (%s): pictures held out now may have been trained on",
                run,
                _differences(saved, now),
            )


def begin_anew(run: Path, verb: str = "move") -> str:
    """Return in words what makes room for a run that begins anew; a sentence begins with another ``verb``."""
    return f"{verb} {run} away (`latentart runs keep NAME {run.name}`) to begin anew"


def _in_order(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return all names, first those that were there before."""
    return [*before, *(name for name in now if name not in before)]


def _columns(data: Mapping[str, Any]) -> list[str]:
    return [column["name"] for column in data.get("labels", [])]


def new_names(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the styles that were not there then, and labels, as column=value, of columns that were."""
    new = [name for name in now["style_names"] if name not in saved["style_names"]]
    for old, column in zip(saved.get("labels", []), now.get("labels", []), strict=False):
        new += [f"{column['name']}={value}" for value in column["values"] if value not in old["values"]]
    return new


def _refusal(
    saved: Mapping[str, Any], now: Mapping[str, Any], run: Path, changed: set[str], option: str | None
) -> LatentArtError:
    """Say what has changed that may not, and what there is to do: ``option`` would allow it, None allows no more."""
    away, may_change = begin_anew(run), option is None
    columns = [", ".join(_columns(data)) or "none" for data in (saved, now)]
    allow = f"go on all the same with {option}"
    if columns[0] != columns[1] and (may_change or changed <= {"labels", "labels_fingerprint"}):
        columns_then = f" (columns: {columns[0]} then, {columns[1]} now)"
        msg = f"the labels that {run} is trained with have changed since it began{columns_then}."
        return DataError(msg, f"Put ldm.labels and the table back, or {away}.")
    if changed <= {"labels", "labels_fingerprint"}:
        msg = f"the labels that {run} is trained with have changed since it began."
        return DataError(msg, f"Put ldm.labels and the table back, {allow}, or {away}.")
    if changed == {"autoencoder"} or may_change:
        msg = f"the autoencoder has been trained on since {run} began, so its latents are others."
        return ModelError(msg, f"M{away[1:]}.")
    if changed == {"held_out"}:
        msg = f"data.held_out was {saved.get('held_out', 0)} when {run} began and is {now['held_out']}."
        return DataError(msg, f"Put it back, {allow}, or {away} with other pictures held out.")
    msg = f"the pictures have changed since {run} began ({_differences(saved, now)})."
    return DataError(msg, f"Put them back, {allow}, or {away}.")


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in words how two sets of pictures differ."""
    gone = [name for name in saved["style_names"] if name not in now["style_names"]]
    new = [name for name in now["style_names"] if name not in saved["style_names"]]
    changes = [f"styles gone: {', '.join(gone)}"] * bool(gone) + [f"styles new: {', '.join(new)}"] * bool(new)
    if not changes and saved["fingerprint"] != now["fingerprint"]:
        changes = [f"{saved['num_pictures']} pictures then, {now['num_pictures']} now, not all the same"]
    held_out = saved.get("held_out", 0), now["held_out"]
    if held_out[0] != held_out[1]:
        changes.append(f"data.held_out was {held_out[0]} and is {held_out[1]}")
    if not changes and saved.get("twins") != now.get("twins"):
        changes.append("other pictures count as looking the same")
    return "; ".join(changes) or "other labels"
