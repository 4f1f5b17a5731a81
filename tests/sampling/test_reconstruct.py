"""`latentart reconstruct --size`: pages of any size, by tiles where large, and one line where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentart.core.latents import split_moments
from latentart.core.pixels import to_images, to_pixels
from latentart.data.datasets import pixels_from
from latentart.data.synthetic.art import draw_picture
from latentart.model.folder import load_model
from latentart.process.devices import Placement

Run = Callable[..., Any]
GAP = 2


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Return a picture of 150 x 100 pixels."""
    path = tmp_path / "guitar.png"
    draw_picture("Cubism", 0, 0, (150, 100)).save(path)
    return path


def parts_of(page: Path) -> list[Image.Image]:
    """Return picture, reconstruction and error map from a page."""
    with Image.open(page) as opened:
        width = (opened.width - GAP) // 3
        return [opened.crop((GAP + i * width, GAP, (i + 1) * width, opened.height - GAP)) for i in range(3)]


def reconstruct_whole(workspace: Path, picture: Image.Image) -> torch.Tensor:
    """Return what the workspace's autoencoder makes of a picture at once, as pixels ``[3, H, W]``."""
    autoencoder = load_model(workspace / "runs/vae/model", Placement(torch.device("cpu"), "fp32")).autoencoder
    with torch.no_grad():
        mean, _ = split_moments(autoencoder.encode(to_images(pixels_from(picture)[None])))
        return to_pixels(autoencoder.decode(mean))[0]


@pytest.mark.parametrize(
    ("size", "expected"), [(None, (96, 64)), (4, (4, 4)), (5, (8, 4)), (90, (132, 88)), (400, (600, 400))]
)
def test_the_shorter_side_is_as_asked_for(
    run: Run, workspace: Path, picture: Path, size: int | None, expected: tuple[int, int]
) -> None:
    """Else it is the model's 64; either side goes down to a multiple of the factor, 4, down to one latent."""
    done = run(workspace, "reconstruct", picture, *([] if size is None else ["--size", size]), "--json")

    rows = json.loads(done.out)["pictures"]
    parts = parts_of(workspace / rows[0]["page"])
    assert [part.size for part in parts] == [expected] * 3


def test_a_large_page_shows_the_picture_and_what_becomes_of_it(run: Run, workspace: Path, picture: Path) -> None:
    """Beyond a tile all three parts are at full size: one near the whole reconstruction, and its error."""
    done = run(workspace, "reconstruct", picture, "--size", "704", "--json", "--device", "cpu")

    row = json.loads(done.out)["pictures"][0]
    shown, again, error_map = parts_of(workspace / row["page"])
    with Image.open(picture) as source:
        assert shown.tobytes() == source.convert("RGB").resize((1056, 704), Image.Resampling.LANCZOS).tobytes()
    difference = (pixels_from(again).int() - pixels_from(shown).int()).abs()
    assert torch.equal(pixels_from(error_map).int(), (4 * difference).clamp(max=255))
    assert row["mean_error"] == pytest.approx(float(difference.float().mean()))
    gap = (pixels_from(again).int() - reconstruct_whole(workspace, shown).int()).abs()
    assert 0 < gap.float().mean() < 4, "0 would be one tile"


@pytest.mark.parametrize("size", [3, 0, -64])
def test_less_than_a_latent_is_refused(run: Run, workspace: Path, picture: Path, size: int) -> None:
    """The line names the size and the least that works; nothing is written."""
    line = run(workspace, "reconstruct", picture, "--size", size).error(2)

    assert line == f"error: --size {size} is too small: one latent of this model stands for 4 pixels. Give at least 4."
    assert not (workspace / "reconstructions").exists()


def test_more_than_a_picture_may_have_is_refused(run: Run, workspace: Path, picture: Path) -> None:
    """A size that no memory holds is said before anything is done."""
    line = run(workspace, "reconstruct", picture, "--size", "20000").error(2)

    assert "guitar.png would have 30000 x 20000 pixels" in line
    assert line.endswith("Give a smaller --size.")
    assert not (workspace / "reconstructions").exists()


def test_a_size_is_a_whole_number(run: Run, workspace: Path, picture: Path) -> None:
    """Other words are a usage error."""
    done = run(workspace, "reconstruct", picture, "--size", "large")

    assert done.code == 2
    assert "--size" in done.err


@pytest.mark.slow
def test_a_page_of_2048_pixels(run: Run, workspace: Path, picture: Path) -> None:
    """It comes out whole, and no worse than the model's own size does."""
    small, large = (
        json.loads(run(workspace, "reconstruct", picture, "--size", size, "--json").out)["pictures"][0]
        for size in (512, 2048)
    )

    assert [part.size for part in parts_of(workspace / large["page"])] == [(3072, 2048)] * 3
    assert large["mean_error"] < 1.2 * small["mean_error"]
