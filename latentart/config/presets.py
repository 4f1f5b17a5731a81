"""Named starting points. A preset holds only what differs from the defaults, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MANY = 30_000  # pictures


@dataclass(frozen=True)
class Preset:
    """Values laid over the defaults, and one sentence about whom they are for."""

    about: str
    values: dict[str, Any]


def _art_stages(
    *, steps: tuple[int, int, int], batch_sizes: tuple[int, int], entry: int, warmup: int = 0, ramp: int = 0
) -> list[dict[str, Any]]:
    """Return the seed's four stages; ``entry`` is the step of the first at which the discriminator comes in."""
    batch, batch_hires = batch_sizes
    adversarial = {"adversarial": 0.5}
    perceptual = {"adversarial": 0.5, "perceptual": 1.0}
    same = {"resolution": 256, "batch_size": batch, "crop": [0.8, 1.0], "ramp": ramp}
    first = {"discriminator_start": entry, "discriminator_warmup": warmup}
    return [
        {"name": "l1", "steps": steps[0], "weights": adversarial, **first, **same},
        {"name": "adversarial", "steps": steps[1], "weights": adversarial, "tanh": True, **same},
        {"name": "lpips", "steps": steps[2], "weights": perceptual, "tanh": True, **same},
        {
            "name": "hires",
            "epochs": 1,
            "weights": perceptual,
            "tanh": True,
            **same,
            "resolution": 512,
            "batch_size": batch_hires,
        },
    ]


_SMALL: dict[str, Any] = {"resolution": 32, "batch_size": 8, "crop": [0.5, 0.5], "ramp": 10}
_HALF: dict[str, Any] = {"resolution": 48, "batch_size": 8, "crop": [0.4, 0.6], "ramp": 100}
_GENTLE: dict[str, Any] = {"tanh": True, "lr": 1e-3}

# For one CPU and a few minutes: 64 px, f = 4, the four stages in miniature (32 px crops, then 64 px in place of 256
# and 512), the random LPIPS backbone because nothing may be downloaded. No mirroring: the pictures may be letters.
_DEMO: dict[str, Any] = {
    "data": {"min_bytes": 0, "min_side": 8, "max_side": 96, "file_format": "png", "flip": False},
    "vae": {
        "model": {
            "latent_channels": 4,
            "widths": [16, 32, 64],
            "attention": ["none", "none", "linear"],
            "head_channels": 16,
        },
        "discriminator": {"base_channels": 8, "num_layers": 2},
        "perceptual": {"backbone": "random"},
        "optimizer": {"lr": 3e-3, "betas": [0.5, 0.9]},
        "run": {"checkpoint_every": 500, "preview_every": 500, "log_every": 10, "evaluate_every": 100},
        "stages": [
            {
                "name": "l1",
                "steps": 800,
                **_SMALL,
                "weights": {"adversarial": 0.05},
                "discriminator_start": 760,
                "discriminator_warmup": 20,
            },
            {"name": "adversarial", "steps": 30, **_SMALL, **_GENTLE, "weights": {"adversarial": 0.05}},
            {"name": "lpips", "steps": 30, **_SMALL, **_GENTLE, "weights": {"adversarial": 0.05, "perceptual": 0.1}},
            {
                "name": "hires",
                "steps": 220,
                "resolution": 64,
                "batch_size": 8,
                "weights": {"adversarial": 0.05, "perceptual": 0.1},
                "tanh": True,
                "ramp": 10,
                "lr": 2e-3,
            },
        ],
    },
    "ldm": {
        "model": {
            "widths": [32, 96, 128],
            "attention": ["none", "full", "full"],
            "blocks_per_stage": 1,
            "head_channels": 8,
            "embedding_channels": 256,
        },
        "diffusion": {"weighting": "min_snr"},
        "training": {
            "steps": 1000,
            "resolution": 64,
            "batch_size": 16,
            "optimizer": {"lr": 2e-3},
            # no verdict: to train its judge takes half a minute, and there is but one page of previews
            "run": {"checkpoint_every": 500, "preview_every": 1000, "log_every": 10, "verdict": False},
        },
    },
    "sample": {"steps": 30, "batch_size": 32},
}

