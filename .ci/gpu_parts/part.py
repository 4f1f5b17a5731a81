"""What every part of `.ci/gpu` has: its time, its device, a place to work, and a way to say what it found."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from latentart.process.devices import Placement

# the demo's autoencoder in one stage in place of four, for what is about other things
ONE_STAGE = (
    'vae.stages=[{"name":"l1","steps":6,"resolution":32,"batch_size":8,"crop":[0.5,0.5],'
    '"weights":{"adversarial":0.05},"discriminator_start":3,"discriminator_warmup":1,"ramp":1}]'
)


class Part:
    """One part at work: ``seconds`` from its start on, on CUDA, or tiny on a CPU where it only ``rehearses``.

    Attributes:
        work: an empty folder of its own. out: where pictures go. emoji: a folder of pictures by category, or None.
    """

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--seconds", type=float, required=True)
        parser.add_argument("--began", type=float, default=time.time())
        parser.add_argument("--work", type=Path, required=True)
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--figures", type=Path, required=True)
        parser.add_argument("--emoji", type=Path)
        parser.add_argument("--rehearse", action="store_true")
        given = parser.parse_args()
        self.seconds, self.rehearses = given.seconds, given.rehearse
        self.work, self.out, self.emoji = given.work, given.out, given.emoji
        self._figures, self._began = given.figures, given.began
        self.device = torch.device("cpu" if self.rehearses else "cuda")
        self.placement = Placement(self.device)
        self.work.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Return the seconds that are left, the start of this process counted in."""
        return self.seconds - (time.time() - self._began)

    def figure(
        self,
        name: str,
        value: str,
        bar: str = "",
        *,
        is_met: bool | None = None,
        numbers: Mapping[str, float | None] | None = None,
    ) -> None:
        """Write one figure at once, so that it stands whatever happens next; ``numbers`` are for programs."""
        line = {"name": name, "value": value, "bar": bar, "is_met": is_met, "numbers": dict(numbers or {})}
        with self._figures.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"[{time.time() - self._began:6.1f} s] {name}: {value}", flush=True)

    @contextlib.contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Go on after what fails; it is a figure that misses its bar, and the traceback is in the log."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            told = str(error).strip().splitlines() or [""]
            self.figure(name, f"{type(error).__name__}: {told[0][:200]}", "works", is_met=False)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def picture(self, source: Path, name: str) -> None:
        """Keep a picture."""
        self.out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self.out / f"{name}.png")

    def peak(self) -> float:
        """Return the most memory that tensors held on the GPU since the last call, in GB; 0 on a CPU."""
        if self.device.type != "cuda":
            return 0.0
        found = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return found

    def command(self, *words: str) -> list[str]:
        """Return a command line of latentart's on this part's device."""
        return [sys.executable, "-m", "latentart", *words, "--device", self.device.type]


def environment() -> dict[str, str]:
    """Return the environment for commands that must not be taken for one of torchrun's."""
    gone = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {name: value for name, value in os.environ.items() if name not in gone}


def distance(one: Path, other: Path) -> float:
    """Return ‖a - b‖ / ‖a‖ over all weights of the denoisers that two workspaces have trained."""
    first, second = (load_file(folder / "runs/ldm/model/denoiser.safetensors") for folder in (one, other))
    a, b = (torch.cat([found[key].double().flatten() for key in first]) for found in (first, second))
    return float((a - b).norm() / a.norm())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of JSON lines; none where there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
