"""How much memory drawing takes, reckoned before anything is built: sizes may come from a stranger's picture."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latentart.core.networks.conditioning import Denoiser
from latentart.errors import ResourceError
from latentart.model.folder import Model
from latentart.process.host_memory import available_bytes
from latentart.sampling.request import SamplePlan

KEPT_BYTES = 3 * 4  # of a pixel kept to the end: as it came, joined with the others, as a picture and in the grid
DECODING_BYTES = 48  # of a pixel of the one picture that is decoded: 3.9 GB were measured at 9216 x 9216
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


def require_room(plan: SamplePlan, model: Model, denoiser: Denoiser, batch_size: int, device: torch.device) -> None:
    """Refuse a plan that needs more memory than this machine has left; nothing is allocated to find out.

    Raises:
        ResourceError: so it is.
    """
    pixels, count = plan.size[0] * plan.size[1], len(plan.cells)
    at_once = min(batch_size, count)
    needed = pixels * ((at_once if plan.kind == "separate" else count) * KEPT_BYTES + DECODING_BYTES)
    if device.type == "cpu" and pixels * at_once > EVERYDAY_PIXELS:  # a GPU's batches are halved until they fit
        sides = (side // model.autoencoder.factor for side in (plan.size[1], plan.size[0]))
        needed += forward_bytes(denoiser, (2 * at_once, model.autoencoder.latent_channels, *sides))  # 2: guidance
    left = available_bytes(torch.device("cpu"))
    if left is not None and needed > left:
        what = f"{count} picture{'s' if count > 1 else ''} of {plan.size[0]}x{plan.size[1]}"
        msg = f"{what} would take {needed / 1e9:.1f} GB of memory, and {left / 1e9:.1f} GB are left."
        raise ResourceError(msg, "Give a smaller --size, fewer pictures, or a smaller sample.batch_size.")


@torch.no_grad()
def forward_bytes(denoiser: Denoiser, shape: tuple[int, ...]) -> int:
    """Return the most bytes that a forward pass over x_t of that shape holds, in float32 beside the weights."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a while to load

    with FakeTensorMode(allow_non_fake_inputs=True), LargestUse() as use:
        numbers = torch.zeros(shape[0], dtype=torch.int64)
        denoiser(torch.empty(shape), numbers, numbers)
    return use.peak
