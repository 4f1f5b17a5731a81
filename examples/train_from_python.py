"""From a folder of pictures to a small model of your own, in Python: clean, train for minutes on a CPU, draw.

Run: python examples/train_from_python.py pictures my-art
Started again it goes on where it was; Ctrl-C saves first.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import latentart

# The preset `demo` is made for 64 px and one CPU. Its training may be longer: these are the keys of latentart.json.
SETTINGS = {"ldm.training.steps": 2000, "sample.steps": 30, "sample.eta": 0.8}


def train(pictures: Path, folder: Path, settings: Mapping[str, Any]) -> Path:
    """Make a workspace for a folder with one sub-folder per style, train in it, and draw two pictures of each style."""
    workspace = latentart.init_workspace(folder, data=pictures, preset="demo", settings=settings)
    report = workspace.clean(progress=True)
    print(f"{report.kept} pictures are kept, {report.num_dropped} are not: {report.reasons}")
    workspace.train_vae(progress=True)
    workspace.train_ldm(progress=True)
    model = workspace.model()
    drawn = workspace.folder / "drawn"
    drawn.mkdir(exist_ok=True)
    for style in model.style_names:
        for seed, picture in enumerate(model.sample(style, seeds=range(2))):
            picture.save(drawn / f"{style}_seed{seed}.png")
    return drawn


if __name__ == "__main__":  # cleaning starts processes, which import this file once more
    try:
        print(train(Path(sys.argv[1]), Path(sys.argv[2]), SETTINGS))
    except latentart.LatentArtError as error:
        sys.exit(str(error))
