"""`sample --from`: a picture or movie repeated from the settings inside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from latentart.data.synthetic.art import draw_picture
from latentart.model.folder import load_model, save_model
from latentart.process.devices import Placement

Run = Callable[..., Any]
GUIDED = ("--guidance", "3", "--interval", "0.1", "0.9", "--eta", "0.7", "--seed", "5")


@pytest.fixture
def studio(workspace: Path) -> Path:
    """Return a workspace with a picture and a mask in a folder of it."""
    (workspace / "given").mkdir()
    draw_picture("Cubism", 0, 0, (48, 48)).save(workspace / "given/in.png")
    Image.linear_gradient("L").resize((48, 48)).save(workspace / "given/mask.png")
    return workspace


IN = ("--init-image", "given/in.png", "--strength", "0.7")
WALK = '{"styles": ["Cubism", "Cubism"], "seeds": [0, 1], "movie": "walk", "grid": %s}'
TOO_MANY = json.dumps({"styles": ["Cubism"] * 4096, "seeds": [0] * 4096, "grid": [64, 64], "size": [9216, 9216]})
WORDS = (
    ["-s", "Cubism", "-s", "Minimalism", "-n", "2", *GUIDED],
    ["-s", "Cubism:0.3+Minimalism:0.7", "--grid", "2x2", "--sampler", "unipc", "--steps", "4"],
    ["-s", "Cubism", "--walk", "3", "-n", "3"],
    ["-s", "Cubism", "-n", "1", "--size", "48x64"],
    ["-s", "Cubism", "-n", "2", *IN],
    ["-s", "Cubism", "-n", "2", *IN, "--mask", "given/mask.png"],
    ["-s", "Cubism", "--invert", "given/in.png", "--from-style", "Minimalism"],
)


@pytest.mark.parametrize("words", WORDS)
def test_a_grid_is_repeated(run: Run, studio: Path, words: list[str]) -> None:
    """Pixels and settings are the same, whatever the config says by then."""
    run(studio, "sample", *words, "--out", "one.png")
    path = studio / "latentart.json"
    changed = {"precision": "fp32", "steps": 7, "guidance": 9.0, "sampler": "euler"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample": changed}))

    done = run(studio, "sample", "--from", "one.png", "--out", "two.png")

    assert (done.code, done.out) == (0, "two.png\n"), done.err
    assert (studio / "two.png").read_bytes() == (studio / "one.png").read_bytes()
    assert "were there already" in run(studio, "sample", "--from", "one.png", "--out", "one.png").err


@pytest.mark.parametrize("words", [["--walk", "3", "--movie", "m.webp"], ["--movie", "m.gif"]])
def test_a_movie_is_repeated(run: Run, studio: Path, words: list[str]) -> None:
    """Of a denoising and of a walk; without --out it gets the name that a grid would have."""
    run(studio, "sample", "-s", "Cubism", "-s", "Minimalism", "-n", "2", *words)

    done = run(studio, "sample", "--from", words[-1])

    path = studio / done.out.strip()
    assert path.parent == studio / "samples"
    assert path.read_bytes() == (studio / words[-1]).read_bytes()
    assert "neither GIF nor WebP" in run(studio, "sample", "--from", words[-1], "--out", "m.png").error(2)


def test_a_single_picture_is_repeated(run: Run, studio: Path) -> None:
    """Into a folder, by its own name."""
    run(studio, "sample", "-s", "Cubism", "-n", "2", "--separate", "--out", "one", *GUIDED)

    run(studio, "sample", "--from", "one/Cubism_seed6.png", "--out", "two")

    assert [path.name for path in (studio / "two").iterdir()] == ["Cubism_seed6.png"]
    one, two = (Image.open(studio / name / "Cubism_seed6.png") for name in ("one", "two"))
    with one, two:
        assert one.info == two.info
        assert max(high for _, high in _difference(one, two)) <= 1  # its batch was another


def _difference(one: Image.Image, two: Image.Image) -> Any:
    return ImageChops.difference(one, two).getextrema()


@pytest.mark.parametrize("is_separate", [False, True])
def test_the_form_of_earlier_versions_is_read(run: Run, studio: Path, is_separate: bool) -> None:
    """Settings as they were written before there was more to say, key for key; what is written now has the same."""
    where = ("--separate", "--out", "one") if is_separate else ("--out", "one.png")
    run(studio, "sample", "-s", "Cubism", "-n", "1", "--guidance", "1", *where)
    path = studio / ("one/Cubism_seed0.png" if is_separate else "one.png")
    with Image.open(path) as picture:
        about = json.loads(picture.info["latentart"])
    what = ["style", "seed"] if is_separate else ["styles", "seeds", "grid"]
    how = ["sampler", "steps", "spacing", "eta", "guidance", "guidance_interval", "guidance_rescale", "x0_limit"]
    assert list(about) == [*what, *how, "latentart", "autoencoder", "denoiser"]
    for name in ("guidance_interval", "guidance_rescale"):  # the first version had none
        del about[name]
    info = PngInfo()
    info.add_text("latentart", json.dumps(about))
    Image.new("RGB", (8, 8)).save(studio / "old.png", pnginfo=info)

    done = run(studio, "sample", "--from", "old.png", "--out", "two" if is_separate else "two.png")

    assert (studio / done.out.strip()).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("sampler", ["ddim", "unipc"])
def test_an_older_picture_from_the_last_timestep_is_repeated(run: Run, studio: Path, sampler: str) -> None:
    """By predicted noise, or even in log-SNR: it named no limit of noise; one of today does, and is another picture."""
    if sampler == "ddim":
        _predict_noise(studio / "runs/ldm/model")
    path = studio / "latentart.json"
    asked = json.loads(path.read_text())
    words = ("sample", "-s", "Cubism", "-n", "1", "--sampler", sampler, "--steps", "12", "--out")
    run(studio, *words, "new.png")
    path.write_text(json.dumps({**asked, "sample": {**asked.get("sample", {}), "noise_limit": None}}))
    run(studio, *words, "old.png")
    path.write_text(json.dumps(asked))

    for name in ("new", "old"):
        assert run(studio, "sample", "--from", f"{name}.png", "--out", f"{name}-again.png").code == 0
    new, old = (Image.open(studio / f"{name}.png") for name in ("new", "old"))

    with new, old:
        limits = [json.loads(picture.info["latentart"]).get("noise_limit") for picture in (new, old)]
        assert limits == [164, None]
        assert max(high for _, high in _difference(new, old)) > 1
    assert (studio / "old-again.png").read_bytes() == (studio / "old.png").read_bytes()
    assert (studio / "new-again.png").read_bytes() == (studio / "new.png").read_bytes()


def _predict_noise(folder: Path) -> None:
    model = load_model(folder, Placement(torch.device("cpu"), "fp32"))
    assert model.denoiser is not None
    about = {name: value for name, value in model.about.items() if name not in ("format", "latentart")}
    about["diffusion"] = {**about["diffusion"], "target": "eps"}
    save_model(folder, about, {"autoencoder": model.autoencoder, "denoiser": model.denoiser})


def test_another_model_is_refused(run: Run, studio: Path) -> None:
    """Weights of another hash would give another picture; the model it was drawn with is asked for, and taken."""
    run(studio, "sample", "-s", "Cubism", "-n", "1", "--out", "one.png")
    folder = studio / "runs/ldm/model"
    shutil.copytree(folder, studio / "kept")
    _change_weights(folder)

    line = run(studio, "sample", "--from", "one.png", "--out", "two.png").error(6)
    done = run(studio, "sample", "--from", "one.png", "--out", "two.png", "--model", "kept")

    assert "one.png was drawn with another denoiser than that of runs/ldm/model" in line
    assert "--model" in line
    assert done.code == 0, done.err
    assert not (studio / "samples/two.png").exists()


def _change_weights(folder: Path) -> None:
    model = load_model(folder, Placement(torch.device("cpu"), "fp32"))
    assert model.denoiser is not None
    next(model.denoiser.parameters()).mul_(1.5)
    about = {name: value for name, value in model.about.items() if name not in ("format", "latentart")}
    save_model(folder, about, {"autoencoder": model.autoencoder, "denoiser": model.denoiser})


def test_inputs_are_looked_for(run: Run, studio: Path) -> None:
    """Beside the picture too; one that is gone or changed is named."""
    run(studio, "sample", "-s", "Cubism", "-n", "1", *IN, "--mask", "given/mask.png", "--out", "given/one.png")
    (studio / "given").rename(studio / "moved")
    words = ("sample", "--from", "moved/one.png", "--out", "two.png")
    assert run(studio, *words).code == 0
    (studio / "two.png").unlink()
    (studio / "moved/mask.png").unlink()
    gone = run(studio, *words).error(4)
    draw_picture("Minimalism", 0, 0, (48, 48)).save(studio / "moved/in.png")
    changed = run(studio, *words).error(4)

    assert "the mask of moved/one.png, given/mask.png, is not here. Put it there, or beside moved/one.png." in gone
    assert "the picture to begin from of moved/one.png, moved/in.png, is not what it was." in changed
    assert not (studio / "two.png").exists()


@pytest.mark.parametrize(
    ("name", "text", "code", "message"),
    [
        ("none.png", None, 4, "none.png cannot be read: No such file"),
        ("latentart.json", None, 2, "latentart.json holds no settings of `latentart sample`"),
        ("given/in.png", None, 2, "in.png holds no settings of `latentart sample`"),
        ("x.png", "no json", 2, "x.png holds no settings"),
        ("x.png", "[1]", 2, "x.png holds no settings"),
        ("x.png", '{"style": "Cubism"}', 2, "x.png holds no settings"),
        ("x.png", '{"style": "Cubism", "seed": 0, "sampler": "lms"}', 2, "x.png holds no settings"),
        ("x.png", '{"styles": ["Cubism"], "seeds": [0, 1], "grid": [1, 2]}', 2, "x.png holds no settings"),
        ("x.png", '{"styles": ["Cubism"], "seeds": [0], "grid": [0, 1]}', 2, "x.png holds no settings"),
        ("x.png", '{"styles": ["Cubism"], "seeds": [0], "grid": [20000, 20000]}', 2, "x.png holds no settings"),
        ("x.png", '{"styles": ["Cubism"], "seeds": [0], "grid": [1e30, 1]}', 2, "x.png holds no settings"),
        ("x.png", '{"styles": ["Cubism"], "seeds": [0], "grid": [1.5, 1.5]}', 2, "x.png holds no settings"),
        ("x.png", '{"styles": ["Cubism"], "seeds": [0], "grid": [-1, -1]}', 2, "x.png holds no settings"),
        ("x.png", WALK % "[1, 1]", 2, "x.png holds no settings"),
        ("x.png", WALK % "[20000, 1]", 2, "x.png holds no settings"),
        ("x.png", WALK % "[1, 20000]", 2, "x.png holds no settings"),
        ("x.png", '{"style": "Cubism", "seed": 1' + "0" * 400 + "}", 2, "x.png holds no settings"),
        ("x.png", '{"style": "Cubism", "seed": 0, "size": [9216, 16384]}', 2, "than 89478485 pixels"),
        ("x.png", TOO_MANY, 5, "4096 pictures of 9216x9216 would take"),
        ("x.png", '{"style": "Cubism", "seed": "0"}', 2, "x.png holds no settings"),
        ("x.png", '{"style": {"Cubism": -1, "Minimalism": 2}, "seed": 0}', 2, "x.png holds no settings"),
        ("x.png", '{"style": {}, "seed": 0}', 2, "x.png holds no settings"),
        ("x.png", '{"style": "Cubism", "seed": 0, "size": ["a", 8]}', 2, "x.png holds no settings"),
        ("x.png", '{"style": "Cubism", "seed": Infinity}', 2, "x.png holds no settings"),
        ("x.png", "[" * 100_000, 2, "x.png holds no settings"),
        ("x.png", '{"style": "Cubism", "seed": -1}', 2, "x.png holds no settings"),
        ("x.png", '{"style": "Rococo", "seed": 0}', 2, "this model has no style 'Rococo'"),
        ("x.png", '{"style": "Cubism", "seed": 0, "size": [30, 30]}', 2, "multiples of 8 pixels"),
        ("x.png", '{"style": "Cubism", "seed": 0, "steps": 2000}', 2, "x.png took 2000 steps"),
        ("x.png", '{"style": "Cubism", "seed": 0, "labels": {"genre": "x"}}', 2, "knows no labels"),
    ],
)
def test_what_cannot_be_repeated_is_said(
    run: Run, studio: Path, snapshot: Run, name: str, text: str | None, code: int, message: str
) -> None:
    """A file without settings, or with such as this model cannot draw: one line, nothing written, no traceback."""
    if text is not None:
        info = PngInfo()
        info.add_text("latentart", text)
        Image.new("RGB", (8, 8)).save(studio / name, pnginfo=info)
    before = snapshot(studio)

    assert message in run(studio, "sample", "--from", name).error(code)
    assert snapshot(studio) == before


def test_nothing_is_changed_on_the_way(run: Run, studio: Path) -> None:
    """Options that would make another picture of it are named and refused."""
    line = run(studio, "sample", "--from", "one.png", "--seed", "3", "-s", "Cubism", "--interval", "0", "1").error(2)

    assert "--from repeats a picture as it is; leave out --interval, --seed, --style." in line
