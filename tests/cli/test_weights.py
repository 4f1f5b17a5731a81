"""`weights`: what is here, what is fetched from a folder, and every kind of wrong file, as a user meets them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from latentart.model.weights.inception import inception_file
from latentart.model.weights.perceptual import BACKBONES, hub_file
from latentart.storage.download import part_of

Run = Callable[..., Any]
NAME = "squeezenet1_1-b8a52dc0.pth"


@pytest.fixture
def mirror(latentart: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a file that holds squeezenet's tensors and counts as the published one; no file is here."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "mirror"
    folder.mkdir()
    with torch.device("meta"):
        state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save({name: torch.zeros(value.shape) for name, value in state.items()}, folder / NAME)
    content = (folder / NAME).read_bytes()
    known = replace(BACKBONES["squeezenet"], num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(BACKBONES, "squeezenet", known)
    return folder


def test_a_file_is_fetched_once(latentart: Run, mirror: Path) -> None:
    """Stdout has its place, stderr the progress; a second run looks at it and has nothing to do."""
    done = latentart("weights", "fetch", "squeezenet", "--url", mirror.as_uri())

    assert (done.code, done.out) == (0, f"{hub_file('squeezenet')}\n")
    assert f"{NAME}, MB: step 5/5 (100 %)\n" in done.err
    assert hub_file("squeezenet").read_bytes() == (mirror / NAME).read_bytes()
    again = latentart("weights", "fetch", "squeezenet", "--url", (mirror / "nowhere").as_uri())
    assert (again.code, again.out, again.err) == (0, done.out, f"{NAME} is here already, and whole\n")


def test_quiet_json_is_all_there_is(latentart: Run, mirror: Path) -> None:
    """One object, and nothing on stderr."""
    done = latentart("weights", "fetch", "squeezenet", "--url", mirror.as_uri(), "--quiet", "--json")

    assert json.loads(done.out) == {
        "weights": [{"backbone": "squeezenet", "path": str(hub_file("squeezenet")), "was_there": False}]
    }
    assert done.err == ""


def test_a_wrong_file_is_replaced_and_said(latentart: Run, mirror: Path) -> None:
    """A cut file in the place of the right one."""
    path = hub_file("squeezenet")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut")

    done = latentart("weights", "fetch", "squeezenet", "--url", mirror.as_uri())

    assert f"{path} has 3 bytes, expected {BACKBONES['squeezenet'].num_bytes}" in done.err
    assert path.read_bytes() == (mirror / NAME).read_bytes()


def test_what_cannot_be_fetched_is_one_line(latentart: Run, mirror: Path) -> None:
    """Exit code 8 for a file that is not there, 2 for an address that is none; nothing is left."""
    done = latentart("weights", "fetch", "alexnet", "--url", f"{mirror.as_uri()}/")
    assert (done.code, done.out) == (8, "")
    assert f"error: {mirror.as_uri()}/alexnet-owt-7be5be79.pth: No such file" in done.err

    slip = latentart("weights", "fetch", "alexnet", "--url", "download.pytorch.org")

    assert (slip.code, slip.out) == (2, "")
    assert "'download.pytorch.org/alexnet-owt-7be5be79.pth' is no address to fetch from." in slip.err
    assert list(hub_file("alexnet").parent.iterdir()) == []


@pytest.mark.parametrize("command", ["fetch", "verify"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("vgg61", "there is no backbone 'vgg61'. Did you mean 'vgg16'?"), ("random", "'random' has no weights.")],
)
def test_an_unknown_backbone_is_a_slip(latentart: Run, mirror: Path, command: str, name: str, message: str) -> None:
    """The nearest is offered, and all are named; nothing is fetched for the names beside it."""
    done = latentart("weights", command, "squeezenet", name)

    assert (done.code, done.out) == (2, "")
    assert f"error: {message} Backbones: vgg16, alexnet, squeezenet, inception.\n" in done.err
    assert not hub_file("squeezenet").exists()


def test_the_list_says_which_are_here(latentart: Run, mirror: Path) -> None:
    """Here, missing, of a wrong size, or begun; the same as JSON."""
    latentart("weights", "fetch", "squeezenet", "--url", mirror.as_uri())
    hub_file("alexnet").write_bytes(b"cut")
    with part_of(hub_file("vgg16")).open("wb") as file:
        file.truncate(120 * 2**20)

    text = latentart("weights", "list").out
    rows = json.loads(latentart("weights", "list", "--json").out)["weights"]

    assert text.splitlines() == [
        f"vgg16         528 MB  missing (120 MB of it fetched): {hub_file('vgg16')}",
        f"alexnet       233 MB  wrong size: {hub_file('alexnet')}",
        f"squeezenet  {BACKBONES['squeezenet'].megabytes:>5g} MB  here: {hub_file('squeezenet')}",
        f"inception      91 MB  missing: {inception_file()}",
    ]
    assert [(row["backbone"], row["is_there"], row["bytes_there"], row["bytes_unfinished"]) for row in rows] == [
        ("vgg16", False, 0, 120 * 2**20),
        ("alexnet", False, 3, 0),
        ("squeezenet", True, BACKBONES["squeezenet"].num_bytes, 0),
        ("inception", False, 0, 0),
    ]
    assert rows[0]["bytes"] == 553433881
    assert rows[0]["file"] == f"vgg16-{rows[0]['sha256'][:8]}.pth"
    assert rows[0]["path"] == str(hub_file("vgg16"))


def test_verify_reads_the_whole_file(latentart: Run, mirror: Path) -> None:
    """A changed bit ends with exit code 8; the whole ones are still named on stdout."""
    latentart("weights", "fetch", "squeezenet", "--url", mirror.as_uri())
    path = hub_file("squeezenet")
    assert latentart("weights", "verify", "squeezenet").out == f"squeezenet: {path} is whole\n"
    assert json.loads(latentart("weights", "verify", "squeezenet", "--json").out) == {
        "weights": [{"backbone": "squeezenet", "path": str(path), "is_whole": True, "fault": ""}]
    }

    mixed = latentart("weights", "verify", "squeezenet", "alexnet")

    assert (mixed.code, mixed.out) == (8, f"squeezenet: {path} is whole\n")
    assert mixed.err.startswith("error: the LPIPS backbone 'alexnet' needs alexnet-owt-7be5be79.pth (233 MB)")
    assert mixed.err.endswith(" Run `latentart weights fetch alexnet`.\n")

    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = latentart("weights", "verify", "squeezenet", "--json")

    assert done.code == 8
    (row,) = json.loads(done.out)["weights"]
    assert (row["is_whole"], row["path"]) == (False, str(path))
    assert "its checksum (SHA-256) does not match" in row["fault"]
    assert done.err == f"error: {row['fault']} Run `latentart weights fetch squeezenet`.\n"


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_outside_of_a_workspace_it_is_vgg16(latentart: Run, mirror: Path, command: str) -> None:
    """The default of the config."""
    words = ["--url", mirror.as_uri()] if command == "fetch" else []

    done = latentart("weights", command, *words)

    assert done.code == 8
    assert "vgg16-397923af.pth" in done.err


def test_in_a_workspace_it_is_the_one_of_its_config(latentart: Run, mirror: Path, tmp_path: Path) -> None:
    """Found in the current folder, or named; one that is not there is an error."""
    latentart("init", "art", "--preset", "demo", "vae.perceptual.backbone=squeezenet")
    words = ["weights", "fetch", "--url", mirror.as_uri(), "--quiet", "-c"]

    assert latentart(*words, "nowhere.json").code == 3
    assert latentart(*words, "art/latentart.json").out == f"{hub_file('squeezenet')}\n"

    (tmp_path / "art/latentart.json").rename(tmp_path / "latentart.json")
    assert latentart("weights", "verify").out == f"squeezenet: {hub_file('squeezenet')} is whole\n"


def test_the_random_backbone_needs_nothing(latentart: Run, mirror: Path) -> None:
    """The demo's workspace: said, and no error."""
    latentart("init", "art", "--preset", "demo")

    for command in ("fetch", "verify"):
        done = latentart("weights", command, "--json", "-c", "art/latentart.json")

        assert (done.code, json.loads(done.out)) == (0, {"weights": []})
        assert "the workspace's LPIPS backbone is 'random', which has no weights" in done.err


