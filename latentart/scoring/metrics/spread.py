"""How much samples of one style differ."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def relative_spread(features: Tensor, style_id: Tensor, real: Tensor, real_style: Tensor) -> float | None:
    """Return the mean distance between samples of one style as a share of that between real pictures of it.

    ``features`` ``[n, D]`` and ``real`` ``[m, D]`` are taken in units of the real ones' deviation. Only styles with
    two of each count; None where there are none, or where real pictures do not differ.
    """
    scale = real.std(0, correction=0).clamp_min(1e-6)
    shares = []
    for style in sorted(set(style_id.tolist())):
        ours, theirs = features[style_id == style] / scale, real[real_style == style] / scale
        if min(len(ours), len(theirs)) > 1 and (usual := float(functional.pdist(theirs).mean())) > 0:
            shares.append(float(functional.pdist(ours).mean()) / usual)
    return sum(shares) / len(shares) if shares else None
