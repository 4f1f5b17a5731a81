"""`sample` and `reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from latentart.cli.options import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    QuietOption,
    find_model,
    open_workspace,
    parse_grid,
    place,
    say,
    write_json,
)
from latentart.errors import UsageError


def sample(
    style: Annotated[list[str], typer.Option("--style", "-s", help="A style's name; repeat it, or say all.")],
    grid: Annotated[str | None, typer.Option("--grid", help="Rows x columns, as 4x4; else one row per style.")] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="Pictures per style without a grid.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first picture; the next has the next.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps.")] = None,
    sampler: Annotated[
        Literal["ddim", "ddpm", "euler", "heun", "dpmpp_2m", "unipc"] | None,
        typer.Option("--sampler", help="How steps are made."),
    ] = None,
    eta: Annotated[float | None, typer.Option("--eta", min=0, max=1, help="DDIM's noise: 0 none, 1 DDPM.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", min=0, help="Pull towards the style; 1 is none.")
    ] = None,
    interval: Annotated[
        tuple[float, float] | None,
        typer.Option("--interval", metavar="LOW HIGH", help="Noise levels that are guided, within 0 clean … 1 noise."),
    ] = None,
    separate: Annotated[bool, typer.Option("--separate", help="Single pictures in a folder.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The grid's file, or the folder with --separate.")] = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw pictures by style into a grid. The same seed gives the same picture."""
    cells = parse_grid(grid) if grid is not None else None
    if cells is not None and count is not None:
        msg = "--grid and --count both say how many."
        raise UsageError(msg, "Give one of them.")
    if interval is not None and not 0 <= interval[0] <= interval[1] <= 1:
        msg = f"--interval {interval[0]:g} {interval[1]:g} does not rise within 0 to 1."
        raise UsageError(msg, "Write low and high, as --interval 0.2 0.8.")
    from latentart.recipes.sample import SampleRequest, sample_pictures, settings_from

    if model is None or config is not None:
        workspace = open_workspace(config)
        settings, samples, folder = workspace.config.sample, workspace.samples, model or workspace.ldm_run / "model"
    else:
        from latentart.config.sample import SampleConfig

        settings, samples, folder = SampleConfig(), Path("samples"), model
    changes = {"steps": steps, "sampler": sampler, "eta": eta, "guidance": guidance, "guidance_interval": interval}
    chosen = settings_from(settings, changes)
    if eta is not None and chosen.sampler != "ddim":
        say(f"warning: --eta has no effect with the {chosen.sampler} sampler")
    request = SampleRequest(tuple(style), cells, count, seed, separate, out)
    result = sample_pictures(folder, samples, request, chosen, place(device, settings.precision), quiet=quiet)
    if as_json:
        write_json({"files": [str(path) for path in result.paths], "is_new": result.is_new})
        return
    for path in result.paths:
        typer.echo(path)
    if result.is_new:
        say(f"More of them: the same with --seed {result.next_seed}.")
    else:
        say("These pictures were there already, made with the same settings.")


def reconstruct(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Picture files.")],
    size: Annotated[int | None, typer.Option("--size", help="Pixels of the shorter side; else the model's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the pages; else reconstructions.")] = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send pictures through the autoencoder. A page shows picture, reconstruction and error map side by side."""
    from latentart.recipes.reconstruct import reconstruct as run_reconstruct

    folder = find_model(model, config, kind="vae")
    pages = run_reconstruct(images, folder, out or Path("reconstructions"), place(device), size=size)
    if as_json:
        rows = [{"source": str(p.source), "mean_error": p.error, "psnr": p.psnr, "page": str(p.page)} for p in pages]
        write_json({"pictures": rows})
        return
    for page in pages:
        typer.echo(f"{page.page}: mean error {page.error:.2f} of 255, PSNR {page.psnr:.1f} dB")
