"""`latentart export web`: a page for any web host, on which visitors draw with a model in their own browser.

Launch: ``latentart export web DIR``.
"""

from __future__ import annotations

import gzip
import html
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentart.core.networks.conditioning import Denoiser
from latentart.core.randomness import normal_for
from latentart.errors import UsageError
from latentart.export.onnx import describe, networks_of, require_ours, write_measured
from latentart.model.folder import Model, load_model, require_denoiser, weights_hash
from latentart.model.generate import SamplerSettings
from latentart.model.onnx import require_onnx
from latentart.process.devices import Placement
from latentart.sampling.settings import NOT_DESCRIBED
from latentart.storage.folders import commit_folder, read_json, write_json_atomic
from latentart.storage.json_files import file_errors

ABOUT = "model.json"
HERE = Path(__file__).parent
PAGE = ("index.html", "noise.js", "png.js", "web.css", "web.js", "worker.js")
OF_THE_STUDIO = ("mark.svg", "plane.js", "studio.css", "ui.js")
VERSION = "1.30.0"  # of onnxruntime-web; the hashes are of its files on the npm registry
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"


@dataclass(frozen=True)
class Engine:
    """A build of onnxruntime-web: its script and its binary in ``dist``, the hashes of both, the binary's size."""

    script: str
    binary: str
    script_hash: str
    binary_hash: str
    num_bytes: int


ENGINES = {
    "wasm": Engine(
        "ort.wasm.bundle.min.mjs",
        "ort-wasm-simd-threaded.wasm",
        "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
        "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
        14_239_897,
    ),
    "webgpu": Engine(
        "ort.webgpu.bundle.min.mjs",
        "ort-wasm-simd-threaded.asyncify.wasm",
        "sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f",
        "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR",
        26_781_914,
    ),
}


@dataclass(frozen=True)
class WebExport:
    """The folder, its size, and the largest difference of each network's answers from PyTorch's."""

    folder: Path
    num_bytes: int
    differences: dict[str, float]


def export_web(
    model_folder: Path, folder: Path, *, runtime: Path | None = None, is_half: bool = False, title: str = "Draw"
) -> WebExport:
    """Write the page, a model's networks and what they need; an earlier export there is replaced.

    ``runtime`` is an unpacked onnxruntime-web, whose files are copied; without it the page names them on their CDN.

    Raises:
        DownloadError: onnx or onnxruntime is not installed.
        ModelError: there is no model, or it has no denoiser.
        UsageError: the folder holds something else, or ``runtime`` is no onnxruntime-web.
        ResourceError: the folder cannot be written.
    """
    require_onnx()
    require_ours(folder, ABOUT)
    if runtime is not None:
        _require_runtime(runtime)
    model = load_model(model_folder, Placement(torch.device("cpu"), "fp32"))
    denoiser, task = require_denoiser(model, model_folder)
    differences: dict[str, float] = {}

    def write(temporary: Path) -> None:
        networks = networks_of(model, denoiser, task)
        paths = {name: temporary / f"{name}.onnx" for name in ("denoiser", "decoder")}
        for name, path in paths.items():
            differences[name] = write_measured(*networks[name], path, is_half=is_half)
        about = describe(model, task)
        about |= {
            "bytes": sum(path.stat().st_size for path in paths.values()),
            "runtime": _name_runtime() if runtime is None else _copy_runtime(runtime, temporary),
            "settings": _settings_of(model, model_folder),
            "check": _first_prediction(denoiser, about["latents"]["shape"]),
        }
        write_json_atomic(temporary / ABOUT, about)
        _copy_page(temporary, {"policy": policy_of(None if runtime else CDN), "title": title})

    commit_folder(folder, write, replace=True)
    return WebExport(folder, sum(path.stat().st_size for path in folder.iterdir()), differences)


def policy_of(cdn: str | None) -> str:
    """Return what the page may load: its own files, and of another host only what lies under ``cdn``.

    A runtime from there is code whose hash was checked, which a script can only start as a blob.
    """
    code, other = ("", "") if cdn is None else (" blob:", f" {cdn}")
    return (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{code}; worker-src 'self' blob:; style-src 'self'; "
        f"img-src 'self' blob: data:; connect-src 'self'{other}; base-uri 'none'; form-action 'none'"
    )


def _copy_page(folder: Path, words: Mapping[str, str]) -> None:
    for name in PAGE:
        shutil.copyfile(HERE / "page" / name, folder / name)
    for name in OF_THE_STUDIO:
        shutil.copyfile(HERE.parent / "studio" / "page" / name, folder / name)
    text = (folder / "index.html").read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(f"{{{word}}}", html.escape(value))
    (folder / "index.html").write_text(text, encoding="utf-8")


def _require_runtime(runtime: Path) -> None:
    """Refuse a folder that is no onnxruntime-web.

    Raises:
        UsageError: so it is.
    """
    missing = [
        name for one in ENGINES.values() for name in (one.script, one.binary) if not (runtime / "dist" / name).is_file()
    ]
    if missing:
        msg = f"{runtime} is no unpacked onnxruntime-web: {runtime / 'dist' / missing[0]} is missing."
        raise UsageError(msg, f"Run `npm pack onnxruntime-web@{VERSION}`, unpack that, and name its folder `package`.")


def _copy_runtime(runtime: Path, folder: Path) -> dict[str, Any]:
    """Copy each engine, under endings that every web host knows, the binary packed, and say what is where."""
    found: dict[str, Any] = {"version": read_json(runtime / "package.json").get("version")}
    for name, engine in ENGINES.items():
        script, binary = folder / f"ort.{name}.js", folder / f"ort.{name}.wasm.gz"
        with file_errors("read", runtime):
            shutil.copyfile(runtime / "dist" / engine.script, script)
            binary.write_bytes(gzip.compress((runtime / "dist" / engine.binary).read_bytes(), mtime=0))
        size = binary.stat().st_size
        found[name] = {"script": {"address": script.name}, "binary": {"address": binary.name}, "bytes": size}
    return found


def _name_runtime() -> dict[str, Any]:
    """Say where each engine is on its public host, and what the hash of each file is."""
    found: dict[str, Any] = {"version": VERSION}
    for name, engine in ENGINES.items():
        script = {"address": CDN + engine.script, "integrity": engine.script_hash}
        binary = {"address": CDN + engine.binary, "integrity": engine.binary_hash}
        found[name] = {"script": script, "binary": binary, "bytes": engine.num_bytes}
    return found


@torch.no_grad()
def _first_prediction(denoiser: Denoiser, shape: tuple[int, int, int]) -> list[float]:
    """Return the beginning of what is predicted of no style from the noise of seed 0, for a browser to compare."""
    labels = denoiser.style_embedding.weights_of(torch.tensor([denoiser.style_embedding.nulls[0]]))
    found: Tensor = denoiser(normal_for(0, "x_T", [0], shape), torch.tensor([0]), labels)
    return found.flatten()[:16].tolist()


def _settings_of(model: Model, folder: Path) -> dict[str, Any]:
    """Return the settings that a picture carries beside its own, so that `sample --from` draws it again."""
    settings = {name: value for name, value in asdict(SamplerSettings()).items() if name not in NOT_DESCRIBED}
    if model.task is None or SamplerSettings().noise_limit_for(model.task.target) is None:
        del settings["noise_limit"]
    hashes = {name: weights_hash(folder, name) for name in ("autoencoder", "denoiser")}
    return {name: value for name, value in settings.items() if value is not None} | hashes
