"""Model folders, checkpoints and configs as a stranger may hand them on: each must end in one line and run nothing.

``python hostile_folders.py WORKSPACE`` with a trained workspace runs the set through the command line and prints the
score.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from latentart import cli

MODEL = "runs/ldm/model"
LDM = "runs/ldm/checkpoints/step-00000003"
GO_ON = ("train", "ldm", "ldm.training.steps=5", "--quiet")
GO_ON_VAE = ("train", "vae", "vae.stages.hires.epochs=2", "--quiet")
SECONDS = 60  # for one case; none needs more than a few
TRACE = "trace"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\n\u202e"


@dataclass(frozen=True)
class Case:
    """What is done to a workspace, the command that meets it, and the exit codes that are right."""

    name: str
    spoil: Callable[[Path], None]
    command: tuple[str, ...] = ("info", MODEL)
    codes: tuple[int, ...] = (6,)


@dataclass(frozen=True)
class Result:
    """How a case ended; ``fault`` says what is wrong with that, or is empty."""

    case: Case
    code: int
    line: str
    fault: str


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        """Be harmful."""
        return os.mkdir, (os.path.abspath(TRACE),)  # noqa: PTH100 - a plain text in the pickle


def seal(folder: Path) -> None:
    """Write a manifest that is right for what lies in a folder: only what is inside is wrong."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != "MANIFEST.json" and path.is_file() and not path.is_symlink():
            content = path.read_bytes() if path.stat().st_size < 2**30 else b""
            files[path.name] = {"size": path.stat().st_size, "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "MANIFEST.json").write_text(json.dumps({"format": 1, "files": files}))


def written(name: str, content: bytes, *, where: str = MODEL) -> Callable[[Path], None]:
    """Put bytes in a file's place, sealed."""

    def spoil(art: Path) -> None:
        (art / where / name).write_bytes(content)
        if name != "MANIFEST.json":
            seal(art / where)

    return spoil


def edited(keys: str, value: Any, *, file: str = "model.json", where: str = MODEL) -> Callable[[Path], None]:
    """Set one value in a JSON file, sealed; ``...`` removes it."""

    def spoil(art: Path) -> None:
        path = art / where / file
        tree = json.loads(path.read_text())
        *way, last = keys.split("/")
        node = tree
        for key in way:
            node = node[int(key)] if isinstance(node, list) else node[key]
        if value is ...:
            del node[last]
        else:
            node[last] = value
        path.write_text(json.dumps(tree))
        if file != "MANIFEST.json" and (art / where / "MANIFEST.json").exists():
            seal(art / where)

    return spoil


def tensors(change: Callable[[dict[str, Any]], None], *, file: str = "denoiser", where: str = MODEL) -> Any:
    """Change the tensors of a file, sealed."""

    def spoil(art: Path) -> None:
        path = art / where / f"{file}.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)
        seal(art / where)

    return spoil


def first(found: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the first tensor of fractions that has more than one dimension."""
    name = next(name for name in sorted(found) if found[name].ndim > 1 and found[name].is_floating_point())
    found[name] = change(found[name]).contiguous()


def with_header(header: bytes, *, claim: int | None = None, tail: bytes = b"") -> bytes:
    """Return a safetensors file with that header, which may claim another length."""
    return struct.pack("<Q", len(header) if claim is None else claim) + header + tail


def linked(name: str, target: str) -> Callable[[Path], None]:
    """Put a link out of the folder in a file's place."""

    def spoil(art: Path) -> None:
        path = art / MODEL / name
        if target == "itself":
            path.rename(art / name)
        path.unlink(missing_ok=True)
        path.symlink_to(art / name if target == "itself" else target)

    return spoil


def manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change the files that a manifest names."""

    def spoil(art: Path) -> None:
        path = art / MODEL / "MANIFEST.json"
        tree = json.loads(path.read_text())
        change(tree["files"])
        path.write_text(json.dumps(tree))

    return spoil


def holed(where: str, name: str) -> Callable[[Path], None]:
    """Let a file claim a hundred gigabytes that are a hole."""

    def spoil(art: Path) -> None:
        with (art / where / name).open("rb+") as file:
            file.truncate(100 * 2**30)
        seal(art / where)

    return spoil


def wide(art: Path) -> None:
    """Describe a network of terabytes, and let its file claim as much."""
    edited("autoencoder/widths", [2**18, 2**18, 2**18])(art)
    holed(MODEL, "autoencoder.safetensors")(art)


def piped(art: Path) -> None:
    """Put a pipe nobody writes into in a file's place."""
    (art / MODEL / "denoiser.safetensors").unlink()
    os.mkfifo(art / MODEL / "denoiser.safetensors")


def config(change: Any) -> Callable[[Path], None]:
    """Replace the config, or set one path of it."""

    def spoil(art: Path) -> None:
        if isinstance(change, bytes):
            (art / "latentart.json").write_bytes(change)
        else:
            edited(*change, file="latentart.json", where=".")(art)

    return spoil


NAME = {"size": 0, "sha256": "0" * 64}
DEEP = b"[" * 100_000
NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED]


def model_cases() -> Iterator[Case]:
    """Yield what may be wrong with a model folder."""
    for name in ("autoencoder.safetensors", "denoiser.safetensors", "model.json"):
        buffer = io.BytesIO()
        torch.save({"a": Bomb()}, buffer)
        yield Case(f"{name} is a torch pickle", written(name, buffer.getvalue()))
        yield Case(f"{name} is a plain pickle", written(name, pickle.dumps(Bomb())))
        yield Case(f"{name} is empty", written(name, b""))
        yield Case(f"{name} is a link to itself elsewhere", linked(name, "itself"))
        yield Case(f"{name} is a link to /dev/zero", linked(name, "/dev/zero"))
        yield Case(f"{name} is a link to nothing", linked(name, "nowhere"))
    file = "denoiser.safetensors"
    yield Case("header claims 2^63", written(file, with_header(b"{}", claim=2**63 - 1)))
    yield Case("header claims 1 GB", written(file, with_header(b"{}", claim=2**30)))
    yield Case("header is no JSON", written(file, with_header(b"\xff" * 64)))
    yield Case("header is deep", written(file, with_header(DEEP)))
    far = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999999]}}'
    yield Case("offsets lie outside", written(file, with_header(far, tail=b"\0" * 16)))
    huge = b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,16]}}'
    yield Case("shape overflows", written(file, with_header(huge, tail=b"\0" * 16)))
    odd = b'{"a":{"dtype":"Q99","shape":[4],"data_offsets":[0,16]}}'
    yield Case("unknown dtype", written(file, with_header(odd, tail=b"\0" * 16)))
    yield Case("denoiser is a hole of 100 GB", holed(MODEL, file))
    yield Case("denoiser is a pipe", piped)
    yield Case("a shape is wrong", tensors(lambda found: first(found, lambda _: torch.zeros(1, 2, 3))))
    yield Case("a tensor is too many", tensors(lambda found: found.update({ESCAPES: torch.zeros(1)})))
    yield Case("a tensor is missing", tensors(lambda found: first(found, lambda t: t) or found.pop(min(found))))
    yield Case("whole numbers as weights", tensors(lambda found: first(found, lambda t: t.long())))
    yield Case("NaN in the denoiser", tensors(lambda found: first(found, lambda t: t * float("nan"))))
    inf = tensors(lambda found: first(found, lambda t: t + float("inf")), file="autoencoder")
    yield Case("infinity in the autoencoder", inf)
    for name in ("../../secret", "/etc/passwd", "a\0b", "a\nb", ESCAPES, "", ".", "x" * 300, "🙂"):
        yield Case(f"manifest names {name[:12]!r}", manifest(lambda files, name=name: files.update({name: NAME})))
    yield Case("manifest names numbers", manifest(lambda files: files.update({"model.json": 3})))
    yield Case("manifest has a long size", manifest(lambda files: files["model.json"].update(size="9" * 10**6)))
    yield Case("manifest has a negative size", manifest(lambda files: files["model.json"].update(size=-1)))
    yield Case("manifest has a checksum that is none", manifest(lambda files: files["model.json"].update(sha256=[])))
    yield Case("manifest names itself", manifest(lambda files: files.update({"MANIFEST.json": NAME})))
    for name, content in json_bombs():
        yield Case(f"MANIFEST.json: {name}", written("MANIFEST.json", content))
        yield Case(f"model.json: {name}", written("model.json", content))
    yield from description_cases()


