"""What every denoiser is told beside the noised latents: the timestep and the labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def embed_timesteps(t: Tensor, channels: int, max_period: float = 10_000.0) -> Tensor:
    """Return sines and cosines of ``t`` at geometric frequencies, ``[B, channels]`` (Vaswani et al., section 3.5)."""
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class LabelEmbedding(nn.Embedding):
    """One vector for every label of every column, and one for each column's null; those of an image add up.

    Column c of ``num_labels[c]`` = K labels has K + 1 rows, of which the last is its null: training drops labels to
    it and guidance needs it. The first column is the style.

    Labels come in three forms: int64 ``[B]``, styles with null in every other column; int64 ``[B, columns]``; float
    ``[B, rows]``, a weight for each row of the table, so that labels can be blended.
    """

    def __init__(self, num_labels: Sequence[int], width: int) -> None:
        super().__init__(sum(num_labels) + len(num_labels), width)
        self.offsets = tuple(itertools.accumulate((count + 1 for count in num_labels[:-1]), initial=0))
        self.nulls = tuple(num_labels)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the vectors ``[B, width]`` of labels in any of the three forms."""
        if labels.is_floating_point():
            return (labels[..., None] * self.weight).sum(1)  # elementwise: one label alone gives its very row
        columns = labels.unbind(1) if labels.ndim == 2 else (labels, *self._nulls_like(labels)[1:])
        rows = [
            functional.embedding(ids + offset, self.weight) for ids, offset in zip(columns, self.offsets, strict=True)
        ]
        return torch.stack(rows).sum(0) if len(rows) > 1 else rows[0]

    def null_like(self, labels: Tensor) -> Tensor:
        """Return labels of the same form that are null in every column."""
        if labels.is_floating_point():
            weights = torch.zeros_like(
                labels
            )  # filled in place: asked for at every step, it must not wait for the device
            for offset, null in zip(self.offsets, self.nulls, strict=True):
                weights[:, offset + null] = 1.0
            return weights
        nulls = self._nulls_like(labels[:, 0] if labels.ndim == 2 else labels)
        return torch.stack(nulls, dim=1) if labels.ndim == 2 else nulls[0]

    def weights_of(self, labels: Tensor) -> Tensor:
        """Return int64 labels as weights of the rows, float32 ``[B, rows]``, to be blended."""
        columns = labels.unbind(1) if labels.ndim == 2 else (labels, *self._nulls_like(labels)[1:])
        rows = torch.stack([ids + offset for ids, offset in zip(columns, self.offsets, strict=True)], dim=1)
        return functional.one_hot(rows, self.num_embeddings).sum(1).float()

    def _nulls_like(self, ids: Tensor) -> list[Tensor]:
        return [torch.full_like(ids, null) for null in self.nulls]


class Denoiser(nn.Module):
    """Predicts the target (noise, clean latents or velocity) from noised latents, timestep and labels.

    Args:
        num_labels: how many labels each column has; the first column is the style.
        width: length of the conditioning vector, even.
        factor: what latent height and width must be multiples of.
    """

    def __init__(self, num_labels: Sequence[int], width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.embedding_channels = width
        self.time_mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.style_embedding = LabelEmbedding(num_labels, width)

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the prediction ``[B, Z, h, w]`` (float32) for ``x_t`` at timesteps ``t`` [B].

        ``style_id`` are labels in any form that ``LabelEmbedding`` takes.

        Raises:
            ValueError: height or width is no multiple of the factor.
        """
        raise NotImplementedError

    def null_like(self, style_id: Tensor) -> Tensor:
        """Return labels of the form of ``style_id`` that say nothing."""
        return self.style_embedding.null_like(style_id)

    def condition(self, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the conditioning vectors ``[B, width]``."""
        time = self.time_mlp(embed_timesteps(t, self.embedding_channels))
        return functional.silu(time + self.style_embedding(style_id))

    def require_size(self, x_t: Tensor) -> None:
        """Refuse a map that the network cannot halve.

        Raises:
            ValueError: height or width is no multiple of the factor.
        """
        if x_t.shape[-1] % self.factor or x_t.shape[-2] % self.factor:
            msg = f"latent height and width must be multiples of {self.factor}: got {tuple(x_t.shape[-2:])}"
            raise ValueError(msg)
