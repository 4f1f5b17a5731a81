"""The frames of a movie, kept small while its pictures are drawn."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from latentart.data.datasets import picture_from
from latentart.data.pictures.movies import shrink_to
from latentart.sampling.files import make_grid
from latentart.sampling.request import SamplePlan

FRAMES = 30  # of the movie of a denoising, at most
FRAME_PIXELS = 2_000_000
MOVIE_PIXELS = 60_000_000  # of all frames; a longer or larger movie is made smaller


class Film:
    """Collects the frames of a movie, small enough to be kept in memory."""

    def __init__(self, plan: SamplePlan) -> None:
        self.plan = plan
        length = len(plan.cells) // plan.rows if plan.kind == "walk" else FRAMES
        budget = min(FRAME_PIXELS, MOVIE_PIXELS / length)
        self.size = shrink_to(plan.size, budget / (plan.rows * plan.columns))
        self.seen: dict[int, dict[int, Image.Image]] = {}

    def see(self, first: int, frame: int, pixels: Tensor) -> None:
        """Take the pictures of a batch, of which ``first`` is the first, in a frame."""
        shots = self.seen.setdefault(frame, {})
        for i, one in enumerate(pixels, start=first):
            shots[i] = self._shrink(picture_from(one))

    def cut(self, pictures: list[Image.Image]) -> list[Image.Image]:
        """Return the frames, whole grids: of a denoising the result comes last."""
        small = [self._shrink(picture) for picture in pictures]
        if self.plan.kind == "walk":
            length = len(small) // self.plan.rows
            shots = [[small[row * length + i] for row in range(self.plan.rows)] for i in range(length)]
        else:
            shots = [[shot[i] for i in sorted(shot)] for _, shot in sorted(self.seen.items())] + [small]
        return [make_grid(self.plan, shot) for shot in shots]

    def _shrink(self, picture: Image.Image) -> Image.Image:
        return picture if picture.size == self.size else picture.resize(self.size, Image.Resampling.LANCZOS)
