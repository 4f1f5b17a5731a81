"""Copies of a picture have near hashes, different pictures have not, and the search finds what looking at all would."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from latentart.data.cleaning import near_duplicates
from latentart.data.cleaning.near_duplicates import MAX_COLOR, MAX_HIGH, MAX_LOW, first_of_kind, perceptual_hash
from latentart.data.synthetic.art import STYLES, draw_picture

DETAILED = [style for style in STYLES if style != "Color_Field_Painting"]  # too little in them


def noise(seed: int, size: tuple[int, int] = (320, 256)) -> Image.Image:
    """Return a picture with the 1/f spectrum of photographs, partly colored."""
    rng = np.random.default_rng(seed)
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = (rng.normal(size=(4, *frequency.shape)) + 1j * rng.normal(size=(4, *frequency.shape))) / frequency
    grey, *colors = np.fft.irfft2(spectrum, s=(height, width))
    pixels = np.stack([grey + 0.3 * color for color in colors], axis=-1)
    return Image.fromarray(np.clip(128 + 50 * pixels / pixels.std(), 0, 255).astype(np.uint8))


def save_again(image: Image.Image, quality: int) -> Image.Image:
    """Return what is left of a picture in a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def scale(image: Image.Image, factor: float) -> Image.Image:
    """Return a smaller picture."""
    return image.resize((round(image.width * factor), round(image.height * factor)))


def crop(image: Image.Image, pixels: int) -> Image.Image:
    """Return a picture without a margin on the left and at the top."""
    return image.crop((pixels, pixels, image.width, image.height))


def gamma(image: Image.Image, exponent: float) -> Image.Image:
    """Return a picture with other tones between black and white."""
    return image.point([round(255 * (value / 255) ** exponent) for value in range(256)] * 3)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved at 30": lambda image: save_again(image, 30),
    "saved at 90": lambda image: save_again(image, 90),
    "scaled to 0.25": lambda image: scale(image, 0.25),
    "scaled to 0.9": lambda image: scale(image, 0.9),
    "scaled and saved": lambda image: save_again(scale(image, 0.5), 60),
    "squeezed": lambda image: image.resize((image.height, image.height)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.08),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.9),
    "gamma 0.85": lambda image: gamma(image, 0.85),
    "gamma 1.2": lambda image: gamma(image, 1.2),
    "grey": ImageOps.grayscale,
    "shifted": lambda image: crop(image, 1),
    "cropped": lambda image: crop(image, 3),
}


def first_of_all(hashes: Sequence[str]) -> dict[int, int]:
    """Return what ``first_of_kind`` should, by comparing each hash with all that were kept."""
    kept: list[int] = []
    repeats: dict[int, int] = {}
    for i, text in enumerate(hashes):
        if text:
            original = next((k for k in kept if is_near(hashes[k], text)), None)
            if original is None:
                kept.append(i)
            else:
                repeats[i] = original
    return repeats


def is_near(one: str, other: str) -> bool:
    """Compare two hashes by what their digits mean."""
    if num_flips(one[:16], other[:16]) > MAX_LOW or num_flips(one[16:64], other[16:64]) > MAX_HIGH:
        return False
    is_grey = "8" * 32 in (one[64:], other[64:])
    return is_grey or sum(abs(int(a, 16) - int(b, 16)) for a, b in zip(one[64:], other[64:], strict=True)) <= MAX_COLOR


def num_flips(one: str, other: str) -> int:
    """Return how many bits of two hexadecimal numbers differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def flip_bits(text: str, bits: Sequence[int]) -> str:
    """Return a hash with some bits turned, counted from the left."""
    value = int(text, 16)
    for bit in bits:
        value ^= 1 << (383 - bit)
    return f"{value:096x}"


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Make twenty pictures with detail."""
    drawings = [draw_picture(style, 0, 0, (320, 288)) for style in DETAILED]
    return [*drawings, *(noise(seed) for seed in range(20 - len(drawings)))]


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_a_picture_are_near(pictures: list[Image.Image], name: str) -> None:
    """Nineteen of twenty are known again after what happens to copies."""
    found = [is_near(perceptual_hash(picture), perceptual_hash(COPIES[name](picture))) for picture in pictures]

    assert sum(found) >= 19


def test_different_pictures_are_not_near() -> None:
    """Neither among pictures of noise nor among the drawings of one style."""
    pictures = [noise(seed, (64, 64)) for seed in range(200)]
    pictures += [draw_picture(style, 5, index, (64, 64)) for style in STYLES for index in range(20)]

    assert first_of_kind([perceptual_hash(picture) for picture in pictures]) == {}


