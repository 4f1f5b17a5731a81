"""What a denoiser's run writes down: losses by noise, the held-out loss, previews; and other optimizers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentart.builders import build_task
from latentart.config.ldm import DiffusionConfig
from latentart.config.sample import SampleConfig
from latentart.config.workspace import load_config
from latentart.core.diffusion.objective import DiffusionTask
from latentart.core.diffusion.schedules import NoiseSchedule, make_betas
from latentart.data.held_out import split_held_out
from latentart.data.latent_cache import LatentCache
from latentart.layout import Workspace
from latentart.model.generate import SamplerSettings
from latentart.process.devices import Placement
from latentart.process.distributed import Ranks
from latentart.training import ldm_batches
from latentart.training.build import preview_settings
from latentart.training.ldm_batches import HELD_OUT_DRAWS, HeldOutLoss, LatentBatches

Run = Callable[..., Any]
CPU = Placement(torch.device("cpu"), "fp32")
TASK = DiffusionTask(NoiseSchedule.from_betas(make_betas("cosine", 1000)))
PARTS = [f"loss_t{i}" for i in range(8)]


def metrics(art: Path) -> list[dict[str, Any]]:
    """Return the lines of the denoiser's metrics."""
    return [json.loads(line) for line in (art / "runs/ldm/metrics.jsonl").read_text().splitlines()]


def tensors(art: Path) -> dict[str, bytes]:
    """Return every tensor file of the denoiser's last checkpoint."""
    folder = max((art / "runs/ldm/checkpoints").iterdir())
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def cache_of(story: Any) -> LatentCache:
    """Return the latents of the workspace that was trained once."""
    return LatentCache.open(next((story.folder / "cache").glob("latents-*")))


class Spy(nn.Module):
    """A denoiser that says the same everywhere and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return zeros."""
        self.asked.append((x_t, t, style_id))
        return torch.zeros_like(x_t)


def test_the_log_has_losses_by_noise_and_on_held_out_pictures(run: Run, workspace: Path) -> None:
    """Each line says the plain loss of the images since the one before it; the average's comes where it is due."""
    shutil.rmtree(workspace / "runs/ldm")
    settings = ("ldm.training.steps=6", "ldm.training.run.log_every=4", "ldm.training.run.evaluate_every=5")

    assert run(workspace, "train", "ldm", *settings, "ldm.diffusion.weighting=uniform").code == 0

    lines = metrics(workspace)
    steps, held_out = ([line for line in lines if name in line] for name in ("loss", "held_out_loss"))
    assert [line["step"] for line in steps] == [4, 6]
    assert all({*PARTS, "gradient_norm", "data_share", "images_per_second", "lr"} <= line.keys() for line in steps)
    assert None not in [steps[0][part] for part in PARTS]  # 16 images, two in each part
    assert steps[0]["plain_loss"] == pytest.approx(sum(steps[0][part] for part in PARTS) / 8)
    assert [line["step"] for line in held_out] == [5, 6]
    assert all(0 < line[f"held_out_{part}"] < 10 for line in held_out for part in PARTS)
    mean = sum(held_out[0][f"held_out_{part}"] for part in PARTS) / 8
    assert held_out[0]["held_out_loss"] == pytest.approx(mean, rel=1e-5)
    assert held_out[0]["held_out_loss"] != held_out[1]["held_out_loss"]


def test_without_held_out_pictures_there_is_no_held_out_loss(run: Run, workspace: Path) -> None:
    """Nothing that was trained on is called held out."""
    shutil.rmtree(workspace / "runs/ldm")

    assert run(workspace, "train", "ldm", "data.held_out=0").code == 0
    assert not [line for line in metrics(workspace) if "held_out_loss" in line]


