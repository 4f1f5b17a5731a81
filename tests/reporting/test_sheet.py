"""The contact sheet of a clean set: what is on it, that it stands alone and stays small, what may lie in its way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentart.data.cleaning.clean import clean_folder
from latentart.data.cleaning.picture import CleanRules
from latentart.data.cleaning.report import read_rows
from latentart.data.synthetic.art import draw_picture
from latentart.errors import DataError, UsageError
from latentart.reporting.sheet import MOST_OF_A_STYLE, build_sheet, write_sheet

EVIL = "<b>Evil & \"'"


class Reader(HTMLParser):
    """Reads a page as a browser would."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Remember text."""
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean a raw folder of two styles: with a near duplicate, a copy, a small and a broken one."""
    home = tmp_path_factory.mktemp("sheet")
    raw = home / "raw"
    for style, count in (("Cubism", MOST_OF_A_STYLE + 3), (EVIL, 2)):
        (raw / style).mkdir(parents=True)
        for i in range(count):
            draw_picture("Cubism", len(style), i, (96, 80)).save(raw / style / f"{i:02}.png")
    with Image.open(raw / "Cubism/00.png") as picture:
        picture.resize((72, 60)).save(raw / "Cubism/again.jpg")
    shutil.copy(raw / "Cubism/01.png", raw / EVIL / "copy.png")
    Image.new("RGB", (20, 20), "red").save(raw / "Cubism/tiny.png")
    (raw / "Cubism/torn.png").write_bytes((raw / "Cubism/00.png").read_bytes()[:-200])
    clean_folder(raw, home / "clean", CleanRules(min_bytes=1, min_side=32, max_side=96, max_aspect=4), workers=0)
    return home


@pytest.fixture
def sets(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return copies of that raw folder and of what was made of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "raw", tmp_path / "clean"


def test_all_that_was_found_is_on_the_sheet(sets: tuple[Path, Path]) -> None:
    """Kept by style, flagged and dropped beside what they are like, with reasons and what to do."""
    raw, clean = sets
    text = write_sheet(clean, raw).read_text(encoding="utf-8")
    page, sheet = Reader(text), build_sheet(clean, raw)
    groups = {f"{part} {group.name}": group for part, found in sheet.parts.items() for group in found}
    shown = " ".join(page.text.split())

    assert list(sheet.parts) == ["Kept", "Flagged, and kept", "Dropped"]
    assert sheet.facts == {"kept": f"{MOST_OF_A_STYLE + 6}", "flagged": "1", "dropped": "3", "styles": "2"}
    assert f"Cubism {MOST_OF_A_STYLE} of {MOST_OF_A_STYLE + 3}" in shown
    assert "each heading says how many" in shown
    (pair,) = groups["Flagged, and kept near_duplicate"].cards
    assert (pair.name, pair.twin_name) == ("Cubism/again.jpg", "Cubism/00.png")
    assert None not in (pair.picture, pair.twin)
    (copy,) = groups["Dropped duplicate"].cards
    assert None not in (copy.picture, copy.twin)
    assert groups["Dropped too_small"].cards[0].picture is not None
    assert groups["Dropped truncated"].cards[0].picture is None, "nothing broken is decoded once more"
    assert "Copy or download the pictures again: their ends are missing." in shown
    assert EVIL in page.text
    assert "<b>" not in text
    assert {tag for tag, _ in page.tags} & {"script", "b", "link", "a"} == {"link"}
    assert all(str(own["src"]).startswith("data:image/jpeg;base64,") for tag, own in page.tags if tag == "img")


def test_a_cleaned_set_has_its_sheet_without_its_raw_folder(
    sets: tuple[Path, Path], tmp_path: Path, run: Callable[..., Any], snapshot: Callable[[Path], Any]
) -> None:
    """Nothing is cleaned again or changed; what was dropped is named."""
    raw, clean = sets
    shutil.rmtree(raw)
    before = snapshot(clean)
    done = run(tmp_path, "clean-data", "raw", "--out", "clean", "--sheet-only", "--json")

    assert (done.code, json.loads(done.out)) == (0, {"sheet": "clean/sheet.html"}), done.err
    after = snapshot(clean)
    assert after.keys() - before.keys() == {"sheet.html"}
    assert {name: after[name] for name in before} == before
    assert "too_small" in (clean / "sheet.html").read_text(encoding="utf-8")


def test_cleaning_writes_the_sheet_too(pictures: Callable[..., Path], tmp_path: Path, run: Callable[..., Any]) -> None:
    """As a last line of the results; the next cleaning leaves it there. A dry run writes none."""
    pictures(tmp_path / "raw", count=2)
    words = ("clean-data", "raw", "--out", "clean", "data.workers=1", "data.min_bytes=1", "data.min_side=8")

    assert "so no sheet" in run(tmp_path, *words, "--sheet", "--dry-run").error(2)
    assert run(tmp_path, *words, "--sheet").out.splitlines()[-1] == "clean/sheet.html"
    assert json.loads(run(tmp_path, *words, "--json").out)["kept"] == 6
    assert (tmp_path / "clean/sheet.html").is_file()
    (tmp_path / "clean/sheet.html").write_text("mine")
    with pytest.raises(UsageError, match="is no report of ours"):
        write_sheet(tmp_path / "clean", None)


def test_no_name_leads_out_of_its_folder(sets: tuple[Path, Path]) -> None:
    """A report may come from a stranger."""
    raw, clean = sets
    draw_picture("Cubism", 0, 0, (64, 64)).save(raw.parent / "secret.png")
    report = (clean / "report.json").read_text(encoding="utf-8")
    (clean / "report.json").write_text(report.replace("Cubism/tiny.png", "../secret.png"), encoding="utf-8")

    cards = {card.name: card for group in build_sheet(clean, raw).parts["Dropped"] for card in group.cards}

    assert cards["../secret.png"].picture is None


def test_the_rows_of_a_report_are_read_as_they_were_written(sets: tuple[Path, Path], tmp_path: Path) -> None:
    """A line at a time, of any number; a report of another form is refused, and not taken for one without rows."""
    report = json.loads((sets[1] / "report.json").read_text(encoding="utf-8"))

    for name in ("dropped", "flagged"):
        assert list(read_rows(sets[1] / "report.json", name)) == report[name] != []
    other = tmp_path / "report.json"
    for text in (json.dumps(report, indent=1), "", ',"dropped": [\n {"source": 1}\n]\n', ',"dropped": [\n [[[\n'):
        other.write_text(text)
        with pytest.raises(DataError, match="older form"):
            list(read_rows(other, "dropped"))
    other.write_text('{"schema": 1\n,"dropped": []\n,"flagged": []\n}\n')
    assert list(read_rows(other, "dropped")) == []
