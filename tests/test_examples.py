"""The examples run: what they show of the package is still there."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
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


def packed_emoji(folder: Path) -> Path:
    """Return a package with thirty drawn pictures, in the layout of the real one."""
    singles, sheet = folder / "img/google/64", Image.new("RGBA", (6 * 66, 5 * 66))
    singles.mkdir(parents=True)
    (folder / "img/google/sheets").mkdir()
    known = []
    for i in range(30):
        picture = Image.new("RGBA", (64, 64))
        picture.paste((8 * i, 40, 90, 255), (8, 8, 16 + i, 40))
        picture.save(singles / f"{i:02}.png")
        sheet.paste(picture, (i % 6 * 66 + 1, i // 6 * 66 + 1))
        known.append({"image": f"{i:02}.png", "sheet_x": i % 6, "sheet_y": i // 6, "has_img_google": i != 7})
    sheet.save(folder / "img/google/sheets/64.png")
    tones = {"skin_variations": {"1F3FB": known[28], "1F3FC": known[29]}}
    names = ["Food & Drink"] * 10 + ["Flags"] * 10 + ["Animals & Nature"] * 6 + ["Component"] * 2
    emoji = [one | {"category": name} for one, name in zip(known, names, strict=False)]
    emoji[0] |= tones
    (folder / "emoji.json").write_text(json.dumps(emoji))
    return folder


def test_emoji_are_laid_out_by_category(tmp_path: Path) -> None:
    """On white, other colors of skin by choice, too small categories left out; from files or sheet, packed or not."""
    lay = load("emoji.py")["lay_by_category"]
    package = packed_emoji(tmp_path / "package")
    with tarfile.open(tmp_path / "all.tgz", "w:gz") as archive:
        archive.add(package, "package")

    assert lay(package, tmp_path / "plain") == 19
    assert lay(tmp_path / "all.tgz", tmp_path / "tones", skin_tones=True) == 21
    shutil.rmtree(package / "img/google/64")
    assert lay(package, tmp_path / "sheet") == 19
    counts = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "tones").iterdir()}
    assert counts == {"Food_Drink": 11, "Flags": 10}
    for path in (tmp_path / "plain").rglob("*.png"):
        other = tmp_path / "sheet" / path.relative_to(tmp_path / "plain")
        with Image.open(path) as picture, Image.open(other) as same:
            assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (255, 255, 255))
            assert picture.getpixel((9, 9)) == (8 * int(path.stem), 40, 90)
            assert ImageChops.difference(picture, same).getbbox() is None


def test_letters_are_drawn_once_for_each_font_that_has_them(tmp_path: Path) -> None:
    """One folder a letter, one picture a font, black in the middle of white; what looks the same is there once."""
    glyphs, fonts = load("glyphs.py"), Path(mpl.get_data_path()) / "fonts/ttf"
    chosen = [fonts / f"{name}.ttf" for name in ("DejaVuSans", "DejaVuSerif", "cmsy10")]
    chosen += [Path(shutil.copy(chosen[0], tmp_path / "twin.ttf")), Path(__file__)]

    assert glyphs["draw_letters"](chosen, "Ağ", tmp_path / "letters") == 5
    found = sorted(path.relative_to(tmp_path / "letters").as_posix() for path in tmp_path.rglob("*.png"))
    assert [name.partition("_DejaVu")[0] for name in found[:2]] == ["A/0001", "A/0002"]
    assert {chosen[0], chosen[1]} <= set(glyphs["find_fonts"]([fonts]))
    with Image.open(tmp_path / "letters" / found[0]) as picture:
        left, top, right, bottom = ImageChops.invert(picture).getbbox() or (0, 0, 0, 0)
    assert picture.size == (64, 64)
    assert max(right - left, bottom - top) == pytest.approx(48, abs=2)
    assert (left + right, top + bottom) == pytest.approx((64, 64), abs=2)


NOTEBOOK = EXAMPLES / "latentart.ipynb"
MAX_NOTEBOOK_BYTES = 300_000
DRAGGED = """
before = list(drawn)
sliders["Cubism"].value, sliders[model.style_names[0]].value = 1.0, 0.5
assert drawn[0].tobytes() == model.sample(f"{model.style_names[0]}:0.5+Cubism:1", [0], guidance=2.0)[0].tobytes()
assert drawn[0].tobytes() != before[0].tobytes()
"""


def test_the_notebook_is_small_and_of_nobody() -> None:
    """It holds what it drew, and no path of the machine that drew it; of the package it takes the public interface."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = json.loads(text)["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")

    assert len(text) < MAX_NOTEBOOK_BYTES
    assert text.count('"image/jpeg"') >= 5
    assert not [word for word in ("/tmp", "/home", "/root", "index-url", "http:") if word in text]
    assert [line for line in code.splitlines() if re.match(r"(from|import) latentart", line)] == ["import latentart"]


@pytest.mark.slow
def test_the_notebook_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first cell to the report, on a demo of a few steps; a slider that is dragged draws the blend."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    assert run(tmp_path, "demo", "latentart-demo", "--quick", "--quiet").code == 0
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sliders = next(i for i, cell in enumerate(notebook.cells) if "interactive_output" in cell.source)
    notebook.cells.insert(sliders + 1, nbformat.v4.new_code_cell(DRAGGED))
    for cell in notebook.cells:
        cell.pop("outputs", None) if cell.cell_type == "markdown" else cell.update(outputs=[])

    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    told = next(cell.outputs for cell in notebook.cells if cell.source.startswith("!"))
    assert "Done in" in "".join(one.text for one in told)
    assert "srcdoc" in notebook.cells[-1].outputs[0].data["text/html"]
