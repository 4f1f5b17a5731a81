"""Pictures of any size through the autoencoder in bounded memory: tile by tile, blended where tiles overlap.

Memory holds the result and the activations of one tile. Normalization and attention see one tile at a time, so the
result differs a little from the whole picture's; layers that see no farther than a quarter of the overlap do not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentart.core.networks.autoencoder import Autoencoder

TILE = 1024
OVERLAP = 256


@torch.no_grad()
def encode_tiled(autoencoder: Autoencoder, images: Tensor, *, tile: int = TILE, overlap: int = OVERLAP) -> Tensor:
    """Return the moments ``[B, 2Z, h, w]`` of images ``[B, 3, H, W]``; what fits into one tile goes as a whole.

    ``tile`` and ``overlap`` are in pixels. There is no gradient.

    Raises:
        ValueError: height, width, tile or overlap is no multiple of the factor, or the overlap exceeds half a tile.
    """
    factor = autoencoder.factor
    tile, overlap = to_latent_sizes(tile, overlap, factor)
    return blend_tiles(autoencoder.encode, images, tile, overlap, scale_in=factor, scale_out=1)


@torch.no_grad()
def decode_tiled(autoencoder: Autoencoder, z: Tensor, *, tile: int = TILE, overlap: int = OVERLAP) -> Tensor:
    """Return the images ``[B, 3, H, W]`` of latents ``[B, Z, h, w]``; what fits into one tile goes as a whole.

    ``tile`` and ``overlap`` are in pixels. There is no gradient.

    Raises:
        ValueError: tile or overlap is no multiple of the factor, or the overlap exceeds half a tile.
    """
    factor = autoencoder.factor
    tile, overlap = to_latent_sizes(tile, overlap, factor)
    return blend_tiles(autoencoder.decode, z, tile, overlap, scale_in=1, scale_out=factor)


def to_latent_sizes(tile: int, overlap: int, factor: int) -> tuple[int, int]:
    """Return tile and overlap in latents.

    Raises:
        ValueError: one is no multiple of the factor, or the overlap is not within 0…half a tile.
    """
    if tile % factor or overlap % factor or not 0 <= 2 * overlap <= tile or not tile:
        msg = f"tile and overlap must be multiples of {factor}, overlap at most half a tile: got {tile} and {overlap}"
        raise ValueError(msg)
    return tile // factor, overlap // factor


def blend_tiles(
    network: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, *, scale_in: int, scale_out: int
) -> Tensor:
    """Return ``network(x)`` put together from tiles; sizes in latents, of which one is so many positions in and out."""
    height, width = x.shape[-2:]
    if max(height, width) <= tile * scale_in or height % scale_in or width % scale_in:
        return network(x)  # which refuses a size that does not divide
    rows, columns = (place_tiles(side // scale_in, tile, overlap) for side in (height, width))
    row_weights, column_weights = (blend_weights(spans, overlap, scale_out, x.device) for spans in (rows, columns))
    out: Tensor | None = None
    for row, row_weight in zip(rows, row_weights, strict=True):
        for column, column_weight in zip(columns, column_weights, strict=True):
            part = network(x[..., scaled(row, scale_in), scaled(column, scale_in)])
            if out is None:
                out = part.new_zeros(*part.shape[:2], rows[-1].stop * scale_out, columns[-1].stop * scale_out)
            out[..., scaled(row, scale_out), scaled(column, scale_out)] += part * row_weight[:, None] * column_weight
    assert out is not None
    return out


def scaled(span: slice, scale: int) -> slice:
    """Return where a span of latents lies on an axis of ``scale`` positions a latent."""
    return slice(span.start * scale, span.stop * scale)


def place_tiles(size: int, tile: int, overlap: int) -> list[slice]:
    """Return the spans of tiles that cover an axis, each of full size: the last is shifted inwards."""
    starts = [*range(0, size - tile, tile - overlap), max(size - tile, 0)]
    return [slice(start, min(start + tile, size)) for start in starts]


def blend_weights(spans: list[slice], overlap: int, scale: int, device: torch.device) -> list[Tensor]:
    """Return each tile's weight at each of its positions, 0…1, so that at every position the weights add up to 1.

    They rise from 0 to 1 in the middle half of the overlap. The outer quarter counts nothing: there a tile sees its own
    edge where the picture goes on.
    """
    total = torch.zeros(spans[-1].stop * scale, device=device)
    rise = ((torch.arange(overlap * scale, device=device) + 0.5) / (overlap * scale) * 2.0 - 0.5).clamp(0.0, 1.0)
    weights = []
    for span in spans:
        weight = torch.ones((span.stop - span.start) * scale, device=device)
        if span is not spans[0]:
            weight[: len(rise)] = rise
        if span is not spans[-1]:
            weight[len(weight) - len(rise) :] = rise.flip(0)
        total[scaled(span, scale)] += weight
        weights.append(weight)
    return [weight / total[scaled(span, scale)] for span, weight in zip(spans, weights, strict=True)]
