"""Part 5: a process that `torchrun` starts trains as a plain one does, also where all goes over NCCL.

One process needs no other, so latentart leaves NCCL out. So this file is also what `torchrun` starts: it meets itself,
then trains as any of many processes does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from latentart.layout import Workspace
from latentart.process.devices import Placement
from latentart.training.encode import encode
from latentart.training.train_ldm import train_ldm
from latentart.training.train_vae import train_vae
from latentart.workspace.clean_data import clean_data
from latentart.workspace.demo import QUICK, draw_raw
from latentart.workspace.init import init_workspace
from part import ONE_STAGE, Part, distance, environment

MEETS = "LATENTART_GPU_MEETS"


def main() -> None:
    """Train the same denoiser plainly and twice under torchrun, and compare the weights."""
    part = Part()
    steps = 6 if part.rehearses else 60
    settings = (
        *QUICK,
        ONE_STAGE,
        f"ldm.training.steps={steps}",
        "data.workers=0" if part.rehearses else "data.workers=1",
    )
    workspace = init_workspace(part.work / "plain", "demo", None, settings)
    draw_raw(workspace, 4)
    clean_data(workspace, quiet=True)
    train_vae(workspace, "all", part.placement, quiet=True)
    encode(workspace, part.placement, quiet=True)
    for name in ("one", "met", "again"):
        shutil.copytree(workspace.folder, part.work / name)
    train_ldm(workspace, part.placement, quiet=True)
    train_ldm(Workspace.open(part.work / "again/latentart.json"), part.placement, quiet=True)
    twice = distance(part.work / "plain", part.work / "again")
    limit = max(3 * twice, 1e-5)
    backend = "gloo" if part.rehearses else "NCCL"
    command = ("-m", "latentart", "train", "ldm", "--quiet", "--device", part.device.type)
    started = {
        "torchrun with one process": start(part, "one", command),
        f"the same over {backend}": start(part, "met", (__file__,)),
    }
    for name, (folder, process) in started.items():
        with part.trying(name):
            output, _ = process.communicate(timeout=max(1.0, part.left() - 2))
            print(output)
            if process.returncode:
                raise RuntimeError(f"torchrun ended with {process.returncode}")
            found = distance(part.work / "plain", folder)
            value = f"weights {found:.1e} from the plain run's; two plain runs {twice:.1e}"
            bar = f"at most {limit:.1e}"
            part.figure(name, value, bar, is_met=found <= limit, numbers={"distance": found, "twice": twice})


def start(part: Part, name: str, command: tuple[str, ...]) -> tuple[Path, subprocess.Popen[str]]:
    """Start torchrun with one process in a workspace."""
    folder = part.work / name
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", *command]
    alone = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}  # the machine may be without a network
    given = alone | environment() | {MEETS: part.device.type}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return folder, subprocess.Popen(launch, cwd=folder, env=given, **pipe)  # type: ignore[call-overload]


def train_met() -> None:
    """Train in this folder after a meeting with nobody, so that gradients are exchanged as among many."""
    on_cuda = os.environ[MEETS] == "cuda"
    device = torch.device("cuda:0" if on_cuda else "cpu")
    if on_cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", device_id=device if on_cuda else None)
    try:
        train_ldm(Workspace.open(), Placement(device), quiet=True)
        dist.barrier()
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    train_met() if "LOCAL_RANK" in os.environ else main()
