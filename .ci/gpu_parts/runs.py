"""Part 1: does everything run there? The commands as a user types them, and what they should agree on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from latentart.layout import Workspace
from latentart.model.folder import load_model, require_denoiser
from latentart.model.generate import SamplerSettings
from latentart.sampling.sample import Studio
from latentart.training.train_ldm import train_ldm
from part import ONE_STAGE, Part, distance, environment, read_lines

COMPILED = ("vae.run.compile=true", "ldm.training.run.compile=true")
WORKERS = "data.workers=2"  # more take longer to start than a quick run needs them
QUICK = ("ldm.training.micro_batch=auto", "ldm.training.run.log_every=1")
PLAN_SECONDS, REHEARSED_PLAN_SECONDS = 12, 1


class Run:
    """A command in a process of its own, beside others; its output is in a file."""

    def __init__(self, part: Part, name: str, words: Sequence[str], folder: Path) -> None:
        self.name, self.log, self.began = name, part.work / f"{name}.log", time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            command = part.command(*words)
            self.process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, env=environment())

    def end(self, seconds: float, expected: int = 0) -> float:
        """Wait for it and return how long it took.

        Raises:
            RuntimeError: it ends otherwise than expected, or not in time.
        """
        try:
            code = self.process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = None
        if code != expected:
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-20:]
            print(f"--- {self.name}", *tail, sep="\n", flush=True)
            raise RuntimeError(f"{self.name} ended with {code}: {tail[-1] if tail else 'no word'}")
        return time.monotonic() - self.began


def main() -> None:
    """Run all of it."""
    part = Part()
    more = (ONE_STAGE,) if part.rehearses else (WORKERS,)
    demo = Run(part, "demo", ("demo", "demo", "--quick", "--quiet", *QUICK, *more), part.work)
    compiled = None
    if not part.rehearses:  # compiling for a CPU takes longer than the rest together
        words = ("demo", "compiled", "--quick", "--quiet", *QUICK, WORKERS, ONE_STAGE, *COMPILED)
        compiled = Run(part, "compiled-demo", words, part.work)
    works: dict[str, Run] = {}
    with part.trying("demo --quick"):
        check_demo(part, demo)
        works = start_trainings(part)
    with part.trying("in a batch and alone"):
        check_batch(part)
    with part.trying("resume after SIGTERM"):
        check_resume(part, works)
    with part.trying("micro_batch=auto"):
        check_micro_batch(part)
    with part.trying("plan"):
        check_plan(part)
    if compiled is not None:
        with part.trying("demo --quick, compiled"):
            took = compiled.end(part.left() - 1)
            part.figure("demo --quick, compiled", f"{took:.0f} s", "works", is_met=True, numbers={"seconds": took})


def check_demo(part: Part, run: Run) -> None:
    """The whole path ran, in the precision and layout that a GPU should get."""
    took = run.end(part.left() - 20)
    log = (part.work / "demo/runs/ldm/log.txt").read_text(encoding="utf-8")
    precision = "bf16" if "bf16" in log else "fp32"
    wanted = part.placement.precision if part.rehearses else "bf16"
    part.figure(
        "demo --quick", f"{took:.0f} s, {precision}", wanted, is_met=precision == wanted, numbers={"seconds": took}
    )
    part.picture(part.work / "demo/samples/all_eta0_8x8.png", "demo")


def start_trainings(part: Part) -> dict[str, Run]:
    """Begin the same training of a denoiser three times, side by side; the third will be stopped on its way."""
    works = {}
    for name in ("plain", "stopped") if part.rehearses else ("plain", "again", "stopped"):
        folder = copy_workspace(part, name)
        works[name] = Run(part, name, ("train", "ldm", "--quiet", *settings_of(part)), folder)
    return works


def copy_workspace(part: Part, name: str) -> Path:
    """Return a copy of the demo's workspace in which no denoiser is trained."""
    folder = part.work / name
    shutil.copytree(part.work / "demo", folder, ignore=shutil.ignore_patterns("ldm", "samples", "raw"))
    (folder / "raw").symlink_to(part.work / "demo/raw")
    return folder


def check_batch(part: Part) -> None:
    """A picture is the same whether drawn alone or among others; on a GPU but for the order of sums."""
    folder = part.work / "demo/runs/ldm/model"
    model = load_model(folder, part.placement)
    denoiser, _ = require_denoiser(model, folder)
    generator = Studio(model, denoiser, part.placement, None).generator(compiles=False)
    channels = model.autoencoder.decoder.conv_out.weight.is_contiguous(memory_format=torch.channels_last)
    count, settings = 8, SamplerSettings(steps=4 if part.rehearses else 20, batch_size=8)
    together = generator([0] * count, range(count), settings).float()
    alone = torch.cat([generator([0], [seed], settings) for seed in range(count)]).float()
    difference = (together - alone).abs()
    most, mean = float(difference.max()), float(difference.mean())
    value = f"{mean:.3f} of 255 levels on the average, {most:.0f} at most; channels last: {channels}"
    numbers = {"mean levels": mean, "most levels": most}
    part.figure("in a batch and alone", value, "at most 1 on the average", is_met=mean <= 1, numbers=numbers)


