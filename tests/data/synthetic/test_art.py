from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from latentart.data.synthetic.art import BROKEN_FILES, FILE_NAMES, STYLES, draw_picture, write_raw_folder
from latentart.errors import DataError

ORIENTATION_TAG = 0x0112


def features(picture: Image.Image) -> NDArray[np.float64]:
    """Return an 8x8 thumbnail and the mean absolute step to the right and down, all in 0..1."""
    thumbnail = np.asarray(picture.resize((8, 8), Image.Resampling.BOX), dtype=np.float64) / 255
    gray = np.asarray(picture.convert("L"), dtype=np.float64) / 255
    edges = [np.abs(np.diff(gray, axis=axis)).mean() for axis in (0, 1)]
    return np.append(thumbnail.ravel(), 20 * np.array(edges))


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the hash of the content and the time of the last change of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder with six pictures of each style."""
    folder = tmp_path_factory.mktemp("workspace") / "raw"
    write_raw_folder(folder, seed=3, pictures_per_style=6, size=40)
    return folder


def test_there_are_eight_styles_and_each_has_a_file_name() -> None:
    """The style names are WikiArt's, and every style can be written."""
    assert set(STYLES) == set(FILE_NAMES)
    assert set(STYLES) == {
        "Action_painting",
        "Color_Field_Painting",
        "Cubism",
        "High_Renaissance",
        "Minimalism",
        "Pointillism",
        "Pop_Art",
        "Ukiyo_e",
    }


@pytest.mark.parametrize("style", STYLES)
def test_the_same_arguments_give_the_same_bytes(style: str) -> None:
    """A picture is a function of its arguments."""
    first = draw_picture(style, 5, 2, (48, 40))
    second = draw_picture(style, 5, 2, (48, 40))

    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("style", STYLES)
def test_every_seed_and_index_gives_its_own_picture(style: str) -> None:
    """No two of nine pictures of a style are equal."""
    drawn = {draw_picture(style, seed, index, (32, 32)).tobytes() for seed in range(3) for index in range(3)}

    assert len(drawn) == 9


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 64), (65, 31)])
@pytest.mark.parametrize("style", STYLES)
def test_a_picture_has_the_size_asked_for(style: str, size: tuple[int, int]) -> None:
    """Any positive width and height is drawn, odd ones too."""
    assert draw_picture(style, 0, 0, size).size == size


@pytest.mark.parametrize("style", STYLES)
def test_a_picture_does_not_depend_on_its_size(style: str) -> None:
    """Halved, the picture of twice the size is the picture, up to a few gray levels; another picture is not."""
    small = np.asarray(draw_picture(style, 1, 4, (60, 48)), dtype=np.float64)
    other = np.asarray(draw_picture(style, 1, 5, (60, 48)), dtype=np.float64)
    halved = np.asarray(draw_picture(style, 1, 4, (120, 96)).reduce(2), dtype=np.float64)

    error = np.abs(small - halved).mean()
    assert error < 4
    assert error < 0.25 * np.abs(small - other).mean()


def test_styles_can_be_told_apart() -> None:
    """The nearest class mean of thumbnails and edge energy names at least nine of ten unseen pictures."""
    size = (64, 64)
    means = {
        style: np.mean([features(draw_picture(style, 0, index, size)) for index in range(16)], axis=0)
        for style in STYLES
    }
    unseen = [(style, features(draw_picture(style, 0, index, size))) for style in STYLES for index in range(100, 112)]

    named = [min(means, key=lambda style: float(np.linalg.norm(means[style] - found))) for _, found in unseen]

    assert np.mean([name == style for name, (style, _) in zip(named, unseen, strict=True)]) >= 0.9


def test_a_portrait_has_dark_eyes_and_a_red_mouth_in_a_light_face_on_a_dark_ground() -> None:
    """The mean portrait at 64 pixels shows its parts where a face has them."""
    portraits = [draw_picture("High_Renaissance", 0, index, (64, 64)) for index in range(16)]
    mean = np.mean([np.asarray(portrait, dtype=np.float64) for portrait in portraits], axis=0)

    gray = mean.mean(axis=2)
    forehead, cheek = gray[19:22, 29:35].mean(), gray[27:30, 26:29].mean()
    eyes, between = gray[24:26, 26:28].min(), gray[24:26, 31:33].mean()
    mouth = mean[33:37, 30:34].mean(axis=(0, 1))
    ground = gray[4:40, 2:10].mean()
    assert min(forehead, cheek) > ground + 80
    assert eyes < between - 40
    assert mouth[0] > mouth[1] + 50


