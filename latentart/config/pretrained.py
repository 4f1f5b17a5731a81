"""What an autoencoder is that others trained: the config.json that diffusers wrote beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import field_validator

from latentart.config.base import StrictConfig

CLASSES = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderDC": "encoder_block_out_channels",
    "AutoencoderTiny": "encoder_block_out_channels",
}
"""The classes that are taken, and where each says the width of every stage; all stages but one halve the size."""

MOST_ITEMS = 10  # of a list: stages, or scales of one stage; those known have up to 6
MOST_LAYERS = 16  # of a stage; those known have up to 3
MOST = 2**14  # of any other number: the widest known stage has 2,048 channels
MOST_TEXT = 2**16  # of the whole as JSON


class DiffusersConfig(StrictConfig):
    """An autoencoder that diffusers builds."""

    kind: Literal["diffusers"] = "diffusers"
    """Built by diffusers."""

    network: dict[str, Any]
    """Their config.json as it was, also with what has no effect here, as the factors of scale and shift."""

    @field_validator("network")
    @classmethod
    def _can_be_built(cls, network: dict[str, Any]) -> dict[str, Any]:
        """A stranger wrote it, and whole stages are built by one number."""
        name = str(network.get("_class_name"))
        if name not in CLASSES:
            raise ValueError(f"its class is {name[:40]!r}, and {', '.join(CLASSES)} are known")
        if len(json.dumps(network)) > MOST_TEXT:
            raise ValueError("it is too long")
        for key, value in network.items():
            if not key.startswith("_"):
                _require_moderate(key[:40], value, MOST_LAYERS if "layers" in key or key.startswith("num_") else MOST)
        if any(network.get(key, 3) != 3 for key in ("in_channels", "out_channels")):
            raise ValueError("it is not for pictures of three channels")
        widths, channels = network.get(CLASSES[name]), network.get("latent_channels")
        if not isinstance(widths, list) or not widths or not isinstance(channels, int) or channels < 1:
            raise ValueError(f"it has no {CLASSES[name]}, or no latent_channels")
        return network

    def __hash__(self) -> int:
        return hash(json.dumps(self.network, sort_keys=True))

    @property
    def class_name(self) -> str:
        """Which of diffusers' classes it is."""
        return str(self.network["_class_name"])

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What that class is built with."""
        return {key: value for key, value in self.network.items() if not key.startswith("_")}

    @property
    def latent_channels(self) -> int:
        """Z, channels of the latents."""
        return int(self.network["latent_channels"])

    @property
    def factor(self) -> int:
        """f: image height over latent height."""
        return int(2 ** (len(self.network[CLASSES[self.class_name]]) - 1))


def _require_moderate(key: str, value: object, most: int) -> None:
    """Refuse a value that none of the known networks comes near, of which a machine might be busy for ever.

    Raises:
        ValueError: so it is.
    """
    if isinstance(value, list) and len(value) <= MOST_ITEMS:
        for item in value:
            _require_moderate(key, item, most)
    elif not (value is None or isinstance(value, (str, float)) or (isinstance(value, int) and abs(value) <= most)):
        raise ValueError(f"{key} is beyond what is known: {str(value)[:40]}")
