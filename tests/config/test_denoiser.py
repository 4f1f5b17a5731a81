"""The denoiser's settings: two kinds under one key, sizes by name, and mistakes in either kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from latentart.builders import build_denoiser
from latentart.config.denoiser import DIT_SIZES, UNET_SIZES, DiTConfig, Size, UNetConfig, advise, advise_size
from latentart.config.presets import PRESETS
from latentart.config.workspace import Config, resolve
from latentart.errors import ConfigError


def of_model(model: dict[str, Any], *overrides: str, preset: str = "wikiart-256") -> Config:
    """Return the config of a file that says so much about the denoiser, with arguments on top."""
    return resolve({"preset": preset, "ldm": {"model": model}}, overrides)


def test_a_file_without_a_kind_keeps_its_unet() -> None:
    """As written before there were two kinds, in files and as arguments."""
    by_file = of_model({"widths": [64, 96], "attention": ["none", "full"]})
    by_arguments = of_model({}, "ldm.model.widths=[64,96]", 'ldm.model.attention=["none","full"]')

    assert isinstance(by_file.ldm.model, UNetConfig)
    assert by_file.ldm.model.widths == (64, 96)
    assert by_arguments == by_file
    assert isinstance(Config.model_validate({**by_file.to_json(), "ldm": {"model": {}}}).ldm.model, UNetConfig)


@pytest.mark.parametrize("preset", PRESETS)
def test_another_kind_leaves_the_unets_settings_behind(preset: str) -> None:
    """Whatever the preset says of the UNet, by file and by argument; and back again."""
    by_file = of_model({"kind": "dit", "width": 128}, preset=preset)
    by_arguments = of_model({}, "ldm.model.kind=dit", "ldm.model.width=128", preset=preset)
    back = resolve(by_file.to_json(), ["ldm.model.kind=unet"])

    assert by_file.ldm.model == DiTConfig(width=128)
    assert by_arguments == by_file
    assert back.ldm.model == UNetConfig()
    assert resolve(json.loads(by_file.to_text())) == by_file


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"width": 64}, "config: unknown setting ldm.model.width. Did you mean 'widths'?"),
    ({"kind": "dit", "widths": [64]}, "config: unknown setting ldm.model.widths. Did you mean 'width'?"),
    ({"kind": "dit", "dept": 3}, "config: unknown setting ldm.model.dept. Did you mean 'depth'?"),
    ({"kind": "dit", "width": "64"}, 'ldm.model.width: must be a whole number (got "64").'),
    ({"kind": "dit", "width": 100}, "ldm.model: head_channels 64 does not divide width 100: 1, 2, 4, 5, 10, 20, "),
    ({"kind": "dit", "width": 66}, "ldm.model.width: must be a multiple of 4 (got 66)."),
    ({"kind": "dit", "embedding_channels": 3}, "ldm.model.embedding_channels: must be a multiple of 2"),
    ({"kind": "dti"}, "kind must be one of unet, dit (got \"dti\"). Did you mean 'dit'?"),
    ({"kind": 5}, "ldm.model: kind must be one of unet, dit (got "),
    ({"size": "XXL"}, "ldm.model.size: must be 'XS', 'S', 'M' or 'L' (got \"XXL\")."),
    ({"kind": "dit", "size": "s"}, "(got \"s\"). Did you mean 'S'?"),
    ({"size": "S", "attention": ["full"]}, "ldm.model: attention has 1 entries, widths has 3"),
    ({"widths": [64, 64, 64.5]}, "ldm.model.widths.2: must be a whole number (got 64.5)."),
]


@pytest.mark.parametrize(("model", "message"), MISTAKES)
def test_a_mistake_is_named_by_its_path(model: dict[str, Any], message: str) -> None:
    """In either kind the nearest name is one of that kind, and the path is what a user writes."""
    with pytest.raises(ConfigError) as caught:
        of_model(model)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(f"model.{kind}" in str(caught.value) for kind in ("unet", "dit"))


@pytest.mark.parametrize("value", [5, None, [1]])
def test_what_is_no_object_is_no_network(value: Any) -> None:
    """A number in the group's place is refused like in any other group's."""
    with pytest.raises(ConfigError, match=r"ldm\.model: must be a group of settings"):
        resolve({"ldm": {"model": value}})


@pytest.mark.parametrize(("setting", "name"), [("widht=5", "widths"), ("sise=S", "size")])
def test_a_mistaken_argument_is_named_with_the_nearest(setting: str, name: str) -> None:
    """Though a group of several kinds takes any key at first."""
    with pytest.raises(ConfigError, match=rf"unknown setting ldm\.model\.\w+\. Did you mean '{name}'"):
        of_model({}, f"ldm.model.{setting}")


def test_the_latents_side_is_a_multiple_of_the_patch() -> None:
    """The resolution must fit autoencoder and patch; a UNet of three stages would have asked for more."""
    assert of_model({"kind": "dit", "patch_size": 2}, "ldm.training.resolution=272").ldm.model.factor == 2
    with pytest.raises(ConfigError, match=r"resolution 256 is no multiple of 24 .* 264 would do"):
        of_model({"kind": "dit", "patch_size": 3})


@pytest.mark.parametrize("size", UNET_SIZES)
def test_a_size_is_short_for_its_numbers(size: Size) -> None:
    """In files and arguments, over what a preset says; the resolved config has the numbers, and they may change."""
    named = of_model({"size": size}, preset="demo").ldm.model
    changed = resolve(of_model({}, f"ldm.model.size={size}").to_json(), ["ldm.model.blocks_per_stage=5"]).ldm.model
    transformer = of_model({"kind": "dit", "size": size, "dropout": 0.1}).to_json()["ldm"]["model"]

    assert isinstance(named, UNetConfig)
    assert isinstance(changed, UNetConfig)
    assert "size" not in named.model_dump()
    assert {name: getattr(named, name) for name in UNET_SIZES[size]} == UNET_SIZES[size]
    assert named.attention == ("none", "full", "full"), "the demo's own"
    assert (changed.widths, changed.blocks_per_stage) == (UNET_SIZES[size]["widths"], 5)
    assert transformer == DiTConfig(dropout=0.1, **DIT_SIZES[size]).model_dump(mode="json")


MILLIONS: dict[Size, tuple[float, float]] = {"XS": (5.3, 5.5), "S": (25.2, 28.6), "M": (95.0, 114.6), "L": (259, 252.7)}


@pytest.mark.parametrize(
    ("kind", "size", "millions"),
    [(kind, size, pair[i]) for i, kind in enumerate((UNetConfig, DiTConfig)) for size, pair in MILLIONS.items()],
)
def test_a_size_has_about_as_many_parameters_as_it_says(
    kind: Callable[..., UNetConfig | DiTConfig], size: Size, millions: float
) -> None:
    """At 4 latent channels and 27 styles, within 15 %."""
    with torch.device("meta"):
        network = build_denoiser(kind(size=size), 4, [27])

    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1e6 * millions, rel=0.15)


def test_the_second_branch_weighs_as_much_as_a_plain_one() -> None:
    """Three matrices of mlp_width, two of mlp_ratio · width, but for rounding to whole eights."""
    assert DiTConfig(width=384).mlp_width == 1024
    for ratio in (0.001, 1.0, 2.5, 4.0):
        config = DiTConfig(width=192, mlp_ratio=ratio)
        assert config.mlp_width % 8 == 0
        assert abs(3 * config.mlp_width - 2 * ratio * 192) <= max(12, 24 - 2 * ratio * 192)


def test_more_pictures_never_ask_for_less() -> None:
    """A few hundred are for XS, WikiArt's 80,000 for M, a third of a million and more for L."""
    advice = [advise_size(count) for count in (0, 300, 1_999, 2_000, 29_999, 30_000, 80_000, 299_999, 300_000, 10**7)]

    assert advice == ["XS", "XS", "XS", "S", "S", "M", "M", "M", "L", "L"]


