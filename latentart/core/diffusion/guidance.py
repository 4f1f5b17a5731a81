"""Guidance: a denoiser that exaggerates what its style adds, or what its training did."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentart.core.diffusion.process import expand_to

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def guided(
    predict: Predict,
    null_like: Callable[[Tensor], Tensor],
    scale: float,
    *,
    weak: Predict | None = None,
    within: range | None = None,
    rescale: float = 0.0,
) -> Predict:
    """Return ``predict(x_t, t, style_id)`` with guidance: null + scale · (styled - null).

    Classifier-free guidance (Ho & Salimans 2207.12598, eq. 6, with scale = 1 + w): 1 is no guidance and costs
    one plain call, 0 leaves the style out. Both branches run in one call of twice the batch. Linear, so it means
    the same for eps, x0 and v.

    With ``weak``, a predictor that makes the same mistakes but larger, its answer to the same style takes the place of
    null: autoguidance (Karras et al. 2406.02507, eq. 3), at one call of each network.

    ``within`` guides at these timesteps only (Kynkäänniemi et al. 2404.07724); elsewhere the scale is 1, and a
    batch that is wholly elsewhere costs one plain call. None is everywhere. Have ``t`` on the CPU, or this waits for
    its device. ``rescale`` goes to ``rescaled``.

    Raises:
        ValueError: ``rescale`` outside 0 … 1.
    """
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale: got {rescale}, expected 0 to 1")
    if scale == 1:
        return predict

    def predict_guided(x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        is_within = None if within is None else (t >= within.start) & (t < within.stop)
        if is_within is not None and not is_within.any():
            return predict(x_t, t, style_id)
        if weak is not None:
            both = torch.cat([predict(x_t, t, style_id), weak(x_t, t, style_id)])
        else:
            style_ids = torch.cat([style_id, null_like(style_id)])
            both = predict(torch.cat([x_t, x_t]), torch.cat([t, t]), style_ids)
        # in the precision of x_t: the scale would magnify what bf16 rounds off
        styled, base = both.to(x_t.dtype).chunk(2)
        prediction = base + scale * (styled - base)
        if rescale:
            prediction = rescaled(prediction, styled, rescale)
        return prediction if is_within is None else torch.where(expand_to(is_within, x_t) > 0, prediction, styled)

    return predict_guided


def rescaled(prediction: Tensor, styled: Tensor, share: float) -> Tensor:
    """Return φ · prediction · std(styled)/std(prediction) + (1-φ) · prediction, φ = ``share``, std of each image.

    Against the glare of a large scale (Lin et al. 2305.08891, eq. 15 and 16). Not linear: as in the paper it acts on
    what the network predicts, so eps, x0 and v give different pictures.
    """
    wanted, got = styled.flatten(1).std(dim=1, correction=0), prediction.flatten(1).std(dim=1, correction=0)
    ratio = torch.where(got > 0, wanted / got, 1.0)
    return expand_to(1 - share + share * ratio, prediction) * prediction


def timesteps_within(interval: tuple[float, float], num_steps: int) -> range | None:
    """Return the timesteps whose place (t + 1)/T in the schedule lies in (low, high], None where all of them do.

    The bounds are rounded to whole timesteps, so intervals that meet have none in common and leave none out.

    Raises:
        ValueError: not 0 <= low <= high <= 1.
    """
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"interval: got {low} to {high}, expected 0 <= low <= high <= 1")
    within = range(round(low * num_steps), round(high * num_steps))
    return None if len(within) == num_steps else within
