"""The interface for scripts and notebooks: instant to import, and the same as the command line in all it makes."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentart
from latentart.config.sample import SampleConfig
from latentart.data.synthetic.art import draw_picture

Run = Callable[..., Any]
HEAVY = ("torch", "numpy", "PIL", "pydantic", "rich", "latentart.api.model", "latentart.errors")
GAP = 2
GUIDE = Path(__file__).parents[1] / "examples/guides/sampling.md"


def values(picture: Image.Image) -> Any:
    """Return a picture's values [H, W, 3] as whole numbers that may be subtracted."""
    return np.asarray(picture.convert("RGB"), dtype=np.int64)


def values_of(path: Path) -> Any:
    """Return the values of a picture in a file."""
    with Image.open(path) as picture:
        return values(picture)


@pytest.fixture(scope="session")
def model(story: Any) -> latentart.LoadedModel:
    """Return the model of the story, loaded without its workspace."""
    return latentart.load(story.folder / "runs/ldm/model", device="cpu", precision="fp32")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a picture of 150 x 100 pixels, which no side of the model's fits."""
    path = tmp_path / "photo.png"
    draw_picture("Cubism", 0, 0, (150, 100)).save(path)
    return path


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Neither torch nor any module of ours, until a name is asked for; all of them are listed before."""
    code = f"""
import sys
import latentart
assert not [name for name in {HEAVY} if name in sys.modules], sorted(sys.modules)
assert "load" in dir(latentart) and "open_workspace" in dir(latentart)
latentart.LatentArtError
assert "latentart.errors" in sys.modules and "latentart.api.model" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_public_name_is_there() -> None:
    """Each is found and says what it is; another is refused as by any module."""
    for name in latentart.__all__:
        assert getattr(latentart, name).__doc__

    assert set(latentart.__all__) == set(dir(latentart))
    assert issubclass(latentart.UsageError, latentart.LatentArtError)
    with pytest.raises(AttributeError, match="module 'latentart' has no attribute 'lod'"):
        latentart.lod  # type: ignore[attr-defined]  # noqa: B018


def test_options_are_those_of_the_config() -> None:
    """None is missing; precision is chosen when a model is loaded."""
    assert set(latentart.SampleOptions.__annotations__) == set(SampleConfig.model_fields) - {"precision", "mark"}


@pytest.mark.parametrize(
    ("words", "style", "options"),
    [
        ((), "Cubism", {}),
        (("--eta", "0.8", "--guidance", "3"), "high renaissance", {"eta": 0.8, "guidance": 3.0}),
        (("--sampler", "unipc", "--steps", "5"), "Cubism", {"sampler": "unipc", "steps": 5}),
        (("--size", "48x32", "--interval", "0.2", "0.8"), "Cubism:0.6+Minimalism:0.4", {"size": (48, 32)}),
    ],
)
def test_pictures_are_those_of_the_command(
    run: Run, workspace: Path, words: tuple[str, ...], style: str, options: dict[str, Any]
) -> None:
    """Pixel for pixel, with and without a workspace."""
    done = run(workspace, "sample", "-s", style, "-n", "3", "--seed", "5", *words, "--separate", "--json")
    wanted = [values_of(workspace / path) for path in json.loads(done.out)["files"]]
    if "--interval" in words:
        options["guidance_interval"] = (0.2, 0.8)

    within = latentart.open_workspace(workspace, device="cpu").sample(style, range(5, 8), **options)
    alone = latentart.load(workspace / "runs/ldm/model", device="cpu", precision="fp32")
    without = alone.sample(style, (5, 6, 7), **{"steps": 3} | options)

    assert len(wanted) == 3
    for pictures in (within, without):
        assert [picture.mode for picture in pictures] == ["RGB"] * 3
        for picture, other in zip(pictures, wanted, strict=True):
            assert np.array_equal(values(picture), other)


