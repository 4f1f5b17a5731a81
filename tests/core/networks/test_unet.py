"""The UNet: the embedding of timesteps, and names that must stay. What it shares with others is in test_denoisers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch

from latentart.core.networks.blocks import BlockShape, StackShape
from latentart.core.networks.conditioning import embed_timesteps
from latentart.core.networks.unet import UNet
from latentart.kinds import AttentionKind


def build(*, attention: Sequence[AttentionKind] = ("linear", "full")) -> UNet:
    """Return a small denoiser for 3 latent channels and 5 styles."""
    return UNet(
        3,
        [5],
        StackShape(
            widths=(8, 16),
            num_blocks=1,
            attention=attention,
            middle_attention="full",
            blocks=BlockShape(groups=4, head_channels=8, conditioning_channels=12),
        ),
    )


def test_timesteps_are_embedded_as_cosines_and_sines() -> None:
    """For t = 0, 1 and 500 at frequencies 1 and 1/100 the numbers of the formula."""
    embedded = embed_timesteps(torch.tensor([0, 1, 500]), 4)

    expected = torch.tensor(
        [
            [1.0, 1.0, 0.0, 0.0],
            [math.cos(1), math.cos(0.01), math.sin(1), math.sin(0.01)],
            [math.cos(500), math.cos(5), math.sin(500), math.sin(5)],
        ]
    )
    torch.testing.assert_close(embedded, expected, atol=1e-5, rtol=0)


def test_every_timestep_has_its_own_embedding() -> None:
    """No two of a thousand timesteps come near each other."""
    embedded = embed_timesteps(torch.arange(1000), 32)

    distances = torch.cdist(embedded, embedded) + 10 * torch.eye(1000)

    assert distances.min() > 0.1


def test_names_of_the_state_stay_as_they_are() -> None:
    """Model folders and checkpoints written before must load: names and number of tensors are a promise."""
    network = build()

    names = {re.sub("weight$|bias$", "*", re.sub(r"\.\d+(?=\.)", ".#", name)) for name in network.state_dict()}

    block = {"norm1.*", "conv1.*", "norm2.*", "conv2.*", "to_scale_shift.*"}
    attention = {"norm.*", "to_qkv.*", "to_out.*", "query_norm.*", "key_norm.*"}
    expected = {"time_mlp.#.*", "style_embedding.*", "conv_in.*", "conv_out.*"}
    expected |= {f"{side}.#.blocks.#.{name}" for side in ("down", "up") for name in block | {"shortcut.*"}}
    expected |= {f"{side}.#.attention.{name}" for side in ("down", "up") for name in attention}
    expected |= {f"middle.{part}.{name}" for part in ("block1", "block2") for name in block}
    expected |= {f"middle.attention.{name}" for name in attention}
    assert names == expected
    assert len(network.state_dict()) == 106
    assert sum(p.numel() for p in network.parameters()) == 31171
    assert not list(network.buffers())
