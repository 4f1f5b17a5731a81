"""`config ls`, `show`, `validate`, `schema` and `diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentart.cli.options import (
    ConfigOption,
    JsonOption,
    Overrides,
    only_settings,
    open_workspace,
    say,
    tell,
    write_json,
)
from latentart.errors import UsageError


def list_presets(as_json: JsonOption = False) -> None:
    """List the presets."""
    from latentart.config.presets import PRESETS

    if as_json:
        write_json({name: preset.about for name, preset in PRESETS.items()})
        return
    for name, preset in PRESETS.items():
        tell(f"{name:18} {preset.about}")


def show(
    overrides: Overrides = None,
    config: ConfigOption = None,
    preset: Annotated[str | None, typer.Option("--preset", help="A preset, in place of the workspace's.")] = None,
) -> None:
    """Show the resolved config: defaults < preset < file < key=value."""
    from latentart.config.workspace import resolve

    if preset is not None:
        if config is not None:
            msg = "--preset and --config both say which values to show."
            raise UsageError(msg, "Give one of them; `latentart config diff` compares them.")
        write_json(resolve({"preset": preset}, only_settings(overrides)).to_json())
        return
    write_json(open_workspace(config, overrides).config.to_json())


def validate(
    file: Annotated[Path | None, typer.Argument(help="A config file; else the workspace's.")] = None,
    config: ConfigOption = None,
) -> None:
    """Check a config; the first mistake is named by its path."""
    if file is not None and config is not None:
        msg = "a config was named twice."
        raise UsageError(msg, "Name it once, with --config or without.")
    path = file or config
    workspace = open_workspace(path)
    tell(f"{path or workspace.config_path} is valid")


def schema() -> None:
    """Show the JSON Schema of latentart.json, for editors."""
    from latentart.config.workspace import schema as build_schema

    write_json(build_schema())


def diff(
    overrides: Overrides = None,
    config: ConfigOption = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Compare with this preset; else with its own.")] = None,
) -> None:
    """Show what differs between the workspace's config and a preset."""
    import json

    from latentart.config.workspace import preset_tree

    chosen = open_workspace(config, overrides).config
    base = preset_tree(preset or chosen.preset)
    rows = list(differences(base, chosen.to_json()))
    for path, before, after in rows:
        tell(f"{path}: {json.dumps(before)} -> {json.dumps(after)}")
    if not rows:
        say(f"no difference from preset {preset or chosen.preset}")


def differences(before: Any, after: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Return (path, before, after) of every value that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = list(dict.fromkeys([*before, *after]))
        return [
            row
            for key in keys
            for row in differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [row for i, (a, b) in pairs for row in differences(a, b, f"{path}.{i}")]
    return [] if before == after else [(path, before, after)]