def test_an_unknown_style_is_refused_with_the_nearest_name() -> None:
    """A style that does not exist is the user's error and names the likely one."""
    with pytest.raises(DataError, match="Did you mean 'Cubism'"):
        draw_picture("cubsm", 0, 0, (8, 8))


def test_a_size_without_pixels_is_refused() -> None:
    """There is no picture of no pixels."""
    with pytest.raises(DataError, match="8x0"):
        draw_picture("Cubism", 0, 0, (8, 0))


def test_the_raw_folder_has_the_pictures_it_counts(tmp_path: Path) -> None:
    """Only new good pictures are counted; they open, and their shorter side is the size asked for."""
    written = write_raw_folder(tmp_path, seed=0, pictures_per_style=6, size=24)

    files = {path for path in tmp_path.rglob("*.*") if path.suffix in {".jpg", ".png"}}
    good = files - {tmp_path / name for name in BROKEN_FILES}
    pictures = [Image.open(path) for path in good]
    for picture in pictures:
        picture.load()
        assert min(picture.size) == 24
    assert len(files) == len(good) + len(BROKEN_FILES)
    assert written == len(good) == 6 * len(STYLES)
    assert {picture.format for picture in pictures} == {"JPEG", "PNG"}
    assert len({picture.size for picture in pictures}) > 3
    assert not list(tmp_path.rglob(".*"))


def test_a_turned_photograph_says_so_and_turned_back_is_the_picture(raw: Path) -> None:
    """A few files are stored turned; their EXIF orientation brings back what was drawn."""
    turned = []
    for style, name in FILE_NAMES.items():
        with Image.open(raw / style / f"{name}_0002.jpg") as stored:
            turned.append(stored.getexif()[ORIENTATION_TAG])
            upright = ImageOps.exif_transpose(stored)
        drawn = np.asarray(draw_picture(style, 3, 1, upright.size), dtype=np.float64)
        assert np.abs(np.asarray(upright, dtype=np.float64) - drawn).mean() < 6
    assert set(turned) <= {3, 6, 8}
    assert len(set(turned)) > 1


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_is_really_broken(raw: Path, name: str) -> None:
    """Pillow refuses every broken file, when it is opened, verified or loaded."""
    with pytest.raises((OSError, SyntaxError)):  # noqa: PT012 - any of the three may refuse
        with Image.open(raw / name) as picture:
            picture.verify()
        with Image.open(raw / name) as picture:
            picture.load()


def test_broken_files_lie_among_the_pictures_of_different_styles(raw: Path) -> None:
    """Each broken file has a style of its own, and there are notes beside the styles."""
    styles = [name.split("/")[0] for name in BROKEN_FILES]

    assert len(set(styles)) == len(BROKEN_FILES) == 5
    assert set(styles) <= set(STYLES)
    assert (raw / "notes.txt").is_file()


def test_writing_twice_changes_nothing(tmp_path: Path) -> None:
    """A second run writes no file again."""
    write_raw_folder(tmp_path, seed=0, pictures_per_style=2, size=16)
    before = snapshot(tmp_path)

    written = write_raw_folder(tmp_path, seed=0, pictures_per_style=2, size=16)

    assert written == 0
    assert snapshot(tmp_path) == before


def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    """What is missing is written as in a run of one go; a file of the user's under such a name stays."""
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    write_raw_folder(whole, seed=0, pictures_per_style=3, size=16)
    write_raw_folder(interrupted, seed=0, pictures_per_style=2, size=16)
    (interrupted / "Cubism" / "still_life_0003.jpg").write_bytes(b"mine")
    (interrupted / "Pop_Art" / f".tmp-burst_0003.jpg-{2**22 + 5}").write_bytes(b"half")  # of a process that is gone

    written = write_raw_folder(interrupted, seed=0, pictures_per_style=3, size=16)

    found = {name: digest for name, (digest, _) in snapshot(interrupted).items()}
    expected = {name: digest for name, (digest, _) in snapshot(whole).items()}
    assert written == len(STYLES) - 1
    assert (interrupted / "Cubism" / "still_life_0003.jpg").read_bytes() == b"mine"
    assert {name for name in expected if found.get(name) != expected[name]} == {"Cubism/still_life_0003.jpg"}
    assert found.keys() == expected.keys()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """The folder for the pictures may not be a file."""
    taken = tmp_path / "raw"
    taken.write_text("not a folder")

    with pytest.raises(DataError, match="is a file"):
        write_raw_folder(taken, seed=0, pictures_per_style=1, size=16)
