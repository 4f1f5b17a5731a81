"""From config to objects: every setting arrives where it belongs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from latentart.builders import (
    build_autoencoder,
    build_crop,
    build_denoiser,
    build_discriminator,
    build_ema,
    build_schedule,
    build_tracks,
    count_steps,
)
from latentart.config.data import DataConfig
from latentart.config.denoiser import DiTConfig, UNetConfig
from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import EmaConfig, LdmEmaConfig, OptimizerConfig, StepsOrEpochs
from latentart.config.vae import AutoencoderConfig, DiscriminatorConfig, GuardConfig, StageConfig
from latentart.core.diffusion.schedules import make_betas
from latentart.core.ema import gamma_from_relative_std, power_decay
from latentart.core.networks.attention import Attention
from latentart.core.networks.blocks import ResidualBlock
from latentart.core.networks.dit import DiT, TransformerBlock
from latentart.data.datasets import Crop
from latentart.errors import DownloadError
from latentart.model.weights.perceptual import build_perceptual
from latentart.process.devices import Placement
from latentart.training.build import (
    build_adversarial_plan,
    build_adversary,
    build_optimizer,
    build_rate_plan,
    build_terms,
)
from latentart.training.steps.adversarial_schedule import AdversarialPlan
from latentart.training.steps.optim import RatePlan
from latentart.training.steps.vae_step import VaeTerms

BLOCKS: dict[str, Any] = {
    "widths": (16, 32, 48),
    "attention": ("none", "linear", "full"),
    "middle_attention": "full",
    "groups": 4,
    "head_channels": 8,
    "dropout": 0.25,
}


CPU = Placement(torch.device("cpu"), "fp32")


def stage_of(**settings: Any) -> StageConfig:
    """Return a stage with those settings."""
    return StageConfig.model_validate({"name": "x", "resolution": 64, "steps": 10, **settings})


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    """Return how many layers of a kind a network has."""
    return sum(isinstance(layer, kind) for layer in network.modules())


def kinds(network: nn.Module) -> list[str]:
    """Return the kind of each attention layer of a network."""
    return [layer.kind for layer in network.modules() if isinstance(layer, Attention)]


def test_autoencoder_has_the_layers_of_its_config() -> None:
    """Blocks, attention of each kind, resamplers, groups, dropout and factor."""
    config = AutoencoderConfig(
        latent_channels=3, blocks_per_stage=2, downsampling="max", upsampling="bilinear", **BLOCKS
    )

    network = build_autoencoder(config)

    assert (network.factor, network.latent_channels, network.uses_tanh) == (4, 3, False)
    for part in (network.encoder, network.decoder):
        assert count(part, ResidualBlock) == 3 * 2 + 2
        assert sorted(kinds(part)) == ["full", "full", "linear"]
    assert (count(network.encoder, nn.MaxPool2d), count(network.encoder, nn.AvgPool2d)) == (2, 0)
    assert [layer.mode for layer in network.decoder.modules() if isinstance(layer, nn.Upsample)] == ["bilinear"] * 2
    assert {layer.num_groups for layer in network.modules() if isinstance(layer, nn.GroupNorm)} == {4}
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.25}
    assert network.encode(torch.zeros(1, 3, 8, 8)).shape == (1, 6, 2, 2)


def test_attention_stands_at_its_stage_on_both_sides() -> None:
    """The finest stage is the encoder's first and the decoder's last."""
    network = build_autoencoder(AutoencoderConfig(**BLOCKS))

    assert [kinds(stage.attention) for stage in network.encoder.stages] == [[], ["linear"], ["full"]]
    assert [kinds(stage.attention) for stage in network.decoder.stages] == [["full"], ["linear"], []]


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("downsampling", nn.AvgPool2d, "average"),
        ("downsampling", nn.MaxPool2d, "max"),
        ("upsampling", nn.Upsample, "nearest"),
    ],
)
def test_resamplers_are_chosen_by_name(name: str, kind: type[nn.Module], value: str) -> None:
    """Two of three stages resample."""
    assert count(build_autoencoder(AutoencoderConfig(**BLOCKS, **{name: value})), kind) == 2
    assert count(build_denoiser(UNetConfig(**BLOCKS, **{name: value}), 4, [3]), kind) == 2


def test_unet_has_the_layers_of_its_config() -> None:
    """Blocks on both ways, one row for each style and the null style, its own embedding length."""
    config = UNetConfig(blocks_per_stage=2, embedding_channels=20, **BLOCKS)

    network = build_denoiser(config, 5, [7])

    assert count(network, ResidualBlock) == 2 * 3 * 2 + 2
    assert sorted(kinds(network)) == ["full"] * 3 + ["linear"] * 2
    assert tuple(network.style_embedding.weight.shape) == (8, 20)
    assert (int(network.null_like(torch.tensor([1]))), network.factor) == (7, config.factor)
    assert (network.conv_in.in_channels, network.conv_out.out_channels) == (5, 5)
    assert {
        block.to_scale_shift.in_features
        for block in network.modules()
        if isinstance(block, ResidualBlock) and block.to_scale_shift
    } == {20}


def test_transformer_has_the_layers_of_its_config() -> None:
    """Depth, width, heads, patch, second branch, dropout, labels and its own embedding length."""
    config = DiTConfig(
        width=32, depth=3, head_channels=8, patch_size=4, mlp_ratio=3.0, embedding_channels=20, dropout=0.25
    )

    network = build_denoiser(config, 5, [7, 2])

    assert isinstance(network, DiT)
    assert (count(network, TransformerBlock), network.factor) == (3, config.factor)
    assert (network.patch_in.in_features, network.patch_in.out_features) == (5 * 4 * 4, 32)
    assert tuple(network.style_embedding.weight.shape) == (8 + 3, 20)
    blocks = [block for block in network.modules() if isinstance(block, TransformerBlock)]
    assert {(b.num_heads, b.mlp_out.in_features, b.to_modulation.in_features) for b in blocks} == {(4, 64, 20)}
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.25}


def test_discriminator_has_the_layers_of_its_config() -> None:
    """Base width, strided layers and groups."""
    network = build_discriminator(DiscriminatorConfig(base_channels=16, num_layers=2, groups=4))

    assert [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)] == [16, 32, 64, 1]
    assert {layer.num_groups for layer in network.modules() if isinstance(layer, nn.GroupNorm)} == {4}


def test_random_perceptual_network_is_always_the_same() -> None:
    """The documented stand-in needs no file and no global generator."""
    first, second = (build_perceptual("random").state_dict() for _ in range(2))

    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_trained_perceptual_network_looks_for_the_named_file() -> None:
    """A missing file is reported under the name the config gives, ~ spelled out."""
    with pytest.raises(DownloadError, match=r"no such file at /.*/nowhere/mine\.pth"):
        build_perceptual("alexnet", "~/nowhere/mine.pth")


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [
        ({"kind": "cosine"}, {}),
        ({"kind": "cosine", "offset": 0.02, "max_beta": 0.9}, {"cosine_offset": 0.02, "max_beta": 0.9}),
        ({"kind": "linear"}, {}),
        ({"kind": "linear", "beta_start": 0.001, "beta_end": 0.1}, {"beta_start": 0.001, "beta_end": 0.1}),
        ({"kind": "quadratic", "beta_start": 0.001, "beta_end": 0.1}, {"beta_start": 0.001, "beta_end": 0.1}),
        (
            {"kind": "sigmoid", "beta_start": 0.001, "beta_end": 0.1, "sigmoid_range": 4.0},
            {"beta_start": 0.001, "beta_end": 0.1, "sigmoid_range": 4.0},
        ),
    ],
)
def test_schedules_get_their_parameters(schedule: dict[str, Any], arguments: dict[str, float]) -> None:
    """Each kind is make_betas with exactly the config's numbers; the defaults agree."""
    config = DiffusionConfig.model_validate({"num_steps": 50, "schedule": schedule})

    assert torch.equal(build_schedule(config).betas, make_betas(schedule["kind"], 50, **arguments))


