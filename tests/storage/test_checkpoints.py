"""Checkpoints: bit for bit, never damaged unnoticed, never fewer than one that verifies."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from latentart.errors import ModelError, ResourceError, TrainingDivergedError
from latentart.storage import checkpoints as checkpoint
from latentart.storage.checkpoints import (
    checkpoint_folder,
    find_checkpoint,
    load_checkpoint,
    take_checkpoint,
    write_checkpoint,
)
from latentart.storage.folders import commit_folder, remove_leftovers, verify_folder, write_json_atomic
from latentart.storage.tensors import load_matching, read_tensors
from latentart.training.steps.optim import flatten_optimizer, restore_optimizer

KILLED_IN_WRITE = """
import os, signal, sys
from pathlib import Path
import torch
from latentart.storage import checkpoints as checkpoint
write_tensors = checkpoint.write_tensors
def killed(path, tensors):
    write_tensors(path, tensors)
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.write_tensors = killed
taken = checkpoint.take_checkpoint(20, {"model": {"w": torch.ones(3)}, "ema": {}}, {})
checkpoint.write_checkpoint(Path(sys.argv[1]), taken)
"""


def save(run: Path, step: int) -> Path:
    """Save a small checkpoint whose content tells its step."""
    folder = checkpoint_folder(run, step)
    write_checkpoint(run, take_checkpoint(step, {"model": {"w": torch.full((2, 3), float(step))}}, {"loss": step / 3}))
    return folder


def flip(path: Path, place: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def steps(run: Path) -> list[int]:
    """List the steps of the checkpoints that lie in a run."""
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").iterdir())


def test_checkpoint_round_trips_bit_for_bit(tmp_path: Path) -> None:
    """Every type and layout of tensor and every number of the state comes back as it was."""
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    tensors = {
        "model": {"transposed": base.T, "part": base[1:3], "same": base, "half": base.bfloat16()},
        "optimizer": {"0.step": torch.tensor(3.0), "count": torch.tensor([2**62]), "flag": torch.tensor(True)},
        "ema": {"image": torch.ones(1, 2, 3, 3).to(memory_format=torch.channels_last)},
        "empty": {},
    }
    state = {"lr": 0.1 + 0.2, "styles": ["Ukiyo_e", "naïve"], "images_seen": 2**60, "best": None}
    folder = checkpoint_folder(tmp_path, 1200)
    write_checkpoint(tmp_path, take_checkpoint(1200, tensors, state))
    loaded = load_checkpoint(folder)

    assert folder == tmp_path / "checkpoints" / "step-00001200"
    assert loaded.step == 1200
    assert loaded.state == state
    assert loaded.tensors.keys() == tensors.keys()
    for name, part in tensors.items():
        torch.testing.assert_close(loaded.tensors[name], part, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensor_that_is_not_finite_is_never_saved(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    """One NaN or infinity anywhere refuses the save by name, and nothing appears on the disk."""
    poisoned = torch.zeros(3, 4, dtype=dtype)
    poisoned[1, 2] = value

    with pytest.raises(TrainingDivergedError, match=r"'mid\.weight' of the ema"):
        write_checkpoint(tmp_path, take_checkpoint(1, {"ema": {"mid.weight": poisoned}}, {}))
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    """A part can be no path, and a state must be JSON."""
    with pytest.raises(ValueError, match="checkpoint part"):
        write_checkpoint(tmp_path, take_checkpoint(1, {"../model": {}}, {}))
    with pytest.raises(ValueError, match="JSON"):
        write_checkpoint(tmp_path, take_checkpoint(1, {}, {"loss": float("nan")}))
    assert list(tmp_path.rglob("*.json")) == []


def test_saving_does_not_share_memory_with_training(tmp_path: Path) -> None:
    """Two tensors that share memory are saved as two, and the model's own stay as they are."""
    shared = torch.arange(6.0)
    folder = checkpoint_folder(tmp_path, 1)
    write_checkpoint(tmp_path, take_checkpoint(1, {"model": {"a": shared, "b": shared.view(2, 3)}}, {}))
    loaded = load_checkpoint(folder).tensors["model"]
    loaded["a"].zero_()

    torch.testing.assert_close(loaded["b"], shared.view(2, 3), rtol=0, atol=0)
    torch.testing.assert_close(shared, torch.arange(6.0), rtol=0, atol=0)