def check_resume(part: Part, works: dict[str, Run]) -> None:
    """A run that was stopped and goes on ends where others end, as far as these agree with each other."""
    stopped = works["stopped"]
    metrics = part.work / "stopped/runs/ldm/metrics.jsonl"
    wanted = 4 if part.rehearses else 100
    while stopped.process.poll() is None and part.left() > 25 and last_step(metrics) < wanted:
        time.sleep(0.02)
    at = last_step(metrics)
    stopped.process.send_signal(signal.SIGTERM)
    stopped.end(part.left() - 20, expected=128 + signal.SIGTERM)
    words = ("train", "ldm", "--quiet", *settings_of(part))
    Run(part, "stopped", words, part.work / "stopped").end(part.left() - 10)
    for name in works.keys() - {"stopped"}:
        works[name].end(part.left() - 8)
    resumed = distance(part.work / "plain", part.work / "stopped")
    twice = distance(part.work / "plain", part.work / "again") if "again" in works else 0.0
    limit = max(3 * twice, 1e-4)
    value = f"stopped at step {at}, weights {resumed:.1e} from a plain run's; two plain runs {twice:.1e}"
    numbers = {"resumed": resumed, "twice": twice}
    part.figure("resume after SIGTERM", value, f"at most {limit:.1e}", is_met=resumed <= limit, numbers=numbers)


def settings_of(part: Part) -> tuple[str, ...]:
    """Return the settings of the three trainings."""
    return (f"ldm.training.steps={12 if part.rehearses else 300}", "ldm.training.run.log_every=1")


def last_step(metrics: Path) -> int:
    """Return the last step in a log of numbers."""
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["step"])
    except (OSError, IndexError, ValueError):
        return 0


def check_micro_batch(part: Part) -> None:
    """A batch that a GPU has no room for goes through in parts; most of the memory is taken away for it."""
    batch, steps = (16, 2) if part.rehearses else (4096, 3)
    settings = [f"ldm.training.batch_size={batch}", f"ldm.training.steps={steps}", "ldm.training.micro_batch=auto"]
    workspace = Workspace.open(copy_workspace(part, "parts") / "latentart.json", settings)
    if part.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(4e9 / torch.cuda.mem_get_info()[1])
    try:
        train_ldm(workspace, part.placement, quiet=True)
    finally:
        if part.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
    said = [
        line for line in (workspace.ldm_run / "log.txt").read_text(encoding="utf-8").splitlines() if "parts" in line
    ]
    size = int(said[0].rpartition(" ")[2])
    part.figure(
        "micro_batch=auto", f"{batch} in parts of {size}, {part.peak():.2f} of 4 GB", "fewer", is_met=size < batch
    )


def check_plan(part: Part) -> None:
    """What `plan` says beforehand of the denoiser's time and memory, beside what then happens."""
    steps = 8 if part.rehearses else 600
    words = [f"ldm.training.steps={steps}", "ldm.training.run.preview_every=100000"]
    folder = copy_workspace(part, "planned")
    seconds = REHEARSED_PLAN_SECONDS if part.rehearses else PLAN_SECONDS
    command = part.command("plan", "--json", "--seconds", str(seconds), *words)
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), timeout=part.left())
    print(found.stderr)
    phase = next(one for one in json.loads(found.stdout)["phases"] if one["name"] == "ldm")
    workspace = Workspace.open(folder / "latentart.json", words)
    part.peak()
    began = time.monotonic()
    train_ldm(workspace, part.placement, quiet=True)
    took, memory = time.monotonic() - began, part.peak()
    ratio, planned = phase["seconds"] / took, (phase["memory"] or 0) / 1e9
    rate = read_lines(workspace.ldm_run / "metrics.jsonl")[-2].get("images_per_second")
    value = f"{phase['seconds']:.1f} s and {planned:.2f} GB, then {took:.1f} s and {memory:.2f} GB"
    numbers = {"planned seconds": phase["seconds"], "seconds": took, "planned GB": planned, "GB": memory}
    numbers |= {"images/s": rate}
    part.figure("plan, and what happens", value, "0.7 to 1.4 of the time", is_met=0.7 <= ratio <= 1.4, numbers=numbers)


if __name__ == "__main__":
    main()
