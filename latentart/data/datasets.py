"""The clean pictures as squares for training; what is cropped and mirrored follows from (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentart.data.index import IndexEntry
from latentart.errors import DataError
from latentart.training.randomness import uniform_for


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


class PictureDataset(torch.utils.data.Dataset[tuple[Tensor, int, int]]):
    """Squares of the clean set, addressed by ``(epoch, index)``.

    Decoded pictures are kept in memory up to ``memory_bytes``, so that a small set is decoded once.
    """

    def __init__(
        self,
        root: Path,
        entries: Sequence[IndexEntry],
        style_names: Sequence[str],
        crop: Crop,
        *,
        memory_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self.root, self.entries, self.crop = root, list(entries), crop
        ids = {name: i for i, name in enumerate(style_names)}
        self.style_ids = [ids[entry.style] for entry in self.entries]
        self._memory_left = memory_bytes
        self._decoded: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.entries)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        """Return (pixels uint8 ``[3, R, R]``, style_id, index) of picture ``index`` as epoch ``epoch`` sees it.

        Raises:
            DataError: the file is gone or broken since it was cleaned.
        """
        epoch, index = key
        picture = self._open(index)
        box, mirrored = self.crop.box(picture.width, picture.height, epoch, index)
        side = self.crop.resolution
        square = picture.resize((side, side), Image.Resampling.LANCZOS, box=box)
        if mirrored:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return pixels_from(square), self.style_ids[index], index

    def _open(self, index: int) -> Image.Image:
        if index in self._decoded:
            return self._decoded[index]
        path = self.root / self.entries[index].file
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            msg = f"{path} is gone or broken since it was cleaned ({error})."
            raise DataError(msg, "Run `latentart clean-data` again.") from None
        size = picture.width * picture.height * 3
        if size <= self._memory_left:
            self._memory_left -= size
            self._decoded[index] = picture
        return picture


def pixels_from(picture: Image.Image) -> Tensor:
    """Return pixels uint8 ``[3, H, W]`` of an RGB picture."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def picture_from(pixels: Tensor) -> Image.Image:
    """Return the RGB picture of pixels uint8 ``[3, H, W]``; the inverse of ``pixels_from``."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
