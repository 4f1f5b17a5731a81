"""Vector quantization: every position of the latents becomes the nearest code of a learned book."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_DISTANCES = 2**24  # computed at once: 64 MB
WELL_MET = 1e-4  # of the latents' variance; 65,536 codes of 4 channels leave some 40 times as much


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of latents ``[B, Z, h, w]``.

    Attributes:
        z: the codes in the latents' places, ``[B, Z, h, w]``; gradients pass straight through to the latents.
        code_ids: ``[B, h, w]`` int64.
        commitment: mean squared distance of latents and codes per image, ``[B]``; moves the latents, never the codes.
    """

    z: Tensor
    code_ids: Tensor
    commitment: Tensor


class VectorQuantizer(nn.Module):
    """A book of codes that follows the latents (van den Oord et al. 1711.00937, section 3.2 and appendix A.1).

    Codes are averages of the latents that chose them, not parameters: no gradient moves them. A code that is hardly
    ever chosen any more is revived: it moves onto a latent of the batch at hand that is far from its own code (after
    Dhariwal et al. 2005.00341, section 3.1), so a new book fills itself from its first batches.

    Args:
        num_codes: size of the book.
        channels: Z, length of a code.
        decay: of the averages, per update.
        dead_share: a code is dead when it is chosen less often than this share of the mean.
    """

    def __init__(self, num_codes: int, channels: int, *, decay: float = 0.99, dead_share: float = 0.02) -> None:
        super().__init__()
        self.decay, self.dead_share = decay, dead_share
        self.register_buffer("codes", torch.randn(num_codes, channels))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, channels))
        self.register_buffer("choices", torch.zeros(num_codes))  # as counts, but revival does not touch them

    def forward(self, z: Tensor) -> Quantized:
        """Quantize latents ``[B, Z, h, w]``, in float32."""
        z = z.float()
        code_ids = self.nearest(z)
        codes = functional.embedding(code_ids, self.get_buffer("codes")).permute(0, 3, 1, 2)
        commitment = (z - codes).square().flatten(1).mean(1)
        return Quantized(z + (codes - z).detach(), code_ids, commitment)

    def nearest(self, z: Tensor) -> Tensor:
        """Return the id of the code nearest to every position, ``[B, h, w]``."""
        vectors, rows = vectors_of(z), max(1, MAX_DISTANCES // len(self.get_buffer("codes")))
        nearest = [self.nearest_of(part) for part in torch.split(vectors, rows)]
        return torch.cat(nearest).view(z.shape[0], *z.shape[2:])

    @torch.no_grad()
    def nearest_of(self, vectors: Tensor) -> Tensor:
        """Return the id of the code nearest to each of the vectors ``[n, Z]``, ``[n]``: argmin ``‖c‖² - 2 z·c``."""
        codes = self.get_buffer("codes")
        with torch.autocast(vectors.device.type, enabled=False):  # in bf16 near codes would be mistaken for each other
            return torch.addmm(codes.square().sum(1), vectors, codes.T, alpha=-2.0).argmin(1)

    @torch.no_grad()
    def update(self, z: Tensor, code_ids: Tensor, generator: torch.Generator) -> None:
        """Move every code towards the mean of the latents ``[B, Z, h, w]`` that chose it; revive the dead ones."""
        codes, counts, sums = (self.get_buffer(name) for name in ("codes", "counts", "sums"))
        vectors, chosen = vectors_of(z), code_ids.flatten()
        found = torch.zeros_like(counts).index_add_(0, chosen, torch.ones_like(vectors[:, 0]))
        self.get_buffer("choices").lerp_(found, 1 - self.decay)
        counts.lerp_(found, 1 - self.decay)
        sums.lerp_(torch.zeros_like(sums).index_add_(0, chosen, vectors), 1 - self.decay)
        places = torch.randint(len(vectors), (len(codes),), generator=generator).to(z.device)
        typical, distance = counts.mean(), (vectors - codes[chosen]).square().sum(1)
        # a latent that is met well needs no second code, which would only take turns with the first
        moves = (counts < self.dead_share * typical) & (
            distance[places] > WELL_MET * vectors.var(0, correction=0).sum()
        )
        counts.copy_(torch.where(moves, typical, counts))
        sums.copy_(torch.where(moves[:, None], vectors[places] * typical, sums))
        codes.copy_(torch.where(counts[:, None] > 0, sums / counts[:, None], codes))

    def usage(self) -> Tensor:
        """Return the share of the codes that are chosen at least a tenth as often as the mean."""
        choices = self.get_buffer("choices")
        return (choices >= 0.1 * choices.mean()).float().mean()

    def perplexity(self) -> Tensor:
        """Return ``exp(-Σ p log p)`` over the codes' shares p: so many codes, equally used, would say as much."""
        choices = self.get_buffer("choices")
        shares = choices / choices.sum().clamp_min(1e-12)
        return torch.special.entr(shares).sum().exp()


def vectors_of(z: Tensor) -> Tensor:
    """Return the latents ``[B, Z, h, w]`` as one row for each position, ``[B·h·w, Z]`` float32."""
    return z.detach().float().permute(0, 2, 3, 1).flatten(0, 2)