def test_flipped_bit_in_every_file_is_found_and_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A flip at the start, middle or end of any file: named in a warning, the checkpoint before is used."""
    save(tmp_path, 10)
    newest = save(tmp_path, 20)
    for path in sorted(newest.iterdir()):
        for place in (0, path.stat().st_size // 2, path.stat().st_size - 1):
            caplog.clear()
            flip(path, place)
            found = find_checkpoint(tmp_path)
            flip(path, place)

            assert found is not None
            assert found.step == 10
            assert [record.levelno for record in caplog.records] == [logging.WARNING]
            assert "step-00000020" in caplog.text
            if path.name != "MANIFEST.json":  # its flip may well name the file whose entry it hit
                assert path.name in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "MANIFEST.json"])
def test_truncated_or_missing_file_falls_back(tmp_path: Path, name: str) -> None:
    """A file cut at 0, 1, half or all but one byte, or gone, is never loaded."""
    save(tmp_path, 10)
    path = save(tmp_path, 20) / name
    content = path.read_bytes()
    found = []
    for length in (0, 1, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:length])
        found.append(find_checkpoint(tmp_path))
    path.unlink()
    found.append(find_checkpoint(tmp_path))

    assert [checkpoint and checkpoint.step for checkpoint in found] == [10] * 5


def test_nothing_to_find_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No folder, an empty one and only damaged ones give None; things with other names are ignored."""
    assert find_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints" / ".tmp-step-00000001-77").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-notes").mkdir()
    (tmp_path / "checkpoints" / "latest").touch()
    assert find_checkpoint(tmp_path) is None
    assert caplog.text == ""
    (save(tmp_path, 10) / "extra").touch()

    assert find_checkpoint(tmp_path) is None
    assert "extra" in caplog.text


def test_newest_is_by_number_not_by_text(tmp_path: Path) -> None:
    """Nine digits come after eight."""
    save(tmp_path, 99_999_999)
    save(tmp_path, 100_000_000)
    found = find_checkpoint(tmp_path)

    assert found is not None
    assert found.step == 100_000_000


def test_folder_that_verifies_but_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """A sound manifest over a wrong state or a wrong safetensors file is still no checkpoint."""
    commit_folder(tmp_path / "a", lambda folder: write_json_atomic(folder / "state.json", []))
    commit_folder(tmp_path / "b", lambda folder: write_json_atomic(folder / "other.json", {}))
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 64)

    with pytest.raises(ModelError, match=r"state\.json is not the state"):
        load_checkpoint(tmp_path / "a")
    with pytest.raises(ModelError, match=r"state\.json is missing"):
        load_checkpoint(tmp_path / "b")
    with pytest.raises(ModelError, match=r"x\.safetensors is not a sound"):
        read_tensors(tmp_path / "x.safetensors")


def test_saving_over_a_damaged_checkpoint_replaces_it(tmp_path: Path) -> None:
    """A run that fell back over a damaged checkpoint can save that step again."""
    folder = save(tmp_path, 20)
    flip(folder / "model.safetensors", -1)
    save(tmp_path, 20)

    verify_folder(folder)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [folder.name]