def test_optimizers_get_rate_betas_and_decay() -> None:
    """Matrices and kernels are decayed, biases are not; the discriminator has its own rate and decay."""
    layer = nn.Linear(3, 3)
    config = OptimizerConfig(lr=3e-3, betas=(0.5, 0.9), weight_decay=1e-2)

    optimizer = build_optimizer(layer, config)
    judge = DiscriminatorConfig(base_channels=8, lr=7e-5, weight_decay=1e-3)
    other = build_adversary(build_discriminator(judge), judge, stage_of(), 10, CPU, config.betas).optimizer

    for built, lr, weight_decay in ((optimizer, 3e-3, 1e-2), (other, 7e-5, 1e-3)):
        assert {(group["lr"], group["betas"]) for group in built.param_groups} == {(lr, (0.5, 0.9))}
        assert [group["weight_decay"] for group in built.param_groups] == [weight_decay, 0.0]


def test_averages_take_a_width_or_a_decay() -> None:
    """The power profile by default, a constant where the config names one."""
    layer = nn.Linear(3, 3)

    power = build_ema(layer, EmaConfig(relative_std=0.05))
    constant = build_ema(layer, EmaConfig(decay=0.99))

    assert power.decay_at(50) == power_decay(50, gamma_from_relative_std(0.05))
    assert constant.decay_at(100_000) == 0.99


