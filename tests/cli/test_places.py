"""What cannot be written is found before the work begins, and what was drawn is not lost for want of a place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentart.errors import ResourceError
from latentart.sampling.files import save_pictures
from latentart.storage.whole import require_place

Run = Callable[..., Any]
NOWHERE = (
    "{file}/x.svg",
    "{file}/below/x.svg",
    "/proc/x.svg",
    "/proc/new/x.svg",
    "{nowhere}/x.svg",
    "{folder}/" + "x" * 300 + ".svg",
)


@pytest.mark.parametrize("place", NOWHERE)
@pytest.mark.parametrize("command", ["sample -s Cubism --out", "reconstruct {picture} --out", "find-lr ldm --out"])
def test_a_place_that_takes_nothing_is_found_before_the_work(
    run: Run, story: Any, tmp_path: Path, command: str, place: str
) -> None:
    """One line, exit code 5, no progress: nothing was drawn or trained for it, and nothing is left."""
    (tmp_path / "afile").write_text("mine")
    (tmp_path / "link").symlink_to("/nonexistent/folder")
    picture = next((story.folder / "data").glob("*/*.*"))
    folders = {"file": tmp_path / "afile", "nowhere": tmp_path / "link", "folder": tmp_path}
    words = f"{command} {place}".format(**folders, picture=picture).split()
    words[-1] = words[-1].replace(".svg", ".png" if words[0] == "sample" else ".svg")

    done = run(story.folder, *words)

    assert "cannot be written" in done.error(5)
    assert "--out" in done.err
    assert "step" not in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"afile", "link"}


def test_a_place_that_can_be_written_stays_untouched(tmp_path: Path) -> None:
    """Folders that are not there yet are no obstacle, and the question leaves none behind."""
    require_place(tmp_path / "new/below/x.png")
    require_place(tmp_path / "x.png")
    require_place(Path("/"))  # which is there, as whoever writes will find

    assert list(tmp_path.iterdir()) == []


def test_what_was_drawn_is_written_elsewhere_if_its_place_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder turned into a file while it was drawn: the line names where the picture lies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").write_text("a file by now")
    picture = Image.new("RGB", (4, 4), "red")

    with pytest.raises(ResourceError, match=r"out/a\.png cannot be written: .*What was drawn lies at .*a\.png\.$"):
        save_pictures([picture], [tmp_path / "out/a.png"], ["{}"])

    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ("evaluate vae", "runs/vae/evaluations"),
        ("evaluate ldm -n 1", "runs/ldm/evaluations"),
        ("evaluate ldm -n 1", "runs/ldm"),
        ("evaluate ldm -n 1 --model runs/ldm/model", "cache"),
        ("train ldm ldm.training.steps=5", "runs/ldm"),
        ("train ldm ldm.training.steps=5", "runs/ldm/previews"),
        ("train ldm ldm.training.steps=5", "runs/ldm/averages"),
        ("train ldm ldm.training.steps=5", "cache"),
        ("train vae vae.stages.hires.epochs=2", "runs/vae/previews"),
        ("encode data.flip=false", "cache"),
    ],
)
def test_a_folder_of_the_work_that_takes_nothing_is_found_before_it(
    run: Run, workspace: Path, snapshot: Run, words: str, taken: str
) -> None:
    """A file lies in its place: one line, exit code 5, and nothing was trained, drawn or measured."""
    shutil.rmtree(workspace / taken, ignore_errors=True)
    (workspace / taken).write_text("mine")
    before = snapshot(workspace)

    done = run(workspace, *words.split())

    assert taken in done.error(5)
    assert "step" not in done.err
    assert snapshot(workspace) == before


def test_evaluations_that_cannot_be_added_to_are_found_before_the_work(run: Run, workspace: Path) -> None:
    """A folder has the name of their file."""
    (workspace / "runs/vae/evaluations.jsonl").mkdir()

    assert "evaluations.jsonl" in run(workspace, "evaluate", "vae").error(5)
    assert not (workspace / "runs/vae/evaluations").exists()


def test_without_a_home_no_library_speaks(tmp_path: Path) -> None:
    """Matplotlib finds no place for its cache of fonts, and that is no business of the user's, who asks for all."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "XDG_CACHE_HOME")}
    command = [sys.executable, "-m", "latentart", "-v", "schedule"]

    done = subprocess.run(
        command, cwd=tmp_path, env=kept | {"HOME": "/proc/none"}, capture_output=True, text=True, check=True
    )

    assert not re.search("(?i)font|cache|matplotlib|MPLCONFIG|STREAM", done.stderr), done.stderr


SMALL = ("data.min_bytes=0", "data.min_side=1", "--out", "clean")


def test_code_in_the_current_folder_never_runs(story: Any, tmp_path: Path) -> None:
    """A file named as one of Python's own modules, beside somebody's pictures: processes of ours pass it by."""
    for name in ("functools", "random", "numpy", "PIL", "torch"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(7)\n")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/latentart"  # as it is installed
    script.write_text("from latentart.cli import main\nif __name__ == '__main__':\n    main()\n")
    command = [sys.executable, str(script), "clean-data", str(story.folder.parent / "pictures")]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}

    done = subprocess.run([*command, *SMALL], cwd=tmp_path, env=kept, capture_output=True, text=True)

    assert (done.returncode, (tmp_path / "ran").exists()) == (0, False), done.stderr
    assert (tmp_path / "clean/index.jsonl").is_file()
