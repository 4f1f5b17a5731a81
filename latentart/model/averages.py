"""Snapshots of a denoiser's averages.

runs/ldm/averages/step-00001000_std0.0500.safetensors, and a JSON file beside it that is written last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from latentart.core.ema import Ema
from latentart.core.networks.conditioning import Denoiser
from latentart.errors import ModelError, ResourceError
from latentart.storage.checksums import sha256_of
from latentart.storage.json_files import file_errors, read_json, write_json_atomic
from latentart.storage.saved_values import Saved, read_saved
from latentart.storage.tensors import load_matching, read_tensors, write_tensors
from latentart.storage.whole import whole_file

FORMAT = 1


@dataclass(frozen=True)
class Average:
    """One snapshot: the average of relative width ``relative_std`` after ``step`` updates; ``sha256`` of its file.

    It has followed the weights since step ``start``.
    """

    step: int
    relative_std: float
    path: Path
    sha256: str
    start: int = 0


class _About(Saved):
    """What stands beside a snapshot."""

    format: int = FORMAT
    step: int
    relative_std: float
    sha256: str
    start: int = 0


def save_average(run: Path, step: int, ema: Ema, start: int = 0) -> None:
    """Write a snapshot of what follows the weights since step ``start``, in place of one of the same step and width.

    Raises:
        ResourceError: the disk does not take it.
    """
    path = run / "averages" / f"step-{step:08d}_std{ema.relative_std:.4f}.safetensors"
    tensors = {name: tensor.cpu().contiguous() for name, tensor in ema.network.state_dict().items()}
    with file_errors("write", path):
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        with whole_file(path, is_durable=True) as temporary:
            write_tensors(temporary, tensors)
            sha256 = sha256_of(temporary)
    about = {"step": step, "start": start, "relative_std": ema.relative_std, "gamma": ema.gamma, "sha256": sha256}
    write_json_atomic(path.with_suffix(".json"), {"format": FORMAT, **about})


def list_averages(run: Path) -> list[Average]:
    """Return the snapshots of a run by rising step, then width, of averages that began last; none where it keeps none.

    Raises:
        ModelError: what stands beside one is damaged or from a newer version.
    """
    found = []
    for path in (run / "averages").glob("step-*.json"):
        try:
            about = read_saved(_About, read_json(path), path)
        except ModelError as error:
            raise ModelError(error.message, "Delete it; the other snapshots may do without it.") from None
        if about.format > FORMAT:
            raise ModelError(f"{path} was written by a newer latentart.", "Upgrade latentart.")
        weights = path.with_suffix(".safetensors")
        found.append(Average(about.step, about.relative_std, weights, about.sha256, about.start))
    newest = max((average.start for average in found), default=0)  # those before are of networks with fewer styles
    found = [average for average in found if average.start == newest]
    return sorted(found, key=lambda average: (average.step, average.relative_std))


def drop_averages(run: Path, after: int) -> None:
    """Delete the snapshots of later steps than ``after``: a run that goes on from there makes them anew.

    Raises:
        ResourceError: one cannot be deleted.
    """
    for path in sorted((run / "averages").glob("step-*")):  # the .json of each before its .safetensors
        digits = path.name[5:].partition("_")[0]
        if digits.isdecimal() and int(digits) > after:
            try:
                path.unlink()
            except OSError as error:
                raise ResourceError(f"Cannot delete {path}: {error.strerror}.") from None


def read_average(average: Average) -> dict[str, Tensor]:
    """Return a snapshot's tensors, verified.

    Raises:
        ModelError: the file is missing or damaged.
    """
    hint = "Delete it and the .json beside it; the other snapshots may do without it."
    try:
        sha256 = sha256_of(average.path)
    except OSError as error:
        raise ModelError(f"{average.path} cannot be read: {error.strerror}.", hint) from None
    if sha256 != average.sha256:
        raise ModelError(f"{average.path} is damaged: its checksum (SHA-256) does not match.", hint)
    return read_tensors(average.path)


def load_average(average: Average, denoiser: nn.Module) -> None:
    """Put a snapshot's weights into a denoiser of the same shape.

    Raises:
        ModelError: the snapshot is missing, damaged or of another network.
    """
    load_matching(denoiser, read_average(average), f"average {average.path.name}")


def average_into(denoiser: Denoiser, averages: Sequence[Average], weights: Tensor) -> None:
    """Put the weighted sum of snapshots into a denoiser; they are read one after the other and summed in float64.

    Raises:
        ModelError: one of them is missing, damaged or of another network.
    """
    total: dict[str, Tensor] = {}
    for average, weight in zip(averages, weights.tolist(), strict=True):
        load_average(average, denoiser)
        for name, tensor in denoiser.state_dict().items():
            part = weight * tensor.double()
            total[name] = total[name].add_(part) if name in total else part
    denoiser.load_state_dict({name: tensor.float() for name, tensor in total.items()})
