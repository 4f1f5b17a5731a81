"""Settings of the pictures: where they are, which are kept, how they are stored and cropped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from latentart.config.base import PathOrNone, PathText, StrictConfig, Words
from latentart.kinds import FileFormat, NearDuplicates

MAX_SIDE = 2**15  # pixels
Byte = Annotated[int, Field(ge=0, le=255)]


class DataConfig(StrictConfig):
    """Where the pictures are and what becomes of them."""

    raw: PathText = "raw"
    """Your pictures, never written to: a folder with a sub-folder per style, or an archive. Relative to the config."""

    root: PathText = "data"
    """Where clean-data puts its own copies, relative to the workspace."""

    level: Annotated[int, Field(ge=1, le=16)] | None = None
    """Which folders are the styles: 1 those in the raw folder, 2 those in these (as in train/); equal names join. None
    is 1, with a warning where those hold only folders."""

    labels: PathText = "labels.csv"
    """A table of paths and labels of the pictures, relative to the raw folder; without one, folders are styles."""

    link_root: PathOrNone = ""
    """Links among the pictures are followed to what lies in this folder, relative to the raw one; empty: to nothing."""

    label: Words = "style"
    """The column of that table that the model learns as its styles: style, genre, artist, or any other."""

    min_bytes: Annotated[int, Field(ge=0, lt=2**40)] = 5120
    """Smaller files are dropped, in bytes. The seed: deleting all below 5 kB removes ART500K's broken files."""

    min_side: Annotated[int, Field(ge=1, le=MAX_SIDE)] = 64
    """Pictures whose shorter side is less are dropped, in pixels."""

    max_pixels: Annotated[int, Field(ge=1, le=2**32)] = 89_478_485
    """Larger pictures are reduced while they are read, or dropped where their format cannot; 12 bytes a worker each."""

    time_limit: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Pictures that take longer to decode are dropped, in seconds."""

    near_duplicates: NearDuplicates = "flag"
    """What becomes of pictures that look the same, as after scaling or saving again: the largest is always kept."""

    max_side: Annotated[int, Field(ge=8, le=MAX_SIDE)] = 640
    """Larger pictures are reduced to this shorter side, in pixels: a quarter over the largest stage, for crops."""

    max_aspect: Annotated[float, Field(ge=1, le=MAX_SIDE)] = 4.0
    """Pictures longer than this times their shorter side are dropped: a square crop would show little of them."""

    file_format: FileFormat = "jpeg"
    """How the copies are stored; png is lossless and larger."""

    quality: Annotated[int, Field(ge=50, le=100)] = 95
    """JPEG quality, without chroma subsampling."""

    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """The ground under transparent pictures, red, green and blue 0…255."""

    flip: bool = True
    """Whether training also sees every picture mirrored. Turn it off where left and right differ, as in writing."""

    balance_styles: bool = False
    """Whether training sees every style equally often, however many pictures it has."""

    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Share of the pictures that no training sees and scores are taken on; of few an eighth, at most 64. 0: none."""

    cache_dtype: Literal["fp16", "bf16"] = "fp16"
    """How the latent cache stores the posterior's moments."""

    cache_crops: Annotated[int, Field(ge=0, le=16)] = 0
    """Random crops of every picture in the latent cache, beside the square in its middle."""

    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that decode pictures; 0 chooses: one per core, but in training on a CPU a thread beside the step.
    Never more run than twice the cores, nor than the memory has room for."""

    @property
    def style_level(self) -> int:
        """How many levels below the raw folder the styles' folders are."""
        return self.level or 1
