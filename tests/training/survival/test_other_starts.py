"""Starts that are not from nothing: another model's weights, and styles that are added; both survive a crash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.config.workspace import load_config
from latentart.errors import ModelError
from latentart.model.folder import weights_hash
from latentart.model.label_rows import TABLE, Rows
from latentart.process.devices import Placement
from latentart.storage.checkpoints import Checkpoint, find_checkpoint
from latentart.training.build import build_ldm_step
from latentart.training.steps.ldm_step import LdmBatch, LdmStep
from latentart.training.survival.other_starts import read_origin, restore_with_room

Run = Callable[..., Any]
STYLES = ["Cubism", "High_Renaissance", "Minimalism"]
GROWN = [*STYLES, "Art_Deco"]
CPU = Placement(torch.device("cpu"), "fp32")
ADDED = ("ldm.training.steps=6", "ldm.training.new_cycle_at=3")


def add_art_deco(art: Path) -> None:
    """Give some pictures of a clean set to a new style, whose name sorts before all others."""
    index = art / "data/index.jsonl"
    entries = [json.loads(line) for line in index.read_text().splitlines()]
    for entry in entries[:2]:
        entry["style"] = "Art_Deco"
    index.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def about(*styles: str, **columns: list[str]) -> dict[str, Any]:
    """Return names as model.json has them."""
    return {"style_names": list(styles), "labels": [{"name": name, "values": columns[name]} for name in columns]}


def tensors(run: Path) -> dict[str, bytes]:
    """Return every tensor file of the newest checkpoint and of the model."""
    found = find_checkpoint(run)
    assert found is not None
    folders = run / f"checkpoints/step-{found.step:08d}", run / "model"
    return {str(path.relative_to(run)): path.read_bytes() for one in folders for path in one.glob("*.safetensors")}


def build_step(art: Path, styles: int, *settings: str) -> LdmStep:
    """Return a fresh update of a workspace's denoiser for so many styles."""
    return build_ldm_step(load_config(art / "latentart.json", settings).ldm, 4, [styles], 6, CPU, 0)


def test_known_rows_stay_and_new_ones_begin_beside_the_null_row() -> None:
    """By the names that one may ask for a style by; per value of each column; a new column begins at zero."""
    then = about("Cubism", "Pop Art", genre=["m", "n"])
    now = about("Art_Deco", "cubism", "pop_art", genre=["n", "o"], artist=["p"])
    table = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    rows = Rows.between(then, now)

    ours = rows.carry(table, seed=0)

    known = {1: 0, 2: 1, 3: 2, 4: 4, 6: 5}
    assert all(torch.equal(ours[here], table[there]) for here, there in known.items())
    assert rows.names == ["Art_Deco", "genre=o", "artist=p"]
    assert torch.equal(ours[8], torch.zeros(8))
    for here, null in zip(rows.new, (table[2], table[5], torch.zeros(8)), strict=True):
        assert 0.2 < (ours[here] - null).square().mean().sqrt() / table.square().mean().sqrt() < 2
    assert torch.equal(ours, rows.carry(table, seed=0))
    assert not torch.equal(ours, rows.carry(table, seed=1))


def test_a_column_that_is_gone_says_its_null_for_ever() -> None:
    """What a denoiser makes of images without that label stays as it was."""
    table = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))

    ours = Rows.between(about("a", "b", genre=["m"]), about("a", "b")).carry(table, seed=0)

    torch.testing.assert_close(ours, table[:3] + table[4])


