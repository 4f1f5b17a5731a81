"""`latentart bench ldm` on a GPU: how much of the chip's matrix rate a training step reaches, by batch size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import OptimizerConfig
from latentart.recipes.bench_denoisers import build_ours
from latentart.recipes.bench_figures import Figure, seconds_of
from latentart.recipes.bench_training import NUM_STYLES, Setting, build_step, noise_batch, update_often
from latentart.training.devices import Placement

BATCH_SIZES = (32, 64, 128, 256, 512)
SIDE = 8192  # of the matrices whose product is the chip's rate


def bench_matrix_rate(setting: Setting, placement: Placement) -> Iterator[Figure]:
    """Measure compiled updates of our denoiser at several batch sizes beside bf16 products of large matrices."""
    limit = matrix_rate(placement.device)
    yield Figure("matrix rate, bf16", f"{limit / 1e12:.0f} TFLOP/s, measured")
    network = build_ours(setting.model, 4, NUM_STYLES)
    placement.place(network)
    step_fn = build_step(network, DiffusionConfig(), OptimizerConfig(), placement)
    with FlopCounterMode(display=False) as counter:
        update_often(step_fn, noise_batch(replace(setting, batch_size=2), placement), 1)
    per_image = counter.get_total_flops() / 2
    network.compile()
    for batch_size in BATCH_SIZES:
        batch = noise_batch(replace(setting, batch_size=batch_size), placement)
        update_often(step_fn, batch, 5)
        torch.cuda.reset_peak_memory_stats(placement.device)
        rate = 20 * batch_size / seconds_of(partial(update_often, step_fn, batch, 20))
        share = rate * per_image / limit
        memory = torch.cuda.max_memory_allocated(placement.device) / 1e9
        value = f"{rate:.0f} images/s, {share:.0%} of the matrix rate, {memory:.1f} GB"
        has_bar = batch_size == setting.batch_size
        yield Figure(
            f"batch {batch_size}", value, "at least 35 %" if has_bar else "", share >= 0.35 if has_bar else None
        )


def matrix_rate(device: torch.device) -> float:
    """Return how many floating-point operations a second products of large bf16 matrices reach."""
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> None:
        for _ in range(20):
            a @ b
        torch.cuda.synchronize(device)

    multiply()
    return 20 * 2 * SIDE**3 / seconds_of(multiply)
