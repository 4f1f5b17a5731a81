"""The tab Draw over HTTP, with a tiny trained model: the same pictures as the command line's, within bounds."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.testclient import TestClient

from latentart.studio.answers import id_of
from latentart.studio.app import build_app
from latentart.studio.drawing import Desk
from latentart.studio.studio import find_place, make_easel, other_routes

HERE = "127.0.0.1:7878"
PLACE = [5008.25, 6008.25, 0.5]
ASKED: dict[str, Any] = {
    "window": "w-stage",
    "styles": {"Cubism": 60, "Minimalism": 40},
    "seeds": [PLACE],
    "steps": 3,
    "sampler": "ddim",
    "guidance": 2.5,
    "eta": 0.5,
}


@contextmanager
def opened(folder: Path, model: Path | None = None) -> Iterator[TestClient]:
    """Open the studio of a workspace."""
    place = find_place(folder, model)
    desk = Desk(lambda: make_easel(place, "cpu"), place.samples)
    try:
        with TestClient(build_app(place.title, desk, [], frozenset([HERE]), None), base_url=f"http://{HERE}") as client:
            yield client
    finally:
        desk.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, story: Any) -> Iterator[tuple[TestClient, Path]]:
    """Open the studio of one workspace for all tests that only add to it."""
    folder = Path(shutil.copytree(story.folder, tmp_path_factory.mktemp("studio") / "art"))
    with opened(folder) as client:
        yield client, folder


def events_of(answer: Any) -> list[dict[str, Any]]:
    """Return the server-sent events of an answer."""
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    return [json.loads(part.removeprefix("data: ")) for part in answer.text.strip().split("\n\n")]


def pixels(address: str) -> np.ndarray[Any, Any]:
    """Return the pixels of a picture in an address."""
    content = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def png(size: tuple[int, int], color: tuple[int, int, int] = (200, 80, 40)) -> bytes:
    """Return the file of a picture of one color, with a corner of another."""
    picture = Image.new("RGB", size, color)
    picture.paste((0, 0, 0), (0, 0, size[0] // 2, size[1]))
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def test_the_page_and_its_files_are_served(shared: tuple[TestClient, Path]) -> None:
    """All that it names is there, and nothing else."""
    client, _ = shared
    page = client.get("/")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name in ("studio.css", "studio.js", "ui.js", "mark.svg"):
        assert client.get(f"/page/{name}").status_code == 200
    for name in ("studio.py", "..%2fstudio.py", "../../pyproject.toml", "%2e%2e/app.py"):
        assert client.get(f"/page/{name}").status_code == 404
    assert "<script>" not in page.text
    assert " style=" not in page.text


def test_the_model_is_described(shared: tuple[TestClient, Path]) -> None:
    """With what its sliders need."""
    about = shared[0].get("/api/model").json()

    assert about["styles"] == ["Cubism", "High_Renaissance", "Minimalism"]
    assert (about["resolution"], about["usual"]["steps"], about["usual"]["guidance"]) == (32, 3, 1.5)


def test_a_picture_is_that_of_the_command_line(
    shared: tuple[TestClient, Path], run: Callable[..., Any], tmp_path: Path
) -> None:
    """What is shown, what is kept, what the shown command draws and what --from repeats are one, bit for bit."""
    client, folder = shared
    *frames, last, end = events_of(client.post("/api/draw", json=ASKED | {"frames": 2}))
    kept = client.post("/api/keep", json=ASKED).json()
    path = folder / "samples" / kept["name"]
    command = shlex.split(end["command"])
    drawn = run(folder, *command[1:], "--out", tmp_path / "drawn")
    again = run(folder, "sample", "--from", path, "--out", tmp_path / "again")

    assert [frame["frame"] for frame in frames] == [0, 1]
    assert (drawn.code, again.code) == (0, 0), drawn.err + again.err
    assert (pixels(last["address"]) == np.asarray(Image.open(path))).all()
    for name in ("drawn", "again"):
        (copy,) = (tmp_path / name).iterdir()
        assert copy.read_bytes() == path.read_bytes()
    assert client.post("/api/keep", json=ASKED).json()["id"] == kept["id"]
    assert kept["about"]["seed"] == PLACE


def test_the_nearest_training_pictures_have_ids(workspace: Path) -> None:
    """By place in the set, rising in distance; the search is `evaluate ldm`'s, the pictures are shown by their ids."""
    config = json.loads((workspace / "latentart.json").read_text())
    config["data"]["held_out"] = 0.25
    (workspace / "latentart.json").write_text(json.dumps(config))
    place = find_place(workspace, None)
    desk = Desk(lambda: make_easel(place, "cpu"), place.samples)
    try:
        app = build_app(place.title, desk, other_routes(place, desk), frozenset([HERE]), None)
        with TestClient(app, base_url=f"http://{HERE}") as client:
            told = client.post("/api/pictures/nearest", json=ASKED).json()
            shown = [
                client.get(f"/api/pictures/160/{told['version']}/{style}/{number}").status_code
                for style, number, _ in told["near"]
            ]
    finally:
        desk.close()

    distances = [distance for *_, distance in told["near"]]
    assert distances == sorted(distances)
    assert len({(style, number) for style, number, _ in told["near"]}) == len(shown) == 8
    assert set(shown) == {200}
    assert told["is_copy"] is False


