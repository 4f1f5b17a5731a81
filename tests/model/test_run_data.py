"""What a run is trained on: the same on resume, or changed where the call allows it; ids never shift."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.data.latent_cache import LatentCache
from latentart.errors import DataError, ModelError
from latentart.layout import Workspace
from latentart.model.labels import ids_in_cache, read_columns
from latentart.model.run_data import settle_data
from latentart.storage.checkpoints import find_checkpoint

Run = Callable[..., Any]
STYLES = ["Cubism", "High_Renaissance", "Minimalism"]
ALLOW = "--allow-changed-data"
RUN = Path("runs/ldm")
THEN = {
    "fingerprint": "a",
    "num_pictures": 9,
    "style_names": ["b", "c"],
    "held_out": 0.1,
    "labels": [{"name": "genre", "values": ["m", "n"]}],
    "labels_fingerprint": "f",
    "autoencoder": "x",
}
OTHERS = {"fingerprint": "b", "num_pictures": 7}


def labels(*values: str) -> dict[str, Any]:
    """Return the description of one column."""
    return {"labels": [{"name": "genre", "values": list(values)}], "labels_fingerprint": "g"}


def edit_index(art: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the entries of a clean set."""
    index = art / "data/index.jsonl"
    entries = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("".join(json.dumps(entry) + "\n" for entry in change(entries)))


