"""The one config of a workspace, and the order of its sources: defaults < preset < file < key=value."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from latentart.config.base import StrictConfig, apply_override, explain, merge, read_json_object
from latentart.config.data import DataConfig
from latentart.config.ldm import LdmConfig
from latentart.config.presets import PRESETS
from latentart.config.sample import SampleConfig
from latentart.config.tracking import TrackingConfig
from latentart.config.vae import BlocksConfig, VaeConfig
from latentart.errors import ConfigError, nearest

logger = logging.getLogger(__name__)

CONFIG_NAME = "latentart.json"
COMMAND_LINE = "the command line"  # where a wrong setting stands that is in no file
SCHEMA_NAME = "latentart.schema.json"


class Config(StrictConfig):
    """Everything that a workspace's commands need."""

    schema_: str = Field(default=SCHEMA_NAME, alias="$schema")
    """For editors: the JSON Schema of this file."""

    preset: str = "wikiart-256"
    """The named values that this config starts from; see `latentart config ls`."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Everything random follows from it."""

    data: DataConfig = DataConfig()
    """The pictures: where they are, which are kept, how the copies are stored."""

    vae: VaeConfig
    """The autoencoder and its stages; the stages come from the preset."""

    ldm: LdmConfig = LdmConfig()
    """The denoiser, its diffusion process and its training."""

    sample: SampleConfig = SampleConfig()
    """What `latentart sample` does where no option says otherwise."""

    tracking: TrackingConfig = TrackingConfig()
    """Where else the numbers and previews of both trainings go."""

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if misfit := self.misfit(self.vae.model.factor):
            raise ValueError(misfit)
        if self.sample.steps > self.ldm.diffusion.num_steps:
            msg = f"sample.steps {self.sample.steps} exceeds ldm.diffusion.num_steps {self.ldm.diffusion.num_steps}"
            raise ValueError(msg)
        return self

    def misfit(self, autoencoder_factor: int) -> str:
        """Return why the denoiser cannot train on the latents of an autoencoder, or an empty text."""
        unit, resolution = autoencoder_factor * self.ldm.model.factor, self.ldm.training.resolution
        if resolution % unit == 0:
            return ""
        near = max(unit, round(resolution / unit) * unit)
        return (
            f"ldm.training.resolution {resolution} is no multiple of {unit} (the autoencoder halves "
            f"{autoencoder_factor}-fold, the denoiser {self.ldm.model.factor}-fold): {near} would do"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the config as plain JSON values, complete."""
        return self.model_dump(mode="json", by_alias=True)

    def to_text(self) -> str:
        """Return the config as indented JSON text with a final newline."""
        return json.dumps(self.to_json(), indent=2) + "\n"


def preset_tree(name: str) -> dict[str, Any]:
    """Return the complete values of a preset: defaults with the preset laid over them.

    Raises:
        ConfigError: no such preset; the nearest name is offered.
    """
    if name not in PRESETS:
        msg = f"there is no preset '{name}'.{nearest(name, PRESETS)}"
        raise ConfigError(msg, f"Presets: {', '.join(PRESETS)}.")
    return Config.model_validate(merge(PRESETS[name].values, {"preset": name})).to_json()


def resolve(changes: dict[str, Any], overrides: Sequence[str] = (), where: str = "config") -> Config:
    """Return the config that ``changes`` and ``overrides`` make of their preset, and warn of its legacy kinds.

    Raises:
        ConfigError: anything unknown or out of range, named by its path.
    """
    name = changes.get("preset", "wikiart-256")
    if not isinstance(name, str):
        msg = f"{where}: preset must be a name (got {name!r})."
        raise ConfigError(msg)
    own = tree = merge(preset_tree(name), changes)
    for text in overrides:
        if text.partition("=")[0].strip() == "preset":
            msg = "preset cannot be changed by key=value: its values lie under the file's."
            raise ConfigError(msg, "Name it when you make a workspace: `latentart init --preset NAME`.")
        tree = apply_override(tree, text)
    try:
        # As JSON and strict: "64" and true are not taken for numbers, and a list is taken for a tuple.
        config = Config.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        blamed = COMMAND_LINE if overrides and not _has_mistake(own, error.errors()[0]["loc"]) else where
        raise explain(error, schema(), blamed, preset_tree(name)) from None
    except RecursionError:
        msg = f"{where} is nested too deep."
        raise ConfigError(msg) from None
    for path, network in (("vae.model", config.vae.model), ("ldm.model", config.ldm.model)):
        for remark in network.legacy if isinstance(network, BlocksConfig) else ():
            logger.warning("%s.%s", path, remark)
    return config


def _has_mistake(tree: dict[str, Any], location: tuple[int | str, ...]) -> bool:
    """Tell whether a config is wrong in that place without what the command line adds."""
    try:
        Config.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        return location in [mistake["loc"] for mistake in error.errors()]
    except RecursionError:
        return True
    return False


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Return the config in a file, with ``key=value`` overrides on top."""
    return resolve(read_json_object(path), overrides, str(path))


def find_config(start: Path) -> Path:
    """Return the workspace's config in ``start``.

    Raises:
        ConfigError: there is none.
    """
    path = start / CONFIG_NAME
    if not path.is_file():
        msg = f"{start.resolve()} is not a workspace: it has no {CONFIG_NAME}."
        raise ConfigError(msg, "Go into your workspace, make one with `latentart init`, or give --config FILE.")
    return path


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema of the config file, for editors, to be read only; what a preset gives may be left out."""
    found = Config.model_json_schema(by_alias=True)
    for node in (found, found["$defs"]["VaeConfig"]):
        del node["required"]
    return found
