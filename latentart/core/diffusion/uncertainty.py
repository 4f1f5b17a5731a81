"""How hard each noise level is to predict, learned beside the denoiser and used to weigh its loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LARGEST = 5.0  # of log-SNR/4: beyond it lies a share of signal or of noise of 2e-9


class LearnedUncertainty(nn.Module):
    """The log-variance u of the error at each noise level, which makes the loss error/e^u + u.

    At its best u is the log of the mean error there, so every level pulls on the denoiser alike (Kendall et al.
    1705.07115; Karras et al. 2312.02696, eq. 21 and 22). One linear layer on a cosine series of log-SNR/4, which is
    clamped to ±5; it starts at 0, where the loss is the error. It is needed in training alone. Differs from the paper
    in its features, which are a series instead of random.
    """

    def __init__(self, num_features: int = 32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_features))

    def forward(self, snr: Tensor) -> Tensor:
        """Return u, float32 [B], at the signal-to-noise ratios ``snr`` [B], of which 0 and ∞ are allowed."""
        place = ((snr.log() / 4).clamp(-_LARGEST, _LARGEST) + _LARGEST) / (2 * _LARGEST)  # 0 … 1
        order = torch.arange(len(self.weight), device=self.weight.device)
        features = (math.pi * order * place.to(self.weight)[:, None]).cos()
        return (features * self.weight).sum(1)
