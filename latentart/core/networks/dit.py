"""The denoiser as a transformer over patches of the latents, conditioned on timestep and labels in every block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.networks.attention import count_heads, unit_gain, zero_init
from latentart.core.networks.blocks import BlockShape, Stage
from latentart.core.networks.conditioning import Denoiser, embed_timesteps


class TransformerBlock(nn.Module):
    """Attention and a gated network side by side with the trunk, each scaled, shifted and gated by the conditioning.

    ``x + gate · drop(branch((1 + scale) · norm(x) + shift))`` for both branches, in which all gates start at zero:
    a new block is the identity (adaLN-Zero, Peebles & Xie 2212.09748, section 3.2). The second branch is
    ``W2 (silu(a) · b)``, ``a, b = W1 x`` (SwiGLU, Shazeer 2002.05202, eq. 6), which that paper found better than GELU
    at equal weights. Queries and keys are scaled to unit root mean square (QK-norm, Henry et al. 2010.04245).

    Raises:
        ValueError: the width does not divide into heads.
    """

    def __init__(self, width: int, mlp_width: int, shape: BlockShape) -> None:
        super().__init__()
        self.num_heads = count_heads(width, shape.head_channels)
        self.to_modulation = zero_init(nn.Linear(shape.conditioning_channels, 6 * width))
        self.to_qkv = unit_gain(nn.Linear(width, 3 * width, bias=False))
        self.query_norm = nn.RMSNorm(shape.head_channels)
        self.key_norm = nn.RMSNorm(shape.head_channels)
        self.to_out = unit_gain(nn.Linear(width, width))
        self.mlp_in = unit_gain(nn.Linear(width, 2 * mlp_width))
        self.mlp_out = unit_gain(nn.Linear(mlp_width, width))
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """Map ``[B, n, C]`` and ``[B, conditioning]`` to ``[B, n, C]``."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.to_modulation(conditioning)[:, None].chunk(6, dim=-1)
        x = x + gate * self.dropout(self.attend(modulate(x, shift, scale)))
        return x + mlp_gate * self.dropout(self.feed(modulate(x, mlp_shift, mlp_scale)))

    def attend(self, x: Tensor) -> Tensor:
        """Return what every position learns from all others, ``softmax(q kᵀ / sqrt(d)) v`` per head."""
        query, key, value = rearrange(
            self.to_qkv(x), "b n (three heads c) -> three b heads n c", three=3, heads=self.num_heads
        )
        query, key = self.query_norm(query.float()), self.key_norm(key.float())
        attended = functional.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value)
        return self.to_out(rearrange(attended, "b heads n c -> b n (heads c)"))

    def feed(self, x: Tensor) -> Tensor:
        """Return what every position makes of itself."""
        gate, value = self.mlp_in(x).chunk(2, dim=-1)
        return self.mlp_out(functional.silu(gate) * value)


class DiT(Denoiser, Stage):
    """A transformer over patches (Peebles & Xie 2212.09748); its last layer starts at zero.

    Positions are sines and cosines of a patch's row and column, made for the size at hand, so that any multiple of
    the patch goes through, oblong or not. The trunk between the blocks stays in float32.

    Differs from the paper: SwiGLU, QK-norm, a conditioning vector whose length need not be the width.

    Args:
        latent_channels: Z.
        num_labels: how many labels each column has; the first column is the style.
        width: channels of a token, a multiple of 4.
        depth: number of blocks.
        patch_size: side of the square of latents that becomes one token.
        mlp_width: channels within the second branch of a block.
        shape: head_channels, dropout and conditioning_channels, which must be even; groups mean nothing here.

    Raises:
        ValueError: the width is no multiple of 4 or does not divide into heads.
    """

    def __init__(
        self,
        latent_channels: int,
        num_labels: Sequence[int],
        width: int,
        *,
        depth: int,
        patch_size: int,
        mlp_width: int,
        shape: BlockShape,
    ) -> None:
        super().__init__(num_labels, shape.conditioning_channels, factor=patch_size)
        if width % 4:
            msg = f"width must be a multiple of 4, for sines and cosines of rows and columns: got {width}"
            raise ValueError(msg)
        self.width, numbers = width, latent_channels * patch_size**2
        self.patch_in = unit_gain(nn.Linear(numbers, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, mlp_width, shape) for _ in range(depth))
        self.to_modulation = zero_init(nn.Linear(shape.conditioning_channels, 2 * width))
        self.patch_out = zero_init(nn.Linear(width, numbers))

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the prediction ``[B, Z, h, w]``, see ``Denoiser``."""
        self.require_size(x_t)
        conditioning = self.condition(t, style_id)
        rows, columns = (side // self.factor for side in x_t.shape[-2:])
        patches = rearrange(x_t, "b z (h p) (w q) -> b (h w) (z p q)", p=self.factor, q=self.factor)
        x = self.patch_in(patches) + embed_positions(rows, columns, self.width, x_t.device)
        for block in self.blocks:
            x = self.run(block, x, conditioning)
        shift, scale = self.to_modulation(conditioning)[:, None].chunk(2, dim=-1)
        patches = self.patch_out(modulate(x, shift, scale)).float()
        return rearrange(patches, "b (h w) (z p q) -> b z (h p) (w q)", h=rows, p=self.factor, q=self.factor)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalize each token of ``[B, n, C]`` in float32 (Ba et al. 1607.06450), then scale and shift it."""
    return functional.layer_norm(x.float(), x.shape[-1:], eps=1e-6) * (scale.float() + 1) + shift.float()


def embed_positions(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """Return cosines and sines of every row, then of every column, ``[rows · columns, width]`` float32.

    Row by row, at the frequencies of Vaswani et al. 1706.03762, section 3.5, over half the width each.
    """
    row, column = (embed_timesteps(torch.arange(count, device=device), width // 2) for count in (rows, columns))
    return torch.cat([row.repeat_interleave(columns, 0), column.repeat(rows, 1)], dim=1)
