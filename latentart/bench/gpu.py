"""`latentart bench ldm` on a GPU: how much of the chip's matrix rate a training step reaches, by batch size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from latentart.bench.denoisers import build_ours
from latentart.bench.figures import Figure, seconds_of
from latentart.bench.limits import count_flops, matrix_rate, products_of
from latentart.bench.training import NUM_STYLES, Setting, build_step, noise_batch, update_often
from latentart.config.ldm import DiffusionConfig
from latentart.config.optim import OptimizerConfig
from latentart.process.devices import Placement

BATCH_SIZES = (32, 64, 128, 256, 512)


def bench_batch_sizes(setting: Setting, placement: Placement) -> Iterator[Figure]:
    """Measure compiled updates of our denoiser at several batch sizes beside products of large matrices."""
    network = build_ours(setting.model, 4, NUM_STYLES)
    placement.place(network)
    step_fn = build_step(network, DiffusionConfig(), OptimizerConfig(), placement)
    few = noise_batch(replace(setting, batch_size=2), placement)
    per_image = count_flops(partial(update_often, step_fn, few, 1)) / 2
    network.compile()
    for batch_size in BATCH_SIZES:
        batch = noise_batch(replace(setting, batch_size=batch_size), placement)
        update_often(step_fn, batch, 5)
        limit = matrix_rate(products_of(placement))  # in turns, as a chip that gets hot gets slow
        torch.cuda.reset_peak_memory_stats(placement.device)
        rate = 20 * batch_size / seconds_of(partial(update_often, step_fn, batch, 20))
        memory = torch.cuda.max_memory_allocated(placement.device) / 1e9
        share = rate * per_image / limit
        value = f"{rate:.0f} images/s, {share:.0%} of the matrix rate, {memory:.1f} GB"
        has_bar = batch_size == setting.batch_size
        numbers = {"images/s": rate, "share of the matrix rate": share, "peak bytes": memory * 1e9}
        bar, is_met = ("at least 35 %", share >= 0.35) if has_bar else ("", None)
        yield Figure(f"batch {batch_size}", value, bar, is_met, rate, "images/s", numbers)
