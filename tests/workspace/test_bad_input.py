"""Bad input: one clear line, the right exit code, and nothing written or lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.config.base import merge

Run = Callable[..., Any]
WORK = ("clean-data", "train vae", "train ldm", "encode", "sample -s x", "config show", "info", "reconstruct x.png")


@pytest.mark.parametrize("command", WORK)
def test_outside_a_workspace_nothing_is_guessed(run: Run, tmp_path: Path, command: str) -> None:
    """Every command that needs a workspace says how to get one."""
    line = run(tmp_path, *command.split()).error(3)

    assert "is not a workspace: it has no latentart.json" in line
    assert "latentart init" in line
    assert list(tmp_path.iterdir()) == []


def test_init_refuses_a_folder_that_holds_other_things(run: Run, story: Any, tmp_path: Path) -> None:
    """A folder of pictures is no place for a workspace; the line says which option names pictures."""
    shutil.copytree(story.raw, tmp_path / "art")

    line = run(tmp_path, "init", "art").error(2)

    assert "art exists and is not a workspace; nothing was written" in line
    assert "--data FOLDER" in line
    assert sorted(path.name for path in (tmp_path / "art").iterdir()) == ["Cubism", "High_Renaissance", "Minimalism"]


def test_a_missing_raw_folder_is_named(run: Run, tmp_path: Path) -> None:
    """A workspace without its pictures cannot be cleaned."""
    run(tmp_path, "init", "art", "--preset", "demo")

    line = run(tmp_path / "art", "clean-data").error(4)

    assert "The raw folder 'raw' does not exist." in line
    assert not (tmp_path / "art/data").exists()


def test_an_empty_raw_folder_is_named(run: Run, init_tiny: Run, tmp_path: Path) -> None:
    """Folders without files are no pictures."""
    (tmp_path / "raw/Cubism").mkdir(parents=True)
    art = init_tiny(tmp_path / "raw")

    line = run(art, "clean-data").error(4)

    assert "holds no files" in line
    assert not (art / "data").exists()


def test_a_raw_folder_without_a_sound_picture_is_refused(run: Run, init_tiny: Run, tmp_path: Path) -> None:
    """All broken: nothing to train on, and nothing is written; the report names every file all the same."""
    (tmp_path / "raw/Cubism").mkdir(parents=True)
    (tmp_path / "raw/Cubism/a.jpg").write_text("<html>")
    art = init_tiny(tmp_path / "raw")

    done = run(art, "clean-data", "data.workers=1")

    assert done.code == 4
    assert done.err.splitlines()[-1].startswith("error: No sound picture among 1 file in")
    assert "dropped Cubism/a.jpg: web_page" in done.out
    assert not (art / "data").exists()


def test_a_style_without_a_sound_picture_is_a_warning(run: Run, init_tiny: Run, pictures: Run, tmp_path: Path) -> None:
    """The others are cleaned; the style is named and is no class."""
    raw = pictures(tmp_path / "raw", ("Cubism", "Minimalism"), 2)
    (raw / "Ruins").mkdir()
    (raw / "Ruins/a.jpg").write_bytes(b"")
    art = init_tiny(raw)

    done = run(art, "clean-data", "data.workers=1")

    assert done.code == 0
    assert "warning: Style 'Ruins' has no sound picture among 1: it will not be a class." in done.err
    assert '"Ruins"' not in (art / "data/index.jsonl").read_text()


@pytest.mark.parametrize("count", [1, 3])
def test_one_style_and_one_picture_go_the_whole_way(
    run: Run, init_tiny: Run, pictures: Run, tmp_path: Path, count: int
) -> None:
    """Little is enough: there is a warning, and everything works."""
    art = init_tiny(pictures(tmp_path / "raw", ("Cubism",), count), "vae.stages.hires.resolution=32")

    cleaned = run(art, "clean-data", "data.workers=1")
    rest = [run(art, *words.split()) for words in ("train vae", "train ldm", "sample -s all --grid 2x2")]

    assert "warning: There is only one style, 'Cubism'" in cleaned.err
    assert f"1 style with {'1 picture' if count == 1 else '3 pictures'}\n" in cleaned.out
    assert [outcome.code for outcome in rest] == [0, 0, 0]
    assert rest[-1].out == "samples/Cubism_eta0_2x2.png\n"


@pytest.mark.parametrize("command", ["train vae", "encode", "train ldm"])
def test_training_needs_clean_pictures(run: Run, init_tiny: Run, story: Any, command: str) -> None:
    """Before clean-data there is nothing to train on, and the line says what to type."""
    art = init_tiny(story.raw)

    line = run(art, *command.split()).error(4)

    assert "no clean data set at data" in line
    assert "latentart clean-data" in line
    assert not (art / "runs").exists()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("train ldm", 6, "there is no trained autoencoder in runs/vae. Run `latentart train vae` first."),
        ("encode", 6, "there is no trained autoencoder in runs/vae. Run `latentart train vae` first."),
        (
            "train vae --stage lpips",
            6,
            "goes on from stage adversarial, which is not finished in runs/vae. Run `latent",
        ),
        ("train vae --stage lpisp", 2, "there is no stage 'lpisp'. Did you mean 'lpips'? Stages: l1, adversarial"),
        ("train vae vae.stages.lpisp.steps=1", 3, "the list has no item 'lpisp'. Did you mean 'lpips'?"),
        ("train ldm ldm.trainig.steps=1", 3, "unknown setting ldm.trainig.steps. Did you mean 'training'?"),
        ("train ldm ldm.training.steps=0", 3, "ldm.training.steps"),
        ("sample -s Cubism", 6, "there is no model at runs/ldm/model."),
        ("sample -s Cubism --model nowhere", 6, "there is no model at nowhere."),
        ("info", 6, "there is no model folder at runs/vae/model."),
        ("reconstruct latentart.json", 6, "there is no model at runs/vae/model."),
    ],
)
def test_too_early_or_misspelled_is_said_and_leaves_nothing(
    run: Run, cleaned: Path, snapshot: Run, command: str, code: int, message: str
) -> None:
    """The line says what to type first, or the nearest name; the workspace is as it was."""
    before = snapshot(cleaned)

    line = run(cleaned, *command.split()).error(code)

    assert message in line
    assert snapshot(cleaned) == before
    assert not (cleaned / "runs").exists()


def test_sampling_an_autoencoder_alone_is_refused(run: Run, workspace: Path) -> None:
    """A model folder without a denoiser says what is missing."""
    line = run(workspace, "sample", "-s", "Cubism", "--model", "runs/vae/model").error(6)

    assert "the model at runs/vae/model has no denoiser yet. Train it with `latentart train ldm`." in line


def test_missing_lpips_weights_are_said_before_the_run(
    run: Run, cleaned: Path, snapshot: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which file, how large, where it goes and the option that names it; exit code 8, no step made."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    before = snapshot(cleaned)

    line = run(cleaned, "train", "vae", "vae.perceptual.backbone=vgg16").error(8)

    assert "vgg16-397923af.pth (528 MB)" in line
    assert str(tmp_path / "torch/hub/checkpoints/vgg16-397923af.pth") in line
    assert "vae.perceptual.weights=PATH" in line
    assert snapshot(cleaned) == before
    assert not (cleaned / "runs").exists()


@pytest.mark.parametrize("is_own", [False, True])
def test_cut_lpips_weights_are_said_before_the_run(
    run: Run, cleaned: Path, snapshot: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_own: bool
) -> None:
    """In torch's cache or of one's own: which file and what to do; no step made, though only a later stage reads it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / ("own.pth" if is_own else "torch/hub/checkpoints/squeezenet1_1-b8a52dc0.pth")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PK\x03\x04cut")
    before = snapshot(cleaned)
    settings = [f"vae.perceptual.weights={path}"] if is_own else []

    line = run(cleaned, "train", "vae", "vae.perceptual.backbone=squeezenet", *settings).error(8)

    assert f"{path} {'cannot be read' if is_own else 'has 7 bytes, expected 4958839'}" in line
    assert ("Fetch the file again." if is_own else "Run `latentart weights fetch squeezenet`.") in line
    assert snapshot(cleaned) == before
    assert not (cleaned / "runs").exists()