@pytest.mark.parametrize("style", STYLES)
def test_a_hash_does_not_hang_on_rounding(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frequencies that are off by what another processor or library makes of them give the same hash."""
    pictures = [draw_picture(style, 5, index, (64, 64)) for index in range(20)]
    pictures += [ImageOps.mirror(picture) for picture in pictures]
    before = [perceptual_hash(picture) for picture in pictures]
    cosines, order = near_duplicates._dct_basis()
    shaken = cosines * (1 + 1e-12 * np.random.default_rng(0).normal(size=cosines.shape))
    monkeypatch.setattr(near_duplicates, "_dct_basis", lambda: (shaken, order))

    assert [perceptual_hash(picture) for picture in pictures] == before


def test_a_picture_that_repeats_itself_has_too_little_to_tell() -> None:
    """One that is its own mirror image has but half of the frequencies, so that different ones would look alike."""
    half = noise(0, (128, 256))
    whole = Image.new("RGB", (256, 256))
    whole.paste(half, (0, 0))
    whole.paste(ImageOps.mirror(half), (128, 0))

    assert perceptual_hash(whole) == ""


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_mirrored_and_turned_pictures_are_other_pictures(turn: Image.Transpose) -> None:
    """They are not what cleaning looks for."""
    assert not is_near(perceptual_hash(noise(0)), perceptual_hash(noise(0).transpose(turn)))


def test_another_color_is_another_picture() -> None:
    """Prints in several colors differ in nothing else; without any color it is a copy."""
    picture = ImageOps.grayscale(noise(1))
    red, blue = (ImageOps.colorize(picture, "black", "white", mid=mid) for mid in ("#d03030", "#5858f0"))

    assert not is_near(perceptual_hash(red), perceptual_hash(blue))
    assert is_near(perceptual_hash(red), perceptual_hash(ImageOps.grayscale(red)))


def test_pictures_too_flat_to_tell_have_no_hash() -> None:
    """One color, a gradient or a few stripes are not enough to call two pictures the same."""
    steps = np.linspace(0, 255, 100).astype(np.uint8)
    stripes = np.repeat([10, 200, 90, 160], 25).astype(np.uint8)
    flat = [Image.new("RGB", (50, 40), "#336699"), Image.new("L", (1, 1))]
    flat += [Image.fromarray(np.tile(row, (100, 1))) for row in (steps, stripes)]

    assert [perceptual_hash(picture) for picture in flat] == ["", "", "", ""]


@pytest.mark.parametrize("size", [(1, 40), (7, 5), (33, 31), (500, 20)])
def test_any_size_and_mode_has_a_hash(size: tuple[int, int]) -> None:
    """A hash is 96 digits, or none."""
    for mode in ("RGB", "L"):
        text = perceptual_hash(noise(0).resize(size).convert(mode))

        assert text == "" or (len(text) == 96 and set(text) <= set("0123456789abcdef"))


@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_what_looking_at_all_would(seed: int) -> None:
    """Among random hashes, families of near and not quite near ones, chains, equal and empty ones."""
    rng = np.random.default_rng(seed)
    hashes = [rng.bytes(48).hex() for _ in range(200)] + [""] * 20
    while len(hashes) < 1200:
        text = hashes[rng.integers(len(hashes))]
        if text:
            low = rng.choice(64, rng.integers(0, 10), replace=False)
            high = rng.choice(np.arange(64, 256), rng.integers(0, 40), replace=False)
            color = rng.choice(np.arange(256, 384), rng.integers(0, 8), replace=False)
            part = [low, high, color, np.concatenate([low, high, color])][rng.integers(4)]
            hashes.append(flip_bits(text, part.tolist()))
    hashes[::17] = [f"{text[:64]}{'8' * 32}" if text else "" for text in hashes[::17]]
    rng.shuffle(hashes)

    found = first_of_kind(hashes)

    assert found == first_of_all(hashes)
    assert len(found) > 200


def test_every_way_to_differ_in_seven_bits_is_found() -> None:
    """However the bits are spread over the word, two at most seven apart meet, and two eight apart do not."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        text = rng.bytes(48).hex()
        bits = rng.permutation(64).tolist()

        assert first_of_kind([text, flip_bits(text, bits[:MAX_LOW])]) == {1: 0}
        assert first_of_kind([text, flip_bits(text, bits[: MAX_LOW + 1])]) == {}


def test_a_repeat_of_a_repeat_is_kept() -> None:
    """Only what is near to one that is kept goes: chains do not swallow a collection."""
    chain = ["0f" * 48]
    for i in range(4):
        chain.append(flip_bits(chain[-1], range(5 * i, 5 * i + 5)))

    assert first_of_kind(chain) == {1: 0, 3: 2}
    assert first_of_kind(chain[::-1]) == {1: 0, 3: 2}


def test_many_equal_hashes_are_quickly_grouped() -> None:
    """A hundred thousand copies of one picture repeat the first."""
    found = first_of_kind(["", *["a5" * 48] * 100_000])

    assert len(found) == 99_999
    assert set(found.values()) == {1}


def test_a_large_family_of_near_hashes_is_settled() -> None:
    """Thousands around one picture, more than are compared at once, leave few."""
    rng = np.random.default_rng(0)
    text = "5a" * 48
    hashes = [text] + [flip_bits(text, rng.choice(64, 3, replace=False).tolist()) for _ in range(5000)]

    assert len(first_of_kind(hashes)) == 5000
    assert set(first_of_kind(hashes[1:]).values()) == {0}


def test_nothing_is_near_to_nothing() -> None:
    """No hashes, or only empty ones."""
    assert first_of_kind([]) == {}
    assert first_of_kind(["", ""]) == {}


def test_a_hash_of_another_kind_is_refused() -> None:
    """Such as one of an earlier version."""
    with pytest.raises(ValueError, match="expected 96 hex digits"):
        first_of_kind(["ab" * 8])
