"""The pictures that autoencoders are compared on: made up, or a folder of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from latentart.core.pixels import to_images
from latentart.core.randomness import epoch_order, position, sample_numbers
from latentart.data.cleaning.raw_files import find_raw_files, find_styles
from latentart.data.datasets import Crop
from latentart.data.pictures.decode import decode_image
from latentart.data.pictures.formats import BadImage
from latentart.data.synthetic.art import STYLES, draw_picture
from latentart.errors import DataError
from peers.raw import draw_scan

MAX_PICTURES, MIN_PICTURES = 512, 16
HELD_OUT_EVERY = 8
CROP = (0.5, 1.0)


def make_up_pictures(side: int, count: int = 96) -> list[Image.Image]:
    """Draw so many scans and as many pictures of the embedded styles, their shorter sides ``side`` pixels."""
    scans = [draw_scan(seed, (side, side * 5 // 4)) for seed in range(count)]
    styles = list(STYLES)
    art = [draw_picture(styles[i % len(styles)], 0, i // len(styles), (side, side)) for i in range(count)]
    return scans + art


def read_pictures(folder: Path, least: int, most: int) -> list[Image.Image]:
    """Return up to 512 sound pictures from all over a folder, reduced to a shorter side of ``most`` pixels.

    Raises:
        DataError: no such folder, or fewer than 16 pictures in it are sound and have ``least`` pixels each way.
    """
    if not folder.is_dir():
        raise DataError(f"'{folder}' is not a folder.", "Name a folder with pictures in PEERS_PICTURES.")
    sources = sorted(found.source for found in find_raw_files(folder, find_styles(folder)) if not found.reason)
    stride = max(1, len(sources) // MAX_PICTURES)
    pictures: list[Image.Image] = []
    for source in [source for first in range(stride) for source in sources[first::stride]]:
        try:
            picture = decode_image(folder / source, max_side=most)
        except BadImage:
            continue
        if min(picture.size) >= least:
            pictures.append(picture)
        if len(pictures) == MAX_PICTURES:
            break
    if len(pictures) < MIN_PICTURES:
        msg = f"'{folder}' holds {len(pictures)} sound pictures of at least {least} pixels each way."
        raise DataError(msg, f"Give {MIN_PICTURES} or more, or leave PEERS_PICTURES out: some are then made up.")
    return pictures


def split(pictures: Sequence[Image.Image]) -> tuple[list[Image.Image], list[Image.Image]]:
    """Return the pictures to train on and those held out: every eighth."""
    held_out = list(pictures[::HELD_OUT_EVERY])
    return [picture for i, picture in enumerate(pictures) if i % HELD_OUT_EVERY], held_out


def crops_at(step: int, pictures: Sequence[Image.Image], resolution: int, batch_size: int) -> Tensor:
    """Return the images ``[B, 3, R, R]`` of a step: random squares, each picture once in an epoch."""
    crop, squares = Crop(resolution, 0, *CROP), []
    for number in sample_numbers(step, batch_size):
        epoch, place = position(number, len(pictures))
        index = int(epoch_order(0, epoch, len(pictures))[place])
        squares.append(crop.cut(pictures[index], epoch, index))
    return to_images(torch.stack(squares))


def middle_squares(pictures: Sequence[Image.Image], resolution: int) -> Tensor:
    """Return the largest square in the middle of each picture as images ``[n, 3, R, R]``."""
    crop = Crop(resolution, 0, is_random=False)
    return to_images(torch.stack([crop.cut(picture, 0, i) for i, picture in enumerate(pictures)]))