def test_tracks_are_power_profiles_of_their_widths() -> None:
    """One for each width, none by default, whatever the average is that results are made with."""
    tracks = build_tracks(nn.Linear(3, 3), LdmEmaConfig(decay=0.99, tracks=(0.05, 0.2)))

    assert [track.relative_std for track in tracks] == [0.05, 0.2]
    assert [track.decay_at(50) for track in tracks] == [
        power_decay(50, gamma_from_relative_std(w)) for w in (0.05, 0.2)
    ]
    assert build_tracks(nn.Linear(3, 3), LdmEmaConfig()) == []


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "onecycle", "warmup_share": 0.2, "div_factor": 10.0, "final_div_factor": 100.0},
        {"kind": "multistep", "milestones": (0.4, 0.8), "gamma": 0.5},
        {"kind": "cosine", "warmup_steps": 3},
        {"kind": "constant", "warmup_steps": 3},
    ],
)
def test_rate_plans_are_the_learning_rate_with_the_configs_numbers(schedule: dict[str, Any]) -> None:
    """Every kind with every setting, for the whole run."""
    plan = build_rate_plan(OptimizerConfig.model_validate({"lr": 0.1, "schedule": schedule}), 20)

    rates = [plan(step) for step in range(20)]

    assert rates == [RatePlan(peak=0.1, total_steps=20, **schedule)(step) for step in range(20)]
    assert max(rates) == pytest.approx(0.1, rel=0.02)


def test_a_stage_may_have_its_own_peak() -> None:
    """Given, it takes the place of the optimizer's."""
    config = OptimizerConfig.model_validate({"lr": 0.1, "schedule": {"kind": "constant", "warmup_steps": 0}})

    assert build_rate_plan(config, 10, 0.3)(5) == 0.3
    assert build_rate_plan(config, 10, None)(5) == 0.1


def test_terms_are_the_stages_numbers() -> None:
    """Every weight at its place."""
    weights = {"reconstruction": 2.0, "kl": 0.1, "adversarial": 0.3, "perceptual": 0.4}
    more = {"commitment": 0.5, "equivariance": 0.6}
    stage = stage_of(reconstruction="charbonnier", weights=weights | more, ramp=5)

    expected = VaeTerms(
        reconstruction_kind="charbonnier",
        reconstruction=2.0,
        kl=0.1,
        adversarial=0.3,
        perceptual=0.4,
        commitment=0.5,
        equivariance=0.6,
        perceptual_ramp=5,
        clip_norm=0.7,
    )
    assert build_terms(stage, 0.7) == expected


