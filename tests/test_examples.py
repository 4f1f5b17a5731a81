"""The examples run: what they show of the package is still there."""

from __future__ import annotations

import ast
import json
import os
import runpy
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from latentart.config.presets import PRESETS
from latentart.config.workspace import load_config, resolve

Run = Callable[..., Any]
EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> dict[str, Any]:
    """Return what an example defines, without running its last part."""
    return runpy.run_path(str(EXAMPLES / name))


def test_the_example_config_is_the_preset() -> None:
    """It is complete, valid, and what `config show` writes."""
    text = (EXAMPLES / "wikiart.json").read_text(encoding="utf-8")

    assert text == resolve({"preset": "wikiart-256"}).to_text()
    assert load_config(EXAMPLES / "wikiart.json").preset in PRESETS


@pytest.mark.parametrize("name", ["sample_from_python.py", "train_from_python.py"])
def test_examples_use_the_public_interface_alone(name: str) -> None:
    """Of the package they import nothing but itself."""
    tree = ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]

    assert [module for module in imported if module.startswith("latentart")] == ["latentart"]


def test_pictures_drawn_from_python_are_those_of_the_command(run: Run, workspace: Path) -> None:
    """The same model, style, seed and settings give the same picture either way."""
    words = ("-s", "Cubism", "-n", "4", "--guidance", "2", "--eta", "0.8", "--steps", "30", "--separate")
    run(workspace, "sample", *words, "--model", "runs/ldm/model", "--out", "drawn")

    files = load("sample_from_python.py")["draw"](workspace / "runs/ldm/model", "Cubism", workspace / "portraits")

    assert [path.name for path in files] == [f"Cubism_seed{seed}.png" for seed in range(4)]
    for path in files:
        with Image.open(path) as picture, Image.open(workspace / "drawn" / path.name) as drawn:
            assert ImageChops.difference(picture, drawn).getbbox() is None


def test_a_model_is_trained_from_python(story: Any, pictures: Run, tmp_path: Path) -> None:
    """From a folder of pictures to two drawn ones of each style; what is set by default exists."""
    example, config = load("train_from_python.py"), json.loads((story.folder / "latentart.json").read_text())
    tiny = {name: config[name] for name in ("vae", "ldm")} | {"vae.stages": config["vae"]["stages"][:1]}
    small = {"data.max_side": 32, "ldm.training.steps": 2, "sample.steps": 2}

    drawn = example["train"](pictures(tmp_path / "raw"), tmp_path / "art", example["SETTINGS"] | tiny | small)

    styles = sorted(path.name for path in (tmp_path / "raw").iterdir())
    assert sorted(path.name for path in drawn.iterdir()) == [
        f"{style}_seed{seed}.png" for style in styles for seed in (0, 1)
    ]


STANDINS = {
    "scontrol": 'if [[ $1 == requeue ]]; then echo "$2" > requeued; else echo node-a; echo node-b; fi',
    # back only when the step is gone: its end must not be lost on a script that was busy here
    "scancel": 'echo "$@" > cancelled; while kill -0 "$(< pid)" 2>/dev/null; do sleep 0.02; done',
    "srun": """
        out=$(sed -n "s/^--output=//p" <<< "$(printf "%s\\n" "$@")")
        echo $$ > pid
        echo "$@" > called
        if [[ $PRINTS == wait ]]; then
          until [[ -f cancelled ]]; do sleep 0.02; done
          exit 143
        fi
        echo "$PRINTS" > "$out"
    """,
}


@pytest.mark.parametrize(
    ("prints", "is_requeued"), [("runs/ldm/checkpoints/step-00000500", True), ("runs/ldm/model", False), ("wait", True)]
)
def test_the_slurm_script_goes_on_until_the_model_is_there(tmp_path: Path, prints: str, is_requeued: bool) -> None:
    """Paused at --max-time or told that time is up it is put into the queue again; finished it is not."""
    for name, body in STANDINS.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/bash\n{body}\n")
        script.chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PRINTS": prints}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_JOB_NUM_NODES": "2"}
    environment |= {"SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "32"}
    with subprocess.Popen(["bash", EXAMPLES / "slurm.sh", "vae"], cwd=tmp_path, env=environment) as process:
        while process.poll() is None and not (tmp_path / "called").exists():
            time.sleep(0.02)
        if prints == "wait":
            process.send_signal(signal.SIGUSR1)
        code = process.wait(timeout=30)

    called = (tmp_path / "called").read_text()
    assert "--nnodes 2 --nproc-per-node 4 " in called
    assert "--rdzv-endpoint node-a:29500" in called
    assert "-m latentart train vae --quiet --max-time 7h" in called
    assert "--open-mode=truncate" in called, "a job that is put into the queue again would read what it wrote before"
    assert (code, (tmp_path / "requeued").exists()) == (143 if prints == "wait" else 0, is_requeued)
    assert (tmp_path / "cancelled").exists() == (prints == "wait")