@pytest.mark.parametrize("setting", ["ldm.training.optimizer.kind=adamw", "ldm.training.optimizer.kind=muon"])
def test_a_checkpoint_gets_room(story: Any, setting: str) -> None:
    """Old rows and moments bit for bit, in all averages; the first update begins the averages anew."""
    former = build_step(story.folder, 3, setting, "ldm.training.run.ema.tracks=[0.05]")
    step_fn = build_step(story.folder, 4, setting, "ldm.training.run.ema.tracks=[0.05]")
    eps, t = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 300, 600, 900])
    for step in range(4):  # in the first nothing reaches the table: layers begin at zero
        former(LdmBatch(eps, eps.flip(0), t, torch.tensor([0, 1, 2, 3])), step, 1e-3)
    kept, values = former.state()
    kept = {name: {key: tensor.clone() for key, tensor in part.items()} for name, part in kept.items()}
    state = {"data": about(*STYLES), "optimizers": values}

    restore_with_room(step_fn, Checkpoint(4, kept, state), about(*GROWN))

    ours, _ = step_fn.state()
    for name, part in ours.items():
        for key, tensor in part.items():
            before = kept[name][key]
            is_table = tensor.shape != before.shape
            assert torch.equal(tensor[[0, 1, 2, 4]] if is_table else tensor, before), (name, key)
            assert not is_table or torch.equal(tensor[3], before[3]) == (name == "optimizer")
    assert len(ours["denoiser"][TABLE]) == len(ours["average_0500"][TABLE]) == 5
    step_fn(LdmBatch(eps, eps.flip(0), t, torch.tensor([0, 1, 2, 3])), 4, 1e-3)
    for network in (step_fn.ema.network, *(track.network for track in step_fn.tracks.values())):
        assert torch.equal(network.state_dict()[TABLE], step_fn.denoiser.state_dict()[TABLE])
    assert step_fn.state()[1]["averages_from"] == 4


def test_styles_are_added_once(run: Run, workspace: Path, tmp_path: Path) -> None:
    """Refused without the option; stopped and gone on with it ends as a run left alone; later no option is needed."""
    add_art_deco(workspace)
    scale = json.loads((workspace / "runs/ldm/model/model.json").read_text())["latents"]
    alone = Path(shutil.copytree(workspace, tmp_path / "alone"))
    refused = run(workspace, "train", "ldm").error(4)
    stopped = run(workspace, "train", "ldm", "--add-styles", *ADDED, "--max-steps", "1")
    again = run(workspace, "train", "ldm", *ADDED)
    whole = run(alone, "train", "ldm", "--add-styles", *ADDED)

    assert "(styles new: Art_Deco). Put them back, go on all the same with --add-styles, or move" in refused
    assert (stopped.code, again.code, whole.code) == (0, 0, 0), stopped.err + again.err + whole.err
    assert tensors(workspace / "runs/ldm") == tensors(alone / "runs/ldm")
    model = json.loads((workspace / "runs/ldm/model/model.json").read_text())
    assert (model["style_names"], model["latents"]) == (GROWN, scale)
    log = (workspace / "runs/ldm/log.txt").read_text()
    assert log.count("as --add-styles allows: styles new: Art_Deco") == 1
    assert log.count("new rows, beside the null row: Art_Deco; the averages begin anew") == 1
    assert run(workspace, "sample", "-s", "Art_Deco", "--grid", "1x1").code == 0


def test_a_finished_run_gets_a_quarter_more(run: Run, workspace: Path) -> None:
    """The config says so, with a new cycle; a second call finds the same, and one that adds nothing does nothing."""
    idle = run(workspace, "train", "ldm", "--add-styles")
    add_art_deco(workspace)
    first = run(workspace, "train", "ldm", "--add-styles", "--max-steps", "1")
    written = (workspace / "latentart.json").read_text()
    second = run(workspace, "train", "ldm", "--add-styles", "--max-steps", "1")

    assert "Nothing was left to do" in idle.err
    assert (first.code, second.code) == (0, 0), first.err + second.err
    settings = json.loads(written)["ldm"]["training"]
    assert (settings["steps"], settings["new_cycle_at"]) == (23, 3)  # 20 are the fewest
    assert (workspace / "latentart.json").read_text() == written
    found = find_checkpoint(workspace / "runs/ldm")
    assert found is not None
    assert (found.step, found.state["optimizers"]["averages_from"]) == (5, 3)


