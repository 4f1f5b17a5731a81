"""Group normalization that always computes in float32."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class GroupNorm(nn.GroupNorm):
    """Group normalization (Wu & He 1803.08494, eq. 1) in float32 whatever the autocast type, returned in x's type.

    Statistics are taken per image, so image i never depends on its batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``[B, C, h, w]`` over each group of channels and all positions."""
        known = x if x.device.type == "cpu" else x.float()  # a CPU's kernel casts by itself, without two copies more
        return functional.group_norm(known, self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)
