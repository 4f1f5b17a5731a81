"""The tab Watch over HTTP: runs as their files tell of them, while they grow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from latentart.studio.watching import Watch


@contextmanager
def watching(runs: Path) -> Iterator[TestClient]:
    """Open the tab on a folder of runs."""
    with TestClient(Starlette(routes=Watch(runs).routes())) as client:
        yield client


def runs_of(client: TestClient) -> dict[str, Any]:
    """Return what is told of each run, by its name."""
    return {run["name"]: run for run in client.get("/api/watch").json()["runs"]}


def write_line(run: Path, step: int, **numbers: Any) -> None:
    """Add a line to a run's numbers, as a training does."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "loss": 1 / step, "plain_loss": 1 / step, "time": step} | numbers) + "\n")


def test_the_runs_of_a_workspace_are_told(story: Any) -> None:
    """Both networks with their curves, previews and logs; previews are sent by step."""
    with watching(story.folder / "runs") as client:
        runs = runs_of(client)
        ldm = runs["ldm"]

        assert {name: run["what"] for name, run in runs.items()} == {"ldm": "denoiser", "vae": "autoencoder"}
        assert (ldm["step"], ldm["planned"], ldm["facts"]["steps"]) == (3, 3, "3 of 3")
        assert [step for step, _ in ldm["training"]] == [1, 2, 3]
        assert ldm["held_out"]
        assert "finished" in ldm["log"][-1]
        picture = client.get(f"/api/watch/{ldm['id']}/{ldm['previews'][-1]}")
        assert picture.content == (story.folder / f"runs/ldm/previews/step-{ldm['previews'][-1]:08}.png").read_bytes()


def test_a_run_that_grows_is_read_on_and_one_that_went_back_anew(tmp_path: Path) -> None:
    """A half-written line waits for its end."""
    run = tmp_path / "ldm"
    write_line(run, 1)
    with watching(tmp_path) as client:
        assert runs_of(client)["ldm"]["training"] == [[1, 1.0]]
        write_line(run, 2, held_out_loss=0.25)
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 3, "lo')
        told = runs_of(client)["ldm"]
        assert (told["training"], told["held_out"], told["is_live"]) == ([[1, 1.0], [2, 0.5]], [[2, 0.25]], True)
        (run / "metrics.jsonl").write_text("")
        write_line(run, 4)
        assert runs_of(client)["ldm"]["training"] == [[4, 0.25]]


def test_a_run_that_began_anew_and_has_come_further_is_read_anew(tmp_path: Path) -> None:
    """As where nobody looked for a while: the file is longer than before, in the same place."""
    run = tmp_path / "ldm"
    for step in range(1, 40):
        write_line(run, step)
    with watching(tmp_path) as client:
        assert runs_of(client)["ldm"]["step"] == 39
        (run / "metrics.jsonl").write_text("")
        for step in range(1, 60):
            write_line(run, step, time=100 + step)
        (run / "metrics.jsonl").touch()
        told = runs_of(client)["ldm"]
        assert [step for step, _ in told["training"]] == list(range(1, 60))
        write_line(run, 60)
        assert [step for step, _ in runs_of(client)["ldm"]["training"]] == list(range(1, 61))


def test_kept_runs_stand_beside_the_current_one(tmp_path: Path) -> None:
    """Whatever their names, the one with the newest number first."""
    for name in ("ldm", "ldm <b>first"):
        write_line(tmp_path / name, 1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ldm")

    with watching(tmp_path) as client:
        assert set(runs_of(client)) == {"ldm", "ldm <b>first"}


@pytest.mark.parametrize("path", ["ldm/1", "../1", "cd8ff227d5deaf18/../../x", "cd8ff227d5deaf18/999"])
def test_no_path_opens_a_file(story: Any, path: str) -> None:
    """Nor a preview that is not there."""
    with watching(story.folder / "runs") as client:
        assert client.get(f"/api/watch/{path}").status_code == 404


def test_no_runs_and_damaged_ones_are_no_error(story: Any, tmp_path: Path) -> None:
    """There is what can be read."""
    with watching(tmp_path / "runs") as client:
        assert runs_of(client) == {}
        run = Path(shutil.copytree(story.folder / "runs/ldm", tmp_path / "runs/ldm"))
        for name in ("config.json", "metrics.jsonl", "log.txt"):
            (run / name).write_bytes(b"\xff\x00{")
        assert runs_of(client)["ldm"]["step"] == 0