@pytest.mark.parametrize(("start", "step"), [(0, 0), (7, 7), (0.25, 50), (0.999, 200), ("plateau", None)])
def test_the_discriminator_starts_at_a_step_a_share_or_a_plateau(start: Any, step: int | None) -> None:
    """A share is one of the stage's steps; a plateau is found by the schedule."""
    stage = StageConfig.model_validate_json(
        json.dumps({"name": "x", "resolution": 64, "steps": 200, "discriminator_start": start}), strict=True
    )

    assert build_adversarial_plan(DiscriminatorConfig(), stage, 200).start == step


def test_the_adversary_has_its_configs_numbers() -> None:
    """Game, limits, penalty, guard, and the stage's own rate, warm-up and ramp."""
    guard = GuardConfig(enabled=False, tolerance=0.2, max_gap=3.0, window=7, max_pause=9)
    config = DiscriminatorConfig(
        base_channels=8, loss="non_saturating", adaptive_limit=None, r1=2.0, r1_every=4, plateau_steps=5, guard=guard
    )
    stage = stage_of(discriminator_lr=3e-4, discriminator_warmup=11, ramp=12, discriminator_start=13)

    adversary = build_adversary(build_discriminator(config), config, stage, 100, CPU, (0.5, 0.9))

    game = adversary.game
    assert (game.lr, game.loss, game.adaptive_limit) == (3e-4, "non_saturating", None)
    assert (game.r1, game.r1_every) == (2.0, 4)
    assert adversary.schedule.plan == AdversarialPlan(
        start=13,
        warmup=11,
        ramp=12,
        plateau_steps=5,
        is_guarded=False,
        tolerance=0.2,
        max_gap=3.0,
        window=7,
        max_pause=9,
    )


def test_a_quantized_autoencoder_has_its_book() -> None:
    """As many codes of as many channels as the config says, and no spread."""
    config = AutoencoderConfig(kind="vq", latent_channels=3, num_codes=50, codebook_decay=0.9, **BLOCKS)

    network = build_autoencoder(config)

    assert network.quantizer is not None
    assert network.quantizer.get_buffer("codes").shape == (50, 3)
    assert network.quantizer.decay == 0.9
    assert network.encoder.conv_out.out_channels == 3


def test_crops_mirror_only_by_chance_and_only_if_wanted() -> None:
    """Evaluation is never mirrored."""
    assert build_crop(64, DataConfig(), 3, (0.5, 1.0)) == Crop(64, 3, min_crop=0.5, flip=True, is_random=True)
    assert build_crop(64, DataConfig(flip=False), 3) == Crop(64, 3, flip=False, is_random=True)
    assert build_crop(64, DataConfig(), 3, is_random=False) == Crop(64, 3, flip=False, is_random=False)


@pytest.mark.parametrize(
    ("length", "pictures", "batch_size", "steps"),
    [
        ({"steps": 7}, 100, 10, 7),
        ({"epochs": 1}, 100, 10, 10),
        ({"epochs": 1}, 101, 10, 11),
        ({"epochs": 2.5}, 100, 10, 25),
        ({"epochs": 3}, 5, 4, 4),
        ({"epochs": 0.001}, 5, 4, 1),
        ({"epochs": 0.07}, 100, 1, 7),
    ],
)
def test_lengths_become_steps(length: dict[str, float], pictures: int, batch_size: int, steps: int) -> None:
    """Steps are taken as they are; epochs round up to whole batches, at least one."""
    assert count_steps(StepsOrEpochs.model_validate(length), pictures, batch_size) == steps