def test_a_run_begins_with_another_model(run: Run, workspace: Path, tmp_path: Path) -> None:
    """A crash before the first checkpoint and a resume need no option; the end is that of a run left alone."""
    (workspace / "runs/ldm").rename(workspace / "other")
    add_art_deco(workspace)
    alone = Path(shutil.copytree(workspace, tmp_path / "alone"))
    given = ("--from", str(workspace / "other/model"))
    assert run(alone, "train", "ldm", *given).code == 0
    assert run(workspace, "train", "ldm", *given, "--max-steps", "1").code == 0
    for name in ("checkpoints", "model"):  # as a crash in the second step would have left it
        shutil.rmtree(workspace / "runs/ldm" / name)

    paused = run(workspace, "train", "ldm", "--max-steps", "1")
    again = run(workspace, "train", "ldm", *given)

    assert (paused.code, again.code) == (0, 0), paused.err + again.err
    assert tensors(workspace / "runs/ldm") == tensors(alone / "runs/ldm")
    log = (workspace / "runs/ldm/log.txt").read_text()
    sha256 = weights_hash(workspace / "other/model", "denoiser")
    assert log.count(f"(denoiser {sha256[:12]}…); of the styles and labels new, beside the null row: Art_Deco") == 2
    theirs, ours = (json.loads((workspace / one / "model/model.json").read_text()) for one in ("other", "runs/ldm"))
    assert ours["style_names"] == ["Art_Deco", *STYLES]
    assert ours["latents"] == theirs["latents"]
    assert json.loads((workspace / "runs/ldm/start.json").read_text())["denoiser"] == sha256


def test_what_a_run_cannot_begin_with_is_refused(run: Run, workspace: Path, snapshot: Run) -> None:
    """A run that is under way, a folder that holds none, another width: one line each, and nothing is touched."""
    before = snapshot(workspace)
    under_way = run(workspace, "train", "ldm", "--from", "runs/ldm/model").error(2)
    assert snapshot(workspace) == before
    (workspace / "runs/ldm").rename(workspace / "other")
    missing = run(workspace, "train", "ldm", "--from", "elsewhere").error(6)
    bare = run(workspace, "train", "ldm", "--from", "runs/vae/model").error(6)
    wide = run(workspace, "train", "ldm", "--from", "other/model", "ldm.model.widths=[8,24]").error(6)

    assert "runs/ldm is at step 3 and did not begin with runs/ldm/model. Move runs/ldm away" in under_way
    assert "there is no model at" in missing
    assert "has no denoiser yet" in bare
    assert "does not fit the config: ldm.model.widths was [8, 16] and is [8, 24]. Set what was" in wide
    assert not (workspace / "runs/ldm").exists()


def test_another_autoencoders_model_is_refused(story: Any) -> None:
    """With both hashes, and the way to take it over."""
    model, settings = story.folder / "runs/ldm/model", load_config(story.folder / "latentart.json").to_json()
    with pytest.raises(ModelError, match=r"latents of another autoencoder \(SHA-256 .{12}…, here 0000") as caught:
        read_origin(model, settings, {**about(*STYLES), "autoencoder": "0" * 64})

    assert f"`latentart weights import {model}/autoencoder.safetensors --as autoencoder`" in caught.value.hint


def test_a_model_that_changed_before_the_first_step_is_named(run: Run, workspace: Path) -> None:
    """What was noted is begun with, or nothing is."""
    (workspace / "runs/ldm").rename(workspace / "other")
    assert run(workspace, "train", "ldm", "--from", "other/model", "--max-steps", "1").code == 0
    for name in ("checkpoints", "model"):
        shutil.rmtree(workspace / "runs/ldm" / name)
    shutil.rmtree(workspace / "other")

    line = run(workspace, "train", "ldm").error(6)

    assert "which has changed or gone since. Name one with --from, or delete runs/ldm/start.json" in line