def test_a_picture_does_not_depend_on_the_others(run: Run, workspace: Path, model: latentart.LoadedModel) -> None:
    """Alone it is the command's with one seed; among others it is the same within one gray level."""
    run(workspace, "sample", "-s", "Cubism", "-n", "1", "--seed", "7", "--eta", "1", "--out", "seven.png", "--separate")
    (path,) = (workspace / "seven.png").glob("*.png")

    (alone,) = model.sample("Cubism", [7], steps=3, eta=1)
    among = model.sample("Cubism", np.arange(5, 9), steps=3, eta=1.0)

    assert np.array_equal(values(alone), values_of(path))
    assert np.abs(values(among[2]) - values(alone)).max() <= 1
    assert np.abs(values(among[1]) - values(alone)).max() > 5
    assert model.sample("Cubism", []) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "Cubims"}, "no style 'Cubims'. Did you mean 'Cubism'?"),
        ({"style": "Cubism:0.5+Minimal:0.5"}, "no style 'Minimal'. Did you mean 'Minimalism'?"),
        ({"labels": {"genre": "portrait"}}, "'genre=portrait': this model knows no labels"),
        ({"stpes": 3}, "sample: unknown setting stpes. Did you mean 'steps'?"),
        ({"precision": "fp32"}, "sample: precision is chosen when the model is loaded."),
        ({"sampler": "dim"}, "Did you mean 'ddim'?"),
        ({"eta": 1.5}, "sample: eta: must be at most 1 (got 1.5)."),
        ({"steps": 5000}, "steps=5000 is not within 1 to 1000"),
        ({"size": 33}, "size=(33, 33): this model draws multiples of 8 pixels."),
        ({"seeds": [3, -1]}, "seeds are numbers from 0 on"),
    ],
)
def test_what_cannot_be_drawn_is_said(model: latentart.LoadedModel, options: dict[str, Any], message: str) -> None:
    """One line, with the nearest name where there is one."""
    with pytest.raises(latentart.UsageError) as refused:
        model.sample(**{"style": "Cubism"} | options)

    assert message in str(refused.value)


def test_a_model_is_refused_as_the_command_refuses_it(story: Any, tmp_path: Path) -> None:
    """No folder, no device, no precision, no denoiser."""
    folder = story.folder / "runs/vae/model"

    with pytest.raises(latentart.ModelError, match=r"there is no model at .*, or give folder"):
        latentart.load(tmp_path)
    with pytest.raises(latentart.ResourceError, match="the device 'toaster' cannot be used"):
        latentart.load(folder, device="toaster")
    with pytest.raises(latentart.UsageError, match=r"sample: precision: must be 'auto', 'fp32' or 'bf16'"):
        latentart.load(folder, precision="fp16")  # type: ignore[arg-type]
    with pytest.raises(latentart.ModelError, match="has no denoiser yet"):
        latentart.load(folder).sample("Cubism")


def test_what_is_wrong_is_said_in_words_of_python(story: Any) -> None:
    """No command line, and no option that has no argument: a setting, a folder of data, data that changed."""
    with pytest.raises(latentart.errors.ConfigError, match=r"^the settings: sample\.steps: must be at least 1 "):
        latentart.open_workspace(story.folder, settings={"sample.steps": 0})
    with pytest.raises(latentart.errors.ConfigError, match=r"Set data\.root to a folder of its own"):
        latentart.open_workspace(story.folder, settings={"data.root": str(story.raw)}, device="cpu").clean()
    with pytest.raises(
        latentart.errors.DataError, match="go on all the same by `latentart train` with --allow-changed-data"
    ):
        latentart.open_workspace(story.folder, settings={"data.held_out": 0.4}, device="cpu").train_ldm()


def test_a_model_says_what_it_is(model: latentart.LoadedModel) -> None:
    """Its styles, its size, and where it is from."""
    assert model.style_names == ["Cubism", "High_Renaissance", "Minimalism"]
    assert (model.resolution, model.label_values) == (32, {})
    assert repr(model) == f"<LoadedModel {model.folder}: 3 styles, 32 px, on cpu>"


@pytest.mark.parametrize(("size", "shape"), [(None, (48, 32)), (90, (132, 88))])
def test_a_reconstruction_is_the_commands(
    run: Run, workspace: Path, model: latentart.LoadedModel, photo: Path, size: int | None, shape: tuple[int, int]
) -> None:
    """From a file, its name, or a picture in memory; odd sides are trimmed alike."""
    words = () if size is None else ("--size", str(size))
    done = run(workspace, "reconstruct", photo, "--model", "runs/ldm/model", "--device", "cpu", *words, "--json")
    with Image.open(workspace / json.loads(done.out)["pictures"][0]["page"]) as page:
        left = GAP + (page.width - GAP) // 3
        wanted = values(page.crop((left, GAP, left + shape[0], GAP + shape[1])))

    with Image.open(photo) as opened:
        for picture in (photo, str(photo), opened):
            made = model.reconstruct(picture, size=size)
            assert made.size == shape
            assert np.array_equal(values(made), wanted)


