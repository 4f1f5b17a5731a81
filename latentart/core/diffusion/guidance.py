"""Classifier-free guidance: a denoiser that exaggerates what its style adds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def guided(predict: Predict, null_style_id: int, scale: float) -> Predict:
    """Return ``predict(x_t, t, style_id)`` with guidance: null + scale · (styled - null).

    Classifier-free guidance (Ho & Salimans 2207.12598, eq. 6, with scale = 1 + w): 1 is no guidance and costs
    one plain call, 0 leaves the style out. Both branches run in one call of twice the batch. Linear, so it means
    the same for eps, x0 and v.
    """
    if scale == 1:
        return predict

    def predict_guided(x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        style_ids = torch.cat([style_id, torch.full_like(style_id, null_style_id)])
        # in the precision of x_t: the scale would magnify what bf16 rounds off
        both = predict(torch.cat([x_t, x_t]), torch.cat([t, t]), style_ids).to(x_t.dtype)
        styled, null = both.chunk(2)
        return null + scale * (styled - null)

    return predict_guided
