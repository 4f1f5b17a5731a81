"""The verdict on the denoiser's run: what its previews show is measured, then judged together with the losses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from latentart.core.latents import LatentNormalizer, split_moments
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.tiling import encode_tiled
from latentart.core.pixels import to_images
from latentart.data.latent_cache import LatentCache
from latentart.recipes.judging import find_judge, read_reference, spread
from latentart.recipes.ldm_previews import PreviewPage
from latentart.recipes.run_verdict import RunVerdict, without_harm
from latentart.recipes.workspace import Workspace
from latentart.scoring.copies import CopyFinder, relative_spread
from latentart.scoring.judge import Judge, judge_in_batches
from latentart.training.devices import Placement
from latentart.training.log import RunLog

logger = logging.getLogger(__name__)

Part = TypeVar("Part")

SIDE = 8  # places each way of the latents that are compared: enough to tell any two pictures apart
MAX_ROWS = 65_536  # of latents to compare with, a gigabyte to read; of a larger set the share is a lower bound
MAX_HELD_OUT = 512
READ_AT_ONCE = 256
ENCODED_AT_ONCE = 16
BLANK_LOSS = {"v": 1.0}  # x_t and v have no covariance at any noise level, so knowing nothing is guessing 0


class LdmVerdict:
    """Measures the samples of a page and judges the run; what it needs is made at the first page, and kept.

    Args:
        training, held_out: the pictures' places in the cache.
        num_steps: of the run.
    """

    def __init__(
        self,
        workspace: Workspace,
        log: RunLog,
        page: PreviewPage,
        cache: LatentCache,
        training: Sequence[int],
        held_out: Sequence[int],
        num_steps: int,
    ) -> None:
        self.workspace, self.page, self.cache = workspace, page, cache
        self.training, self.held_out = training, held_out
        self.verdict = RunVerdict(workspace.ldm_run, log, "denoiser", num_steps)
        self.is_on = workspace.config.ldm.training.run.verdict
        self._judge = _Once("a judge", lambda: PreviewJudge(workspace, page.style_names))
        self._copies = _Once("a look for copies", lambda: CopyFinder(*self._describe_pictures()))

    def say(self, step: int) -> None:
        """Judge the run by the page of a step, unless it is off or no page of that step was drawn."""
        if self.is_on and self.page.samples is not None and self.page.step == step:
            without_harm(lambda: self.verdict.say(step, self._measure()))

    def _measure(self) -> dict[str, float | None]:
        """Return what the page's samples show; what cannot be measured is left out."""
        assert self.page.samples is not None
        pixels, style_id = self.page.samples
        found: dict[str, float | None] = {"judged_samples": len(pixels)}
        if (blank := BLANK_LOSS.get(self.page.step_fn.task.target)) is not None:
            found["blank_loss"] = blank
        if (judge := self._judge.get()) is not None:
            found |= judge.measure(pixels, style_id)
        if (copies := self._copies.get()) is not None:
            found["copies"] = float(copies.find(self._describe_samples(pixels)).double().mean())
        return found

    def _describe_pictures(self) -> tuple[Tensor, Tensor]:
        """Return descriptors of training pictures ``[N, variants, D]`` and of held-out ones ``[M, D]``."""
        cache, variants = self.cache, self.cache.num_variants
        parts = []
        for indexes in spread(self.training, max(1, MAX_ROWS // variants)), spread(self.held_out, MAX_HELD_OUT):
            rows = [(i, variant) for i in indexes for variant in range(variants)]
            found = [
                describe_latents(cache.read(*zip(*rows[start : start + READ_AT_ONCE], strict=True)), cache.normalizer)
                for start in range(0, len(rows), READ_AT_ONCE)
            ]
            parts.append(torch.cat(found).reshape(-1, variants, found[0].shape[1]))
        return parts[0], parts[1][:, 0]

    def _describe_samples(self, pixels: Tensor) -> Tensor:
        autoencoder, placement = self.page.autoencoder, self.page.step_fn.placement
        return describe_pixels(autoencoder, placement, self.cache.normalizer, pixels)


class PreviewJudge:
    """The workspace's judge beside what it says of real pictures; ``style_names`` are those of the samples' ids."""

    def __init__(self, workspace: Workspace, style_names: Sequence[str]) -> None:
        self.judge: Judge = find_judge(workspace, quiet=True)
        known = workspace.read_pictures()[1]
        self.own_ids = torch.tensor([known.index(name) if name in known else -1 for name in style_names])
        pixels, self.style_id = read_reference(workspace)
        self.features, self.ceiling = self._look(pixels, self.style_id)
        self.chance = 1 / len(known)

    def measure(self, pixels: Tensor, style_id: Tensor) -> dict[str, float | None]:
        """Return how many samples are recognized, beside a guess and real pictures, and how much they differ."""
        style_id = self.own_ids[style_id]
        is_known = style_id >= 0  # a style that the set has no pictures of any more has no judge
        style_id = style_id[is_known]
        features, recognized = self._look(pixels[is_known], style_id)
        return {
            "recognition": recognized,
            "recognition_chance": self.chance,
            "recognition_real": self.ceiling,
            "spread": relative_spread(features, style_id, self.features, self.style_id),
        }

    def _look(self, pixels: Tensor, style_id: Tensor) -> tuple[Tensor, float]:
        features, logits = (torch.cat(parts) for parts in zip(*judge_in_batches(self.judge, pixels), strict=True))
        return features, float((logits.argmax(1) == style_id).double().mean())


class _Once(Generic[Part]):
    """A part that is made when it is first wanted; one that cannot be made is named once and left out from then on."""

    def __init__(self, name: str, make: Callable[[], Part]) -> None:
        self.name = name
        self._make: Callable[[], Part] | None = make
        self._part: Part | None = None

    def get(self) -> Part | None:
        """Return it, or None."""
        if self._make is not None:
            make, self._make = self._make, None
            without_harm(lambda: setattr(self, "_part", make()), f"The verdict does without {self.name}")
        return self._part


def describe_latents(moments: Tensor, normalizer: LatentNormalizer) -> Tensor:
    """Return what pictures are compared by, ``[B, Z·8·8]``: the means of their latents, averaged to 8 x 8 places."""
    latents = normalizer.normalize(split_moments(moments)[0])
    return functional.adaptive_avg_pool2d(latents, SIDE).flatten(1)


@torch.no_grad()
def describe_pixels(
    autoencoder: Autoencoder, placement: Placement, normalizer: LatentNormalizer, pixels: Tensor
) -> Tensor:
    """Return the same of pixels uint8 ``[B, 3, H, W]``, on the CPU."""
    found = []
    for part in torch.split(pixels, ENCODED_AT_ONCE):
        with placement.autocast():
            moments = encode_tiled(autoencoder, to_images(placement.send(part)))
        found.append(describe_latents(moments.float(), normalizer).cpu())
    return torch.cat(found)