def test_a_picture_in_memory_is_read_as_its_file_and_left_alone(model: latentart.LoadedModel, tmp_path: Path) -> None:
    """Turned upright, transparent parts over white; the picture itself stays as it was."""
    picture = draw_picture("Cubism", 0, 0, (60, 40)).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    before = picture.tobytes()

    with Image.open(tmp_path / "turned.png") as opened:
        again = model.reconstruct(opened)

    assert again.size == (32, 48)
    assert np.array_equal(values(again), values(model.reconstruct(tmp_path / "turned.png")))
    assert model.reconstruct(picture).size == (48, 32)
    assert (picture.mode, picture.tobytes()) == ("RGBA", before)


def test_latents_go_both_ways(model: latentart.LoadedModel, photo: Path) -> None:
    """Normalized float32 on the CPU, one row for each picture; decoded they are the reconstructions."""
    other = draw_picture("Minimalism", 0, 1, (75, 50))

    latents = model.encode([photo, other])
    pictures = model.decode(latents)

    assert (latents.shape, latents.dtype, latents.device.type) == ((2, 4, 8, 12), torch.float32, "cpu")
    assert torch.equal(model.encode(photo), latents[:1])
    for picture, source in zip(pictures, (photo, other), strict=True):
        assert np.abs(values(picture) - values(model.reconstruct(source))).max() <= 1
    assert model.encode(other, size=64).shape == (1, 4, 16, 24)


def test_latents_that_cannot_be_are_said(model: latentart.LoadedModel, photo: Path) -> None:
    """Pictures of two shapes, none at all, less than a latent; a tensor of another shape; a file that is none."""
    with pytest.raises(latentart.UsageError, match="pictures of 2 sizes cannot be one tensor: 32x32, 48x32"):
        model.encode([photo, draw_picture("Cubism", 0, 0, (32, 32))])
    with pytest.raises(latentart.UsageError, match="there is no picture"):
        model.encode([])
    with pytest.raises(latentart.UsageError, match=r"^size=2 is too small"):
        model.encode(photo, size=2)
    with pytest.raises(latentart.UsageError, match=r"have the shape \[B, 4, h, w\]: got \[1, 3, 8, 8\]"):
        model.decode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(latentart.DataError, match="is no picture that can be used"):
        model.reconstruct(photo.with_name("nothing.png"))


def test_a_model_is_trained_as_by_the_command(story: Any, workspace: Path) -> None:
    """The same bits; and what is finished is skipped."""
    shutil.rmtree(workspace / "runs/ldm")
    opened = latentart.open_workspace(workspace / "latentart.json", device="cpu")
    before = opened.model()

    folder = opened.train_ldm()

    assert folder == workspace / "runs/ldm/model"
    for name in ("denoiser", "autoencoder"):
        file = f"runs/ldm/model/{name}.safetensors"
        assert (workspace / file).read_bytes() == (story.folder / file).read_bytes()
    assert before.folder == workspace / "runs/vae/model", "before there was a denoiser"
    assert opened.model().folder == folder