def test_a_stage_without_lpips_needs_no_weights(
    run: Run, cleaned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a stage does not use is not asked for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    done = run(cleaned, "train", "vae", "--stage", "l1", "vae.perceptual.backbone=vgg16")

    assert done.code == 0


def test_a_clean_picture_that_is_gone_is_named(run: Run, cleaned: Path) -> None:
    """The index names a file that is not there: which, and what to type."""
    gone = next((cleaned / "data").glob("*/*.png"))
    gone.unlink()

    line = run(cleaned, "train", "vae", "vae.stages.l1.steps=5").error(4)

    assert gone.name in line


def test_a_damaged_autoencoder_is_not_encoded_with(run: Run, workspace: Path) -> None:
    """A flipped bit in the autoencoder is found before the denoiser trains on what it makes."""
    weights = workspace / "runs/vae/model/autoencoder.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    line = run(workspace, "encode").error(6)

    assert "runs/vae/model/autoencoder.safetensors" in line


def test_a_place_elsewhere_is_named_before_it_is_read(run: Run, workspace: Path, tmp_path: Path) -> None:
    """A stranger's config may name any file: which one is said, and nothing of what it holds."""
    (tmp_path / "passwords").write_text("root:secret:0\n")
    config = json.loads((workspace / "latentart.json").read_text())
    config["data"] |= {"labels": str(tmp_path / "passwords"), "link_root": str(tmp_path)}
    config["vae"]["perceptual"] |= {"backbone": "vgg16", "weights": str(tmp_path / "passwords")}
    (workspace / "latentart.json").write_text(json.dumps(config))

    cleaned = run(workspace, "clean-data")
    verified = run(workspace, "weights", "verify")

    assert (cleaned.code, verified.code) == (4, 8)
    assert f"data.labels names {tmp_path / 'passwords'}, which lies outside of the workspace" in cleaned.err
    assert f"data.link_root names {tmp_path}, which lies outside of the workspace" in cleaned.err
    assert f"weights names {tmp_path / 'passwords'}, which lies outside of the workspace" in verified.err
    assert "secret" not in cleaned.err + cleaned.out + verified.err + verified.out


@pytest.mark.parametrize("setting", ["data.raw={}", 'data={{"raw":"{}"}}'])
def test_a_place_that_the_command_line_names_is_not_named_again(
    run: Run, workspace: Path, story: Any, tmp_path: Path, setting: str
) -> None:
    """Whoever types it knows it; in the config of others it is named."""
    elsewhere = shutil.copytree(story.raw, tmp_path / "elsewhere")

    typed = run(workspace, "clean-data", "--dry-run", setting.format(elsewhere))
    argument = run(workspace, "clean-data", "--dry-run", elsewhere)
    config = json.loads((workspace / "latentart.json").read_text())
    (workspace / "latentart.json").write_text(json.dumps(merge(config, {"data": {"raw": str(elsewhere)}})))
    written = run(workspace, "clean-data", "--dry-run")

    assert (typed.code, argument.code, written.code) == (0, 0, 0)
    assert "outside of" not in typed.err + argument.err
    assert f"data.raw names {elsewhere}, which lies outside of the workspace." in written.err


def test_clean_data_without_a_workspace_names_init_next(run: Run, story: Any, tmp_path: Path) -> None:
    """What it names makes a workspace of the clean set; there is nothing to train in before."""
    done = run(
        tmp_path, "clean-data", story.raw, "--out", "my clean", "data.workers=1", "data.min_bytes=0", "data.min_side=8"
    )

    assert done.code == 0
    assert done.err.endswith(f"Next: latentart init my-art data.root='{tmp_path / 'my clean'}'\n")
    assert run(tmp_path, "init", "my-art", f"data.root={tmp_path / 'my clean'}").code == 0
