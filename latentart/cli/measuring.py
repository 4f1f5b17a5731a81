"""`bench`: what the work costs on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from latentart.cli.options import DeviceOption, JsonOption, plain_console, write_json


class DataPart(StrEnum):
    """A part of `bench data`."""

    CLEAN = "clean"
    MEMORY = "memory"
    INDEX = "index"
    CACHE = "cache"


def bench_data(
    only: Annotated[list[DataPart] | None, typer.Option("--only", help="This part alone; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A twentieth of the pictures: a look, no proof.")] = False,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to work; needs 5 GB for the whole.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure cleaning, reading and caching of pictures, with pictures made up for it. Takes a quarter of an hour."""
    from latentart.recipes.bench_data import BenchSizes, bench_data

    sizes = BenchSizes().scaled(0.05) if quick else BenchSizes()
    parts = [part.value for part in only or DataPart]
    figures = []
    console = plain_console()
    with tempfile.TemporaryDirectory(prefix="latentart-bench-", dir=folder) as place_to_work:
        for figure in bench_data(Path(place_to_work), sizes, parts, device):
            figures.append(asdict(figure))
            if not as_json:
                verdict = {True: "met", False: "MISSED", None: ""}[figure.is_met]
                console.print("  ".join(filter(None, [f"{figure.name}:", figure.value, figure.bar, verdict])))
    if as_json:
        write_json({"figures": figures})
