"""Movies: every frame, how long it is shown, and the text inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageChops

from latentart.data.pictures.movies import FRAME_MS, HOLD_MS, read_movie_text, save_movie, shrink_to

TEXT = '{"style": "Ukiyo_e", "names": "' + "x" * 3000 + '"}'


def frames(count: int) -> list[Image.Image]:
    """Return frames of different colors."""
    return [Image.new("RGB", (24, 16), (20 + 60 * i, 200 - 50 * i, 40)) for i in range(count)]


@pytest.mark.parametrize("name", ["movie.gif", "movie.webp", "MOVIE.GIF"])
def test_a_movie_comes_back_from_its_file(tmp_path: Path, name: str) -> None:
    """All frames in their order, the last held longer, endless, with the text; nothing else is left there."""
    shown = frames(4)

    save_movie(shown, tmp_path / "deep" / name, TEXT)

    with Image.open(tmp_path / "deep" / name) as movie:
        assert (movie.n_frames, movie.size, movie.info["loop"]) == (4, (24, 16), 0)  # type: ignore[attr-defined]
        assert read_movie_text(movie) == TEXT
        for i, frame in enumerate(shown):
            movie.seek(i)
            extremes = ImageChops.difference(movie.convert("RGB"), frame).getextrema()
            assert max(high for _, high in extremes) <= 12  # type: ignore[misc, str-unpack]
            assert movie.info["duration"] == (HOLD_MS if i == 3 else FRAME_MS)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [name]


@pytest.mark.parametrize("name", ["movie.gif", "movie.webp"])
def test_a_movie_may_have_one_frame(tmp_path: Path, name: str) -> None:
    """It is a picture then, with its text."""
    save_movie(frames(1), tmp_path / name, TEXT)

    with Image.open(tmp_path / name) as movie:
        assert read_movie_text(movie) == TEXT


def test_other_movies_hold_no_text(tmp_path: Path) -> None:
    """A GIF or WebP from elsewhere gives None."""
    for name in ("plain.gif", "plain.webp"):
        frames(1)[0].save(tmp_path / name)
        with Image.open(tmp_path / name) as movie:
            assert read_movie_text(movie) is None


@pytest.mark.parametrize(("count", "name"), [(0, "movie.gif"), (2, "movie.mp4")])
def test_what_is_no_movie_is_refused(tmp_path: Path, count: int, name: str) -> None:
    """No frames, or a format that is neither GIF nor WebP."""
    with pytest.raises(ValueError, match=rf"got {count} frames for {name}"):
        save_movie(frames(count), tmp_path / name, TEXT)


def test_a_size_shrinks_in_its_shape() -> None:
    """Never enlarged, never empty."""
    assert shrink_to((400, 200), 80_000) == (400, 200)
    assert shrink_to((400, 200), 20_000) == (200, 100)
    assert shrink_to((1000, 1), 10) == (100, 1)