def test_the_held_out_loss_is_the_mean_over_fixed_draws(story: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same latents, noise and timesteps every time, in whatever batches; as many at every noise level."""
    monkeypatch.setattr(ldm_batches, "HELD_OUT_DRAWS", HELD_OUT_DRAWS)  # the tests' own number is smaller
    cache = cache_of(story)
    labels = torch.arange(len(cache))
    spies = [Spy(), Spy(), Spy()]
    results = [
        HeldOutLoss(cache, [1, 4, 9], labels, TASK, CPU, seed=0, batch_size=size)(spy)
        for spy, size in zip(spies, (256, 7, 256), strict=True)
    ]

    x_t, t, style_id = (torch.cat(parts) for parts in zip(*spies[0].asked, strict=True))
    assert results[0] == results[2]
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert torch.equal(x_t, spies[2].asked[0][0])
    assert torch.bincount(t * 8 // 1000).tolist() == [HELD_OUT_DRAWS // 8] * 8
    assert {int(i): int(n) for i, n in zip(*style_id.unique(return_counts=True), strict=True)} == {1: 86, 4: 85, 9: 85}
    assert len({tuple(row) for row in x_t.flatten(1).tolist()}) == HELD_OUT_DRAWS


def test_the_pictures_held_out_are_those_of_the_autoencoder(story: Any) -> None:
    """Training's batches never show them."""
    workspace = Workspace(story.folder, load_config(story.folder / "latentart.json"))
    _, held_out = split_held_out(workspace.read_pictures()[0], workspace.config.data.held_out)
    log = metrics(story.folder)

    assert held_out
    assert [line["step"] for line in log if "held_out_loss" in line] == [3]


def test_batches_of_styles_alone_and_of_columns_have_the_same_latents(story: Any) -> None:
    """Further columns change the labels only: int64 [B] without them, [B, columns] with them."""
    cache = cache_of(story)
    columns = torch.stack([cache.style_id, torch.zeros_like(cache.style_id)], dim=1)
    alone = LatentBatches(cache, cache.style_id, [3], TASK, seed=0, dropout=0.5)[2, [0, 5, 9, 14]]
    both = LatentBatches(cache, columns, [3, 2], TASK, seed=0, dropout=0.5)[2, [0, 5, 9, 14]]

    assert torch.equal(alone.x0, both.x0)
    assert torch.equal(alone.eps, both.eps)
    assert torch.equal(alone.t, both.t)
    assert (alone.style_id.dtype, alone.style_id.shape, both.style_id.shape) == (torch.int64, (4,), (4, 2))
    assert bool(((both.style_id[:, 0] == alone.style_id) | (both.style_id[:, 0] == 3)).all())


@pytest.mark.parametrize("world_size", [2, 4])
def test_parts_of_a_batch_put_together_are_the_batch(story: Any, world_size: int) -> None:
    """Each process draws its own images alone, with the latents, noise, timesteps and drops that the whole has."""
    cache, pictures = cache_of(story), [3, 0, 5, 9, 14, 2, 7, 7]
    whole, *parts = (
        LatentBatches(cache, cache.style_id, [3], TASK, seed=0, dropout=0.5, ranks=ranks)[2, pictures]
        for ranks in (Ranks(), *(Ranks(rank, world_size) for rank in range(world_size)))
    )

    for name in ("x0", "eps", "t", "style_id"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    assert {part.pictures for part in parts} == {tuple(pictures)}


def test_timesteps_follow_the_task(story: Any) -> None:
    """A task that prefers noise draws more of it, from the same numbers."""
    cache = cache_of(story)
    noisy = DiffusionTask(TASK.schedule, timesteps="logit_normal", timestep_mean=2.0)
    drawn = [
        LatentBatches(cache, cache.style_id, [3], task, seed=0, dropout=0.0)[0, [0] * 64].t for task in (TASK, noisy)
    ]

    assert 480 < drawn[0].float().mean() < 520
    assert drawn[1].float().mean() > 750


@pytest.mark.parametrize("setting", ["ldm.training.optimizer.kind=muon", "ldm.diffusion.weighting=learned"])
def test_an_interrupted_run_ends_with_the_same_bits(run: Run, workspace: Path, setting: str) -> None:
    """With Muon and with learned weights too."""
    ends = []
    for stop_at in ("", "ldm: step 1/"):
        shutil.rmtree(workspace / "runs/ldm")
        settings = ("ldm.training.steps=5", setting)
        if stop_at:
            assert run(workspace, "train", "ldm", *settings, stop_at=stop_at).code == 143
        assert run(workspace, "train", "ldm", *settings).code == 0
        ends.append(tensors(workspace))

    assert ends[0] == ends[1]
    assert ("uncertainty.safetensors" in ends[0]) == ("learned" in setting)
    assert run(workspace, "sample", "-s", "Cubism", "--grid", "1x1").code == 0


@pytest.mark.slow
def test_the_autoencoder_takes_muon_too(run: Run, cleaned: Path, story: Any) -> None:
    """A run that is stopped and gone on with ends as one that is not."""
    assert run(cleaned, "train", "vae", "vae.optimizer.kind=muon", stop_at="vae l1: step 1/").code == 143
    assert run(cleaned, "train", "vae", "vae.optimizer.kind=muon").code == 0
    ours = (cleaned / "runs/vae/model/autoencoder.safetensors").read_bytes()
    shutil.rmtree(cleaned / "runs")
    assert run(cleaned, "train", "vae", "vae.optimizer.kind=muon").code == 0

    assert (cleaned / "runs/vae/model/autoencoder.safetensors").read_bytes() == ours
    assert (story.folder / "runs/vae/model/autoencoder.safetensors").read_bytes() != ours


def test_previews_take_the_settings_of_samples() -> None:
    """All of them, but for no more than 20 calls of the network."""
    config = SampleConfig(
        sampler="dpmpp_2m",
        steps=100,
        spacing="log_snr",
        guidance=3.0,
        guidance_interval=(0.1, 0.9),
        guidance_rescale=0.5,
    )

    assert preview_settings(config) == SamplerSettings(
        "dpmpp_2m", 20, "log_snr", 0.0, 3.0, (0.1, 0.9), 0.5, config.x0_limit, config.batch_size
    )
    assert preview_settings(SampleConfig(sampler="heun", steps=50)).steps == 10
    assert preview_settings(SampleConfig(steps=5)).steps == 5


def test_the_task_of_a_run_is_the_configs() -> None:
    """Target, weights and timesteps arrive as they were set."""
    settings = {"target": "flow", "weighting": "soft_min_snr", "timesteps": "logit_normal", "timestep_std": 2.0}
    task = build_task(DiffusionConfig(**settings, min_snr_gamma=3.0))

    assert {name: getattr(task, name) for name in settings} == settings
    assert task.gamma == 3.0
