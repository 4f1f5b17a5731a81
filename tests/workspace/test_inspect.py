"""`info`, `doctor` and `reconstruct`: what there is, and what the autoencoder makes of a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentart.workspace.inspect import advise_on_threads, usable_cores

Run = Callable[..., Any]


def test_info_describes_the_model(run: Run, story: Any) -> None:
    """Networks, styles, latents, schedule and training, as JSON and for people."""
    about = json.loads(run(story.folder, "info", "--json").out)
    text = run(story.folder, "info").out

    assert about["style_names"] == ["Cubism", "High_Renaissance", "Minimalism"]
    assert about["folder"] == "runs/ldm/model"
    assert (about["resolution"], about["latent_factor"]) == (32, 4)
    assert about["parameters"].keys() == {"autoencoder", "denoiser"}
    assert len(about["latents"]["mean"]) == len(about["latents"]["std"]) == 4
    assert about["training"]["vae"]["stage"] == "hires"
    assert about["training"]["ldm"] == {"step": 3, "steps": 3}
    assert "styles: Cubism, High_Renaissance, Minimalism\n" in text


def test_names_cannot_move_the_cursor(run: Run, workspace: Path) -> None:
    """Whatever a model.json says of styles and training: escapes are shown, letters of any script stay."""
    path = workspace / "runs/ldm/model/model.json"
    about = json.loads(path.read_text())
    about["style_names"] = ["\x1b[2J\x07", "Рококо", "a\nb\u202e"]
    about["training"]["ldm"]["by\x1b"] = "\x1b]0;owned\x07\n\x9b2J"
    path.write_text(json.dumps(about))
    manifest = json.loads((path.parent / "MANIFEST.json").read_text())
    content = path.read_bytes()
    manifest["files"]["model.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path.parent / "MANIFEST.json").write_text(json.dumps(manifest))

    text = run(workspace, "info").out

    assert all(line.isprintable() for line in text.split("\n"))
    assert "styles: \\x1b[2J\\x07, Рококо, a\\nb\\u202e\n" in text


def test_info_takes_the_autoencoder_where_there_is_no_denoiser(run: Run, story: Any) -> None:
    """A model folder may be named, and an autoencoder alone is a model too."""
    about = json.loads(run(story.folder, "info", "runs/vae/model", "--json").out)

    assert about["denoiser"] is None
    assert about["parameters"].keys() == {"autoencoder"}
    assert about["resolution"] == 64


def test_info_refuses_a_damaged_model(run: Run, workspace: Path) -> None:
    """It verifies every file: one that is too much is named as well."""
    (workspace / "runs/ldm/model/extra.bin").write_bytes(b"?")

    assert "runs/ldm/model/extra.bin is an extra file" in run(workspace, "info").error(6)


def test_doctor_works_where_the_home_cannot_be_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name too long for any file stands for a folder that this user may not look into."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / ("x" * 300)))

    found = json.loads(run(tmp_path, "doctor", "--json").out)

    assert not any(found["lpips_weights"].values())
    assert all("cannot be read" in fault for fault in found["lpips_faults"].values())
    assert run(tmp_path, "doctor").code == 0


def test_doctor_says_what_the_machine_can_do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions, devices, disk and which LPIPS weights are here; it writes nothing."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "torch/hub/checkpoints/alexnet-owt-7be5be79.pth").touch()  # cut: it is not ready
    with (tmp_path / "torch/hub/checkpoints/squeezenet1_1-b8a52dc0.pth").open("wb") as file:
        file.truncate(4_958_839)
    (tmp_path / "here").mkdir()

    found = json.loads(run(tmp_path / "here", "doctor", "--json").out)
    text = run(tmp_path / "here", "doctor").out

    assert found["devices"][0]["name"] == "cpu"
    assert found["packages"].keys() >= {"torch", "pillow", "safetensors"}
    assert found["folder_is_writable"] is True
    assert not any(found["lpips_weights"].values())
    assert found["lpips_faults"]["vgg16"] == "is missing"
    assert "weights of vgg16: no weights here\n" in text
    assert "weights of alexnet: the file has 0 bytes, expected 244408911: it is cut" in text
    assert "weights of squeezenet: the file is damaged, or another file: its checksum (SHA-256) does not match" in text
    assert found["extras"].keys() == {
        *("simplejpeg", "pillow-heif", "diffusers", "onnxruntime", "tensorboard", "wandb")
    }
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("threads", "cores", "on_cpu", "advice"),
    [
        (8, 2, True, "set OMP_NUM_THREADS=2"),
        (8, 2, False, "set OMP_NUM_THREADS=2"),
        (1, 8, True, "OMP_NUM_THREADS=8 may train faster"),
        (1, 8, False, ""),
        (4, 8, True, ""),
        (2, 2, True, ""),
    ],
)
def test_threads_that_do_not_suit_the_cores_are_advised_on(threads: int, cores: int, on_cpu: bool, advice: str) -> None:
    """More threads than cores wait for each other; a GPU needs few, and half the cores may be no real ones."""
    found = advise_on_threads(threads, cores, on_cpu=on_cpu)

    assert advice in found if advice else found == ""


def test_a_containers_share_limits_the_cores(tmp_path: Path) -> None:
    """As the system writes it, rounded down, one at the least; no limit and no file are none."""
    found = []
    for text in ("100000 100000", "50000 100000", "max 100000", ""):
        (tmp_path / "cpu.max").write_text(text)
        found.append(usable_cores(tmp_path / "cpu.max"))

    assert found[:2] == [1, 1]
    assert found[2] == found[3] == usable_cores(tmp_path / "nowhere") >= 1


def test_reconstruct_writes_a_page_per_picture(run: Run, story: Any, workspace: Path) -> None:
    """Picture, reconstruction and error map side by side, with the error; the picture itself is not touched."""
    sources = [story.raw / "Cubism/0.png", story.raw / "Minimalism/0.png"]

    done = run(workspace, "reconstruct", *sources, "--json")

    rows = json.loads(done.out)["pictures"]
    assert [row["page"] for row in rows] == ["reconstructions/0.png", "reconstructions/0_2.png"]
    assert all(0 < row["mean_error"] < 255 and row["psnr"] > 0 for row in rows)
    with Image.open(workspace / rows[0]["page"]) as page, Image.open(sources[0]) as source:
        assert page.size == (3 * 66 + 2, 66 + 2)
        shown = page.crop((2, 2, 66, 66))
        assert shown.tobytes() == source.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS).tobytes()


def test_reconstruct_takes_any_shape(run: Run, workspace: Path, tmp_path: Path) -> None:
    """The shorter side goes to the model's resolution; the longer one to a multiple of f."""
    Image.new("RGB", (301, 100), "teal").save(tmp_path / "wide.png")

    done = run(workspace, "reconstruct", tmp_path / "wide.png", "--out", tmp_path / "pages")

    assert done.code == 0
    with Image.open(tmp_path / "pages/wide.png") as page:
        assert page.size == (3 * (192 + 2) + 2, 66 + 2)


