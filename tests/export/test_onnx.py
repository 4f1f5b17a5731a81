"""What leaves as ONNX draws the pictures that `sample` draws, without PyTorch, and nothing of anybody's is lost."""

from __future__ import annotations

import json
import math
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import DIT, UNET, make_model
from torch import Tensor

from latentart.builders import build_schedule
from latentart.config.ldm import DiffusionConfig
from latentart.core.diffusion.process import x0_and_eps_from
from latentart.core.randomness import normal_for
from latentart.data.datasets import pixels_from
from latentart.export.onnx import OnnxExport, export_onnx, x0_coefficients
from latentart.export.standalone import draw_noise
from latentart.kinds import Target
from latentart.model import onnx
from latentart.model.folder import load_model, require_denoiser
from latentart.model.generate import Generator, SamplerSettings
from latentart.model.onnx import open_session, run_session
from latentart.process.devices import Placement
from latentart.sampling.blends import labels_of, parse_blend
from latentart.sampling.settings import read_text

Run = Callable[..., Any]
CPU = Placement(torch.device("cpu"), "fp32")


@dataclass(frozen=True)
class Exported:
    """A model folder and what has left it."""

    model: Path
    done: OnnxExport

    @property
    def script(self) -> Callable[[list[str]], None]:
        """The script, to be called with words."""
        return runpy.run_path(str(self.done.folder / "sample.py"))["main"]


def draw(folder: Path, style: str, seed: int, settings: SamplerSettings, *labels: tuple[str, str]) -> Tensor:
    """Return the pixels [3, H, W] that PyTorch draws."""
    model = load_model(folder, CPU)
    denoiser, task = require_denoiser(model, folder)
    generator = Generator(model.autoencoder, denoiser, model.normalizer, task, CPU, model.resolution)
    return generator(labels_of(model, denoiser, [parse_blend(model, style)], labels), [seed], settings)[0]


def difference(picture: Path, pixels: Tensor) -> int:
    """Return the largest difference in gray levels."""
    return int((pixels_from(Image.open(picture)).int() - pixels.int()).abs().max())


@pytest.fixture(scope="module")
def from_unet(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a UNet and a variational autoencoder."""
    folder = tmp_path_factory.mktemp("unet")
    return Exported(make_model(folder / "model", UNET, "kl", "v"), export_onnx(folder / "model", folder / "out"))


@pytest.fixture(scope="module")
def from_transformer(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a transformer and a quantized autoencoder."""
    folder = tmp_path_factory.mktemp("transformer")
    return Exported(make_model(folder / "model", DIT, "vq", "eps"), export_onnx(folder / "model", folder / "out"))


@pytest.mark.parametrize("networks", ["from_unet", "from_transformer"])
def test_the_script_draws_what_sample_draws(request: pytest.FixtureRequest, tmp_path: Path, networks: str) -> None:
    """UNet and transformer, both autoencoders, a name with signs, a blend, a label, noise: to one gray level."""
    exported: Exported = request.getfixturevalue(networks)

    assert max(exported.done.differences.values()) < 1e-4
    exported.script(["--style", "Fauves+Dada:2", "--seed", "7", "--steps", "5", "--out", str(tmp_path / "one.png")])
    pixels = draw(exported.model, "Fauves+Dada:2", 7, SamplerSettings(steps=5))
    assert pixels.float().std() > 10
    assert difference(tmp_path / "one.png", pixels) <= 1
    words = ["--style", "Cubism+Ukiyo_e:3", "--label", "genre=sea", "--guidance", "3", "--eta", "0.8"]
    exported.script([*words, "--steps", "4", "--out", str(tmp_path / "two.png")])
    settings = SamplerSettings(steps=4, guidance=3.0, eta=0.8)
    other = draw(exported.model, "Cubism+Ukiyo_e:3", 0, settings, ("genre", "sea"))
    assert difference(tmp_path / "two.png", other) <= 1
    assert not torch.equal(other, pixels)


@pytest.mark.parametrize("target", get_args(Target))
def test_two_numbers_a_timestep_say_what_a_prediction_means(target: Target) -> None:
    """So the script knows nothing of targets."""
    schedule = build_schedule(DiffusionConfig(num_steps=50))
    of_x, of_prediction = x0_coefficients(target, schedule.alpha_bar)
    x_t, prediction = normal_for(0, "x", range(2), (50,)).double()

    expected, _ = x0_and_eps_from(target, prediction, x_t, schedule.alpha_bar)
    torch.testing.assert_close(of_x * x_t + of_prediction * prediction, expected)


def test_the_script_stays_small_and_needs_three_packages() -> None:
    """Anybody can read it at one sitting: fewer than 100 lines."""
    text = Path(sys.modules[draw_noise.__module__].__file__ or "").read_text(encoding="utf-8")
    imported = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))}

    assert len(text.splitlines()) < 100
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}


