"""What the studio makes a person wait for: its own command on a workspace apart, asked over HTTP as its page asks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import torch

from latentart.builders import build_autoencoder, build_denoiser
from latentart.data.index import read_index, write_index, write_lines
from latentart.errors import ResourceError
from latentart.layout import Workspace
from latentart.model.folder import save_model
from latentart.process.host_memory import read_field
from latentart.scoring.run_history import METRICS
from latentart.storage.folders import read_json

FINE_PICTURE = "fine picture"
COARSE, FINE, FRAMES = 3, 20, 6  # steps of the two and frames on the way, as the page asks for them
DRAGS, FIRST_DRAGS = 1000, 30  # the first of them still fill what is kept
ROWS, FIRST_SCREEN = 100_000, 60  # of a contact sheet, and thumbnails at its top
RUN_LINES, POLLS, EVERY = 5000, 60, 3.0  # of a run that is watched; the page asks each so many seconds
FEW, FLAT = 5, 16 * 2**20  # fine pictures; bytes that an allocator's whims may take
PATIENCE = 600.0  # seconds that an answer may take
LOADING = """
import pathlib, sys
from latentart.process.devices import Placement, choose_device
from latentart.sampling.sample import load_model
load_model(pathlib.Path(sys.argv[1]), Placement(choose_device(sys.argv[2] or None), "fp32"))
"""


@dataclass(frozen=True)
class Wait:
    """Something that a person waits for, or that the page takes.

    Attributes:
        value: in seconds, bytes or as a share of one core, as ``unit`` says; None where this system does not tell.
        wanted: the most that it may be with the demo's model on two idle cores.
    """

    name: str
    value: float | None
    unit: str
    wanted: float
    note: str = ""


class Visitor:
    """Someone who has the page of a process open."""

    def __init__(self, address: str, pid: int) -> None:
        self.pid, self._place = pid, urlsplit(address).netloc
        self._seeds = itertools.count(5)

    def get(self, path: str) -> bytes:
        """Return an answer.

        Raises:
            ResourceError: it is an error.
        """
        with closing(HTTPConnection(self._place, timeout=PATIENCE)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            raise ResourceError(f"the studio answered {path} with {answer.status}: {content[:200].decode()}.")
        return content

    def draw(self, styles: list[str], *, is_fine: bool, breaks_off: bool = False) -> tuple[float, float]:
        """Return the seconds to the first picture of a new seed, and to the last; or go after the first."""
        seed = next(self._seeds)
        asked = {
            "window": "bench-stage",
            "styles": dict.fromkeys(styles[:2], 1),
            "seeds": [[seed, seed + 1000, 0.25]],
            "steps": FINE if is_fine else COARSE,
            "sampler": "ddim" if is_fine else "unipc",
            "guidance": 1.5,
            "frames": FRAMES if is_fine else 0,
        }
        began, times = time.perf_counter(), []
        with closing(HTTPConnection(self._place, timeout=PATIENCE)) as connection:
            connection.request("POST", "/api/draw", json.dumps(asked))
            for line in connection.getresponse():
                event = json.loads(line.removeprefix(b"data: ")) if line.strip() else {}
                if "error" in event:
                    raise ResourceError(f"the studio could not draw: {event['error']}")
                if "address" in event:
                    times.append(time.perf_counter() - began)
                    if breaks_off:
                        break
        return times[0], times[-1]


@contextmanager
def visiting(folder: Path, device: str | None) -> Iterator[Visitor]:
    """Open the studio of a workspace; it ends with this.

    Raises:
        ResourceError: it does not start.
    """
    words = [sys.executable, "-m", "latentart", "studio", str(folder), "--no-open", "--port", "0"]
    words += ["--device", device] if device else []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise ResourceError(f"the studio did not start: {process.stderr.read().strip()[-300:]}")
            yield Visitor(address, process.pid)
        except (HTTPException, OSError) as error:
            raise ResourceError(f"the studio did not answer: {error}.") from None
        finally:
            process.terminate()


def visit(workspace: Workspace, names: list[str], device: str | None, seconds: float) -> list[Wait]:
    """Measure a studio on a workspace apart that has some clean pictures and an autoencoder.

    ``names`` are the styles; the drags last about so many seconds at most. The workspace gets a new denoiser, as fast
    as a trained one, many rows in its index, and a run.

    Raises:
        ResourceError: the studio does not start or answer.
    """
    write_denoiser(workspace, names)
    for path in filter(Path.is_symlink, workspace.data.rglob("*.*")):  # the page shows nothing from elsewhere
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    write_lines(workspace.config_path, workspace.config.to_text().splitlines())
    loads = [seconds_to_load(workspace.ldm_run / "model", device) for _ in range(2)]
    began = time.perf_counter()
    with visiting(workspace.folder, device) as visitor:
        for address in ("/", *(f"/page/{name}" for name in ("studio.css", "studio.js", "draw.js")), "/api/place"):
            visitor.get(address)
        page = time.perf_counter() - began
        visitor.get("/api/model")
        ready = time.perf_counter() - began
        note = f"the page in {page:.2g} s, ready in {ready:.2g} s, of which to load {min(loads):.2g} s"
        found = [Wait("page ready, less the load", max(0.0, ready - min(loads)), "s", 2.0, note)]
        found += [*drags(visitor, names, seconds), *contact_sheet(visitor, workspace), watching(visitor, workspace)]
    return found


def write_denoiser(workspace: Workspace, names: list[str]) -> None:
    """Give a workspace with an autoencoder a denoiser beside it; both have the config's networks, untrained."""
    config = workspace.config
    about = read_json(workspace.vae_run / "model/model.json")
    about |= {"denoiser": config.ldm.model.model_dump(mode="json")}
    about |= {"diffusion": config.ldm.diffusion.model_dump(mode="json")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = build_autoencoder(config.vae.model)
        denoiser = build_denoiser(config.ldm.model, autoencoder.latent_channels, [len(names)])
    save_model(workspace.ldm_run / "model", about, {"autoencoder": autoencoder, "denoiser": denoiser})


def seconds_to_load(model: Path, device: str | None) -> float:
    """Return how long Python, PyTorch and the model take to load, for whatever is then drawn."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LOADING, str(model), device or ""], check=True)  # noqa: S603
    return time.perf_counter() - began


def drags(visitor: Visitor, names: list[str], seconds: float) -> list[Wait]:
    """Return how long pictures take, and how much memory many drags leave behind."""
    deadline = time.perf_counter() + seconds
    fine = median(visitor.draw(names, is_fine=True)[1] for _ in range(FEW))
    coarse = [visitor.draw(names, is_fine=False)[0] for _ in range(FIRST_DRAGS)]
    before, count = held_bytes(visitor.pid), 0
    while count < DRAGS and (count < FIRST_DRAGS or time.perf_counter() < deadline):
        count += 1
        is_tenth = count % 10 == 0  # as who drags on before the fine picture is there
        first, _ = visitor.draw(names, is_fine=is_tenth, breaks_off=is_tenth)
        coarse += [] if is_tenth else [first]
    after = held_bytes(visitor.pid)
    grown = None if before is None or after is None else float(max(0, after - before))
    return [
        Wait("first coarse picture", median(coarse), "s", 0.25, f"{COARSE} steps"),
        Wait(FINE_PICTURE, fine, "s", 0.6, f"{FINE} steps, {FRAMES} frames on the way"),
        Wait("memory after drags", grown, "bytes", FLAT, f"{count:,} drags"),
    ]


def contact_sheet(visitor: Visitor, workspace: Workspace) -> list[Wait]:
    """Return how long a large set's first screen takes, and the memory at its peak beyond what was held."""
    entries = read_index(workspace.data / "index.jsonl")
    rows = (replace(entries[i % len(entries)], source=f"{i}/{entries[i % len(entries)].source}") for i in range(ROWS))
    write_index(workspace.data / "index.jsonl", rows)
    before, is_told = held_bytes(visitor.pid), forget_peak(visitor.pid)
    began = time.perf_counter()
    told = json.loads(visitor.get("/api/pictures"))
    answered = time.perf_counter() - began
    places = [(style, place) for style, (_, count) in enumerate(told["styles"]) for place in range(count)]
    for style, place in places[:FIRST_SCREEN]:
        visitor.get(f"/api/pictures/160/{told['version']}/{style}/{place}")
    seen = time.perf_counter() - began
    peak = held_bytes(visitor.pid, peak=True) if is_told else None
    more = None if before is None or peak is None else float(max(0, peak - before))
    note = f"{ROWS:,} pictures, {min(FIRST_SCREEN, len(places))} in {seen:.2g} s"
    return [Wait("contact sheet", answered, "s", 1.0, note), Wait("its memory", more, "bytes", 300e6)]


def watching(visitor: Visitor, workspace: Workspace) -> Wait:
    """Return which share of a core the answers take while a training is watched."""
    metrics = workspace.ldm_run / METRICS
    metrics.write_text("".join(map(_line_of, range(1, RUN_LINES))), encoding="utf-8")
    visitor.get("/api/watch")
    before = cpu_seconds(visitor.pid)
    for step in range(RUN_LINES, RUN_LINES + POLLS):
        with metrics.open("a", encoding="utf-8") as lines:
            lines.write(_line_of(step))
        visitor.get("/api/watch")
    after = cpu_seconds(visitor.pid)
    share = None if before is None or after is None else (after - before) / (POLLS * EVERY)
    return Wait("watching a training", share, "share", 0.01, f"of a core, asked each {EVERY:g} s")


def _line_of(step: int) -> str:
    values: dict[str, Any] = {"step": step, "loss": 1 / step, "plain_loss": 1 / step, "time": step, "lr": 1e-3}
    values |= {"images_seen": 16 * step, "grad_norm": 1.0, "data_seconds": 0.0, "images_per_second": 16.0}
    return json.dumps(values) + "\n"


def held_bytes(pid: int, *, peak: bool = False) -> int | None:
    """Return the memory that a process holds, or held at most; None where nobody tells."""
    kilobytes = read_field(Path(f"/proc/{pid}/status"), "VmHWM" if peak else "VmRSS")
    return None if kilobytes is None else 1024 * kilobytes


def forget_peak(pid: int) -> bool:
    """Let a process's peak begin anew, where the system can."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
        return True
    return False


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that a process has taken; None where nobody tells."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return None
