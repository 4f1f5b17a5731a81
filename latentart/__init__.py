"""latentart: your own folder of pictures into your own class-conditional latent diffusion model.

From Python::

    import latentart

    model = latentart.load("runs/ldm/model")
    pictures = model.sample("High_Renaissance", seeds=range(4), steps=30, eta=0.8)

    workspace = latentart.open_workspace("my-art")
    workspace.clean()
    workspace.train_vae()
    workspace.train_ldm()
    pictures = workspace.sample("High_Renaissance")

These names are all that a script or notebook needs. They are imported when they are first asked for: importing the
package itself takes milliseconds and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from latentart.api.model import LoadedModel, SampleOptions, load
    from latentart.api.workspace import OpenWorkspace, init_workspace, open_workspace
    from latentart.errors import (
        ConfigError,
        DataError,
        DownloadError,
        LatentArtError,
        ModelError,
        ResourceError,
        StoppedBySignal,
        TrainingDivergedError,
        UsageError,
    )

__all__ = [
    "ConfigError",
    "DataError",
    "DownloadError",
    "LatentArtError",
    "LoadedModel",
    "ModelError",
    "OpenWorkspace",
    "ResourceError",
    "SampleOptions",
    "StoppedBySignal",
    "TrainingDivergedError",
    "UsageError",
    "__version__",
    "init_workspace",
    "load",
    "open_workspace",
]

_HOMES = {
    **dict.fromkeys(("LoadedModel", "SampleOptions", "load"), "latentart.api.model"),
    **dict.fromkeys(("OpenWorkspace", "init_workspace", "open_workspace"), "latentart.api.workspace"),
}


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return __all__


if not TYPE_CHECKING:  # a type checker would take every name for known

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for (PEP 562)."""
        if name not in __all__:
            msg = f"module 'latentart' has no attribute '{name}'"
            raise AttributeError(msg)
        return getattr(importlib.import_module(_HOMES.get(name, "latentart.errors")), name)
