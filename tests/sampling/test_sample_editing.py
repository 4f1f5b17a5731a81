"""What `sample` makes of pictures, labels, sizes and ways between seeds, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from latentart.core.ema import Ema
from latentart.data.synthetic.art import draw_picture
from latentart.model.averages import save_average
from latentart.model.folder import load_model, save_model
from latentart.process.devices import Placement
from latentart.sampling.settings import read_text
from latentart.storage.folders import read_json, write_json_atomic

Run = Callable[..., Any]
GAP, SIDE = 2, 32


def pixels(path: Path, size: tuple[int, int] = (SIDE, SIDE), row: int = 0, column: int = 0) -> np.ndarray[Any, Any]:
    """Return the values [height, width, 3] of one picture of a grid without labels."""
    left, top = GAP + column * (size[0] + GAP), GAP + row * (size[1] + GAP)
    with Image.open(path) as grid:
        return np.asarray(grid.convert("RGB").crop((left, top, left + size[0], top + size[1]))).astype(int)


def settings_of(path: Path) -> Any:
    """Return the settings inside a picture or movie."""
    return json.loads(read_text(path) or "null")


@pytest.fixture
def studio(workspace: Path) -> Path:
    """Return a workspace with a picture in it, and a mask whose right half is white."""
    draw_picture("Cubism", 0, 0, (48, 48)).save(workspace / "in.png")
    mask = Image.new("L", (48, 48))
    ImageDraw.Draw(mask).rectangle((24, 0, 47, 47), fill=255)
    mask.save(workspace / "mask.png")
    return workspace


def test_blends_are_drawn_named_and_described(run: Run, workspace: Path) -> None:
    """The weights are in the name and the settings; a blend is neither of its styles, one of all its weight is it."""
    words = ("-n", "1", "--guidance", "20")
    done = run(workspace, "sample", "-s", "Cubism:3+Minimalism:1", "-s", "Cubism:2", "-s", "Minimalism", *words)
    alone = run(workspace, "sample", "-s", "Cubism", *words, "--out", "alone.png")
    path = workspace / done.out.strip()

    assert alone.code == 0
    assert path.name == "Cubism-0.75+Minimalism-0.25+Cubism+Minimalism_eta0_3x1.png"
    assert settings_of(path)["styles"] == [{"Cubism": 0.75, "Minimalism": 0.25}, "Cubism", "Minimalism"]
    with Image.open(path) as grid:
        rows = [
            np.asarray(grid.crop((grid.width - SIDE - GAP, y, grid.width - GAP, y + SIDE))).astype(int)
            for y in (GAP, 2 * GAP + SIDE, 3 * GAP + 2 * SIDE)
        ]
    assert np.abs(rows[1] - pixels(workspace / "alone.png")).max() <= 1
    assert np.abs(rows[0] - rows[1]).max() > 1
    assert np.abs(rows[0] - rows[2]).max() > 1


def test_a_walk_leads_from_seed_to_seed(run: Run, workspace: Path) -> None:
    """Its ends are the pictures of the seeds, each leg is a row, and what lies between differs from step to step."""
    done = run(workspace, "sample", "-s", "Cubism", "--walk", "4", "--count", "3", "--seed", "5")
    run(workspace, "sample", "-s", "Cubism", "--count", "3", "--seed", "5", "--out", "seeds.png")
    path = workspace / done.out.strip()

    assert path.name == "Cubism_eta0_walk_2x4.png"
    assert settings_of(path)["seeds"] == [5, 5 + 1 / 3, 5 + 2 / 3, 6, 6, 6 + 1 / 3, 6 + 2 / 3, 7]
    assert "--seed 8" in done.err
    seeds = [pixels(workspace / "seeds.png", column=i) for i in range(3)]
    for (row, column), seed in {(0, 0): 0, (0, 3): 1, (1, 0): 1, (1, 3): 2}.items():
        assert np.abs(pixels(path, row=row, column=column) - seeds[seed]).max() <= 1
    steps = [np.abs(pixels(path, column=i) - pixels(path, column=i + 1)).mean() for i in range(3)]
    assert 0 < max(steps) < np.abs(seeds[0] - seeds[1]).mean()


def test_a_place_between_two_seeds_is_drawn_and_repeated(run: Run, workspace: Path) -> None:
    """Its ends are the pictures of the seeds; what lies between is another, which its file repeats bit for bit."""
    places = {"start": "5", "whole": "5:9:0", "end": "9", "all": "5:9:1", "half": "5:9:0.5"}
    for name, seed in places.items():
        run(workspace, "sample", "-s", "Cubism", "-n", "1", "--seed", seed, "--out", f"{name}.png")
    again = run(workspace, "sample", "--from", "half.png", "--out", "again.png")
    drawn = {name: pixels(workspace / f"{name}.png") for name in places}

    assert again.code == 0, again.err
    assert settings_of(workspace / "half.png")["seeds"] == [[5, 9, 0.5]]
    assert (drawn["start"] == drawn["whole"]).all()
    assert (drawn["end"] == drawn["all"]).all()
    assert (drawn["half"] != drawn["start"]).any()
    assert (workspace / "again.png").read_bytes() == (workspace / "half.png").read_bytes()


def test_a_walk_with_noise_of_its_own_is_as_smooth(run: Run, workspace: Path) -> None:
    """The noise of each step walks along."""
    run(workspace, "sample", "-s", "Cubism", "--walk", "9", "--eta", "1", "--out", "walk.png")
    ends = np.abs(pixels(workspace / "walk.png") - pixels(workspace / "walk.png", column=8)).mean()

    steps = [
        np.abs(pixels(workspace / "walk.png", column=i) - pixels(workspace / "walk.png", column=i + 1)).mean()
        for i in range(8)
    ]
    assert max(steps) < ends / 3


@pytest.mark.parametrize("name", ["m.gif", "m.webp"])
def test_a_movie_shows_the_denoising(run: Run, workspace: Path, name: str) -> None:
    """One frame for each of three steps, the last the grid itself; the settings are inside, and it is made once."""
    words = ("sample", "-s", "Cubism", "-s", "Minimalism", "-n", "2", "--movie", name)
    done, again = run(workspace, *words), run(workspace, *words)
    run(workspace, *words[:-2], "--out", "grid.png")

    assert (done.out, again.out) == (f"{name}\n", f"{name}\n")
    assert "were there already" in again.err
    assert settings_of(workspace / name)["movie"] == "denoising"
    with Image.open(workspace / name) as movie, Image.open(workspace / "grid.png") as grid:
        assert (movie.n_frames, movie.size) == (3, grid.size)  # type: ignore[attr-defined]
        first = np.asarray(movie.convert("RGB")).astype(int)
        movie.seek(2)
        last, wanted = (np.asarray(one.convert("RGB")).astype(int) for one in (movie, grid))
    assert np.abs(last - wanted).mean() < 15
    assert np.abs(first - wanted).mean() > np.abs(last - wanted).mean() + 1


@pytest.mark.slow
def test_a_long_movie_has_at_most_thirty_frames(run: Run, workspace: Path) -> None:
    """Evenly spread, whatever the number of steps; batches smaller than the grid fill the same frames."""
    words = ("sample", "-s", "Cubism", "-n", "3", "--steps", "50", "--movie")
    run(workspace, *words, "one.webp")
    path = workspace / "latentart.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample": {"batch_size": 2, "precision": "fp32"}}))
    run(workspace, *words, "two.webp")

    with Image.open(workspace / "one.webp") as one, Image.open(workspace / "two.webp") as two:
        assert one.n_frames in range(20, 31)  # type: ignore[attr-defined]  # frames alike are shown as one
        for frame in (0, 8):
            one.seek(frame)
            two.seek(frame)
            pair = [np.asarray(movie.convert("RGB")).astype(int) for movie in (one, two)]
            assert np.abs(pair[0] - pair[1]).mean() < 2


def test_a_walk_may_be_a_movie(run: Run, workspace: Path) -> None:
    """Two legs of three steps and the end: seven frames, no seed twice; each style has its row."""
    run(workspace, "sample", "-s", "Cubism", "-s", "Minimalism", "--walk", "3", "-n", "3", "--movie", "w.webp")

    settings = settings_of(workspace / "w.webp")
    assert (settings["movie"], settings["grid"]) == ("walk", [2, 1])
    assert settings["seeds"] == [0, 1 / 3, 2 / 3, 1, 1 + 1 / 3, 1 + 2 / 3, 2] * 2
    with Image.open(workspace / "w.webp") as movie:
        assert movie.n_frames == 7  # type: ignore[attr-defined]
        assert movie.height == 2 * (SIDE + GAP) + GAP


def test_pictures_of_another_size(run: Run, workspace: Path) -> None:
    """Oblong ones work, alone and in a grid, and are described."""
    run(workspace, "sample", "-s", "Cubism", "-n", "2", "--size", "64x24", "--out", "wide.png")
    run(workspace, "sample", "-s", "Cubism", "-n", "1", "--size", "64x24", "--seed", "1", "--separate", "--out", "one")

    assert settings_of(workspace / "wide.png")["size"] == [64, 24]
    with Image.open(workspace / "one/Cubism_seed1.png") as picture:
        assert picture.size == (64, 24)
        alone = np.asarray(picture).astype(int)
    assert np.abs(alone - pixels(workspace / "wide.png", (64, 24), column=1)).max() <= 1


def test_a_picture_is_begun_from_by_its_strength(run: Run, studio: Path) -> None:
    """At 0 it is the autoencoder's reconstruction, and more strength leads further away, by seeds."""
    difference = []
    for strength in ("0", "0.34", "1"):
        words = ("-s", "Minimalism", "-n", "2", "--init-image", "in.png", "--strength", strength)
        assert run(studio, "sample", *words, "--out", f"{strength}.png").code == 0
        difference.append(np.abs(pixels(studio / f"{strength}.png") - pixels(studio / "0.png")).mean())

    assert difference[0] == 0 < difference[1] < difference[2]
    assert np.array_equal(pixels(studio / "0.png"), pixels(studio / "0.png", column=1))
    assert not np.array_equal(pixels(studio / "0.34.png"), pixels(studio / "0.34.png", column=1))


