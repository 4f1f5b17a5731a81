"""`weights import`: what fits becomes a model that samples, what does not is said, and code in a file never runs."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentart.errors import ModelError
from latentart.model.weights import foreign
from latentart.model.weights.foreign import load_pickled

Run = Callable[..., Any]


@pytest.fixture
def away(workspace: Path) -> Path:
    """Move the trained runs away and return where they are."""
    (workspace / "runs").rename(workspace / "former")
    return workspace / "former"


def weights_of(former: Path, kind: str, part: str) -> dict[str, Tensor]:
    """Return a trained network's tensors."""
    return load_file(former / kind / "model" / f"{part}.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    """Tell whether two files hold the same tensors, bit for bit."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_both_networks_come_in_and_sample(run: Run, workspace: Path, away: Path) -> None:
    """Wrapped as trainers wrap them: the pictures are those of the model that the weights are from, bit for bit."""
    autoencoder = {f"module.{name}": value for name, value in weights_of(away, "vae", "autoencoder").items()}
    torch.save({"epoch": 3, "state_dict": OrderedDict(autoencoder), "lr": [0.1]}, workspace / "vae.ckpt")
    denoiser = {f"_orig_mod.{name}": value.double() for name, value in weights_of(away, "ldm", "denoiser").items()}
    noise = {name: torch.zeros_like(value) for name, value in denoiser.items()}
    torch.save({"training": {"model": noise, "ema_model": denoiser}}, workspace / "ldm.pt")

    first = run(workspace, "weights", "import", "vae.ckpt", "--as", "autoencoder")
    assert (first.code, first.out) == (0, "runs/vae/model\n"), first.err
    assert "all of them fit. Next: latentart train ldm" in first.err
    assert run(workspace, "encode").code == 0
    second = run(workspace, "weights", "import", "ldm.pt", "--as", "denoiser", "--json")
    assert second.code == 0, second.err

    found = json.loads(second.out)
    assert (found["key"], found["prefix"], found["model"]) == ("training.ema_model", "", "runs/ldm/model")
    assert "in this order: Cubism, High_Renaissance, Minimalism" in second.err
    assert same_weights(workspace / "runs/ldm/model/denoiser.safetensors", away / "ldm/model/denoiser.safetensors")
    assert run(workspace, "sample", "-s", "Cubism", "--grid", "1x2", "--out", "ours.png").code == 0
    ours, theirs = (json.loads((folder / "ldm/model/model.json").read_text()) for folder in (workspace / "runs", away))
    assert {**ours, "training": None, "latents": None} == {**theirs, "training": None, "latents": None}
    assert (ours["training"]["ldm"]["step"], ours["training"]["ldm"]["imported"]) == (0, "ldm.pt")
    assert len(ours["training"]["ldm"]["sha256"]) == 64
    assert "imported ldm.pt" in run(workspace, "info").out


def test_safetensors_and_other_parts_beside(run: Run, workspace: Path, away: Path) -> None:
    """Tensors of other networks in the same file are left out and said; half precision becomes float32."""
    tensors = {name: value.half() for name, value in weights_of(away, "vae", "autoencoder").items()}
    save_file({**tensors, "loss.discriminator.weight": torch.zeros(2)}, workspace / "a.safetensors")

    done = run(workspace, "weights", "import", "a.safetensors", "--as", "autoencoder", "--out", "mine")

    assert done.code == 0, done.err
    assert "Next: latentart reconstruct PICTURE --model mine" in done.err
    assert "left out: 1 tensors of other parts, such as 'loss.discriminator.weight'" in done.err
    kept = load_file(workspace / "mine/autoencoder.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float32}
    assert all(torch.equal(kept[name], tensors[name].float()) for name in tensors)
    assert run(workspace, "info", "mine").code == 0


def spoiled(former: Path, kind: str) -> Any:
    """Return the autoencoder's tensors with a fault."""
    tensors = weights_of(former, "vae", "autoencoder")
    name = "decoder.conv_in.weight"
    match kind:
        case "missing":
            del tensors[name]
        case "more":
            tensors["decoder.extra.weight"] = torch.zeros(1)
        case "shape":
            tensors[name] = torch.zeros(3, 5)
        case "huge":
            tensors[name] = torch.zeros(1).expand(2**40, 2**20)
        case "nan":
            tensors[name][0] = float("nan")
        case "integers":
            tensors[name] = tensors[name].long()
        case "complex":
            tensors[name] = tensors[name].to(torch.complex64)
        case "sparse":
            tensors[name] = tensors[name].to_sparse()
        case "none":
            return {"epoch": 1, "names": ["a"]}
        case "denoiser":
            return weights_of(former, "ldm", "denoiser")
    return {"model": tensors}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "The saved autoencoder 'model' does not fit: 'decoder.conv_in.weight' is missing."),
        ("more", "The saved autoencoder 'model' does not fit: 'decoder.extra.weight' is not part of it."),
        ("shape", "'decoder.conv_in.weight' has shape [3, 5], not ["),
        ("huge", "'decoder.conv_in.weight' has shape [1099511627776, 1048576], not ["),
        ("nan", "'decoder.conv_in.weight' of the autoencoder is not finite."),
        ("integers", "'decoder.conv_in.weight' of the autoencoder is int64, strided, expected float32."),
        ("complex", "'decoder.conv_in.weight' of the autoencoder is complex64, strided, expected float32."),
        ("sparse", "'decoder.conv_in.weight' of the autoencoder is float32, sparse_coo, expected float32."),
        ("none", "a.pt holds no named tensors."),
        ("denoiser", "The saved autoencoder does not fit: 'conv_in.bias' is not part of it, "),
    ],
)
def test_what_does_not_fit_is_said(run: Run, workspace: Path, away: Path, kind: str, message: str) -> None:
    """One line with the first differences, exit code 6, and no folder."""
    torch.save(spoiled(away, kind), workspace / "a.pt")

    line = run(workspace, "weights", "import", "a.pt", "--as", "autoencoder").error(6)

    assert message in line
    assert not (workspace / "runs").exists()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        """Be harmful."""
        return os.mkdir, (str(self.trace),)


