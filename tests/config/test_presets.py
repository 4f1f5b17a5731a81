"""Every preset is valid, and the seed's preset carries the seed's numbers."""

from __future__ import annotations

import pytest
import torch

from latentart.builders import build_denoiser
from latentart.config.denoiser import advise, advise_size
from latentart.config.presets import MANY, PRESETS, propose
from latentart.config.workspace import Config, resolve


@pytest.fixture
def seed_recipe() -> Config:
    """Resolve the preset that repeats the seed's own recipe."""
    return resolve({"preset": "wikiart-256-seed"})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_and_says_whom_it_is_for(name: str) -> None:
    """Every preset resolves to a config that names it."""
    assert resolve({"preset": name}).preset == name
    assert PRESETS[name].about


@pytest.mark.parametrize(("name", "num_pictures"), [("laptop", 1_000), ("own-art-256", 5_000), ("wikiart-256", 80_000)])
def test_a_preset_s_denoiser_is_of_the_size_that_is_advised(name: str, num_pictures: int) -> None:
    """For as many pictures as it is made for, nothing is said against it."""
    config = resolve({"preset": name})
    with torch.device("meta"):
        network = build_denoiser(config.ldm.model, config.vae.model.latent_channels, [8])

    assert advise(num_pictures, sum(parameter.numel() for parameter in network.parameters())) == ""


def test_a_preset_is_proposed_by_what_a_person_has() -> None:
    """By machine, then by the number of pictures, from which on another size is advised too."""
    assert propose(MANY, has_gpu=False)[0] == "laptop"
    assert [propose(count, has_gpu=True)[0] for count in (MANY - 1, MANY)] == ["own-art-256", "wikiart-256"]
    assert advise_size(MANY - 1) != advise_size(MANY)


def test_the_recommended_recipe_is_the_default() -> None:
    """A config that names no preset starts from the recommended one."""
    assert resolve({}) == resolve({"preset": "wikiart-256"})


def test_the_demo_needs_nothing_but_a_cpu() -> None:
    """The demo downloads no weights, mirrors no letters, drops no small files and keeps the seed's stages."""
    demo = resolve({"preset": "demo"})

    assert demo.vae.perceptual.backbone == "random"
    assert not demo.data.flip
    assert demo.data.min_bytes == 0
    assert demo.ldm.training.resolution == 64
    assert [stage.name for stage in demo.vae.stages] == ["l1", "adversarial", "lpips", "hires"]


def test_the_seed_drops_files_below_5_kb(seed_recipe: Config) -> None:
    """Deleting all files smaller than 5 kB removes the broken ones."""
    assert seed_recipe.data.min_bytes == 5120


def test_the_seed_trains_the_autoencoder_with_its_numbers(seed_recipe: Config) -> None:
    """AdamW (0.5, 0.9), decay 1e-4 or 1e-5, 8e-3 and 1e-4 for the discriminator, one cycle, bf16."""
    vae = seed_recipe.vae

    assert vae.optimizer.betas == (0.5, 0.9)
    assert (vae.optimizer.lr, vae.optimizer.weight_decay) == (8e-3, 1e-4)
    assert (vae.discriminator.lr, vae.discriminator.weight_decay) == (1e-4, 1e-5)
    assert vae.optimizer.schedule.kind == "onecycle"
    assert vae.run.precision == "bf16"
    assert vae.run.ema.decay is not None


def test_the_seed_has_its_four_stages(seed_recipe: Config) -> None:
    """L1 with a late discriminator; then tanh; then LPIPS; then one epoch of 512 px."""
    l1, adversarial, lpips, hires = seed_recipe.vae.stages

    assert [stage.resolution for stage in (l1, adversarial, lpips, hires)] == [256, 256, 256, 512]
    assert [stage.tanh for stage in (l1, adversarial, lpips, hires)] == [False, True, True, True]
    assert [stage.weights.perceptual > 0 for stage in (l1, adversarial, lpips, hires)] == [False, False, True, True]
    assert all(stage.reconstruction == "l1" for stage in (l1, adversarial, lpips, hires))
    assert all(stage.weights.adversarial > 0 for stage in (l1, adversarial, lpips, hires))
    assert l1.steps is not None
    assert 0 < l1.discriminator_start < l1.steps
    assert adversarial.discriminator_start == lpips.discriminator_start == hires.discriminator_start == 0
    assert (hires.epochs, hires.steps) == (1, None)


def test_the_seed_trains_the_denoiser_with_its_numbers(seed_recipe: Config) -> None:
    """AdamW (0.5, 0.9), 1e-2, decay 1e-5, one cycle, bf16, batches of 128."""
    training = seed_recipe.ldm.training

    assert training.optimizer.betas == (0.5, 0.9)
    assert (training.optimizer.lr, training.optimizer.weight_decay) == (1e-2, 1e-5)
    assert training.optimizer.schedule.kind == "onecycle"
    assert training.run.precision == "bf16"
    assert training.batch_size == 128


def test_the_seed_has_its_own_process_and_network(seed_recipe: Config) -> None:
    """Cosine schedule, noise target, linear attention in every stack and in the middle, DDIM."""
    model, diffusion = seed_recipe.ldm.model, seed_recipe.ldm.diffusion

    assert (diffusion.schedule.kind, diffusion.target, diffusion.weighting) == ("cosine", "eps", "uniform")
    assert set(model.attention) == {model.middle_attention} == {"linear"}
    assert seed_recipe.sample.sampler == "ddim"