@pytest.mark.parametrize("name", ["nowhere.png", "text.png", "."])
def test_reconstruct_refuses_what_is_no_picture(run: Run, story: Any, workspace: Path, name: str) -> None:
    """The file is named, and no page is written, not even of the sound picture before it."""
    (workspace / "text.png").write_text("no picture")

    line = run(workspace, "reconstruct", story.raw / "Cubism/0.png", name).error(4)

    assert f"{name} is no picture that can be used" in line
    assert not (workspace / "reconstructions").exists()


@pytest.mark.parametrize(("where", "name"), [("model", "."), ("model", "../../ldm/model/"), ("model/inside", "..")])
def test_a_model_is_found_however_its_folder_is_named(run: Run, workspace: Path, where: str, name: str) -> None:
    """A path that ends in no name is resolved before anything is looked for beside it."""
    here = workspace / "runs/ldm" / where
    here.mkdir(exist_ok=True)
    words = ("info",) if where == "model" else ("sample", "-s", "x", "--model")

    done = run(here, *words, name)

    assert (done.code, "Traceback" in done.err) == (0 if where == "model" else 6, False), done.err
    assert ("styles: Cubism" in done.out) if where == "model" else ("inside is an extra file" in done.err)


def test_the_model_of_the_current_folder_draws(run: Run, workspace: Path) -> None:
    """`--model .` is a folder as any other."""
    words = ("-s", "Cubism", "-n", "1", "--steps", "1", "--model", ".", "--out", workspace / "a.png")

    assert run(workspace / "runs/ldm/model", "sample", *words).code == 0
    assert (workspace / "a.png").is_file()


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_folder_without_a_model_is_named(run: Run, tmp_path: Path, name: str) -> None:
    """The line speaks of what `info` takes: it has no --model."""
    line = run(tmp_path, "info", name).error(6)

    assert line.startswith(f"error: there is no model at {name}. Name a folder with a model.json")
    assert "--model" not in line
