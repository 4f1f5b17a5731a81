"""How much memory drawing takes, reckoned before anything is built: sizes may come from a stranger's picture."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latentart.core.latents import split_moments
from latentart.core.networks.autoencoder import Autoencoder
from latentart.core.networks.conditioning import Denoiser
from latentart.errors import ResourceError
from latentart.model.folder import Model
from latentart.process.host_memory import available_bytes

KEPT_BYTES = 3 * 4  # of a pixel kept to the end: as it came, joined with the others, as a picture and in the grid
DECODING_BYTES = 48  # of a pixel of the one picture that is decoded: 3.9 GB were measured at 9216 x 9216
PASSED_BYTES = 80  # of a pixel that goes there and back: pictures, images, their difference and the page
MOST_ACTIVATIONS = 4096  # bytes of a pixel in an autoencoder, generously: the recommended one has 1,537
EVERYDAY_PIXELS = 16 * 512 * 512  # of a batch; up to it the passes of a network are not reckoned


class LargestUse(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that live at once of the tensors that operations make; ``peak`` is the most."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and (key := id(storage := tensor.untyped_storage())) not in self._seen:
                self._seen.add(key)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._forget, key, storage.nbytes())
        self.peak = max(self.peak, self._now)
        return made

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size


def require_room(
    model: Model, size: tuple[int, int], count: int, batch_size: int, device: torch.device, hint: str, *, kept: int
) -> None:
    """Refuse ``count`` pictures of a size (width, height) that need more memory than this machine has left.

    ``kept`` of them are kept to the end. Nothing is allocated to find out.

    Raises:
        ResourceError: so it is.
    """
    pixels, at_once = size[0] * size[1], min(batch_size, count)
    needed = pixels * (kept * KEPT_BYTES + DECODING_BYTES)
    if device.type == "cpu" and pixels * at_once > EVERYDAY_PIXELS:  # a GPU's batches are halved until they fit
        assert model.denoiser is not None
        channels, sides = model.autoencoder.latent_channels, (side // model.autoencoder.factor for side in size[::-1])
        needed += denoiser_bytes(model.denoiser, (2 * at_once, channels, *sides))  # 2: guidance
    _refuse_beyond(needed, count, size, hint)


def require_room_to_pass(
    autoencoder: Autoencoder, size: tuple[int, int], device: torch.device, hint: str, *, count: int = 1, tile: int = 0
) -> None:
    """Refuse to send ``count`` pictures of a size at once through an autoencoder, in tiles if such are named.

    Raises:
        ResourceError: that needs more memory than this machine has left.
    """
    needed = count * size[0] * size[1] * PASSED_BYTES
    width, height = (min(side, tile or side) // autoencoder.factor * autoencoder.factor for side in size)
    left = available_bytes(torch.device("cpu")) or math.inf
    if device.type == "cpu" and needed <= left < needed + count * height * width * MOST_ACTIVATIONS:
        needed += autoencoder_bytes(autoencoder, (count, 3, height, width))
    _refuse_beyond(needed, count, size, hint)


def _refuse_beyond(needed: int, count: int, size: tuple[int, int], hint: str) -> None:
    left = available_bytes(torch.device("cpu"))
    if left is not None and needed > left:
        what = f"{count} picture{'s' if count > 1 else ''} of {size[0]}x{size[1]}"
        msg = f"{what} would take {needed / 1e9:.1f} GB of memory, and {left / 1e9:.1f} GB are left."
        raise ResourceError(msg, hint)


def denoiser_bytes(denoiser: Denoiser, shape: tuple[int, ...]) -> int:
    """Return the most bytes that a forward pass over x_t of that shape holds."""

    def forward() -> None:
        numbers = torch.zeros(shape[0], dtype=torch.int64)
        denoiser(torch.empty(shape), numbers, numbers)

    return _most_bytes(forward)


def autoencoder_bytes(autoencoder: Autoencoder, shape: tuple[int, ...]) -> int:
    """Return the most bytes that images of that shape take on their way to latents and back."""

    def forward() -> None:
        mean, _ = split_moments(autoencoder.encode(torch.empty(shape)))
        autoencoder.decode(mean)

    return _most_bytes(forward)


@torch.no_grad()
def _most_bytes(forward: Callable[[], None]) -> int:
    """Return the most bytes that networks hold at once, in float32 beside the weights; nothing is allocated."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a while to load

    with FakeTensorMode(allow_non_fake_inputs=True), LargestUse() as use:
        forward()
    return use.peak