@pytest.mark.parametrize("shape", [(4, 16, 16), (3, 5, 7), (1, 4, 4)])
def test_the_script_draws_the_noise_of_torch(shape: tuple[int, int, int]) -> None:
    """Where the numbers are no multiple of 16 the last ones are drawn anew."""
    for seed in (0, 7, 2**62 + 1):
        ours = normal_for(0, "step noise", [seed], shape, 3)
        assert np.abs(draw_noise("step noise", seed, shape, 3) - ours.numpy()).max() < 2e-6
    assert math.isclose(draw_noise("x_T", 1, (4, 64, 64)).std(), 1, abs_tol=0.02)


def test_the_command_writes_the_same_again(from_unet: Exported, run: Run) -> None:
    """In place of an earlier export, and the encoder too: moments as PyTorch's, for batches of any size."""
    out = from_unet.done.folder
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    done = run(out.parent, "export", "onnx", "out", "--model", "model", "--json")

    assert done.code == 0, done.err
    assert json.loads(done.out)["largest_differences"].keys() == {"denoiser", "decoder", "encoder"}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    autoencoder = load_model(from_unet.model, CPU).autoencoder
    for count in (1, 5):
        images = normal_for(0, "images", range(count), (3, 24, 24)).clamp(-1, 1)
        with torch.no_grad():
            expected = autoencoder.encode(images)
        torch.testing.assert_close(run_session(open_session(out / "encoder.onnx"), {"images": images}), expected)


def test_what_stops_an_export_is_one_line(
    from_unet: Exported, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a network is read: no model, no room, something else in the way; a changed export is somebody's."""
    words = ("export", "onnx", "out", "--model", from_unet.model)
    assert "there is no model at" in run(tmp_path, *words[:-1], tmp_path).error(6)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    assert "is no export as it was written" in run(tmp_path, *words).error(2)
    assert "cannot be written" in run(tmp_path, "export", "onnx", "out/mine.txt/x", *words[3:]).error(5)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]
    monkeypatch.setattr(onnx, "find_spec", lambda _: None)
    line = run(tmp_path, *words).error(8)
    assert 'onnx and onnxruntime are not installed. Run `pip install ".[onnx]"` in the folder' in line


def test_pictures_beside_the_script_are_not_lost(from_unet: Exported, tmp_path: Path, run: Run) -> None:
    """What is drawn into an export's folder makes it somebody's; the script overwrites nothing and knows its names."""
    out = shutil.copytree(from_unet.done.folder, tmp_path / "out")
    words = ["--style", "Cubism", "--steps", "1", "--out", str(out / "picture.png")]
    from_unet.script(words)

    refused = run(tmp_path, "export", "onnx", "out", "--model", from_unet.model)
    assert "is no export as it was written" in refused.error(2)
    for wrong, line in (
        (words, "exists"),
        ([*words[:-1], "x.png", "--label", "gender=x"], "no column is named gender"),
        (["--style", "Cubist"], "no style is named Cubist; there are Cubism"),
    ):
        with pytest.raises(SystemExit, match=line):
            from_unet.script(wrong)


def test_sample_draws_the_same_through_onnx(from_unet: Exported, run: Run, tmp_path: Path) -> None:
    """In any size; a picture that is there is the same whatever drew it; what it cannot do is said."""
    words = ("sample", "--model", from_unet.model, "--steps", "3", "-s", "Cubism+Ukiyo_e", "-n", "3", "--size", "24x32")
    words = (*words, "--device", "cpu", "sample.precision=fp32")
    assert run(tmp_path, *words, "--out", "torch.png").code == 0
    drawn = run(tmp_path, *words, "--engine", "onnx", "--out", "onnx.png")

    assert drawn.code == 0, drawn.err
    assert difference(tmp_path / "onnx.png", pixels_from(Image.open(tmp_path / "torch.png"))) <= 1
    assert read_text(tmp_path / "onnx.png") == read_text(tmp_path / "torch.png")
    assert "were there already" in run(tmp_path, *words, "--engine", "onnx", "--out", "torch.png").err
    for wrong in ("sample.precision=bf16", "sample.compile=true", "--autoguidance=2"):
        line = run(tmp_path, *words, "--engine", "onnx", wrong, "--out", "x.png").error(2)
        assert "--engine onnx does not go with" in line
    again = run(tmp_path, "sample", "--from", "torch.png", "--model", from_unet.model, "--engine", "onnx")
    assert "leave out --engine" in again.error(2)