def test_what_is_finished_is_left_alone(workspace: Path, snapshot: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Every step again changes no file of a run, says nothing, and leaves the caller's loggers as they are."""
    root, package = logging.getLogger(), logging.getLogger("latentart")
    loggers = [(one.level, one.handlers[:], one.propagate) for one in (root, package)]
    before = snapshot(workspace / "runs")
    opened = latentart.open_workspace(workspace, settings={"data.workers": 1}, device="cpu")

    report = opened.clean()
    models = [opened.train_vae(), opened.train_vae("l1"), opened.train_ldm()]

    assert (report.kept, report.num_dropped) == (15, 0)
    assert models == [workspace / "runs/vae/model"] * 2 + [workspace / "runs/ldm/model"]
    assert snapshot(workspace / "runs") == before
    assert capfd.readouterr() == ("", "")
    assert loggers == [(one.level, one.handlers[:], one.propagate) for one in (root, package)]


def test_the_whole_path_with_labels(story: Any, pictures: Run, run: Run, tmp_path: Path) -> None:
    """From a folder of pictures with a table of labels to samples; settings are written, or lie over the file's."""
    raw = pictures(tmp_path / "raw")
    paths = sorted(path.relative_to(raw) for path in raw.rglob("*.png"))
    rows = [f"{path},{path.parent},{('portrait', 'landscape')[i % 2]}" for i, path in enumerate(paths)]
    (raw / "labels.csv").write_text("\n".join(["path,style,genre", *rows]) + "\n", encoding="utf-8")
    config = json.loads((story.folder / "latentart.json").read_text())
    settings = {name: config[name] for name in ("vae", "ldm", "sample")}
    settings |= {"vae.stages": config["vae"]["stages"][:1], "data.max_side": 32}
    made = latentart.init_workspace(tmp_path / "art", data=raw, preset="demo", settings=settings, device="cpu")
    again = latentart.init_workspace(tmp_path / "art", data=raw, preset="demo", settings=settings, device="cpu")
    opened = latentart.open_workspace(made.folder, settings={"ldm.labels": ["genre"]}, device="cpu")

    with pytest.raises(latentart.ModelError, match="there is no model at"):
        opened.model()
    with pytest.raises(latentart.DataError):
        opened.train_vae()
    kept = latentart.open_workspace(made.folder, settings={"data.workers": 1}).clean().kept
    opened.train_vae()
    opened.train_ldm()
    (picture,) = opened.sample("Cubism", [3], labels={"Genre": "portrait"})
    run(made.folder, "sample", "-s", "Cubism", "--seed", "3", "-n", "1", "--label", "genre=portrait", "--separate")

    (drawn,) = made.folder.glob("samples/*/*.png")
    assert again.folder == made.folder == tmp_path / "art"
    assert kept == len(paths)
    assert opened.model().label_values == {"genre": ["landscape", "portrait"]}
    assert np.array_equal(values(picture), values_of(drawn))


def test_the_lines_of_the_guide_run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, in a workspace."""
    monkeypatch.chdir(workspace)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {}

    exec(code, found)

    assert len(found["pictures"]) == len(found["latents"]) == 4
    assert found["again"].size == found["pictures"][0].size
    assert values_of(workspace / "blend.png").shape == (32, 32, 3)


def test_a_workspace_that_is_none_is_refused(tmp_path: Path, workspace: Path) -> None:
    """No config, a setting that is none, a stage that is none, a device that is none."""
    with pytest.raises(latentart.ConfigError, match=r"is not a workspace.*, or give path"):
        latentart.open_workspace(tmp_path)
    with pytest.raises(latentart.ConfigError, match="there is no config at"):
        latentart.open_workspace(tmp_path / "art.json")
    with pytest.raises(latentart.ConfigError, match=r"Did you mean 'steps'\?"):
        latentart.open_workspace(workspace, settings={"ldm.training.stpes": 3})
    with pytest.raises(latentart.ResourceError, match="the device 'toaster' cannot be used"):
        latentart.open_workspace(workspace, device="toaster")
    with pytest.raises(latentart.UsageError, match="l1"):
        latentart.open_workspace(workspace).train_vae("l2")


class Presser(io.StringIO):
    """A screen that sends its own process a signal once progress appears on it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.is_done = number, False

    def write(self, text: str) -> int:
        """Take what is written."""
        if "ldm: step" in text and not self.is_done:
            self.is_done = True
            signal.raise_signal(self.number)
        return super().write(text)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, latentart.StoppedBySignal)]
)
def test_a_training_can_be_interrupted(story: Any, workspace: Path, number: int, kind: type[BaseException]) -> None:
    """Ctrl-C saves a checkpoint and ends as Python does; called again it goes on to the same bits."""
    shutil.rmtree(workspace / "runs/ldm")
    opened = latentart.open_workspace(workspace, device="cpu")

    with contextlib.redirect_stderr(Presser(number)), pytest.raises(kind, match=r"step \d is saved"):
        opened.train_ldm(progress=True)
    saved = [path.name for path in (workspace / "runs/ldm/checkpoints").glob("step-*")]
    folder = opened.train_ldm()

    assert saved == ["step-00000001"]
    file = "denoiser.safetensors"
    assert (folder / file).read_bytes() == (story.folder / "runs/ldm/model" / file).read_bytes()