# For a night on a CPU: the demo's stages at 96 px, wider networks, more updates. One machine is ten times as fast as
# another: `--minutes 480` fits them. Our choice, not yet run to its end by us.
_LAPTOP: dict[str, Any] = {
    "data": {"min_bytes": 0, "min_side": 48, "max_side": 128},
    "vae": {
        "model": {
            "latent_channels": 4,
            "widths": [24, 48, 96],
            "attention": ["none", "none", "linear"],
            "head_channels": 24,
        },
        "discriminator": {"base_channels": 16, "num_layers": 2},
        "perceptual": {"backbone": "random"},
        "optimizer": {"lr": 2e-3, "betas": [0.5, 0.9]},
        "run": {"checkpoint_every": 500, "preview_every": 1000, "evaluate_every": 500},
        "stages": [
            {
                "name": "l1",
                "steps": 8000,
                **_HALF,
                "weights": {"adversarial": 0.05},
                "discriminator_start": 7500,
                "discriminator_warmup": 200,
            },
            {"name": "adversarial", "steps": 400, **_HALF, **_GENTLE, "weights": {"adversarial": 0.05}},
            {"name": "lpips", "steps": 400, **_HALF, **_GENTLE, "weights": {"adversarial": 0.05, "perceptual": 0.1}},
            {
                "name": "hires",
                "steps": 1200,
                **_HALF,
                **_GENTLE,
                "resolution": 96,
                "crop": [0.8, 1.0],
                "weights": {"adversarial": 0.05, "perceptual": 0.1},
            },
        ],
    },
    "ldm": {
        "model": {
            "widths": [32, 64, 208],
            "attention": ["linear", "linear", "linear"],
            "head_channels": 16,
            "embedding_channels": 256,
        },
        "diffusion": {"weighting": "min_snr"},
        "training": {
            "steps": 20_000,
            "resolution": 96,
            "batch_size": 16,
            "optimizer": {"lr": 1e-3},
            "run": {"checkpoint_every": 500, "preview_every": 2000, "evaluate_every": 1000},
        },
    },
    "sample": {"steps": 30, "batch_size": 32},
}

# For some 5,000 pictures on one GPU: wikiart-256 with the size that `advise` has for so few, dropout, and four random
# crops of each picture, as that many are soon known by heart; fewer updates, for the same reason. The verdict on every
# page of previews tells of memorizing. Our choice, not yet run to its end by us.
# An autoencoder that others trained on millions of pictures spares the stages and their 44,000 updates: `latentart
# weights import FOLDER --as autoencoder`, then `train ldm`. Its print of PSNR and SSIM on one's own pictures tells what
# of them it keeps; what it loses, as letters and fine lines, the denoiser will not bring back.
_OWN_ART: dict[str, Any] = {
    "data": {"cache_crops": 4},
    "vae": {
        "optimizer": {"lr": 4e-4, "betas": [0.5, 0.9], "weight_decay": 1e-5},
        "run": {"checkpoint_every": 1000, "preview_every": 1000},
        "stages": _art_stages(
            steps=(24_000, 10_000, 10_000), batch_sizes=(16, 4), entry=19_000, warmup=1000, ramp=1000
        ),
    },
    "ldm": {
        "model": {"size": "S", "dropout": 0.1},
        "diffusion": {"target": "v", "weighting": "min_snr"},
        "training": {
            "steps": 40_000,
            "batch_size": 64,
            "optimizer": {
                "lr": 2e-4,
                "betas": [0.9, 0.99],
                "weight_decay": 1e-4,
                "schedule": {"kind": "cosine", "warmup_steps": 1000},
            },
            "run": {"checkpoint_every": 2000, "preview_every": 2000},
        },
    },
}

# The recommended recipe for some 80,000 pictures on one 24 GB card. f = 8 and 4 latent channels as in latent diffusion;
# the discriminator warms up, ramps and is guarded;
# velocity target, min-SNR weights, a moderate rate with the usual betas (the peers' choices: research of 2022-25).
# Not yet run to its end on a GPU by us.
_WIKIART: dict[str, Any] = {
    "vae": {
        "optimizer": {"lr": 4e-4, "betas": [0.5, 0.9], "weight_decay": 1e-5},
        "run": {"checkpoint_every": 2000, "preview_every": 2000},
        "stages": _art_stages(
            steps=(60_000, 30_000, 30_000), batch_sizes=(16, 4), entry=48_000, warmup=2000, ramp=2000
        ),
    },
    "ldm": {
        "diffusion": {"target": "v", "weighting": "min_snr"},
        "training": {
            "steps": 300_000,
            "optimizer": {
                "lr": 2e-4,
                "betas": [0.9, 0.99],
                "weight_decay": 1e-4,
                "schedule": {"kind": "cosine", "warmup_steps": 2000},
            },
            # 24 snapshots of 0.34 GB, for `latentart ema` and --autoguidance
            "run": {
                "checkpoint_every": 5000,
                "preview_every": 5000,
                "ema": {"tracks": [0.05, 0.1], "snapshot_every": 25_000},
            },
        },
    },
}

