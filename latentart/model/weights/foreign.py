"""Weights in files that others made: named tensors only, found where a file keeps them. No code in a file ever runs."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch
from torch import Tensor, nn

from latentart.errors import LatentArtError, ModelError, UsageError
from latentart.printable import printable
from latentart.process.host_memory import growing_at_most
from latentart.storage.tensors import load_matching, read_tensors

MAX_DEPTH = 6  # of objects in objects; checkpoints of trainers have two or three
MAX_GROUPS = 1000
MAX_PICKLE_BYTES = 64 * 2**20  # of the names and shapes; the tensors lie beside them
MAX_OPCODES = 3_000_000  # of each; a checkpoint of thousands of tensors has a tenth
PICKLES = 5  # of an old file: three of its kind, the objects, the names of what follows
CALLED = {
    *(
        "collections OrderedDict",
        "collections Counter",
        "torch Size",
        "torch device",
        "torch.serialization _get_layout",
    ),
    *("__builtin__ set", "builtins set", "__builtin__ complex", "builtins complex"),
    *(f"torch._utils _rebuild_{what}" for what in ("tensor", "tensor_v2", "tensor_v3", "sparse_tensor", "qtensor")),
    *(f"torch._utils _rebuild_{what}" for what in ("parameter", "parameter_with_state")),
    *(f"torch {name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "ComplexFloat", "ComplexDouble")),
    *(f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool", "QInt8", "QUInt8", "QInt32")),
}
"""What a pickle of named tensors and numbers names; none of it takes more memory than the file gives it content."""
OBJECT_BYTES = 2**30  # what those names and shapes may become; a pickle of a hundred bytes may ask for any number
_HOW = "Save it again as torch.save(model.state_dict(), PATH), or as safetensors."


@dataclass(frozen=True)
class Found:
    """Tensors that fit a network.

    Attributes:
        key: where in the file they were, as ``ema`` or ``state.model``; empty for the file itself.
        prefix: what stands before every name there. others: names there that belong to something else.
    """

    tensors: dict[str, Tensor]
    key: str
    prefix: str
    others: list[str]


def read_foreign(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return every group of named tensors in a .safetensors or PyTorch file, by its key; tensors stay on the disk.

    Raises:
        ModelError: it is missing, cut, something else, holds code, or no tensors.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}.", "Name a .safetensors, .pt, .pth or .ckpt file.")
    content = read_tensors(path) if path.suffix == ".safetensors" else load_pickled(path)
    groups = _groups_of(content)
    if not groups:
        raise ModelError(f"{path} holds no named tensors.", _HOW)
    return groups


def find_pretrained(folder: Path) -> tuple[Path, Path]:
    """Return the config.json and the weights of an autoencoder in a folder as diffusers writes it, or in its vae/.

    Raises:
        ModelError: it has none, or not one file of weights without code.
    """
    homes = [home for home in (folder, folder / "vae") if (home / "config.json").is_file()]
    how = "Name a folder as diffusers' save_pretrained writes it: config.json and one .safetensors file."
    if not homes:
        raise ModelError(f"{folder} has no config.json, nor has its vae/.", how)
    found = sorted(homes[0].glob("*.safetensors"))
    found = [path for path in found if path.name == "diffusion_pytorch_model.safetensors"] or found
    if len(found) != 1 or not found[0].is_file():
        is_pickled = not found and any(path.suffix in (".bin", ".pt", ".pth", ".ckpt") for path in homes[0].iterdir())
        what = "only pickles, which may hold code" if is_pickled else f"{len(found)} files of weights"
        raise ModelError(f"{homes[0]} has {what}, where one .safetensors file should be.", how)
    return homes[0] / "config.json", found[0]


_FORMER_NAMES = re.compile(r"(?<=\.attentions\.\d)\.(query|key|value|proj_attn)(?=\.)")
_PRESENT_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_pretrained_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a diffusers file, by the names that its attention has since 2023.

    Raises:
        ModelError: it is cut, or something else.
    """
    return {
        _FORMER_NAMES.sub(lambda match: f".{_PRESENT_NAMES[match[1]]}", name): tensor
        for name, tensor in read_tensors(path).items()
    }