class Hunger:
    """Asks for six gigabytes when it is unpickled, by a call that PyTorch takes for safe."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        """Be greedy."""
        return self.kind, (6 * 10**9,)


LEGACY = {"_use_new_zipfile_serialization": False}


def claim_storage(path: Path) -> None:
    """Write an old file whose pickle claims a storage of eight gigabytes, which lies nowhere."""
    torch.save({"a": torch.zeros(0x0A0B0C)}, path, **LEGACY)
    content = path.read_bytes()
    size = (0x0A0B0C).to_bytes(4, "little")
    assert content.count(b"J" + size) == 2  # of the storage and of the tensor
    path.write_bytes(content.replace(b"J" + size, b"J" + (2**32 // 2 - 1).to_bytes(4, "little"), 1)[:4000])


def virtual_memory(name: str) -> int:
    """Return a figure of this process's memory, in kB."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


@pytest.mark.parametrize("kind", [bytearray, torch.FloatTensor, torch.DoubleTensor, torch.UntypedStorage])
@pytest.mark.parametrize("form", ["zip", "raw", "legacy"])
def test_a_small_file_cannot_ask_for_much_memory(run: Run, workspace: Path, away: Path, kind: Any, form: str) -> None:
    """Whatever a pickle calls: one line, and this process never had the room; afterwards it is free again."""
    match form:
        case "zip":
            torch.save({"model": Hunger(kind)}, workspace / "a.pt")
        case "raw":
            (workspace / "a.pt").write_bytes(pickle.dumps({"model": Hunger(kind)}, protocol=2))
        case "legacy":
            torch.save({"model": Hunger(kind)}, workspace / "a.pt", **LEGACY)
    before = resource.getrlimit(resource.RLIMIT_AS)

    line = run(workspace, "weights", "import", "a.pt", "--as", "autoencoder").error(6)

    assert "a.pt cannot be read as PyTorch weights" in line
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    torch.empty(400_000_000)  # more than the file was allowed


