"""An offline judge of samples: a small classifier of real pictures that no generator was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.networks.normalization import GroupNorm
from latentart.core.pixels import to_images, to_pixels

SIDE = 64  # pixels that it looks at
WIDTHS = (32, 64, 96, 128)
SMALLEST_SHARE = 0.8  # of a picture's side in training crops


class Judge(nn.Module):
    """Tells styles apart, and gives features in which sets of pictures can be compared.

    Its features are the maps after each halving, averaged over all places: ``[B, 320]``. The finest tell blur and
    noise, which the coarsest learn to overlook. Distances in them are to be compared only for one and the same judge.
    """

    def __init__(self, num_styles: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(before, after, 3, stride=2, padding=1), GroupNorm(8, after), nn.SiLU()),
                *(nn.Conv2d(after, after, 3, padding=1), GroupNorm(8, after), nn.SiLU()),
            )
            for before, after in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        self.num_features = sum(WIDTHS)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(WIDTHS[-1], num_styles))

    def features(self, images: Tensor) -> Tensor:
        """Return features ``[B, 320]`` of images ``[B, 3, H, W]`` of any size."""
        x, found = _scale(images), []
        for stage in self.stages:
            x = stage(x)
            found.append(x.mean((2, 3)))
        return torch.cat(found, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, K]`` of images ``[B, 3, H, W]`` in -1…1."""
        return self.decide(self.features(images))

    def decide(self, features: Tensor) -> Tensor:
        """Return logits ``[B, K]`` from features; the coarsest alone decide."""
        return self.head(features[:, -WIDTHS[-1] :])


def shrink(pixels: Tensor) -> Tensor:
    """Return pixels uint8 ``[B, 3, H, W]`` as large as a judge looks at, ``[B, 3, 64, 64]``; smaller ones as they are.

    Its features of both are the same but for rounding, and much fits into memory.
    """
    if min(pixels.shape[-2:]) <= SIDE:
        return pixels
    return to_pixels(_scale(to_images(pixels)))


def _scale(images: Tensor) -> Tensor:
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)


def train_judge(
    pixels: Tensor,
    style_id: Tensor,
    num_styles: int,
    *,
    seed: int = 0,
    steps: int = 600,
    batch_size: int = 64,
    on_step: Callable[[int], None] | None = None,
) -> Judge:
    """Return a judge trained on real pictures, ``pixels`` uint8 ``[N, 3, H, W]`` and ``style_id`` int64 [N].

    Styles are drawn equally often; pictures are cropped a little, never mirrored, and some are blurred, so that what it
    goes by is more than grain. One seed gives one judge on one machine. ``on_step`` is told of every step.

    Raises:
        ValueError: there are no pictures, or a style has none.
    """
    counts = torch.bincount(style_id, minlength=num_styles)
    if not len(pixels) or (counts == 0).any():
        raise ValueError(f"style_id: got {counts.tolist()} pictures of the styles, expected at least 1 of each")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(num_styles)
        optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        weights = 1.0 / counts[style_id].double()
        for step in range(steps):
            chosen = torch.multinomial(weights, batch_size, replacement=True)
            logits = judge(_varied(to_images(pixels[chosen])))
            loss = functional.cross_entropy(logits, style_id[chosen], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            if on_step is not None:
                on_step(step + 1)
    return judge.eval().requires_grad_(requires_grad=False)


def _varied(images: Tensor) -> Tensor:
    """Return one batch cropped at one random place, every other time blurred; from torch's own generator."""
    side = images.shape[-1]
    size = int(side * (SMALLEST_SHARE + (1 - SMALLEST_SHARE) * float(torch.rand(()))))
    top, left = (int(torch.randint(side - size + 1, ())) for _ in range(2))
    images = images[..., top : top + size, left : left + size]
    images = _scale(images)
    if float(torch.rand(())) < 0.5:
        images = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return images


@torch.no_grad()
def judge_in_batches(judge: Judge, pixels: Tensor, batch_size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (features ``[B, 320]``, logits ``[B, K]``) of pixels uint8 ``[N, 3, H, W]``."""
    for batch in torch.split(pixels, batch_size):
        features = judge.features(to_images(batch))
        yield features, judge.decide(features)


def recognition(judge: Judge, pixels: Tensor, style_id: Tensor) -> float:
    """Return the share of pictures that the judge takes for their own style."""
    guesses = torch.cat([logits.argmax(1) for _, logits in judge_in_batches(judge, pixels)])
    return float((guesses == style_id).double().mean())
