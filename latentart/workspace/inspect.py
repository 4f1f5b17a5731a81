"""`latentart info` and `latentart doctor`: what a model is, and what this machine can do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import torch

from latentart import __version__
from latentart.errors import ModelError, ResourceError
from latentart.model.folder import MODEL_FILE, load_model
from latentart.process.devices import Placement, resolve_precision
from latentart.process.host_memory import own_cores, total_bytes
from latentart.storage.download import find_fault
from latentart.storage.folders import recover_folder
from latentart.workspace.weights import list_weights


def describe_model(folder: Path) -> dict[str, Any]:
    """Return what a model folder holds; every file is verified on the way.

    Raises:
        ModelError: it is missing or damaged.
    """
    recover_folder(folder)
    if not (folder / MODEL_FILE).is_file():
        kind = "model" if folder.is_dir() else "model folder"
        msg = f"there is no {kind} at {folder}."
        raise ModelError(msg, f"Name a folder with a {MODEL_FILE}; a run has one, as runs/NAME/model.")
    model = load_model(folder, Placement(torch.device("cpu"), "fp32"))
    networks = {"autoencoder": model.autoencoder, "denoiser": model.denoiser}
    return {
        "folder": str(folder),
        "parameters": {
            name: sum(p.numel() for p in network.parameters()) for name, network in networks.items() if network
        },
        "latent_factor": model.autoencoder.factor,
        **model.about,
    }


def examine_machine(folder: Path) -> dict[str, Any]:
    """Return versions, devices, precision, memory, disk and optional parts, as `doctor` shows them."""
    packages = ("torch", "torchvision", "pillow", "einops", "lpips", "typer", "rich", "pydantic")
    devices = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    faults = {row["backbone"]: _fault_of(row) for row in list_weights()}
    return {
        "latentart": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": {name: importlib.metadata.version(name) for name in (*packages, "safetensors")},
        "extras": {
            name: _version(name)
            for name in ("simplejpeg", "pillow-heif", "diffusers", "onnxruntime", "tensorboard", "wandb")
        },
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [
            {
                "name": str(device),
                "model": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
                "precision": resolve_precision("auto", device),
                "memory_bytes": torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else total_bytes(),
            }
            for device in devices
        ],
        "disk_free_bytes": shutil.disk_usage(folder).free,
        "folder_is_writable": os.access(folder, os.W_OK),
        "lpips_weights": {name: not fault for name, fault in faults.items()},
        "lpips_faults": {name: fault for name, fault in faults.items() if fault},
        "advice": advise_on_threads(torch.get_num_threads(), usable_cores(), on_cpu=len(devices) == 1),
    }


def advise_on_threads(threads: int, cores: int, *, on_cpu: bool) -> str:
    """Return what to do where PyTorch's threads do not suit the cores that this process may use, or an empty text."""
    if threads > cores:
        return f"PyTorch takes {threads} threads for {cores} usable cores, and they wait: set OMP_NUM_THREADS={cores}."
    if on_cpu and threads < cores // 2:  # half of the cores may be second threads of the others
        return f"PyTorch takes {threads} of {cores} usable cores: OMP_NUM_THREADS={cores} may train faster."
    return ""


def usable_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may keep busy: its affinity and its container's share limit them."""
    cores = own_cores()
    try:
        quota, period = map(int, cpu_max.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no such system, or no limit
        return cores
    return max(1, min(cores, quota // period))


def _fault_of(row: dict[str, Any]) -> str:
    try:
        return find_fault(Path(row["path"]), row["bytes"], row["sha256"])
    except ResourceError as error:  # a home that this user may not read
        return f"cannot be read: {error.message}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
