"""Blends of styles: how they are read, and that they tell the denoiser what they say."""

from __future__ import annotations

import time

import pytest
import torch

from latentart.core.latents import LatentNormalizer
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.conditioning import Denoiser
from latentart.errors import UsageError
from latentart.model.folder import Model
from latentart.sampling.blends import Blend, labels_of, parse_blend

NAMES = ["Cubism", "Ukiyo_e", "A+B", "A", "Ratio 1:2", "Pop"]
LABELS = [{"name": "genre", "values": ["portrait", "still life"]}, {"name": "a=b", "values": ["x=y"]}]


def model(labels: bool = False) -> Model:
    """Return a model of these styles; reading needs no network."""
    about = {"style_names": NAMES, **({"labels": LABELS} if labels else {})}
    autoencoder = Autoencoder(torch.nn.Identity(), torch.nn.Identity(), latent_channels=1, factor=1)  # type: ignore[arg-type]
    return Model(about, autoencoder, LatentNormalizer((0.0,), (1.0,)))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Cubism", {"Cubism": 1.0}),
        ("ukiyo-E", {"Ukiyo_e": 1.0}),
        ("Cubism:0.6+Ukiyo_e:0.4", {"Cubism": 0.6, "Ukiyo_e": 0.4}),
        ("cubism:3 + ukiyo e:1", {"Cubism": 0.75, "Ukiyo_e": 0.25}),
        ("Cubism+Ukiyo_e", {"Cubism": 0.5, "Ukiyo_e": 0.5}),
        ("Cubism:1+Ukiyo_e:1+Cubism:2", {"Cubism": 0.75, "Ukiyo_e": 0.25}),
        ("A+B", {"A+B": 1.0}),
        ("A+B:1+A:3", {"A+B": 0.25, "A": 0.75}),
        ("A+Cubism", {"A": 0.5, "Cubism": 0.5}),
        ("Ratio 1:2", {"Ratio 1:2": 1.0}),
        ("Ratio 1:2:3+Pop", {"Ratio 1:2": 0.75, "Pop": 0.25}),
        ("Cubism:2", {"Cubism": 1.0}),
    ],
)
def test_a_blend_is_read(text: str, parts: dict[str, float]) -> None:
    """Weights sum to 1; a name that holds a sign itself wins over a blend of that spelling."""
    blend = parse_blend(model(), text)

    assert dict(blend.parts) == pytest.approx(parts)
    assert Blend.from_json(blend.to_json()) == blend


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Cubsim", "this model has no style 'Cubsim'. Did you mean 'Cubism'?"),
        ("Cubism:0.6+Ukio_e:0.4", "this model has no style 'Ukio_e'. Did you mean 'Ukiyo_e'?"),
        ("Cubism+Pop:x", "'x' in the blend 'Cubism+Pop:x' is no weight."),
        ("Cubism:0+Pop", "'0' in the blend 'Cubism:0+Pop' is no weight."),
        ("Cubism:-1+Pop:2", "'-1' in the blend"),
        ("Cubism:nan+Pop", "'nan' in the blend"),
        ("Cubism:inf+Pop", "'inf' in the blend"),
        ("Cubism+", "this model has no style ''."),
        ("", "this model has no style ''."),
    ],
)
def test_what_is_no_blend_is_said(text: str, message: str) -> None:
    """The part that is wrong is named, and the nearest style offered."""
    with pytest.raises(UsageError) as caught:
        parse_blend(model(), text)

    assert message in caught.value.message


def test_labels_are_read() -> None:
    """Columns and values as written, or but for case and separators; a name may hold an equals sign."""
    known = model(labels=True)

    assert known.label("genre=portrait") == ("genre", "portrait")
    assert known.label("Genre=Still_Life") == ("genre", "still life")
    assert known.label("a=b=x=y") == ("a=b", "x=y")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("gener=portrait", "'gener=portrait' names no column of labels. Did you mean 'genre'?", "Columns: genre, a=b."),
        ("genre", "'genre' names no column", "Write COLUMN=VALUE."),
        ("genre=portait", "this model has no genre 'portait'. Did you mean 'portrait'?", "Values: portrait, still"),
    ],
)
def test_unknown_labels_are_said(text: str, message: str, hint: str) -> None:
    """The nearest column or value is offered, and all are listed."""
    with pytest.raises(UsageError) as caught:
        model(labels=True).label(text)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_model_without_labels_says_so() -> None:
    """Folders of earlier versions have none."""
    with pytest.raises(UsageError, match="knows no labels beside its styles"):
        model().label("genre=portrait")


def test_the_denoiser_is_told_what_a_blend_says() -> None:
    """A blend's vector is the weighted mean of its styles' vectors, the other columns' vectors come on top."""
    known, denoiser = model(labels=True), Denoiser([len(NAMES), 2, 1], 8, 1)
    embedding, labels = denoiser.style_embedding, (("genre", "still life"),)
    alone = [Blend((("Cubism", 1.0),)), Blend((("Pop", 1.0),))]
    blend = Blend((("Cubism", 0.7), ("Pop", 0.3)))

    plain = labels_of(known, denoiser, alone)
    with_label = labels_of(known, denoiser, alone, labels)
    mixed = labels_of(known, denoiser, [*alone, blend], labels)

    assert plain.tolist() == [0, 5]
    assert with_label.tolist() == [[0, 1, 1], [5, 1, 1]]
    vectors, parts = embedding(mixed), embedding(with_label)
    torch.testing.assert_close(vectors[:2], parts)
    torch.testing.assert_close(vectors[2], 0.7 * parts[0] + 0.3 * parts[1])
    torch.testing.assert_close(mixed.sum(1), torch.full((3,), 3.0))
    assert not torch.allclose(parts, embedding(plain))


def test_words_without_end_take_no_time_without_end() -> None:
    """3,000 plus signs, or a name of 100,000 letters, among 50,000 styles: seconds, and a short line."""
    names = [f"style {i}" for i in range(50_000)]
    known = Model({"style_names": names}, model().autoencoder, LatentNormalizer((0.0,), (1.0,)))
    began = time.process_time()

    assert len(parse_blend(known, "+".join(names[:3000])).parts) == 3000
    for text in ("Style" + "+" * 3000, "style 1+" * 3000 + "x", "y" * 100_000):
        with pytest.raises(UsageError) as caught:
            parse_blend(known, text)
        assert len(str(caught.value)) < 3000

    assert time.process_time() - began < 10
