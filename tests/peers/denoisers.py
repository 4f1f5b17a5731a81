"""The denoisers that are compared: ours, and two libraries' with as many parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentart.builders import build_denoiser
from latentart.config.denoiser import DenoiserConfig
from peers.setting import count_parameters, with_seed_0

GROUPS = 4  # of diffusers' normalization, so that its width can be any multiple
DIFFUSERS_WIDTHS = range(16, 1024, GROUPS)
LUCIDRAINS_WIDTHS = range(16, 1024, 8)  # its groups are fixed


class Peer(nn.Module):
    """Another library's network behind our denoisers' contract: ids of one column, the null style one more row."""

    def __init__(self, network: nn.Module, num_styles: int) -> None:
        super().__init__()
        self.network, self.num_styles = network, num_styles

    def null_like(self, style_id: Tensor) -> Tensor:
        """Return ids that say nothing."""
        return torch.full_like(style_id, self.num_styles)


class DiffusersUNet(Peer):
    """`diffusers.UNet2DModel` with one class embedding more than there are styles."""

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the prediction ``[B, Z, h, w]``."""
        return self.network(x_t, t, class_labels=style_id).sample.float()


class LucidrainsUNet(Peer):
    """`denoising_diffusion_pytorch.classifier_free_guidance.Unet`, told which styles to drop."""

    def forward(self, x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        """Return the prediction ``[B, Z, h, w]``."""
        is_kept = style_id < self.num_styles
        known = style_id.clamp(max=self.num_styles - 1)
        return self.network(x_t, t, known, cond_drop_prob=0.0, cond_keep_mask=is_kept).float()


def build_ours(config: DenoiserConfig, channels: int, num_styles: int) -> nn.Module:
    """Return our denoiser with weights of seed 0."""
    return with_seed_0(lambda: build_denoiser(config, channels, [num_styles]))


def build_peers(wanted: int, channels: int, side: int, num_styles: int, stages: int) -> dict[str, Peer]:
    """Return both peers with as near to ``wanted`` parameters as their widths allow; both libraries must be there."""
    import diffusers
    from denoising_diffusion_pytorch import classifier_free_guidance as lucidrains

    def of_lucidrains(width: int) -> nn.Module:
        mults = tuple(2**i for i in range(stages))
        return lucidrains.Unet(width, num_styles, dim_mults=mults, channels=channels)

    return {
        "UNet2DModel": build_diffusers_unet(diffusers, wanted, channels, side, num_styles, stages),
        "lucidrains Unet": LucidrainsUNet(build_near(of_lucidrains, wanted, LUCIDRAINS_WIDTHS), num_styles),
    }


def build_diffusers_unet(
    diffusers: Any, wanted: int, channels: int, side: int, num_styles: int, stages: int
) -> DiffusersUNet:
    """Return diffusers' network with attention below its first stage, as near to ``wanted`` parameters as it gets."""
    attended = ("AttnDownBlock2D",) * (stages - 1), ("AttnUpBlock2D",) * (stages - 1)

    def of_width(width: int) -> nn.Module:
        network: nn.Module = diffusers.UNet2DModel(
            sample_size=side,
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownBlock2D", *attended[0]),
            up_block_types=(*attended[1], "UpBlock2D"),
            block_out_channels=tuple(width * 2**i for i in range(stages)),
            norm_num_groups=GROUPS,
            num_class_embeds=num_styles + 1,
        )
        return network

    return DiffusersUNet(build_near(of_width, wanted, DIFFUSERS_WIDTHS), num_styles)


def build_near(build: Callable[[int], nn.Module], wanted: int, widths: Sequence[int]) -> nn.Module:
    """Return the network of the width whose number of parameters comes nearest, with weights of seed 0."""
    best, best_gap = widths[0], float("inf")
    for width in widths:
        with torch.device("meta"):
            count = count_parameters(build(width))
        if abs(count - wanted) < best_gap:
            best, best_gap = width, abs(count - wanted)
        if count > wanted:
            break
    return with_seed_0(lambda: build(best))