def load_pickled(path: Path) -> Any:
    """Return what torch.save wrote, if that is tensors, numbers, text and containers of them.

    Raises:
        ModelError: it is cut, something else, or holds code.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\3\4"  # as torch tells: a pickle may end like an archive
            if is_zip:
                _require_plain_zip(path)
            else:
                file.seek(0)
                for _ in range(PICKLES):
                    _require_plain_pickle(file)
        room = 2 * path.stat().st_size + OBJECT_BYTES  # it is mapped, or read into tensors
        with warnings.catch_warnings(action="ignore"), growing_at_most(room):  # of tensors that are refused later
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except LatentArtError:
        raise
    except Exception as error:
        # torch's own words are long, and for a pickle with code they explain how to run it
        msg = f"{path} cannot be read as PyTorch weights ({type(error).__name__}): it is cut, something else, or code."
        raise ModelError(msg, f"Code in a file is never run. {_HOW}") from None


def fit_foreign(network: nn.Module, groups: Mapping[str, Mapping[str, Tensor]], what: str, key: str | None) -> Found:
    """Return the group that fits a network name by name and shape by shape, as its own types of numbers.

    Where a training's weights and their average both fit, the average is taken.

    Raises:
        ModelError: none fits; the message names the first differences of the nearest.
        UsageError: there is no group ``key``, or several fit.
    """
    shown = ", ".join(printable(name) or "the file itself" for name in list(groups)[:10])
    if key is not None and key not in groups:
        raise UsageError(f"there is no group '{key}' of tensors.", f"Groups: {shown}.")
    own = network.state_dict()
    tried = {name: _aligned(own, group, name) for name, group in groups.items() if key in (None, name)}
    fitting = {name: found for name, found in tried.items() if _fits(own, found.tensors)}
    averages = {name: found for name, found in fitting.items() if "ema" in name.lower() or "average" in name.lower()}
    chosen = averages if len(averages) == 1 else fitting
    if len(chosen) > 1:
        names = ", ".join(printable(name) or "the file itself" for name in chosen)
        raise UsageError(f"{len(chosen)} groups of tensors fit the {what}: {names}.", "Name one with --key.")
    if not chosen:
        nearest = max(tried.values(), key=lambda found: _num_fitting(own, found.tensors))
        load_matching(network, nearest.tensors, f"{what} '{printable(nearest.key)}'" if nearest.key else what)
    (found,) = chosen.values()
    return Found(_as_own_types(own, found.tensors, what), found.key, found.prefix, found.others)


def _require_plain_zip(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is; torch stores what it saves."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        pickles = [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]  # torch ignores case
        if is_packed or any(entry.file_size > MAX_PICKLE_BYTES for entry in pickles):
            raise ModelError(f"{path} is no archive as torch.save writes it.", _HOW)
        for entry in pickles:
            with archive.open(entry) as file:
                _require_plain_pickle(file)


def _require_plain_pickle(file: IO[bytes]) -> None:
    """Read the opcodes of a pickle, and build nothing, up to its end.

    Raises:
        UnpicklingError: it is no pickle, too long, or names something that tensors do not need, as bytearray, which
            may ask for any number of bytes.
    """
    sizes = _Sizes()
    for number, (code, argument, _) in enumerate(pickletools.genops(file)):
        is_named = code.name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")  # with names that stand elsewhere
        if is_named or (code.name == "GLOBAL" and argument not in CALLED):
            raise UnpicklingError(f"names {argument}")
        if number == MAX_OPCODES or sizes.after(code, argument) > MAX_OPCODES:
            raise UnpicklingError("is too much")


class _Sizes:
    """How many items each object of a pickle has, all told: of tuples in tuples whoever hashes one meets them all."""

    def __init__(self) -> None:
        self.stack: list[int | None] = []  # None where a mark lies
        self.memo: dict[Any, int] = {}

    def after(self, code: pickletools.OpcodeInfo, argument: object) -> int:
        """Follow an opcode, and return the size of what it leaves on top."""
        if "PUT" in code.name or code.name == "MEMOIZE":
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1] or 0
            return 0
        if "GET" in code.name:
            self.stack.append(self.memo[argument])
            return 0
        before, taken = code.stack_before, 0
        if pickletools.markobject in before:
            while (size := self.stack.pop()) is not None:
                taken += size
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            taken += self.stack.pop() or 0
        size = 1 + taken if "TUPLE" in code.name else 1
        self.stack += [None if kind is pickletools.markobject else size for kind in code.stack_after]
        return size


def _groups_of(content: object) -> dict[str, dict[str, Tensor]]:
    """Return the dicts of named tensors in an object; each object is looked at once."""
    groups: dict[str, dict[str, Tensor]] = {}
    waiting: deque[tuple[str, object, int]] = deque([("", content, 0)])
    seen: set[int] = set()
    while waiting and len(groups) < MAX_GROUPS:
        key, value, depth = waiting.popleft()
        if not isinstance(value, dict) or id(value) in seen or depth > MAX_DEPTH:
            continue
        seen.add(id(value))
        tensors = {str(name): item for name, item in value.items() if isinstance(item, Tensor)}
        if tensors:
            groups[key] = tensors
        inner = ((name, item) for name, item in value.items() if isinstance(item, dict))
        waiting += [(f"{key}.{name}".lstrip("."), item, depth + 1) for name, item in inner]
    return groups


def _aligned(own: Mapping[str, Tensor], group: Mapping[str, Tensor], key: str) -> Found:
    """Take away what wrappers put before and into names, and set apart the tensors of other parts."""
    named = {name.replace("_orig_mod.", ""): tensor for name, tensor in group.items()}
    first = next(iter(own))
    prefixes = [name.removesuffix(first) for name in named if name == first or name.endswith(f".{first}")]
    prefix = max(prefixes, key=lambda p: sum(f"{p}{name}" in named for name in own), default="")
    inner = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    parts = {name.partition(".")[0] for name in own}
    mine = {name: tensor for name, tensor in inner.items() if name.partition(".")[0] in parts}
    return Found(mine or inner, key, prefix, [name for name in inner if name not in mine] if mine else [])


def _fits(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    return own.keys() == tensors.keys() and _num_fitting(own, tensors) == len(own)


def _num_fitting(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> int:
    return sum(name in tensors and tensors[name].shape == value.shape for name, value in own.items())


def _as_own_types(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Return tensors with memory of their own and the network's types.

    Raises:
        ModelError: one is not dense, not finite, or whole numbers stand where fractions belong.
    """
    result = {}
    for name, value in own.items():
        given = tensors[name]
        is_dense = given.layout == torch.strided and not given.is_quantized and given.device.type == "cpu"
        if not is_dense or given.is_floating_point() != value.is_floating_point() or given.is_complex():
            kind = f"{given.dtype}, {given.layout}".replace("torch.", "")
            raise ModelError(f"'{name}' of the {what} is {kind}, expected {str(value.dtype).removeprefix('torch.')}.")
        copy = given.detach().to(value.dtype, copy=True).contiguous()
        if copy.is_floating_point() and not torch.isfinite(copy).all():
            raise ModelError(f"'{name}' of the {what} is not finite.", "Take a checkpoint from before it diverged.")
        result[name] = copy
    return result