def test_failed_save_keeps_what_stands(tmp_path: Path) -> None:
    """A file-size limit met in the middle of the tensors is a resource error that names the file."""
    save(tmp_path, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(ResourceError, match=r"model\.safetensors.*too large"):
            write_checkpoint(tmp_path, take_checkpoint(20, {"model": {"w": torch.zeros(5000)}}, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = find_checkpoint(tmp_path)

    assert found is not None
    assert found.step == 10
    assert steps(tmp_path) == [10]


def test_killed_save_keeps_what_stands(tmp_path: Path) -> None:
    """SIGKILL in the middle of a save: the checkpoint before is found, the leftover goes at the next start."""
    save(tmp_path, 10)
    environment = {**os.environ, "PYTHONPATH": str(Path(checkpoint.__file__).parents[2])}
    child = subprocess.run([sys.executable, "-c", KILLED_IN_WRITE, str(tmp_path)], env=environment, check=False)
    left = sorted(p.name[:18] for p in (tmp_path / "checkpoints").iterdir())
    remove_leftovers(tmp_path / "checkpoints")
    found = find_checkpoint(tmp_path)

    assert child.returncode == -signal.SIGKILL
    assert left == [".tmp-step-00000020", "step-00000010"]
    assert found is not None
    assert found.step == 10
    assert steps(tmp_path) == [10]


def test_mismatched_module_is_refused_with_the_first_differences() -> None:
    """Missing, foreign and misshapen tensors are named, at most three of them, and nothing is copied."""
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    wrong: dict[str, Tensor] = {**before, "0.weight": torch.zeros(3, 3)}
    del wrong["0.bias"], wrong["1.bias"]
    wrong["evil"] = torch.zeros(1)

    with pytest.raises(ModelError, match=r"saved denoiser .*'0.weight' has shape \[3, 3\].* and 1 more"):
        load_matching(module, wrong, "denoiser")
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)


def test_matching_module_is_loaded() -> None:
    """With the same names and shapes every value is copied."""
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    load_matching(target, source.state_dict(), "model")

    torch.testing.assert_close(dict(target.state_dict()), dict(source.state_dict()), rtol=0, atol=0)


def test_flattened_state_is_only_tensors_and_json() -> None:
    """Nothing of an optimizer is left that would need a pickle."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    tensors, json = flatten_optimizer(optimizer)

    assert sorted(tensors) == ["0.exp_avg", "0.exp_avg_sq", "0.step"]
    assert json["others"] == {}
    assert json["param_groups"][0]["params"] == [0]


def test_edited_settings_of_an_optimizer_hold_after_a_restore() -> None:
    """Moments come back bit for bit; rate, betas and decay are those of the config that goes on."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    tensors, json = flatten_optimizer(optimizer)
    edited = torch.optim.AdamW([parameter], lr=5e-4, betas=(0.5, 0.9), weight_decay=0.0)
    restore_optimizer(edited, tensors, json)
    group = edited.param_groups[0]

    assert (group["lr"], group["betas"], group["weight_decay"]) == (5e-4, (0.5, 0.9), 0.0)
    assert edited.state[parameter]["exp_avg"].equal(optimizer.state[parameter]["exp_avg"])
    assert float(edited.state[parameter]["step"]) == 1


def test_a_checkpoint_of_a_later_version_is_not_passed_over(tmp_path: Path) -> None:
    """It is not damaged: to go on from the one before would lose what was trained since."""
    save(tmp_path, 10)
    newest = save(tmp_path, 20)
    write_json_atomic(newest / "MANIFEST.json", {"format": 99, "files": {}})

    with pytest.raises(ModelError, match=r"format 99.*Update latentart"):
        find_checkpoint(tmp_path)


def test_what_a_file_browser_leaves_beside_does_no_harm(tmp_path: Path) -> None:
    """MacOS puts ._model.safetensors beside a copied model.safetensors: it is neither read nor a fault."""
    folder = save(tmp_path, 10)
    (folder / "._model.safetensors").write_bytes(b"\0\5\x16\7")
    (folder / "._x").touch()

    found = find_checkpoint(tmp_path)

    assert found is not None
    assert (found.step, list(found.tensors)) == (10, ["model"])