# The seed's own recipe, number for number where it gives a number: AdamW (0.5, 0.9), weight decay 1e-4 and 1e-5,
# OneCycle to 8e-3 (VAE), 1e-2 (UNet), 1e-4 (discriminator), bf16, cosine schedule, noise target, batch 128, the four
# stages at 256, 256, 256 and 512 px with one epoch of the last, files under 5 kB dropped, linear attention in every
# UNet stage and in the middle. Open in the seed, chosen here: widths, latent channels and loss weights (latent
# diffusion's), step counts and autoencoder batch sizes (about ten days on one RTX 3090, as the seed reports),
# guidance and its label dropout. Where a library that the seed names does otherwise unless told, and the seed does not
# say what it was told:
# - torch's OneCycleLR cycles β1 from 0.95 to 0.85 and back; here it stays 0.5. schedule.cycle_momentum=true is torch's.
# - torch's AdamW decays every weight; here no bias and no norm.
# - torch clips no gradient; here its norm is at most 1. optimizer.clip_norm=0 is torch's.
# - torch starts layers by its own rule; here layers on the trunk keep variance, and the last of a branch is zero.
# - ema-pytorch begins after 100 steps and moves every 10th, by 0.9999; here it moves at every step, so it is a tenth as
#   long. run.ema.decay=0.99999 comes nearest.
# - LPIPS and TorchMetrics compare by alexnet; here by vgg16. perceptual.backbone=alexnet is theirs.
# - pix2pix's PatchGAN normalizes by batch; here by groups, so that no picture depends on its batch.
_SEED: dict[str, Any] = {
    "vae": {
        "optimizer": {"lr": 8e-3, "betas": [0.5, 0.9], "weight_decay": 1e-4, "schedule": {"kind": "onecycle"}},
        "discriminator": {"lr": 1e-4, "weight_decay": 1e-5, "guard": {"enabled": False}},
        "run": {"precision": "bf16", "checkpoint_every": 2000, "preview_every": 2000, "ema": {"decay": 0.9999}},
        "stages": _art_stages(steps=(100_000, 50_000, 50_000), batch_sizes=(16, 4), entry=50_000),
    },
    "ldm": {
        "model": {"attention": ["linear", "linear", "linear"], "middle_attention": "linear"},
        "diffusion": {"target": "eps", "schedule": {"kind": "cosine"}, "weighting": "uniform"},
        "training": {
            "steps": 500_000,
            "batch_size": 128,
            "optimizer": {
                "lr": 1e-2,
                "betas": [0.5, 0.9],
                "weight_decay": 1e-5,
                "schedule": {"kind": "onecycle"},
            },
            "run": {
                "precision": "bf16",
                "checkpoint_every": 5000,
                "preview_every": 5000,
                "ema": {"decay": 0.9999},
            },
        },
    },
    "sample": {"steps": 100, "guidance": 3.0},
}

PRESETS: dict[str, Preset] = {
    "demo": Preset("64 px on a CPU in minutes, for trying the tool on any folder", _DEMO),
    "laptop": Preset("96 px in a night on a CPU; fit it with --minutes", _LAPTOP),
    "own-art-256": Preset("256 px, some 5,000 pictures, one GPU", _OWN_ART),
    "wikiart-256": Preset("recommended: 256 px, some 80,000 pictures, one 24 GB GPU", _WIKIART),
    "wikiart-256-seed": Preset("the original recipe of the seed project, number for number", _SEED),
}


def propose(num_pictures: int, *, has_gpu: bool) -> tuple[str, str]:
    """Return the preset for what a person has, and why; the limit is that of ``advise_size``."""
    if not has_gpu:
        return "laptop", "no GPU was found, and in a night a CPU learns 96 px; `demo` is for minutes"
    if num_pictures < MANY:
        return (
            "own-art-256",
            f"there is a GPU, and it is made not to learn as few as {num_pictures:,} pictures by heart",
        )
    return "wikiart-256", "there is a GPU, and there are many pictures"
