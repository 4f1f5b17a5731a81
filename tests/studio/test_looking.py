"""The tab Pictures over HTTP: the clean set by style and place, what was flagged and dropped, and the map."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from latentart.data.cleaning.report import CleanReport, Dropped, write_report
from latentart.data.index import read_index
from latentart.errors import LatentArtError
from latentart.studio.answers import explain
from latentart.studio.looking import CleanSet, Pictures
from latentart.studio.mapping import widest_directions


@contextmanager
def looking(folder: Path) -> Iterator[TestClient]:
    """Open the tab on a workspace's folders."""
    routes = Pictures(folder / "data", folder / "cache").routes()
    with TestClient(Starlette(routes=routes, exception_handlers={LatentArtError: explain})) as client:
        yield client


def test_pictures_are_shown_by_style_and_place(story: Any) -> None:
    """Each is the one of the index, small and whole, and may be kept by the browser."""
    entries = read_index(story.folder / "data/index.jsonl")
    with looking(story.folder) as client:
        told = client.get("/api/pictures").json()
        assert told["styles"] == [["Cubism", 5], ["High_Renaissance", 5], ["Minimalism", 5]]
        about = client.get(f"/api/pictures/about/{told['version']}/1/2").json()
        small = client.get(f"/api/pictures/160/{told['version']}/1/2")

    wanted = [entry for entry in entries if entry.style == "High_Renaissance"][2]
    assert about == {"source": wanted.source, "style": wanted.style, "width": 32, "height": 32, "labels": {}}
    assert "immutable" in small.headers["cache-control"]
    with Image.open(io.BytesIO(small.content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 32))


def test_what_was_flagged_stands_beside_its_twin(workspace: Path) -> None:
    """And what was dropped has its reason, in a report of any size; names are text."""
    entries = read_index(workspace / "data/index.jsonl")
    cubism = [entry.source for entry in entries if entry.style == "Cubism"]
    flagged = [Dropped(cubism[0], "Cubism", "near_duplicate", f"looks like {cubism[3]}")]
    dropped = [Dropped(f"a/<b>{number}.jpg", "a", "truncated", 100 * "x") for number in range(3000)]
    report = CleanReport(kept=15, styles={}, dropped=dropped, flagged=flagged, conflicts=[], warnings=[])
    write_report(workspace / "data", report)
    with looking(workspace) as client:
        told = client.get("/api/pictures").json()

    assert (workspace / "data/report.json").stat().st_size > 400_000
    assert [(item["place"], item["twin"]) for item in told["flagged"]] == [([0, 0], [0, 3])]
    assert [item["source"] for item in told["dropped"]] == [item.source for item in dropped]


@pytest.mark.parametrize("text", ["", "[]", '{"dropped": 7}', '{"dropped": [\n "damaged"\n]}'])
def test_a_report_that_cannot_be_read_lists_nothing(workspace: Path, text: str) -> None:
    """The pictures are there all the same."""
    (workspace / "data/report.json").write_text(text)
    with looking(workspace) as client:
        told = client.get("/api/pictures").json()

    assert (told["flagged"], told["dropped"]) == ([], [])
    assert len(told["styles"]) == 3


def test_the_map_holds_every_picture(story: Any) -> None:
    """From the cached latents of these pictures; the same every time."""
    with looking(story.folder) as client:
        told = client.get("/api/pictures/map").json()["points"]
        again = client.get("/api/pictures/map").json()["points"]

    assert sorted((style, place) for _, _, style, place in told) == [(s, p) for s in range(3) for p in range(5)]
    assert all(0 <= value <= 1 for point in told for value in point[:2])
    assert told == again


def test_pictures_are_shown_while_something_is_measured(story: Any) -> None:
    """To train the judge for the nearest ones takes half a minute; however many wait for it, no thumbnail does."""
    pictures = Pictures(story.folder / "data", story.folder / "cache")
    with TestClient(Starlette(routes=pictures.routes())) as client, ThreadPoolExecutor(50) as crowd:
        assert client.portal is not None
        client.portal.call(pictures._measuring.acquire)
        maps = [crowd.submit(client.get, "/api/pictures/map") for _ in range(50)]
        version = client.get("/api/pictures").json()["version"]
        shown = client.get(f"/api/pictures/160/{version}/0/0")
        assert not any(one.done() for one in maps)
        client.portal.call(pictures._measuring.release)

    assert shown.status_code == 200
    assert {one.result().status_code for one in maps} == {200}


def test_the_widest_directions_are_those_of_the_singular_values() -> None:
    """Beside torch's own decomposition of rows with a known spread."""
    rows = torch.randn(200, 30, generator=torch.Generator().manual_seed(3)) * torch.linspace(9, 1, 30)
    centered = rows - rows.mean(0)
    found = widest_directions(centered, passes=60)

    wanted = torch.linalg.svd(centered, full_matrices=False)[2][:2].T
    torch.testing.assert_close((found * wanted).sum(0).abs(), torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "path", ["160/{v}/9/0", "160/{v}/0/9", "161/{v}/0/0", "160/older/0/0", "160/{v}/..%2f0/0", "about/{v}/0/99"]
)
def test_what_is_not_there_is_not_sent(story: Any, path: str) -> None:
    """Another size, place or version."""
    with looking(story.folder) as client:
        version = client.get("/api/pictures").json()["version"]
        assert client.get(f"/api/pictures/{path.format(v=version)}").status_code == 404


def test_a_picture_beyond_a_link_is_not_sent(workspace: Path, tmp_path: Path) -> None:
    """Neither a file nor a folder leads out of the data folder."""
    folder = workspace / "data/Cubism"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with looking(workspace) as client:
        version = client.get("/api/pictures").json()["version"]
        assert client.get(f"/api/pictures/160/{version}/0/0").status_code == 404
        assert client.get(f"/api/pictures/160/{version}/1/0").status_code == 200


def test_no_clean_set_is_a_sentence(tmp_path: Path) -> None:
    """It says what to do."""
    with looking(tmp_path) as client:
        answer = client.get("/api/pictures")

    assert answer.status_code == 400
    assert "latentart clean-data" in answer.json()["error"]


@pytest.mark.parametrize("line", ["{", '{"style": 1, "source": "a"}', "[]", "\xff", '{"source": "a"}'])
def test_a_damaged_set_is_a_sentence(workspace: Path, line: str) -> None:
    """That names the line."""
    with (workspace / "data/index.jsonl").open("a", encoding="latin-1") as index:
        index.write(line + "\n")
    with looking(workspace) as client:
        answer = client.get("/api/pictures")

    assert answer.status_code == 400
    assert "line 16: the index is damaged" in answer.json()["error"]


def test_many_rows_are_read_once(story: Any, tmp_path: Path) -> None:
    """A later look takes a small part of the first one's time."""
    entry = asdict(read_index(story.folder / "data/index.jsonl")[0])
    (tmp_path / "data").mkdir()
    lines = (json.dumps({**entry, "style": f"s{i % 9}", "source": f"{i}.png"}) for i in range(20_000))
    (tmp_path / "data/index.jsonl").write_text("\n".join(lines) + "\n")
    pictures = Pictures(tmp_path / "data", tmp_path / "cache")
    began = time.perf_counter()
    first = pictures.read()
    middle = time.perf_counter()
    assert pictures.read() is first
    assert time.perf_counter() - middle < (middle - began) / 10
    assert isinstance(first, CleanSet)
    assert sum(map(len, first.rows)) == 20_000