def json_bombs() -> Iterator[tuple[str, bytes]]:
    """Yield JSON that is none, or more than it seems."""
    yield "deep", DEEP
    yield "deep objects", b'{"format":' * 5000 + b"1" + b"}" * 5000
    yield "1e999", b'{"format": 1e999}'
    yield "NaN", b'{"format": NaN}'
    yield "a million digits", b'{"format": ' + b"9" * 10**6 + b"}"
    yield "a key twice", b'{"format": 1, "format": 1}'
    yield "20 MB", b"[" + b"0," * (10 * 2**20) + b"0]"
    yield "a list", b"[]"
    yield "null", b"null"
    yield "no text", b"\xff\xfe"


def description_cases() -> Iterator[Case]:
    """Yield descriptions of models that cannot be."""
    for keys, values in {
        "autoencoder/widths": ([2**31 - 1] * 3, [65536] * 3, [], "wide", [8, 8, -16], [8.5, 8, 16], [1e308, 8, 16]),
        "autoencoder/blocks_per_stage": (2**31 - 1, 10**30, 0, "two"),
        "autoencoder/latent_channels": (2**31 - 1, 0, -4),
        "autoencoder/attention": (["__import__('os')"] * 3, None),
        "autoencoder/extra": ({"__class__": "os.system"},),
        "denoiser/kind": ("__import__('os').mkdir('trace')", None),
        "denoiser/embedding_channels": (2**40, 3),
        "denoiser/widths": ([2**31 - 1, 2**31 - 1], [64, 64]),
        "denoiser/head_channels": (2**31 - 1,),
        "denoiser/size": ("L", "XXL"),
        "denoiser": ([], 3, "unet"),
        "diffusion/num_steps": (2**31, 1e308, -1),
        "diffusion/schedule": ({"kind": "cosine", "offset": 1e308}, {"kind": "x"}, []),
        "diffusion": (None, []),
        "latents/std": ([0.0] * 4, [-1.0] * 4, [1.0] * 3, ["1"] * 4, [10**400] * 4, [1e308] * 4, None),
        "latents/mean": ([[]] * 4, [True] * 4),
        "latents": (None, ...),
        "style_names": ([], "abc", [1, 2, 3], ["a"] * 3, ["x" * 10**6, "b", "c"], [str(i) for i in range(10**6)], [[]]),
        "labels": ({}, [3], [{"name": "a"}], [{"name": "a", "values": [1]}], [{"name": [], "values": ["b"]}]),
        "resolution": (0, -1, 13, 2**40, "64", 1.5, True),
        "uses_tanh": ("no", 1),
        "training": ([], {"ldm": 3}, {"ldm": {"step": "3"}}, {"ldm": {"step": -1}}),
        "format": (2, 0, "1", None, True, 10**30),
        "autoencoder": (..., None, NESTED),
    }.items():
        for value in values:
            shown = "gone" if value is ... else repr(value)[:40]
            yield Case(f"model.json: {keys} is {shown}", edited(keys, value))
    yield Case("a network of terabytes beside a file as large", wide)
    yield Case("sample meets the same", edited("latents/std", [0.0] * 4), ("sample", "-s", "Cubism", "--model", MODEL))


