"""The clean pictures as squares for training; what is cropped and mirrored follows from (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from latentart.core.randomness import uniform_for
from latentart.data.index import IndexEntry
from latentart.errors import DataError

NAMED_FILES = 3


@dataclass(frozen=True)
class Crop:
    """How a picture becomes a square of ``resolution`` pixels.

    Attributes:
        min_crop, max_crop: sides of the square before resizing lie between these shares of the shorter side.
        flip: whether half of the squares are mirrored.
        is_random: otherwise the largest square in the middle.
    """

    resolution: int
    seed: int
    min_crop: float = 1.0
    max_crop: float = 1.0
    flip: bool = False
    is_random: bool = True

    def box(self, width: int, height: int, epoch: int, index: int) -> tuple[tuple[float, float, float, float], bool]:
        """Return (left, top, right, bottom) in pixels, and whether to mirror."""
        shorter = min(width, height)
        if not self.is_random:
            left, top = (width - shorter) / 2, (height - shorter) / 2
            return (left, top, left + shorter, top + shorter), False
        chance = uniform_for(self.seed, "crop", range(4), epoch, index).tolist()
        side = shorter * (self.min_crop + (self.max_crop - self.min_crop) * chance[0])
        left, top = (width - side) * chance[1], (height - side) * chance[2]
        return (left, top, left + side, top + side), self.flip and chance[3] < 0.5

    def cut(self, picture: Image.Image, epoch: int, index: int) -> Tensor:
        """Return pixels uint8 ``[3, R, R]`` of picture ``index`` as epoch ``epoch`` sees it."""
        box, mirrored = self.box(picture.width, picture.height, epoch, index)
        square = picture.resize((self.resolution, self.resolution), Image.Resampling.LANCZOS, box=box)
        return pixels_from(square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else square)


@dataclass(frozen=True)
class CropSet:
    """Several squares of each picture, which is decoded once for all of them."""

    crops: tuple[Crop, ...]

    def cut(self, picture: Image.Image, epoch: int, index: int) -> Tensor:
        """Return pixels uint8 ``[crops, 3, R, R]``."""
        return torch.stack([crop.cut(picture, epoch, index) for crop in self.crops])


class PictureDataset(torch.utils.data.Dataset[tuple[Tensor, int, int]]):
    """Squares of the clean set, addressed by ``(epoch, index)``.

    A picture that is gone or broken since it was cleaned is replaced by the next whole one; the returned index tells.
    Decoded pictures are kept in memory up to ``memory_bytes``, so that a small set is decoded once.
    """

    def __init__(
        self,
        root: Path,
        entries: Sequence[IndexEntry],
        style_names: Sequence[str],
        crop: Crop | CropSet,
        *,
        memory_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self.root, self.crop = root, crop
        self.files = [entry.file for entry in entries]  # all that a worker process needs of the entries
        ids = {name: i for i, name in enumerate(style_names)}
        self.style_ids = [ids[entry.style] for entry in entries]
        self._memory_left = memory_bytes
        self._decoded: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        """Return (pixels uint8, style_id, index) of the first whole picture from ``index`` on, as its epoch sees it.

        Raises:
            DataError: so many in a row are gone or broken that it is more than the set may lack.
        """
        epoch, wanted = key
        broken = []
        for index in range(wanted, wanted + max_broken(len(self)) + 1):
            index %= len(self)  # the first picture follows the last
            try:
                picture = self.open(index)
            except DataError as error:
                broken.append(error.message)
            else:
                return self.crop.cut(picture, epoch, index), self.style_ids[index], index
        raise too_many_broken(broken, len(self))

    def open(self, index: int) -> Image.Image:
        """Return a decoded picture.

        Raises:
            DataError: the file is gone or broken since it was cleaned; the message is its path and the reason.
        """
        if index in self._decoded:
            return self._decoded[index]
        path = self.root / self.files[index]
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except Exception as error:  # decoders raise anything from SyntaxError to ZeroDivisionError
            is_other = isinstance(error, UnidentifiedImageError)  # its own words would hold the path once more
            reason = "not a picture" if is_other else getattr(error, "strerror", None) or error
            raise DataError(f"{path}: {reason}") from None
        size = picture.width * picture.height * 3
        if size <= self._memory_left:
            self._memory_left -= size
            self._decoded[index] = picture
        return picture

    def share_memory(self, num_owners: int) -> None:
        """Keep only this copy's part of the memory for decoded pictures."""
        self._memory_left //= num_owners


def max_broken(count: int) -> int:
    """Return how many of ``count`` pictures may be gone or broken: 1 %."""
    return count // 100


def too_many_broken(broken: Sequence[str], count: int) -> DataError:
    """Return the error that ends a run which lacks more than 1 % of its ``count`` pictures."""
    more = f" and {len(broken) - NAMED_FILES} more" if len(broken) > NAMED_FILES else ""
    names = "; ".join(broken[:NAMED_FILES])
    msg = f"too many pictures are gone or broken since they were cleaned, {len(broken)} of {count}: {names}{more}."
    return DataError(msg, "Run `latentart clean-data` again: it makes them anew.")


def pixels_from(picture: Image.Image) -> Tensor:
    """Return pixels uint8 ``[3, H, W]`` of an RGB picture."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def picture_from(pixels: Tensor) -> Image.Image:
    """Return the RGB picture of pixels uint8 ``[3, H, W]``; the inverse of ``pixels_from``."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
