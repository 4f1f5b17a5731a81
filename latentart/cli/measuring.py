"""`bench`: what the work costs on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentart.cli.options import DeviceOption, JsonOption, place, plain_console, write_json

if TYPE_CHECKING:
    from latentart.bench.figures import Figure
    from latentart.process.devices import Placement


class DataPart(StrEnum):
    """A part of `bench data`."""

    CLEAN = "clean"
    MEMORY = "memory"
    INDEX = "index"
    CACHE = "cache"


class VaePart(StrEnum):
    """A part of `bench vae`."""

    SPEED = "speed"
    QUALITY = "quality"
    STAGES = "stages"


class LdmPart(StrEnum):
    """A part of `bench ldm`."""

    SPEED = "speed"
    QUALITY = "quality"
    STEPS = "steps"
    RECIPES = "recipes"


class SamplePart(StrEnum):
    """A part of `bench sample`; compile says nothing where there is no CUDA."""

    OVERHEAD = "overhead"
    PEER = "peer"
    BATCHES = "batches"
    COMPILE = "compile"


class PrecisionName(StrEnum):
    """A type to run networks in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


PicturesOption = Annotated[Path | None, typer.Option("--pictures", help="A folder to train on; else made up.")]
PrecisionOption = Annotated[
    PrecisionName, typer.Option("--precision", help="auto takes bf16 where the device has instructions for it.")
]


def bench_data(
    only: Annotated[list[DataPart] | None, typer.Option("--only", help="This part alone; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A twentieth of the pictures: a look, no proof.")] = False,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to work; needs 5 GB for the whole.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure cleaning, reading and caching of pictures, with pictures made up for it. Takes a quarter of an hour."""
    from latentart.bench.data import BenchSizes, bench_data

    sizes = BenchSizes().scaled(0.05) if quick else BenchSizes()
    parts, placement = [part.value for part in only or DataPart], place(device)
    with tempfile.TemporaryDirectory(prefix="latentart-bench-", dir=folder) as place_to_work:
        write_figures(bench_data(Path(place_to_work), sizes, parts, placement), placement, as_json=as_json)


def bench_vae(
    only: Annotated[list[VaePart] | None, typer.Option("--only", help="This part alone; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the time: a look, no proof.")] = False,
    pictures: PicturesOption = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure our autoencoder beside that of diffusers, and how it takes its stages. Takes half an hour."""
    from latentart.bench.vae import bench_vae

    parts, placement = [part.value for part in only or VaePart], place(device, precision.value)
    write_figures(bench_vae(parts, placement, pictures, is_quick=quick), placement, as_json=as_json)


def bench_ldm(
    only: Annotated[list[LdmPart] | None, typer.Option("--only", help="This part alone; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A fraction of the time: a look, no proof.")] = False,
    pictures: PicturesOption = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="Training of each in quality and steps; hard pictures want more.")
    ] = 120.0,
    precision: PrecisionOption = PrecisionName.AUTO,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure our denoiser beside those of diffusers and lucidrains, and what techniques are worth. Takes two hours."""
    from latentart.bench.ldm import bench_ldm

    parts, placement = [part.value for part in only or LdmPart], place(device, precision.value)
    figures = bench_ldm(parts, placement, pictures, seconds=seconds, is_quick=quick)
    write_figures(figures, placement, as_json=as_json)


def bench_sample(
    only: Annotated[list[SamplePart] | None, typer.Option("--only", help="This part alone; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A fraction of the time: a look, no proof.")] = False,
    model: Annotated[Path | None, typer.Option("--model", help="A model folder; else random weights.")] = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what drawing pictures costs beside the network's own calls, and beside diffusers. Takes ten minutes."""
    from latentart.bench.sample import bench_sample

    parts, placement = [part.value for part in only or SamplePart], place(device, precision.value)
    write_figures(bench_sample(parts, placement, model, is_quick=quick), placement, as_json=as_json)


def write_figures(figures: Iterable[Figure], placement: Placement, *, as_json: bool) -> None:
    """Write each figure as soon as it is measured, or all as one JSON object in the end, with what it was made on."""
    from latentart.bench.figures import describe_bench

    about = describe_bench(placement) if as_json else {}
    found, console = [], plain_console()
    for figure in figures:
        found.append(asdict(figure))
        if not as_json:
            verdict = {True: "met", False: "MISSED", None: ""}[figure.is_met]
            console.print("  ".join(filter(None, [f"{figure.name}:", figure.value, figure.bar, verdict])))
    if as_json:
        write_json({"about": about, "figures": found})