def checkpoint_cases() -> Iterator[Case]:
    """Yield what may be wrong with a checkpoint that a training goes on from."""
    for name in ("denoiser", "ema", "optimizer"):
        yield Case(f"{name} is a pickle", written(f"{name}.safetensors", pickle.dumps(Bomb()), where=LDM), GO_ON)
        nan = tensors(lambda found: first(found, lambda t: t * float("nan")), file=name, where=LDM)
        yield Case(f"NaN in {name}", nan, GO_ON)
        odd = tensors(lambda found: first(found, lambda _: torch.zeros(7, 7)), file=name, where=LDM)
        yield Case(f"a shape of {name}", odd, GO_ON)
    yield Case("an optimizer with other state", tensors(rename_state, file="optimizer", where=LDM), GO_ON)
    yield Case("a hole of 100 GB", holed(LDM, "ema.safetensors"), GO_ON)
    yield Case("a file too many", written("more.safetensors", with_header(b"{}"), where=LDM), GO_ON)
    for keys, values in {
        "step": (-1, 10**30, "3", None, True),
        "state": ([], None, NESTED),
        "state/step": (4, "3", 10**30),
        "state/optimizers": (..., [], {}),
        "state/optimizers/optimizer": ([], {}, {"param_groups": [], "others": {}}),
        "state/optimizers/optimizer/others": ({"0.exp_avg": "x"}, {"99999.step": 1}, {"a.b": 1}, [], {"0.x": 1}),
        "state/optimizers/numbers": ({"skipped": "x"}, {"rate_factor": -1.0}, {"log_mean": []}, [], {"seen": True}),
        "state/data": (..., [], {}, {"style_names": 3}, {"style_names": [[]], "num_pictures": 1, "fingerprint": ""}),
        "state/data/labels": (3, [3]),
        "state/config": (..., [], 3),
    }.items():
        for value in values:
            shown = "gone" if value is ... else repr(value)[:40]
            yield Case(f"state.json: {keys} is {shown}", edited(keys, value, file="state.json", where=LDM), GO_ON)
    for name, content in json_bombs():
        yield Case(f"state.json: {name}", written("state.json", content, where=LDM), GO_ON)
    vae = "runs/vae/checkpoints"
    for keys, values in {
        "state/stage": (3, None),
        "state/stage_step": (-5, "1", 10**9),
        "state/stages_done": ([], {"l1": "x"}, {"l1": -1}, 3),
        "state/optimizers/adversarial_schedule": ({"seen": "x"}, [], {"error": None}),
        "state/optimizers/discriminator_optimizer": (3, {}),
    }.items():
        for value in values:
            yield Case(
                f"vae state.json: {keys} is {value!r}", newest(vae, edited, keys, value, file="state.json"), GO_ON_VAE
            )


