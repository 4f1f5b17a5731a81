"""The page that leaves: what lies in its folder, what it may load, the noise that it draws, and who is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import UNET, make_model
from torch import Tensor

from latentart.core.diffusion.editing import slerp
from latentart.core.randomness import normal_for
from latentart.export.web import CDN, ENGINES, HERE, VERSION, export_web

Run = Callable[..., Any]
HOSTILE = ["<img src=x onerror=alert(1)>", "constructor", "</script>{policy}"]
OURS = {
    "index.html",
    "web.js",
    "worker.js",
    "noise.js",
    "png.js",
    "plane.js",
    "ui.js",
    "studio.css",
    "web.css",
    "mark.svg",
}
OURS |= {"denoiser.onnx", "decoder.onnx", "model.json", "MANIFEST.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model whose styles have the names that pages fear."""
    return make_model(tmp_path_factory.mktemp("web") / "model", UNET, "kl", "v", HOSTILE)


@pytest.fixture(scope="module")
def page(model: Path) -> Path:
    """Export it, with a title to fear and the runtime on its public host."""
    return export_web(model, model.parent / "page", title=HOSTILE[2]).folder


def make_runtime(folder: Path) -> Path:
    """Write what looks like an unpacked package."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"version": "1.2.3"}))
    for engine in ENGINES.values():
        (folder / "dist" / engine.script).write_text(engine.script)
        (folder / "dist" / engine.binary).write_bytes(b"\0asm" * 1000)
    return folder


def policy_in(page: Path) -> dict[str, str]:
    """Return the page's policy by what it is about."""
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', (page / "index.html").read_text(encoding="utf-8"))
    assert found
    text = found[1].replace("&#x27;", "'")
    return dict(part.strip().split(" ", 1) for part in text.split(";"))


def test_the_folder_is_whole_and_can_be_put_anywhere(page: Path) -> None:
    """All that the page names lies beside it, by relative addresses; nothing is written into the page as a script."""
    assert {path.name for path in page.iterdir()} == OURS
    html = (page / "index.html").read_text(encoding="utf-8")
    named = re.findall(r'(?:href|src)="([^"]+)"', html)
    for path in page.glob("*.js"):
        named += re.findall(r'(?:from|import) "\./([^"]+)"', text := path.read_text(encoding="utf-8"))
        assert not re.search(r'"https?:|from "/|import\("|eval\(|innerHTML', text), path
    assert set(named) <= OURS
    assert not re.search(r"<script(?! type=\"module\" src=)|<style| style=| on\w+=", html)
    assert HOSTILE[2] not in html
    assert html.count("&lt;/script&gt;{policy}") == 2


def test_names_of_styles_stay_texts(page: Path) -> None:
    """Whatever they are: they are data of the page and no part of it."""
    about = json.loads((page / "model.json").read_text(encoding="utf-8"))

    assert about["columns"][0]["values"] == HOSTILE
    assert "onerror" not in (page / "index.html").read_text(encoding="utf-8")


def test_without_a_runtime_its_host_is_named_with_hashes(page: Path) -> None:
    """The policy lets in that version's folder there, and nothing else."""
    policy, runtime = policy_in(page), json.loads((page / "model.json").read_text())["runtime"]

    assert f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/" == CDN
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval' blob:"
    assert policy["connect-src"] == f"'self' {CDN}"
    for name in ENGINES:
        for part in (runtime[name]["script"], runtime[name]["binary"]):
            assert part["address"].startswith(CDN)
            assert len(base64.b64decode(part["integrity"].removeprefix("sha384-"))) == hashlib.sha384().digest_size


def test_with_a_runtime_no_other_host_is_asked(model: Path, tmp_path: Path, run: Run) -> None:
    """Its files lie in the folder, the large ones packed; weights of 16 bits take half the room and differ little."""
    make_runtime(tmp_path / "package")
    words = ("export", "web", "page", "--runtime", "package", "--half", "--model", model, "--json")
    done = run(tmp_path, *words)

    assert done.code == 0, done.err
    about, page = json.loads(done.out), tmp_path / "page"
    assert about["size_bytes"] == sum(path.stat().st_size for path in page.iterdir())
    assert 0 < max(about["largest_differences"].values()) < 0.05
    runtime = {f"ort.{name}.{ending}" for name in ENGINES for ending in ("js", "wasm.gz")}
    assert {path.name for path in page.iterdir()} == OURS | runtime
    assert (page / "ort.wasm.wasm.gz").stat().st_size < 1000
    assert policy_in(page)["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy_in(page)["connect-src"] == "'self'"
    assert "https:" not in (page / "model.json").read_text()
    assert json.loads((page / "model.json").read_text())["runtime"]["version"] == "1.2.3"
    first = {path.name: path.read_bytes() for path in page.iterdir()}
    assert run(tmp_path, *words).code == 0
    assert {path.name: path.read_bytes() for path in page.iterdir()} == first


def test_what_stops_a_page_is_one_line(model: Path, tmp_path: Path, run: Run) -> None:
    """Something else in the way, a runtime that is none: nothing is written."""
    words = ("export", "web", "out", "--model", model)
    assert "is no unpacked onnxruntime-web" in run(tmp_path, *words, "--runtime", ".").error(2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    assert "is no export as it was written" in run(tmp_path, *words).error(2)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's script")
def test_the_page_draws_the_noise_of_torch(tmp_path: Path) -> None:
    """Of whole seeds, of places between two, and of shapes that are no multiple of 16."""
    shape = (3, 5, 7)
    shutil.copyfile(HERE / "page" / "noise.js", tmp_path / "noise.mjs")
    seeds = [0, 7, 2**40 + 1, 3.25, [5008.5, 6008.5, 0.125]]
    code = 'import { noiseOf } from "./noise.mjs"; console.log(JSON.stringify(SEEDS.map((s) => [...noiseOf(s, 105)])))'
    (tmp_path / "ask.mjs").write_text(code.replace("SEEDS", json.dumps(seeds)))
    found = json.loads(subprocess.check_output(["node", "ask.mjs"], cwd=tmp_path))

    def between(start: Tensor, end: Tensor, share: float) -> Tensor:
        return slerp(start, end, torch.tensor([share]))

    whole = {seed: normal_for(0, "x_T", [seed], shape) for seed in (0, 7, 2**40 + 1, 3, 4, 5008, 5009, 6008, 6009)}
    rows = [between(whole[row], whole[row + 1], 0.5) for row in (5008, 6008)]
    expected = [*(whole[seed] for seed in seeds[:3]), between(whole[3], whole[4], 0.25), between(*rows, 0.125)]
    for ours, noise in zip(found, expected, strict=True):
        assert (torch.tensor(ours) - noise.flatten()).abs().max() < 2e-6
