"""What a judge takes pictures of each style for."""

from __future__ import annotations

from torch import Tensor


def confusion_matrix(logits: Tensor, style_id: Tensor) -> Tensor:
    """Return how often style i is taken for style j: int64 ``[K, K]``, rows i, of logits ``[n, K]``."""
    num_styles = logits.shape[1]
    pairs = style_id * num_styles + logits.argmax(1)
    return pairs.bincount(minlength=num_styles**2).reshape(num_styles, num_styles)


def recognized_by_style(matrix: Tensor) -> list[float | None]:
    """Return of each style the share that is taken for it; None where there are no pictures of it."""
    return [float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(matrix)]


def most_mistaken(matrix: Tensor) -> list[int | None]:
    """Return of each style the other one that its pictures are most taken for; None where none is."""
    others = matrix.clone().fill_diagonal_(0)
    return [int(row.argmax()) if row.sum() else None for row in others]
