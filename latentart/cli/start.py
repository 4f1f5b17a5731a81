"""`demo`, `init`, `info` and `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    MinutesOption,
    QuietOption,
    find_model,
    place,
    say,
    split_folder,
    tell,
    write_json,
)
from latentart.errors import UsageError, listed

SHOWN_LABELS = 20


def demo(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR] [KEY=VALUE]…", help="Workspace to make or go on with.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few steps only, to see that everything runs.")] = False,
    minutes: MinutesOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the whole path on embedded pictures. It takes minutes on a CPU and needs no network."""
    named, settings = split_folder(arguments, "Settings are written key=value.")
    if quick and minutes is not None:
        msg = "--quick and --minutes both say how long."
        raise UsageError(msg, "Give one of them.")
    from latentart.workspace.demo import demo as run_demo

    folder = named or Path("latentart-demo")
    result = run_demo(folder, place(device), settings, is_quick=quick, quiet=quiet, minutes=minutes)
    if as_json:
        write_json({"grid": str(result.grid), "workspace": str(result.workspace), "seconds": round(result.seconds, 1)})
        return
    tell(result.grid)
    if quick:
        say("A quick run shows that everything works; its pictures are noise.")
    say(f"Done in {result.seconds:.0f} s. One row per style: {result.grid}")
    import shlex

    where, style = shlex.quote(str(result.workspace)), shlex.quote(result.style)
    say(f"Next: cd {where} && latentart sample --style {style} --eta 0.8 --grid 4x4")


def init(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR] [KEY=VALUE]…", help="New folder; else this one, if empty.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Where the values come from, `config ls`; else wikiart-256.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Your pictures, one sub-folder per style.")] = None,
) -> None:
    """Make a workspace: a folder with one config, latentart.json."""
    named, settings = split_folder(arguments, "The pictures' folder is named with --data.")
    from latentart.config.presets import propose
    from latentart.workspace.init import count_files, describe_few, has_gpu, init_workspace

    folder = named or Path()
    workspace = init_workspace(folder, preset or "wikiart-256", data, settings)
    tell(workspace.config_path)
    go = f"cd {folder} && " if str(folder) != "." else ""
    if not workspace.raw.exists():
        say(f"Put your pictures into {workspace.raw}, one folder per style, or set data.raw.")
    else:
        count = count_files(workspace.raw)
        if few := describe_few(workspace.raw, count):
            say(f"warning: {few}")
        proposed, reason = propose(count, has_gpu=has_gpu())
        if preset is None and count and proposed != workspace.config.preset:
            say(f"--preset {proposed} may suit you better: {reason}.")
    say(f"Next: {go}latentart clean-data")


def info(
    folder: Annotated[Path | None, typer.Argument(metavar="[MODEL]", help="A model folder.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a model is and verify its files. Networks, styles, latents, training."""
    from latentart.workspace.inspect import describe_model

    chosen = folder or find_model(None, config)
    if folder is None and not chosen.is_dir():
        chosen = find_model(None, config, kind="vae")
    about = describe_model(chosen)
    if as_json:
        write_json(about)
        return
    spread = ", ".join(f"{value:.3f}" for value in about["latents"]["std"])
    for name, count in about["parameters"].items():
        tell(f"{name}: {count / 1e6:.2f} M parameters")
    tell(f"pictures: {about['resolution']} px, latents {about['latent_factor']} times smaller, std {spread}")
    tell(f"styles: {', '.join(about['style_names'])}")
    for column in about.get("labels", []):
        tell(f"{column['name']}: {listed(column['values'], SHOWN_LABELS)}")
    for name, summary in about["training"].items():
        shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in summary.items()}
        tell(f"{name}: " + ", ".join(f"{key} {value}" for key, value in shown.items() if value is not None))


def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine can do. Versions, devices, memory, disk, LPIPS weights."""
    from latentart.workspace.inspect import examine_machine

    found = examine_machine(Path())
    if as_json:
        write_json(found)
        return
    tell(f"latentart {found['latentart']}, Python {found['python']}, {found['platform']}")
    tell(", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    for device in found["devices"]:
        memory = f"{device['memory_bytes'] / 2**30:.0f} GiB" if device["memory_bytes"] else "memory unknown"
        tell(f"device {device['name']} ({device['model']}): {memory}, trains in {device['precision']}")
    extras = [f"{name} {version or 'not installed'}" for name, version in found["extras"].items()]
    tell(f"optional: {', '.join(extras)}")
    tell(f"{found['cores']} cores, {found['threads']} threads for PyTorch (OMP_NUM_THREADS sets them)")
    writable = "writable" if found["folder_is_writable"] else "NOT writable"
    tell(f"this folder: {found['disk_free_bytes'] / 2**30:.1f} GiB free, {writable}")
    for name, is_there in found["lpips_weights"].items():
        fault = found["lpips_faults"].get(name, "")
        state = "ready" if is_there else "no weights here" if fault == "is missing" else f"the file {fault}"
        tell(f"weights of {name}: {state}")
    if found["advice"]:
        say(found["advice"])