def test_several_seeds_are_drawn_at_once(shared: tuple[TestClient, Path]) -> None:
    """As the plane and the variations want them; each is what it is alone."""
    *pictures, _ = events_of(shared[0].post("/api/draw", json=ASKED | {"seeds": [1, PLACE, 2]}))
    alone = events_of(shared[0].post("/api/draw", json=ASKED))[0]

    assert [one["picture"] for one in pictures] == [0, 1, 2]
    assert np.abs(pixels(pictures[1]["address"]).astype(int) - pixels(alone["address"])).max() <= 1


def test_kept_pictures_have_ids_and_a_walk_between_them(
    shared: tuple[TestClient, Path], run: Callable[..., Any], tmp_path: Path
) -> None:
    """Newest first; the walk is a movie with its settings inside, which --from repeats."""
    client, folder = shared
    ends = [
        client.post("/api/keep", json=ASKED | change).json() for change in ({}, {"styles": {"Cubism": 1}, "seeds": [7]})
    ]
    walk = {"window": "w", "start": ends[0]["id"], "end": ends[1]["id"], "frames": 4}
    *steps, end = events_of(client.post("/api/walk", json=walk))
    kept = client.get("/api/kept").json()["kept"]
    movie = client.get(f"/api/kept/{end['kept']['id']}")

    assert steps[-1] == {"done": 4, "of": 4}
    assert kept[0] == end["kept"]
    assert {one["id"] for one in ends} <= {one["id"] for one in kept}
    assert movie.headers["content-type"] == "image/webp"
    again = run(folder, "sample", "--from", folder / "samples" / kept[0]["name"], "--out", tmp_path / "again.webp")
    assert again.code == 0, again.err
    assert (tmp_path / "again.webp").read_bytes() == movie.content