@pytest.mark.parametrize(
    ("pictures", "parameters", "expected"),
    [
        (1_000, 5_000_000, ""),
        (1_000, 10_000_000, ""),
        (1_000, 19_000_000, "19 M parameters for 1000 pictures: it may learn them by heart. By our rule of thumb "),
        (1_000, 95_000_000, "95 M parameters for 1000 pictures: it may learn them by heart. By our rule of thumb "),
        (400_000, 5_300_000, "5.3 M parameters for 400000 pictures: it may not hold them all. By our rule of thumb "),
    ],
)
def test_advice_is_given_only_where_a_network_is_far_off(pictures: int, parameters: int, expected: str) -> None:
    """Near the rule, and up to ten thousand parameters a picture, there is none; else the size that fits is named."""
    advice = advise(pictures, parameters)

    assert advice.startswith(expected)
    assert bool(advice) == bool(expected)
    assert not advice or advice.partition("size=")[2].split()[0] == advise_size(pictures)


@pytest.mark.parametrize(
    ("pictures", "parameters", "said"),
    [
        (39, 4_300_000, "4.3 M parameters for fewer than 500 pictures (39): expect samples that repeat them"),
        (39, 100_000, "0.1 M parameters for fewer than 500 pictures (39): expect samples that repeat them"),
        (5_000, 85_000_000, "85 M parameters for 5000 pictures: it may learn them by heart."),
        (1_500, 4_300_000, ""),
        (80_000, 100_000_000, ""),
    ],
)
def test_small_sets_are_told_what_to_expect(pictures: int, parameters: int, said: str) -> None:
    """Ten thousand parameters a picture are too many, and under five hundred pictures no size helps."""
    found = advise(pictures, parameters)

    assert found.startswith(said)
    assert bool(found) == bool(said)