def test_a_picture_keeps_its_shape(run: Run, workspace: Path) -> None:
    """An oblong picture gives oblong ones, its shorter side as long as the model's, in whole latents."""
    draw_picture("Cubism", 0, 0, (100, 50)).save(workspace / "wide.png")
    run(workspace, "sample", "-s", "Cubism", "-n", "1", "--init-image", "wide.png", "--out", "out.png")

    with Image.open(workspace / "out.png") as grid:
        assert grid.size == (64 + 2 * GAP, 32 + 2 * GAP)
    assert settings_of(workspace / "out.png")["strength"] == 0.6


def test_inpainting_keeps_what_is_black(run: Run, studio: Path) -> None:
    """Far from the white every pixel is the picture's own; the white half is new and differs by seed."""
    done = run(studio, "sample", "-s", "Minimalism", "-n", "2", "--init-image", "in.png", "--mask", "mask.png")
    path = studio / done.out.strip()
    with Image.open(studio / "in.png") as picture:
        given = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)).astype(int)

    first, second = (pixels(path, column=i) for i in range(2))
    assert path.name == "Minimalism_eta0_from_in_1x2.png"
    assert np.array_equal(first[:, : SIDE // 2 - 8], given[:, : SIDE // 2 - 8])
    assert np.abs(first - second)[:, SIDE // 2 :].mean() > 1
    assert np.abs(first - given)[:, SIDE // 2 :].mean() > 5
    assert settings_of(path)["mask"]["file"] == "mask.png"


def test_what_is_transparent_in_a_mask_stays(run: Run, studio: Path) -> None:
    """A mask of white strokes on nothing is that of white on black, whatever color lies under its transparency."""
    with Image.open(studio / "mask.png") as mask:
        strokes = Image.new("RGBA", mask.size, (255, 255, 255, 0))
        strokes.putalpha(mask)
    strokes.save(studio / "strokes.png")
    words = ("sample", "-s", "Minimalism", "-n", "1", "--init-image", "in.png", "--mask")

    for name in ("mask", "strokes"):
        assert run(studio, *words, f"{name}.png", "--out", f"{name}-out.png").code == 0

    assert np.array_equal(pixels(studio / "mask-out.png"), pixels(studio / "strokes-out.png"))


def test_a_mask_that_is_white_everywhere_is_told(run: Run, studio: Path) -> None:
    """It is drawn, and a line says that nothing stays; a mask that keeps something brings no such line."""
    Image.new("L", (48, 48), 255).save(studio / "white.png")
    words = ("sample", "-s", "Minimalism", "-n", "1", "--init-image", "in.png", "--mask")

    white, half = run(studio, *words, "white.png"), run(studio, *words, "mask.png", "--seed", "5")

    assert white.code == half.code == 0
    assert "white.png is white everywhere: nothing of the picture stays" in white.err
    assert "everywhere" not in half.err


def test_a_picture_too_long_for_its_shape_can_be_begun_from_at_a_size(run: Run, studio: Path) -> None:
    """The size that is given takes the place of the one that would follow."""
    Image.new("RGB", (1, 5000)).save(studio / "line.png")

    done = run(studio, "sample", "-s", "Cubism", "-n", "1", "--init-image", "line.png", "--size", "32x32")
    refused = run(studio, "reconstruct", "line.png").error(2)

    assert done.code == 0
    assert "line.png would have 64 x 320000 pixels: one side is more than 16 times the other." in refused


def test_an_inverted_picture_comes_back_in_its_own_style(run: Run, studio: Path) -> None:
    """Up and down in one style without guidance is the reconstruction, in another it is not; one picture per style."""
    words = ("sample", "--invert", "in.png", "--from-style", "cubism", "--steps", "20")
    done = run(studio, *words, "-s", "Cubism", "-s", "all", "--guidance", "1", "--separate", "--out", "out")
    run(studio, *words, "-s", "Minimalism", "--guidance", "20", "--out", "other.png")
    run(studio, "sample", "-s", "Cubism", "--init-image", "in.png", "--strength", "0", "-n", "1", "--out", "0.png")

    assert done.out.split() == [f"out/{name}_seed0.png" for name in ("Cubism", "High_Renaissance", "Minimalism")]
    with Image.open(studio / "out/Cubism_seed0.png") as again:
        assert np.abs(np.asarray(again).astype(int) - pixels(studio / "0.png")).max() <= 1
    assert np.abs(pixels(studio / "other.png") - pixels(studio / "0.png")).max() > 8


def test_labels_condition_beside_the_style(run: Run, workspace: Path) -> None:
    """A model with a column of labels takes one of its values; name and settings tell, and the picture changes."""
    folder = workspace / "runs/ldm/model"
    add_labels(folder, ["portrait", "still life"])
    plain = run(workspace, "sample", "-s", "Cubism", "-n", "1")
    label = ("--label", "genre=portrait")
    done = run(workspace, "sample", "-s", "Cubism:2+Minimalism:1", "-s", "Cubism", "-n", "1", *label)
    one = run(workspace, "sample", "-s", "Cubism", "-n", "1", *label)

    path = workspace / one.out.strip()
    assert path.name == "Cubism_portrait_eta0_1x1.png"
    assert settings_of(path)["labels"] == {"genre": "portrait"}
    assert np.abs(pixels(path) - pixels(workspace / plain.out.strip())).max() > 1
    with Image.open(workspace / done.out.strip()) as grid:
        box = (grid.width - SIDE - GAP, 2 * GAP + SIDE, grid.width - GAP, 2 * (GAP + SIDE))
        assert np.abs(np.asarray(grid.crop(box)).astype(int) - pixels(path)).max() <= 1
    assert "no genre 'portrai'. Did you mean 'portrait'?" in run(
        workspace, "sample", "-s", "Cubism", "--label", "genre=portrai"
    ).error(2)


def add_labels(folder: Path, values: list[str]) -> None:
    """Give a model folder a column of labels, its rows of the embedding far from zero."""
    model = load_model(folder, Placement(torch.device("cpu"), "fp32"))
    assert model.denoiser is not None
    embedding = model.denoiser.style_embedding
    rows = 3 * torch.randn(len(values) + 1, embedding.embedding_dim, generator=torch.Generator().manual_seed(0))
    rows[-1] = 0
    embedding.weight = torch.nn.Parameter(torch.cat([embedding.weight.data, rows]), requires_grad=False)
    about = {name: value for name, value in model.about.items() if name not in ("format", "latentart")}
    about["labels"] = [{"name": "genre", "values": values}]
    save_model(folder, about, {"autoencoder": model.autoencoder, "denoiser": model.denoiser})


def test_autoguidance_takes_the_early_average(run: Run, workspace: Path) -> None:
    """Of the widest averages the one nearest to a quarter of the training; at 1 it is the model's own picture."""
    words = ("sample", "-s", "Cubism", "-n", "1")
    missing = run(workspace, *words, "--autoguidance", "2").error(6)
    folder = workspace / "runs/ldm/model"
    hashes = add_averages(folder, trained=1000)
    done = run(workspace, *words, "--autoguidance", "2")
    one = run(workspace, *words, "--autoguidance", "1")
    plain = run(workspace, *words, "--guidance", "1")
    pictures = [workspace / result.out.strip() for result in (done, one, plain)]

    assert "Train with ldm.training.run.ema.tracks=[0.05,0.1]" in missing
    settings = settings_of(pictures[0])
    assert (settings["autoguidance"], settings["guidance"]) == (2, 1)
    assert settings["weak_denoiser"] == hashes[300, 0.1]
    assert np.array_equal(pixels(pictures[1]), pixels(pictures[2]))
    assert np.abs(pixels(pictures[0]) - pixels(pictures[2])).max() > 1


def add_averages(folder: Path, trained: int) -> dict[tuple[int, float], str]:
    """Write snapshots of other weights into a model's run, and return the hash of each by step and width."""
    about = read_json(folder / "model.json")
    about["training"]["ldm"]["step"] = trained
    model = load_model(folder, Placement(torch.device("cpu"), "fp32"))
    assert model.denoiser is not None
    hashes = {}
    for step, std in ((100, 0.1), (240, 0.05), (300, 0.1), (900, 0.1), (1000, 0.1)):
        ema = Ema(model.denoiser, relative_std=std)
        for parameter in ema.network.parameters():
            parameter.mul_(1 + 100 / step)
        save_average(folder.parent, step, ema)
        name = f"step-{step:08d}_std{std:.4f}.json"
        hashes[step, std] = read_json(folder.parent / "averages" / name)["sha256"]
    manifest = read_json(folder / "MANIFEST.json")
    write_json_atomic(folder / "model.json", about)
    content = (folder / "model.json").read_bytes()
    manifest["files"]["model.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_json_atomic(folder / "MANIFEST.json", manifest)
    return hashes


def test_the_configs_autoguidance_gives_way(run: Run, workspace: Path) -> None:
    """Guidance that is asked for on the command line takes the place of autoguidance in the config."""
    path = workspace / "latentart.json"
    sample = {"steps": 3, "precision": "fp32", "autoguidance": 2.0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample": sample}))

    run(workspace, "sample", "-s", "Cubism", "-n", "1").error(6)
    assert run(workspace, "sample", "-s", "Cubism", "-n", "1", "--guidance", "2").code == 0


IN = ("--init-image", "in.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing option '--style'."),
        (["--grid", "2x2", "--count", "2"], "--grid and --count both say how many."),
        (["--guidance", "2", "--autoguidance", "2"], "--guidance and --autoguidance pull in two ways."),
        ([*IN, "--invert", "in.png"], "--init-image and --invert both name a picture to begin from."),
        (["--invert", "in.png", "--count", "2"], "--invert and --count do not go together"),
        (["--invert", "in.png", "--seed", "2"], "--invert and --seed do not go together"),
        (["--invert", "in.png", "--eta", "0.5"], "--invert needs a way down without noise"),
        (["--invert", "in.png", "--sampler", "ddpm"], "--invert needs a way down without noise"),
        (["--invert", "in.png", "--from-style", "Cubsim"], "no style 'Cubsim'. Did you mean 'Cubism'?"),
        (["--guidance", "inf"], "--guidance inf is no number to reckon with."),
        (["--autoguidance", "inf"], "--autoguidance inf is no number to reckon with."),
        (["--strength", "0.5"], "--strength says nothing without --init-image or --invert."),
        (["--mask", "mask.png"], "--mask says nothing without --init-image."),
        (["--from-style", "Cubism"], "--from-style says nothing without --invert."),
        (["--walk", "4", "--grid", "2x2"], "--walk and --grid both lay out the pictures"),
        (["--walk", "4", "--count", "1"], "--walk 4 over 1 seeds leads nowhere."),
        (["--walk", "4", "--seed", str(2**41)], "is too large to walk from"),
        (["--walk", "4", "--seed", "3.5"], "--walk goes from one whole seed to the next"),
        (["--walk", "4000", "-n", "3"], "that would be 8000 pictures, and 4096 are the most."),
        (["--movie", "m.mp4"], "--movie m.mp4 is neither GIF nor WebP."),
        (["--movie", "m.gif", "--separate"], "--movie and --separate both say what is written."),
        (["--movie", "m.gif", "--out", "x.png"], "--movie and --out both say what is written."),
        (["--size", "60x32"], "--size 60x32: this model draws multiples of 8 pixels. Nearest: 56x32 or 64x32."),
        (["--size", "4"], "--size 4x4: this model draws multiples of 8 pixels. Nearest: 8x8."),
        (["--size", "0"], "--size 0x0: this model draws multiples of 8 pixels. Nearest: 8x8."),
        (["--size", "99992x99992"], "pictures of 99992x99992 would have more than 89478485 pixels"),
        (["--size", "big"], "'big' is not a size."),
        (["--label", "genre=portrait"], "'genre=portrait': this model knows no labels beside its styles."),
        ([*IN, "--mask", "small.png"], "small.png has 8x8, in.png 48x48: they must be of one size."),
        (
            [*IN, "--mask", "black.png"],
            "black.png is white nowhere. White is what is painted anew, within the part drawn: the lightest gray",
        ),
        ([*IN, "--mask", "clear.png"], "clear.png is white nowhere."),
        ([*IN, "--mask", "edge.png", "--size", "16x48"], "edge.png is white nowhere."),
        (["--init-image", "line.png"], "the picture to begin from has 1x5000 pixels"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_drawn(
    run: Run, studio: Path, snapshot: Run, words: list[str], message: str
) -> None:
    """One line says why, and nothing is written."""
    Image.new("L", (8, 8), 255).save(studio / "small.png")
    Image.new("L", (48, 48)).save(studio / "black.png")
    Image.new("RGBA", (48, 48), (255, 255, 255, 0)).save(studio / "clear.png")
    Image.new("RGB", (1, 5000)).save(studio / "line.png")
    ImageOps.expand(Image.new("L", (44, 48)), (2, 0), 255).save(studio / "edge.png")
    before = snapshot(studio)

    line = run(studio, "sample", *(["-s", "Cubism"] if words else []), *words).error(2)

    assert message in line
    assert snapshot(studio) == before


NO_PICTURES = (["--init-image", "none.png"], [*IN, "--mask", "none.png"], ["--invert", "latentart.json"])


@pytest.mark.parametrize("words", NO_PICTURES)
def test_what_is_no_picture_is_said(run: Run, studio: Path, words: list[str]) -> None:
    """A file that is missing or something else is named, with exit code 4."""
    line = run(studio, "sample", "-s", "Cubism", *words).error(4)

    assert f"{words[-1]} is no picture that can be used" in line
