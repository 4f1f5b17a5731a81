"""The runs of a workspace: listed, kept under a name, brought back, compared and deleted; nothing is lost."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentart.cli.reporting import remove
from latentart.errors import UsageError
from latentart.layout import Workspace
from latentart.reporting.compare import compare
from latentart.reporting.runs import describe, list_runs
from latentart.storage.lock import hold_lock, myself, process_start
from latentart.studio.watching import Watch

Run = Callable[..., Any]


class Terminal(io.StringIO):
    """A person's terminal."""

    def isatty(self) -> bool:
        """Tell that somebody sits there."""
        return True


def write_run(run: Path, losses: dict[int, float], **config: Any) -> Path:
    """Write a denoiser's run with these held-out losses by their steps."""
    run.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for step, loss in losses.items():
        lines.append({"step": step, "loss": loss, "plain_loss": loss / 2, "time": 1e9 + step, "images_per_second": 8.0})
        lines.append({"step": step, "held_out_loss": loss})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.json").write_text(
        json.dumps({"ldm": {"training": {"steps": 100, "lr": 1}, **config}, "vae": config})
    )
    return run


def rows_of(run: Run, folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `runs ls` tells of each run."""
    return {row.pop("name"): row for row in json.loads(run(folder, "runs", "ls", "--json").out)["runs"]}


def test_both_runs_are_listed_with_what_they_came_to(run: Run, workspace: Path) -> None:
    """As Watch finds them and in its order; for people as a table."""
    rows, table = rows_of(run, workspace), run(workspace, "runs", "ls").out
    ldm, vae = rows["ldm"], rows["vae"]

    assert list(rows) == [one["name"] for one in Watch(workspace / "runs").look()]
    assert (ldm["network"], ldm["step"], ldm["planned"], ldm["state"]) == ("denoiser", 3, 3, "finished")
    assert (vae["network"], vae["stage"], vae["state"]) == ("autoencoder", "hires", "finished")
    assert ldm["held_out_loss"] > 0
    assert vae["score"].keys() == {"psnr"}
    files = [path for path in (workspace / "runs/ldm").rglob("*") if path.is_file()]
    assert ldm["size_bytes"] == sum(path.stat().st_size for path in files)
    assert "3 of 3" in table
    assert max(map(len, table.splitlines())) <= 100


def test_a_workspace_without_runs_says_what_is_next(run: Run, cleaned: Path) -> None:
    """On stderr; there is nothing to list."""
    done = run(cleaned, "runs", "ls")

    assert (done.code, done.out) == (0, "")
    assert "Next: latentart train vae" in done.err
    assert "Train first." in run(cleaned, "runs", "rm", "ldm", "--yes").error(2)


def test_a_kept_run_is_whole_and_makes_room_for_another(run: Run, workspace: Path, snapshot: Run) -> None:
    """Not a byte is changed: it draws, is watched, scored and reported under its name, and comes back."""
    runs = workspace / "runs"
    before = snapshot(runs / "ldm")
    done = run(workspace, "runs", "keep", "first try")

    assert (done.code, done.out) == (0, "runs/first try\n")
    assert snapshot(runs / "first try") == before
    assert sorted(path.name for path in runs.iterdir()) == ["first try", "vae"]
    assert {one["name"]: one["what"] for one in Watch(runs).look()} == {"first try": "denoiser", "vae": "autoencoder"}
    assert rows_of(run, workspace)["first try"]["state"] == "finished"
    assert run(workspace, "info", "runs/first try/model").code == 0
    assert "Denoiser: art, first try" in (workspace / run(workspace, "report", "first try").out.strip()).read_text(
        encoding="utf-8"
    )
    opened = Workspace.open(workspace / "latentart.json")
    assert opened.run_of(runs / "first try/model", opened.ldm_run) == opened.runs / "first try"
    assert opened.run_of(runs / "vae/model", opened.ldm_run) == opened.ldm_run
    assert "as runs/NAME/model" in run(workspace, "sample", "-s", "Cubism").error(6)

    shutil.copytree(runs / "first try", runs / "ldm")
    assert "Keep it first" in run(workspace, "runs", "restore", "first try").error(2)
    assert run(workspace, "runs", "rm", "ldm", "--yes").code == 0
    assert run(workspace, "runs", "restore", "first try").out == "runs/ldm\n"
    assert {name: snapshot(runs / "ldm")[name] for name in before} == before
    assert "Nothing was left to do" in run(workspace, "train", "ldm", "--quiet").err


def test_an_autoencoder_is_kept_once_nothing_stands_on_it(run: Run, workspace: Path) -> None:
    """A denoiser could go on with no other one."""
    for words in (("keep", "old", "vae"), ("rm", "vae", "--yes")):
        assert "runs/ldm is trained on the latents of runs/vae" in run(workspace, "runs", *words).error(2)
    shutil.rmtree(workspace / "runs/ldm")

    assert run(workspace, "runs", "keep", "old").out == "runs/old\n"
    (workspace / "runs/old/metrics.jsonl").unlink()  # its log tells what it is
    assert run(workspace, "runs", "restore", "old").out == "runs/vae\n"


def test_a_run_in_training_stays_where_it_is(run: Run, workspace: Path) -> None:
    """It can be neither kept nor deleted, and the list names who is in it."""
    ldm = workspace / "runs/ldm"
    with hold_lock(ldm):
        for words in (("keep", "first"), ("rm", "ldm", "--yes")):
            assert "runs/ldm is in use by process" in run(workspace, "runs", *words).error(5)
    other = {**asdict(myself()), "pid": os.getppid(), "started": process_start(os.getppid())}
    (ldm / "lock").write_text(json.dumps(other))

    assert rows_of(run, workspace)["ldm"]["state"] == f"in use by process {os.getppid()}"
    assert (ldm / "lock").read_text() == json.dumps(other)


@pytest.mark.parametrize("name", ["ldm", "VAE", "../away", "a/b", ".hidden", "-x", "a.", "a" * 61, "a\nb", "b\u202e"])
def test_what_is_no_name_is_refused(run: Run, workspace: Path, name: str) -> None:
    """One that leads elsewhere, is ours, or is hard to type."""
    assert "is no name for a kept run" in run(workspace, "runs", "keep", "--", name).error(2)
    assert (workspace / "runs/ldm").is_dir()


def test_a_link_and_a_taken_name_are_left_alone(run: Run, workspace: Path) -> None:
    """Nothing is replaced, and what lies elsewhere is the user's to move."""
    runs = workspace / "runs"
    (runs / "taken").mkdir()
    assert "is there already" in run(workspace, "runs", "keep", "taken").error(2)
    (runs / "ldm").rename(workspace / "far")
    (runs / "ldm").symlink_to(workspace / "far")

    assert "runs/ldm is a link" in run(workspace, "runs", "keep", "first").error(2)


def test_a_run_is_deleted_once_its_name_is_typed(run: Run, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another word deletes nothing, and without a terminal it takes --yes."""
    ldm = workspace / "runs/ldm"
    assert "nobody is there to answer. Give --yes." in run(workspace, "runs", "rm", "ldm").error(2)
    monkeypatch.chdir(workspace)
    for word in ("yes", "ldm"):
        assert ldm.is_dir()
        monkeypatch.setattr(sys, "stdin", Terminal(f"{word}\n"))
        monkeypatch.setattr(sys, "stderr", asked := Terminal())
        with contextlib.nullcontext() if word == "ldm" else pytest.raises(UsageError, match="nothing was deleted"):
            remove("ldm")
        assert "denoiser, 3 of 3" in asked.getvalue()
        assert "Type ldm to delete it: " in asked.getvalue()

    assert not ldm.exists()
    assert [path.name for path in ldm.parent.iterdir()] == ["vae"]


def test_two_runs_are_compared_like_with_like(tmp_path: Path) -> None:
    """By settings of their own network, at their ends and at the last step that both have; as a figure too."""
    first = write_run(tmp_path / "runs/first", {10: 0.8, 20: 0.6}, labels=["a"])
    second = write_run(tmp_path / "runs/second", {10: 0.9, 20: 0.5, 30: 0.4})
    for run, sampler in ((first, "ddim"), (second, "unipc")):
        entry = {"recognized": 0.5, "recognized_real": 0.9, "settings": sampler, "measures": {"kernel": {"value": 2.0}}}
        (run / "evaluations.jsonl").write_text(json.dumps(entry) + "\ntorn")

    found = compare(first, second, tmp_path / "both.png")
    numbers = {words: values for words, *values in found.numbers}

    assert found.settings == [("ldm.labels", '["a"]', "")]
    assert numbers["steps"] == ["20", "30"]
    assert numbers["training loss"] == ["0.3", "0.2"]
    assert numbers["held-out loss"] == ["0.6", "0.4"]
    assert numbers["held-out loss by step 20"] == ["0.6", "0.5"]
    assert (numbers["time"], numbers["images per second"]) == (["10 s", "20 s"], ["8", "8"])
    assert (numbers["evaluate: recognized"], numbers["evaluate: kernel"]) == (["0.5", "0.5"], ["2", "2"])
    assert [note for note in found.notes if "different ways (settings)" in note] == found.notes
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ({"diffusion": {"target": "noise"}}, "these differ: ldm.diffusion.target"),
        ({"diffusion": {"schedule": {"kind": "cosine"}}}, "these differ: ldm.diffusion.schedule.kind"),
        ({"diffusion": {"weighting": "min_snr"}}, None),
    ],
)
def test_losses_without_a_common_measure_are_named(tmp_path: Path, config: dict[str, Any], note: str | None) -> None:
    """What is predicted and on which schedule makes another loss; its weights do not, as it is compared without."""
    runs = [write_run(tmp_path / "a", {10: 0.8}, **config), write_run(tmp_path / "b $x$", {10: 0.8})]

    notes = compare(runs[0], runs[1], tmp_path / "both.svg").notes

    assert len(notes) == (note is not None)
    assert (note or "") in "".join(notes)


def test_the_comparison_is_a_command(run: Run, workspace: Path) -> None:
    """Of a copy with itself nothing differs; one of each network cannot be compared."""
    shutil.copytree(workspace / "runs/vae", workspace / "runs/twin")
    done = run(workspace, "runs", "compare", "vae", "twin", "--json")
    found = json.loads(done.out)

    assert (found["settings"], found["notes"], found["figure"]) == ([], [], "compare_vae_twin.png")
    assert all(row[1] == row[2] for row in found["numbers"])
    assert {"PSNR, dB", "stage", "training loss", "held-out loss"} <= {row[0] for row in found["numbers"]}
    assert "compare_vae_twin_2.png" in run(workspace, "runs", "compare", "vae", "twin").out
    assert "trains the denoiser, vae the autoencoder" in run(workspace, "runs", "compare", "ldm", "vae").error(2)
    assert "Did you mean 'twin'?" in run(workspace, "runs", "compare", "vae", "twim").error(2)
    assert "compared with itself" in run(workspace, "runs", "compare", "vae", "vae").error(2)


def test_a_damaged_run_is_listed_too(tmp_path: Path) -> None:
    """Whatever lies in it; other folders, links and what is being deleted are none."""
    run = write_run(tmp_path / "runs/odd", {})
    (run / "metrics.jsonl").write_bytes(b"\xff\x00\n{]\n")
    (run / "config.json").write_text("[1]")
    (run / "model").mkdir()
    (run / "model/model.json").write_text('{"training": {"ldm": 3}}')
    shutil.copytree(run, run.with_name(".tmp-gone-1"))
    run.with_name("notes").mkdir()
    run.with_name("link").symlink_to(run)

    assert list_runs(tmp_path / "runs") == [run]
    assert (describe(run).step, describe(run).state) == (0, "stopped")