def test_a_sent_picture_is_begun_from_and_repeated(
    shared: tuple[TestClient, Path], run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decoded apart; what is kept finds it beside itself, and a mask too."""
    client, folder = shared
    monkeypatch.chdir(folder)
    picture, mask = (
        client.post("/api/uploads", content=png((48, 32), color)).json() for color in ((9, 99, 200), (255,) * 3)
    )
    asked = ASKED | {"picture": picture["id"], "mask": mask["id"], "strength": 1.0}
    before = events_of(client.post("/api/draw", json=asked))[-1]
    kept = client.post("/api/keep", json=asked)
    assert kept.status_code == 200, kept.text
    after = events_of(client.post("/api/draw", json=asked))[-1]
    assert (before["must_keep"], after["must_keep"]) == (True, False)
    assert before["command"] == after["command"]
    path = folder / "samples" / kept.json()["name"]

    drawn = run(folder, *shlex.split(after["command"])[1:], "--out", tmp_path / "drawn")
    again = run(folder, "sample", "--from", path, "--out", tmp_path / "again")
    assert drawn.code == 0, drawn.err
    assert next((tmp_path / "drawn").iterdir()).read_bytes() == path.read_bytes()
    assert (picture["width"], picture["height"]) == (48, 32)
    assert again.code == 0, again.err
    assert next((tmp_path / "again").iterdir()).read_bytes() == path.read_bytes()
    opened_again = client.post(f"/api/kept/{kept.json()['id']}/origin").json()
    assert opened_again == {"picture": picture, "mask": mask}
    assert client.get(f"/api/uploads/{mask['id']}").headers["content-type"] == "image/png"
    restyled = events_of(client.post("/api/draw", json=ASKED | {"picture": picture["id"], "restyle": True, "eta": 0}))
    assert "--invert" in restyled[-1]["command"]


@pytest.mark.parametrize(
    ("name", "message"), [("0123456789abcdef", "no longer here"), ("plain", "begun from no other")]
)
def test_what_began_from_nothing_is_not_taken_up(shared: tuple[TestClient, Path], name: str, message: str) -> None:
    """In a sentence; an upload that is not there is not sent."""
    client, _ = shared
    if name == "plain":
        name = client.post("/api/keep", json=ASKED).json()["id"]

    assert message in client.post(f"/api/kept/{name}/origin").json()["error"]
    assert client.get(f"/api/uploads/{name}").status_code == 404


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "no picture"),
        (b"", "empty"),
        (png((64, 64))[:-20], "truncated"),
        (png((4, 4)), "too small"),
    ],
    ids=["other", "empty", "cut", "small"],
)
def test_what_is_no_picture_is_refused(shared: tuple[TestClient, Path], content: bytes, message: str) -> None:
    """In a sentence."""
    answer = shared[0].post("/api/uploads", content=content)

    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_bodies_are_bounded(shared: tuple[TestClient, Path]) -> None:
    """No more is read than may be sent."""
    client, _ = shared
    answers = [
        client.post("/api/draw", content=b" " * 70_000),
        client.post("/api/uploads", content=b"x" * (33 * 2**20)),
    ]

    assert [one.status_code for one in answers] == [400, 400]
    assert all("MiB, the most" in one.json()["error"] for one in answers)


@pytest.mark.parametrize(
    "change",
    [
        {"styles": {}},
        {"styles": {"Cubism": -1}},
        {"seeds": []},
        {"seeds": [-1]},
        {"seeds": list(range(17))},
        {"seeds": ["1"]},
        {"steps": 0},
        {"sampler": "plms"},
        {"guidance": "2"},
        {"eta": 2},
        {"width": 10**9, "height": 10**9},
        {"window": "<script>"},
        {"picture": "../../etc/passwd"},
        {"strength": None},
    ],
)
def test_what_cannot_be_asked_is_refused(shared: tuple[TestClient, Path], change: dict[str, Any]) -> None:
    """Before the model is touched."""
    answer = shared[0].post("/api/draw", json=ASKED | change)

    assert answer.status_code == 400
    assert "cannot be" in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"styles": {"<b>Cubsim</b>": 1}}, "no style"),
        ({"labels": {"genre": "x"}}, "knows no labels"),
        ({"width": 33, "height": 32}, "multiples of"),
        ({"steps": 4000}, "1000 steps"),
        ({"picture": "0123456789abcdef"}, "no longer here"),
    ],
)
def test_what_the_model_cannot_draw_is_said(
    shared: tuple[TestClient, Path], change: dict[str, Any], message: str
) -> None:
    """In the sentence of the command line."""
    (event,) = events_of(shared[0].post("/api/draw", json=ASKED | change))

    assert message in event["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": 1, "a": 2}', b"\xff", b"[" * 5000])
def test_bodies_that_are_no_wish_are_refused(shared: tuple[TestClient, Path], body: bytes) -> None:
    """Whatever they are."""
    assert shared[0].post("/api/draw", content=body).status_code == 400


@pytest.mark.parametrize("name", ["..", "%2e%2e%2flatentart.json", "0123456789abcdef", "x" * 300])
def test_no_path_opens_a_file(shared: tuple[TestClient, Path], name: str) -> None:
    """A kept picture is known by its id alone."""
    assert shared[0].get(f"/api/kept/{name}").status_code in (400, 404)


def test_links_and_other_files_are_not_shown(shared: tuple[TestClient, Path], tmp_path: Path) -> None:
    """What holds no settings of ours, or leads out of the samples, is none of them."""
    client, folder = shared
    client.post("/api/keep", json=ASKED | {"seeds": [99]})
    before = client.get("/api/kept").json()["kept"]
    (tmp_path / "out").mkdir()
    shutil.copy(folder / "samples" / before[0]["name"], tmp_path / "out" / "a.png")
    (folder / "samples" / "link").symlink_to(tmp_path / "out")
    (folder / "samples" / "link.png").symlink_to(tmp_path / "out" / "a.png")
    (folder / "samples" / "plain.png").write_bytes(png((8, 8)))

    assert client.get("/api/kept").json()["kept"] == before


def test_hundreds_of_kept_pictures_come_by_pages(cleaned: Path) -> None:
    """Newest first, each once, whatever is kept or deleted meanwhile; the oldest can be asked for at once."""
    samples = cleaned / "samples"
    (samples / "all").mkdir(parents=True)
    about = PngInfo()
    about.add_text("latentart", json.dumps({"style": "Cubism", "seed": 1}))
    Image.new("RGB", (8, 8)).save(samples / "0.png", pnginfo=about)
    content = (samples / "0.png").read_bytes()
    for number in range(700):
        path = samples / ("all" if number % 2 else "") / f"{number}.png"
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18 + number // 3))
    oldest = id_of(Path("0.png"))
    with opened(cleaned) as client:
        assert client.get(f"/api/kept/{oldest}").content == content
        page = client.get("/api/kept").json()
        (samples / "new.png").write_bytes(content)
        (samples / page["kept"][-1]["name"]).unlink()
        found = page["kept"]
        while page["next"]:
            page = client.get("/api/kept", params={"after": page["next"]}).json()
            found += page["kept"]

    assert len({one["id"] for one in found}) == len(found) == 700
    assert [one["modified"] for one in found] == sorted((one["modified"] for one in found), reverse=True)
    assert found[-1]["id"] in {id_of(Path(name)) for name in ("0.png", "2.png", "all/1.png")}


@pytest.mark.parametrize("mark", ["-", "x-y", "\u0663-a", "9" * 400 + "-a", "1000", "../.."])
def test_a_mark_that_is_none_begins_anew(shared: tuple[TestClient, Path], mark: str) -> None:
    """Or has nothing after it; neither is an error."""
    assert shared[0].get("/api/kept", params={"after": mark}).status_code == 200


def test_a_workspace_without_a_model_says_what_to_do(cleaned: Path) -> None:
    """On the page, which is served all the same."""
    with opened(cleaned) as client:
        answer = client.get("/api/model")

        assert client.get("/").status_code == 200
        assert answer.status_code == 400
        assert "latentart train vae" in answer.json()["error"]
        assert client.get("/api/kept").json() == {"kept": [], "next": ""}


def test_a_damaged_model_is_named_and_a_mended_one_is_drawn_with(workspace: Path) -> None:
    """The model is looked at again when its folder has changed."""
    model = workspace / "runs/ldm/model"
    weights = (model / "denoiser.safetensors").read_bytes()
    (model / "denoiser.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with opened(workspace) as client:
        assert "denoiser.safetensors" in client.get("/api/model").json()["error"]
        (model / "denoiser.safetensors").write_bytes(weights)
        assert "styles" in client.get("/api/model").json()


def test_a_model_folder_alone_is_enough(story: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples go where `sample --model` puts them, and the command names it."""
    monkeypatch.chdir(tmp_path)
    with opened(story.folder / "runs/ldm/model") as client:
        end = events_of(client.post("/api/draw", json=ASKED))[-1]
        client.post("/api/keep", json=ASKED)

    assert end["command"].endswith(f"--model {story.folder / 'runs/ldm/model'}")
    assert len(list((tmp_path / "samples").rglob("*.png"))) == 1
