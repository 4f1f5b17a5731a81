"""Attention over the positions of a feature map: linear (cheap at any size) and full (small maps).

Both take and return ``[B, C, h, w]``, normalize their input, and add their output to it. The output projection
starts at zero, so a new layer begins as the identity.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from latentart.core.networks.normalization import GroupNorm
from latentart.kinds import AttentionKind

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend in time and memory linear in the number of positions.

    ``out_n = softmax_d(q_n) / sqrt(d) · Σ_m softmax_m(k)_m ⊗ v_m`` (Shen et al. 1812.01243, eq. 4-5: "efficient
    attention" with softmax normalization). Differs from the paper in the 1/√d, which comes after the softmax, as in
    lucidrains' denoising-diffusion-pytorch.

    Args:
        query: ``[B, heads, d, n]``.
        key: ``[B, heads, d, n]``.
        value: ``[B, heads, e, n]``.

    Returns:
        ``[B, heads, e, n]``.
    """
    query = torch.softmax(query, dim=-2, dtype=torch.float32).to(value.dtype) * query.shape[-2] ** -0.5
    key = torch.softmax(key, dim=-1, dtype=torch.float32).to(value.dtype)
    context = torch.matmul(key, value.transpose(-1, -2))  # matmul, as einsum copies what it is given
    return torch.matmul(context.transpose(-1, -2), query)


class Attention(nn.Module):
    """Attention over all positions of a map, with a residual connection, of kind ``linear`` or ``full``.

    Full: ``softmax(q kᵀ / sqrt(d)) v`` (Vaswani et al. 1706.03762, eq. 1), queries and keys scaled to unit root mean
    square first (QK-norm, Henry et al. 2010.04245), as the softmax is over their product, which grows with both norms
    until it saturates. Memory grows with ``(h·w)²`` where the device has no fused kernel.

    Linear: queries and keys each have a softmax of their own, in float32, and need no norm: weights within 0…1 and a
    mean of the values, however large they are.

    Raises:
        ValueError: the channels do not divide into heads.
    """

    def __init__(self, kind: AttentionKind, channels: int, *, head_channels: int, groups: int) -> None:
        super().__init__()
        self.kind = kind
        self.num_heads = count_heads(channels, head_channels)
        self.norm = GroupNorm(groups, channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        if kind == "full":  # before to_out: optimizers keep their states in the order of the weights
            self.query_norm = nn.RMSNorm(head_channels)
            self.key_norm = nn.RMSNorm(head_channels)
        self.to_out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, h, w]`` to the same shape."""
        query, key, value = rearrange(
            self.to_qkv(self.norm(x)),
            "b (three heads c) h w -> three b heads c (h w)",
            three=3,
            heads=self.num_heads,
        )
        if self.kind == "full":
            query, key = self.query_norm(query.mT.float()), self.key_norm(key.mT.float())
            value = value.mT.contiguous()  # fused kernels refuse channels that lie apart, and n² weights would be kept
            attended = functional.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value).mT
        else:
            attended = linear_attention(query, key, value)
        return x + self.to_out(rearrange(attended, "b heads c (h w) -> b (heads c) h w", h=x.shape[2]))


def build_attention(kind: AttentionKind, channels: int, *, head_channels: int, groups: int) -> nn.Module:
    """Return the attention layer of that kind; ``none`` is the identity."""
    return nn.Identity() if kind == "none" else Attention(kind, channels, head_channels=head_channels, groups=groups)


def count_heads(channels: int, head_channels: int) -> int:
    """Return how many heads of ``head_channels`` fit in ``channels``."""
    if channels % head_channels:
        msg = f"channels must be a multiple of head_channels: got {channels} and {head_channels}"
        raise ValueError(msg)
    return channels // head_channels


def zero_init(layer: Layer) -> Layer:
    """Set a layer's weights and bias to zero, so that its branch starts silent."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def unit_gain(layer: Layer) -> Layer:
    """Start a layer on the trunk so that it keeps its input's variance (He et al. 1502.01852, gain 1)."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