def newest(parent: str, make: Any, *given: Any, **named: Any) -> Callable[[Path], None]:
    """Spoil the newest checkpoint of the autoencoder, amid its last stage, and make it the only one."""

    def spoil(art: Path) -> None:
        *older, last = sorted((art / parent).glob("step-*"))
        for folder in older:
            shutil.rmtree(folder)
        edited("state/stages_done/hires", ..., file="state.json", where=str(last.relative_to(art)))(art)
        make(*given, **named, where=str(last.relative_to(art)))(art)

    return spoil


def rename_state(found: dict[str, Any]) -> None:
    """Call a moment something else."""
    name = next(name for name in sorted(found) if name.endswith("exp_avg"))
    found[f"{name}_of_old"] = found.pop(name)


def config_cases() -> Iterator[Case]:
    """Yield configs that are none."""
    validate = ("config", "validate")
    for name, content in json_bombs():
        yield Case(f"config: {name}", config(content), validate, (3,))
    for keys, values in {
        "__import__('os').mkdir('trace')": (1,),
        "$schema": (3, []),
        "preset": ("../../etc", {"a": 1}, None),
        "seed": (1e308, -1, 2**70, True, "__import__('os')"),
        "vae/stages": ({}, [], [1], NESTED, "all"),
        "vae/model/widths": ([1e308], [2**31], [10**30], {"__class__": 1}),
        "vae/model/blocks_per_stage": (10**9,),
        "ldm/training/optimizer/lr": (1e400, "1e-4", -1.0),
        "ldm/model/kind": ("os.system", None),
        "ldm": (NESTED, 3, None),
        "data": (ESCAPES, {"raw": 3}, {ESCAPES: 1}),
        "tracking": ({"project": ESCAPES}, {"project": ""}, {"wandb": "yes"}),
    }.items():
        for value in values:
            yield Case(f"config: {keys} is {repr(value)[:40]}", config((keys, value)), validate, (3,))


def all_cases() -> list[Case]:
    """Return the whole set."""
    return [*model_cases(), *checkpoint_cases(), *config_cases()]


def run_case(case: Case, workspace: Path, folder: Path) -> Result:
    """Spoil a copy of a workspace in ``folder``, meet it with the case's command, and judge how that ends."""
    art = folder / "art"
    shutil.copytree(workspace, art, symlinks=True)
    for older in sorted((art / "runs/ldm/checkpoints").glob("step-*"))[:-1]:
        shutil.rmtree(older)
    with contextlib.chdir(art):
        case.spoil(Path())
        code, out, err = run_command(case.command)
        has_run = Path(TRACE).exists()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    faults = {
        "code ran": has_run,
        f"exit code {code}": code not in case.codes,
        "no single line": len(lines) != 1 or lines != err.splitlines()[-1:],
        "a traceback": "Traceback" in err,
        f"a line of {len(lines[0]) if lines else 0}": bool(lines) and len(lines[0]) > 1000,
        "control codes on the screen": any(not c.isprintable() and c != "\n" for c in out + err),
    }
    shutil.rmtree(art)
    return Result(
        case, code, lines[-1] if lines else err[-300:], ", ".join(name for name, bad in faults.items() if bad)
    )


def run_command(words: tuple[str, ...]) -> tuple[int, str, str]:
    """Run `latentart` in this process; return its exit code, 1 for a traceback, and what it wrote."""
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    handlers, level, argv = root.handlers[:], root.level, sys.argv
    sys.argv = ["latentart", *words]
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except Exception as error:
        code = 1
        err.write(f"Traceback: {type(error).__name__}: {error}\n")
    finally:
        signal.alarm(0)
        sys.argv, root.handlers[:] = argv, handlers
        root.setLevel(level)
    return code, out.getvalue(), err.getvalue()


def main() -> None:
    """Run the set and print what was not refused, then the score."""
    torch.set_num_threads(1)
    workspace, is_loud = Path(sys.argv[1]).resolve(), "-v" in sys.argv
    results = []
    for case in all_cases():
        with tempfile.TemporaryDirectory() as folder:
            result = run_case(case, workspace, Path(folder))
        results.append(result)
        if result.fault or is_loud:
            sys.stdout.write(f"{result.fault or 'refused'}: {case.name}: {result.line}\n")
    good = [result for result in results if not result.fault]
    ran = [result for result in results if "code ran" in result.fault]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    sys.stdout.write(f"{len(good)} of {len(results)} refused, {len(ran)} code executions, peak {peak / 1e6:.0f} MB\n")


if __name__ == "__main__":
    main()