def test_a_file_of_ones_own_is_verified_in_its_place(latentart: Run, mirror: Path, tmp_path: Path) -> None:
    """It need not be the published one; what is fetched goes to torch's cache, and it is said that nobody reads it."""
    own = tmp_path / "own.pth"
    own.write_bytes((mirror / NAME).read_bytes())
    settings = ["vae.perceptual.backbone=squeezenet", f"vae.perceptual.weights={own}"]
    latentart("init", "art", "--preset", "demo", *settings)
    words = ["-c", "art/latentart.json"]

    assert latentart("weights", "verify", *words).out == f"squeezenet: {own} is whole\n"
    fetched = latentart("weights", "fetch", "--url", mirror.as_uri(), *words)
    assert fetched.out == f"{hub_file('squeezenet')}\n"
    assert f"this workspace reads {own} (vae.perceptual.weights), not what is fetched now" in fetched.err

    own.write_bytes(b"cut")
    done = latentart("weights", "verify", *words)

    assert (done.code, done.out) == (8, "")
    assert f"error: {own} cannot be read as PyTorch weights" in done.err
    assert "Run `latentart weights fetch squeezenet` and set vae.perceptual.weights=null" in done.err


def test_a_published_file_that_is_here_is_brought_to_its_place(latentart: Run, mirror: Path, tmp_path: Path) -> None:
    """Bit for bit, whatever its name; another file is refused and what is there stays."""
    own = tmp_path / "copy of squeezenet.pth"
    own.write_bytes((mirror / NAME).read_bytes())
    words = ("weights", "import", own, "--as", "squeezenet")

    done = latentart(*words)
    assert (done.code, done.out) == (0, f"{hub_file('squeezenet')}\n")
    assert hub_file("squeezenet").read_bytes() == own.read_bytes()
    again = latentart(*words, "--json")
    assert json.loads(again.out) == {"backbone": "squeezenet", "path": str(hub_file("squeezenet"))}
    assert "is here already, and whole" in again.err

    own.write_bytes(own.read_bytes()[:-1] + b"?")
    wrong = latentart(*words)
    assert (wrong.code, wrong.out) == (8, "")
    assert "its checksum (SHA-256) does not match. Expected the published squeezenet1_1-b8a52dc0.pth" in wrong.err
    assert hub_file("squeezenet").read_bytes() == (mirror / NAME).read_bytes()
    assert "there is no file gone.pth" in latentart("weights", "import", "gone.pth", "--as", "vgg16").err