def without_cubism(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of the other styles."""
    return [entry for entry in entries if entry["style"] != "Cubism"]


def with_art_deco(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries, two of them under the name of a style that sorts before all others."""
    return [{**entry, "style": "Art_Deco"} for entry in entries[:2]] + entries[2:]


def test_what_is_unchanged_says_nothing() -> None:
    """The order of ids is that of then; a style that went away earlier is no change."""
    now = {**THEN, "style_names": ["c"], **labels("n"), "labels_fingerprint": "f"}

    for may_change in (False, True):
        assert settle_data(THEN, dict(THEN), RUN, may_change=may_change, may_grow=False) == (THEN, [])
        assert settle_data(THEN, now, RUN, may_change=may_change, may_grow=False) == (THEN, [])


def test_twins_found_since_are_no_refusal() -> None:
    """A run of before goes on, and a line says that its held-out pictures may have been seen."""
    settled, said = settle_data(THEN, {**THEN, "twins": "t"}, RUN, may_change=False, may_grow=False)

    assert settled["twins"] == "t"
    assert len(said) == 1
    assert "may have been trained on" in said[0]


def test_names_that_are_gone_keep_their_ids() -> None:
    """Styles and labels stay where they were; the note says what has changed."""
    now = {**THEN, **OTHERS, "style_names": ["c"], **labels("n")}

    settled, (note,) = settle_data(THEN, now, RUN, may_change=True, may_grow=False)

    assert settled == {**THEN, **OTHERS, "labels_fingerprint": "g"}
    assert "as --allow-changed-data allows: styles gone: b; pictures held out from here on may" in note


def test_new_styles_come_behind_where_there_is_room() -> None:
    """In an autoencoder's run a name that sorts first gets the last id; a denoiser has no room."""
    now = {**THEN, **OTHERS, "style_names": ["a", "b", "c"]}

    settled, _ = settle_data(THEN, now, RUN, may_change=True, may_grow=True)

    assert settled["style_names"] == ["b", "c", "a"]
    with pytest.raises(DataError, match=r"the denoiser in runs/ldm has no room for what is new: a\."):
        settle_data(THEN, now, RUN, may_change=True, may_grow=False)
    with pytest.raises(DataError, match=r"no room for what is new: a, genre=l\."):
        settle_data(THEN, {**now, **labels("l", "m")}, RUN, may_change=True, may_grow=False)


@pytest.mark.parametrize("may_change", [False, True])
@pytest.mark.parametrize(
    ("now", "kind", "message", "can_be_allowed"),
    [
        (OTHERS, DataError, "(9 pictures then, 7 now, not all the same)", True),
        ({"held_out": 0.2}, DataError, "data.held_out was 0.1 when runs/ldm began and is 0.2.", True),
        (labels("m", "n"), DataError, "the labels that runs/ldm is trained with have changed since it began.", True),
        ({"labels": [{"name": "artist", "values": ["m"]}]}, DataError, "(columns: genre then, artist now)", False),
        ({"autoencoder": "y"}, ModelError, "the autoencoder has been trained on since runs/ldm began", False),
    ],
)
def test_what_may_not_change_is_refused(
    now: dict[str, Any], kind: type[Exception], message: str, can_be_allowed: bool, may_change: bool
) -> None:
    """With the way out, which is the option where that helps; networks of other kinds and latents are never allowed."""
    now = {**THEN, **now}
    if may_change and can_be_allowed:
        settled, notes = settle_data(THEN, now, RUN, may_change=True, may_grow=False)
        assert (settled, len(notes)) == (now, 1)
        return

    with pytest.raises(kind) as caught:
        settle_data(THEN, now, RUN, may_change=may_change, may_grow=False)

    assert message in str(caught.value)
    assert (ALLOW in str(caught.value)) == can_be_allowed
    if may_change:  # the true reason also where pictures have changed that might
        with pytest.raises(kind) as caught:
            settle_data(THEN, {**now, **OTHERS}, RUN, may_change=True, may_grow=False)
        assert message in str(caught.value)


def test_columns_are_those_of_the_run() -> None:
    """A value that no picture has any more keeps its row."""
    (column,) = read_columns(THEN)

    assert (column.name, column.values) == ("genre", ("m", "n"))
    assert read_columns({}) == []


def test_a_denoiser_goes_on_without_a_style(run: Run, workspace: Path) -> None:
    """Allowed once it is the run's own data: encoded again, three styles as before, a note, and no option needed."""
    shutil.rmtree(workspace / "runs/ldm")
    assert run(workspace, "train", "ldm", "--max-steps", "1").code == 0
    edit_index(workspace, without_cubism)
    refused = run(workspace, "train", "ldm").error(4)
    first = run(workspace, "train", "ldm", ALLOW, "--max-steps", "1")
    second = run(workspace, "train", "ldm")
    sampled = run(workspace, "sample", "-s", "Cubism", "-n", "1")

    assert "(styles gone: Cubism). Put them back, go on all the same with --allow-changed-data, or move" in refused
    assert (first.code, second.code, sampled.code) == (0, 0, 0), first.err + second.err
    saved = find_checkpoint(workspace / "runs/ldm")
    assert saved is not None
    assert (saved.step, saved.state["data"]["num_pictures"], saved.state["data"]["style_names"]) == (3, 10, STYLES)
    assert json.loads((workspace / "runs/ldm/model/model.json").read_text())["style_names"] == STYLES
    assert len(list((workspace / "cache").glob("latents-*"))) == 2
    log = (workspace / "runs/ldm/log.txt").read_text()
    assert log.count("as --allow-changed-data allows: styles gone: Cubism") == 1
    cache = max((workspace / "cache").glob("latents-*"), key=lambda folder: folder.stat().st_mtime_ns)
    entries, names = Workspace.open(workspace / "latentart.json").read_pictures()
    assert names == STYLES[1:]
    ids = ids_in_cache(LatentCache.open(cache), entries, STYLES, [])
    assert torch.equal(ids, torch.tensor([STYLES.index(entry.style) for entry in entries]))
    assert set(ids.tolist()) == {1, 2}


def test_a_denoiser_has_no_room_for_a_style(run: Run, workspace: Path, snapshot: Run) -> None:
    """One line names it, with exit code 4, and nothing is touched."""
    edit_index(workspace, with_art_deco)
    before = snapshot(workspace)

    line = run(workspace, "train", "ldm", ALLOW).error(4)

    assert "the denoiser in runs/ldm has no room for what is new: Art_Deco." in line
    assert snapshot(workspace) == before


@pytest.mark.slow
def test_an_autoencoder_goes_on_with_other_pictures(run: Run, cleaned: Path) -> None:
    """In the middle of a stage, new style and all; the next stage asks for nothing."""
    assert run(cleaned, "train", "vae", "--max-steps", "1").code == 0
    edit_index(cleaned, with_art_deco)

    refused = run(cleaned, "train", "vae").error(4)
    allowed = run(cleaned, "train", "vae", ALLOW)

    assert "(styles new: Art_Deco)" in refused
    assert allowed.code == 0, allowed.err
    about = json.loads((cleaned / "runs/vae/model/model.json").read_text())
    assert (about["training"]["vae"]["step"], about["style_names"]) == (10, [*STYLES, "Art_Deco"])


def test_evaluations_say_where_held_out_pictures_may_have_been_seen(run: Run, workspace: Path) -> None:
    """Another share is held out than in training; with the same one nothing is said."""
    words = ("evaluate", "vae", "--count", "1", "--quiet")
    same = run(workspace, *words)
    config = json.loads((workspace / "latentart.json").read_text())
    share = json.loads((workspace / "runs/vae/config.json").read_text())["data"]["held_out"]
    config["data"]["held_out"] = 0.4
    (workspace / "latentart.json").write_text(json.dumps(config))

    other = run(workspace, *words)

    warning = f"(data.held_out was {share} and is 0.4): pictures held out now may have been trained on"
    assert (same.code, other.code) == (0, 0), other.err
    assert warning in other.err
    assert "may have been trained on" not in same.err
