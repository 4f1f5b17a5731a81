"""Files of every kind that `sample` writes: by their ending, with their settings and the mark of AI-made media."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from latentart.core.seeds import Seed
from latentart.data.pictures.marks import AI_MADE
from latentart.data.pictures.movies import save_movie
from latentart.errors import UsageError
from latentart.sampling.blends import Blend
from latentart.sampling.files import require_ending
from latentart.sampling.request import Cell, SamplePlan
from latentart.sampling.settings import read_text

Run = Callable[..., Any]
ONE = ("sample", "-s", "Cubism", "-n", "1", "--steps", "1")
KINDS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"


@pytest.fixture(scope="module")
def drawn(story: Any, tmp_path_factory: pytest.TempPathFactory, run_once: Run) -> Path:
    """Draw one picture into a file of every kind, and movies of it."""
    folder = tmp_path_factory.mktemp("drawn")
    for suffix in KINDS:
        assert run_once(story.folder, *ONE, "--out", folder / f"one{suffix}").code == 0
    assert run_once(story.folder, *ONE, "--steps", "2", "--movie", folder / "movie.gif").code == 0
    assert run_once(story.folder, *ONE, "--steps", "2", "--movie", folder / "movie.webp").code == 0
    return folder


def mark_of(path: Path) -> str | None:
    """Return where a file says that it comes from, read as other programs do."""
    with Image.open(path) as picture:
        packet = picture.info.get("xmp")
    if path.suffix == ".gif":  # which Pillow does not read
        packet = path.read_bytes().partition(b"XMP DataXMP")[2].partition(b"\x01\xff")[0]
    return next(one.attrib[TYPE] for one in ET.fromstring(packet).iter() if TYPE in one.attrib) if packet else None


@pytest.mark.parametrize("suffix", KINDS)
def test_a_file_is_what_its_ending_says(story: Any, drawn: Path, run: Run, suffix: str) -> None:
    """The same picture, slightly rounded as a JPEG; asked for again it is there already, and --from repeats it."""
    path = drawn / f"one{suffix}"
    with Image.open(path) as picture, Image.open(drawn / "one.png") as png:
        assert picture.format == KINDS[suffix]
        left, right = (one.convert("RGB").tobytes() for one in (picture, png))
    assert max(abs(a - b) for a, b in zip(left, right, strict=True)) <= (24 if suffix == ".jpg" else 0)
    assert json.loads(read_text(path) or "null")["styles"] == ["Cubism"]
    assert "were there already" in run(story.folder, *ONE, "--out", path).err
    again = run(story.folder, "sample", "--from", path, "--out", drawn / f"again{suffix}")
    assert again.code == 0, again.err
    assert (drawn / f"again{suffix}").read_bytes() == path.read_bytes()


def test_every_file_says_that_it_was_made_by_a_network(drawn: Path) -> None:
    """In the IPTC's words; what the movies show and hold is as it was without."""
    files = [path for path in drawn.iterdir() if not path.stem.startswith("again")]

    assert len(files) == 5
    for path in files:
        assert mark_of(path) == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia", path
    with Image.open(drawn / "movie.gif") as movie:
        assert (movie.format, movie.n_frames, movie.info["loop"]) == ("GIF", 2, 0)
        movie.seek(1)
        movie.load()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_the_mark_of_a_movie_changes_no_frame(tmp_path: Path, suffix: str) -> None:
    """With and without it every frame, its time and the text are the same."""
    frames = [Image.effect_mandelbrot((24, 16), (-2, -1, 1 + i, 1), 50).convert("RGB") for i in range(3)]
    seen = []
    for name, xmp in (("with", AI_MADE), ("without", "")):
        save_movie(frames, path := tmp_path / f"{name}{suffix}", '{"a": 1}', xmp=xmp)
        with Image.open(path) as movie:
            shown = []
            for i in range(movie.n_frames):
                movie.seek(i)
                shown.append((movie.convert("RGB").tobytes(), movie.info.get("duration")))
        seen.append((shown, read_text(path)))

    assert seen[0] == seen[1]
    assert mark_of(tmp_path / f"without{suffix}") is None


def test_the_mark_can_be_left_out(story: Any, drawn: Path, run: Run) -> None:
    """It is no part of the settings: a picture that is there without it is there."""
    path = drawn / "again-bare.png"
    assert run(story.folder, *ONE, "sample.mark=false", "--out", path).code == 0
    assert mark_of(path) is None
    assert read_text(path) == read_text(drawn / "one.png")
    assert "were there already" in run(story.folder, *ONE, "--out", path).err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.mp4", "ends in none of .png, .jpg, .jpeg, .webp. A movie is asked for with --movie"),
        ("x.tiff", "ends in none of .png, .jpg, .jpeg, .webp. Name the grid as x.png."),
        ("x", "Name the grid as x.png."),
    ],
)
def test_other_endings_are_refused(story: Any, tmp_path: Path, run: Run, name: str, said: str) -> None:
    """In one line, and nothing is drawn."""
    assert said in run(story.folder, *ONE, "--out", tmp_path / name).error(2)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kind_does_not_hold_is_refused() -> None:
    """A JPEG has a largest text and WebP a largest side, which Pillow would say after the drawing."""
    seed: Seed = 0
    plan = SamplePlan(cells=(Cell(Blend((("x", 1.0),)), seed),), rows=64, columns=1, kind="grid", size=(256, 256))
    for path, text in ((Path("a.webp"), ""), (Path("a.jpg"), "x" * 60_001)):
        with pytest.raises(UsageError, match="does not hold so large a grid"):
            require_ending(path, plan, text)
    require_ending(Path("a.PNG"), plan, "x" * 60_001)