@pytest.mark.parametrize("form", ["zip", "raw", "legacy", "other case", "archive behind"])
def test_what_tensors_do_not_need_is_never_called(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit of memory is needed for it, which only Linux keeps: the file is refused before anything is built."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("built"))
    path = tmp_path / "a.pt"
    if form == "raw":
        path.write_bytes(pickle.dumps({"model": Hunger(bytearray)}, protocol=2))
    else:
        torch.save({"model": Hunger(bytearray)}, path, **(LEGACY if form in ("legacy", "archive behind") else {}))
    if form == "other case":
        path.write_bytes(path.read_bytes().replace(b"data.pkl", b"DATA.pkl"))
    if form == "archive behind":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a", b"a")

    with pytest.raises(ModelError, match="UnpicklingError"):
        load_pickled(path)


def laughs() -> Any:
    """Return a tuple of ten tuples, each of which is ten of others, and so on: few objects, of 10^20 items."""
    found: tuple[Any, ...] = ()
    for _ in range(20):
        found = (found,) * 10
    return found


@pytest.mark.parametrize("form", ["zip", "raw"])
@pytest.mark.parametrize("content", [[()] * 1001, laughs()], ids=["many", "nested"])
def test_a_pickle_of_endless_work_is_not_read_on(
    tmp_path: Path, form: str, content: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opcode takes a millionth of a second, and 64 MB have as many; what is a key is hashed, with all in it."""
    monkeypatch.setattr(foreign, "MAX_OPCODES", 1000)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("built"))
    path = tmp_path / "a.pt"
    torch.save(content, path) if form == "zip" else path.write_bytes(pickle.dumps(content, protocol=2))

    with pytest.raises(ModelError, match="UnpicklingError"):
        load_pickled(path)


@pytest.mark.parametrize("options", [{}, LEGACY])
def test_what_trainers_save_beside_tensors_is_read(tmp_path: Path, options: dict[str, bool]) -> None:
    """Parameters, types of numbers, sizes, sets and counts are plain."""
    types = (torch.float16, torch.bfloat16, torch.int64, torch.bool)
    content = {
        "tensors": {str(kind): torch.ones(3, dtype=kind) for kind in types},
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "beside": [torch.Size([2]), torch.device("cpu"), torch.float32, Counter([5]), {1}, OrderedDict(a=1)],
    }
    torch.save(content, tmp_path / "a.pt", **options)

    assert str(load_pickled(tmp_path / "a.pt")) == str(content)


def test_an_old_file_cannot_claim_a_large_storage(run: Run, workspace: Path, away: Path) -> None:
    """The number stands in the pickle; the bytes that it speaks of are not there."""
    claim_storage(workspace / "a.pt")
    before = virtual_memory("VmSize")

    run(workspace, "weights", "import", "a.pt", "--as", "autoencoder").error(6)

    assert virtual_memory("VmPeak") - before < 4_000_000


def hostile(path: Path, kind: str, trace: Path) -> None:
    """Write a file that is no weights."""
    match kind:
        case "torch":
            torch.save({"model": Bomb(trace)}, path)
        case "plain":
            path.write_bytes(pickle.dumps(Bomb(trace)))
        case "old":
            torch.save(Bomb(trace), path, _use_new_zipfile_serialization=False)
        case "packed":
            torch.save({"a": torch.zeros(10)}, path.with_suffix(".tmp"))
            with (
                zipfile.ZipFile(path.with_suffix(".tmp")) as stored,
                zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
            ):
                for name in stored.namelist():
                    packed.writestr(name, stored.read(name) + b"\0" * 1000)
            path.with_suffix(".tmp").unlink()
        case "claim":
            path.write_bytes(b"\x80\x02\x8a\xff" + b"\xff" * 40)
        case "cut":
            torch.save({"a": torch.zeros(100)}, path)
            path.write_bytes(path.read_bytes()[:-200])
        case "empty":
            path.touch()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("kind", ["torch", "plain", "old", "packed", "claim", "cut", "empty"])
def test_code_in_a_file_never_runs(run: Run, workspace: Path, away: Path, kind: str, name: str) -> None:
    """Nor is what is cut, packed or something else taken for weights: exit code 6, one short line."""
    hostile(workspace / name, kind, workspace / "trace")

    line = run(workspace, "weights", "import", name, "--as", "autoencoder").error(6)

    assert name in line
    assert len(line) < 300
    assert not (workspace / "trace").exists()
    assert not (workspace / "runs").exists()


def test_nothing_is_overwritten(run: Run, workspace: Path, snapshot: Run) -> None:
    """Neither a model, nor what else lies there, nor a run that has checkpoints."""
    shutil.copy(workspace / "runs/vae/model/autoencoder.safetensors", workspace / "a.safetensors")
    words = ("weights", "import", "a.safetensors", "--as", "autoencoder")
    before = snapshot(workspace)

    assert "runs/vae/model exists; nothing is overwritten" in run(workspace, *words).error(2)
    assert "data exists" in run(workspace, *words, "--out", "data").error(2)
    assert snapshot(workspace) == before
    shutil.rmtree(workspace / "runs/vae/model")
    assert "runs/vae has checkpoints of its own" in run(workspace, *words).error(2)


def test_several_that_fit_are_asked_about(run: Run, workspace: Path, away: Path) -> None:
    """--key names one; one that is not there is a slip."""
    tensors = weights_of(away, "vae", "autoencoder")
    torch.save({"a": tensors, "b": dict(tensors)}, workspace / "two.pt")
    words = ("weights", "import", "two.pt", "--as", "autoencoder", "--key")

    assert "2 groups of tensors fit the autoencoder: a, b. Name one with --key." in run(workspace, *words[:-1]).error(2)
    assert "there is no group 'c' of tensors. Groups: a, b." in run(workspace, *words, "c").error(2)
    assert run(workspace, *words, "b").code == 0


def test_a_denoiser_needs_an_autoencoder(run: Run, workspace: Path, away: Path) -> None:
    """And a workspace, and a file."""
    words = ("weights", "import", away / "ldm/model/denoiser.safetensors", "--as", "denoiser")

    assert "there is no trained autoencoder" in run(workspace, *words).error(6)
    assert "is not a workspace" in run(away, *words).error(3)
    assert "there is no file gone.pt" in run(workspace, "weights", "import", "gone.pt", "--as", "denoiser").error(6)


def test_circles_and_depth_end(run: Run, workspace: Path, away: Path) -> None:
    """Dicts in dicts, many times the same and in a circle, are looked at once."""
    top: dict[str, Any] = {}
    inner = top
    for _ in range(50):
        inner["a"] = inner["b"] = {}
        inner = inner["a"]
    top["round"] = top
    torch.save(top, workspace / "a.pt")

    assert "a.pt" in run(workspace, "weights", "import", "a.pt", "--as", "autoencoder").error(6)
