"""The judge of a workspace: who teaches it, that it is kept, and that no one it is held against taught it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from latentart.data.held_out import group_twins, split_held_out
from latentart.errors import DataError
from latentart.layout import Workspace
from latentart.scoring import judging, real_pictures
from latentart.scoring.judging import alternate, choose_halves, find_judge, read_small
from latentart.scoring.real_pictures import find_real


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let judges learn little: what they are worth is tested elsewhere."""
    monkeypatch.setattr(judging, "FEWEST_STEPS", 2)
    monkeypatch.setattr(judging, "EPOCHS", 0)


def open_with(folder: Path, held_out: float) -> Workspace:
    """Return a workspace with another share held out."""
    return Workspace.open(folder / "latentart.json", [f"data.held_out={held_out}"])


def weights(judge: nn.Module) -> torch.Tensor:
    """Return all weights of a judge."""
    return nn.utils.parameters_to_vector(judge.parameters())


def test_many_held_out_teach_and_are_the_reference(cleaned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half and half of each style; no training picture teaches."""
    monkeypatch.setattr(judging, "FEWEST_TAUGHT", 1)
    workspace = open_with(cleaned, 0.5)
    entries, _ = workspace.read_pictures()

    halves = choose_halves(workspace, entries)

    training, held_out = split_held_out(entries, 0.5)
    assert not halves.is_borrowed
    assert sorted(halves.teaching + halves.reference) == held_out
    assert halves.rest == halves.training == training


def test_of_few_held_out_none_teaches(cleaned: Path) -> None:
    """Half of the training pictures of each style do; all that are held out are the reference."""
    workspace = open_with(cleaned, 0.3)
    entries, names = workspace.read_pictures()

    halves = choose_halves(workspace, entries)

    training, held_out = split_held_out(entries, 0.3)
    assert halves.is_borrowed
    assert halves.reference == held_out
    assert sorted(halves.teaching + halves.rest) == training
    assert {entries[i].style for i in halves.teaching} == set(names)


@pytest.mark.parametrize("held_out", [0.3, 0.5])
def test_what_looks_the_same_plays_one_part(cleaned: Path, monkeypatch: pytest.MonkeyPatch, held_out: float) -> None:
    """No picture that is like another is trained on, teaches or is compared with where that one plays another part."""
    if held_out == 0.5:
        monkeypatch.setattr(judging, "FEWEST_TAUGHT", 1)
    workspace = open_with(cleaned, held_out)
    entries, _ = workspace.read_pictures()
    entries = [replace(one, twin=entries[i - i % 2].sha256) if i % 2 else one for i, one in enumerate(entries)]
    groups = group_twins(entries)

    halves = choose_halves(workspace, entries)
    reference, others = alternate(entries, sorted(halves.reference + halves.rest))

    assert halves.is_borrowed == (held_out == 0.3)
    sets = [halves.teaching, halves.reference, halves.rest]
    for one, other in [*itertools.combinations(sets, 2), (halves.reference, halves.training), (reference, others)]:
        assert one
        assert not {groups[i] for i in one} & {groups[i] for i in other}


def test_nothing_held_out_is_said(cleaned: Path) -> None:
    """In one line with what to do."""
    workspace = open_with(cleaned, 0.0)

    with pytest.raises(DataError, match="is held out of training") as caught:
        find_judge(workspace, quiet=True)
    assert "data.held_out=0.1" in caught.value.hint


def test_the_judge_is_kept(cleaned: Path, quick: None, caplog: pytest.LogCaptureFixture) -> None:
    """The second call reads it; one that is damaged is trained anew to the same bits, and said."""
    workspace = open_with(cleaned, 0.3)
    first = find_judge(workspace, quiet=True)
    (folder,) = workspace.cache.glob("judge-*")
    written = (folder / "judge.safetensors").stat().st_mtime_ns

    again = find_judge(workspace, quiet=True)

    assert (folder / "judge.safetensors").stat().st_mtime_ns == written
    assert torch.equal(weights(first), weights(again))
    assert not again.training
    (folder / "judge.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(weights(find_judge(workspace, quiet=True)), weights(first))
    assert f"{folder} is trained anew" in caplog.text


def test_another_set_has_another_judge(cleaned: Path, quick: None) -> None:
    """The share, the seed or the resolution may change it."""
    find_judge(open_with(cleaned, 0.3), quiet=True)
    find_judge(open_with(cleaned, 0.4), quiet=True)

    assert len(list((cleaned / "cache").glob("judge-*"))) == 2


def test_the_reference_is_what_nobody_saw(cleaned: Path) -> None:
    """The held-out pictures' middles, as large as the judge looks at or the denoiser draws."""
    workspace = open_with(cleaned, 0.3)
    entries, names = workspace.read_pictures()
    held_out = choose_halves(workspace, entries).reference

    pixels, style_id = read_small(workspace, entries, names, held_out, quiet=True)

    assert (pixels.dtype, pixels.shape) == (torch.uint8, (len(held_out), 3, 32, 32))
    assert [names[i] for i in style_id.tolist()] == [entries[i].style for i in held_out]


def test_real_pictures_are_read_once(
    cleaned: Path, quick: None, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No picture plays two parts that exclude each other; the second call reads no picture."""
    workspace = open_with(cleaned, 0.3)
    judge = find_judge(workspace, quiet=True)
    entries, _ = workspace.read_pictures()
    roles = real_pictures._choose_roles(workspace, entries)

    first = find_real(workspace, judge, quiet=True)
    monkeypatch.setattr(real_pictures, "read_middles", None)
    again = find_real(workspace, judge, quiet=True)

    assert not set(roles.reference) & set(roles.others)
    assert not set(choose_halves(workspace, entries).teaching) & {*roles.reference, *roles.others, *roles.unseen}
    assert first.searched_index.tolist() == split_held_out(entries, 0.3)[0]
    for name in ("unseen", "reference", "others"):
        ours, theirs = getattr(first, name), getattr(again, name)
        assert torch.equal(ours.features, theirs.features)
        assert torch.equal(ours.style_id, theirs.style_id)
    assert torch.equal(first.searched, again.searched)


def test_features_of_real_pictures_are_the_judges(cleaned: Path, quick: None) -> None:
    """Those of the reference read apart, in the same order."""
    workspace = open_with(cleaned, 0.3)
    judge = find_judge(workspace, quiet=True)

    found = find_real(workspace, judge, quiet=True)

    entries, names = workspace.read_pictures()
    reference = choose_halves(workspace, entries).reference
    pixels, style_id = read_small(workspace, entries, names, reference, quiet=True)
    features = torch.cat([one for one, _ in judging_batches(judge, pixels)])
    assert torch.allclose(found.unseen.features, features, atol=1e-5)
    assert torch.equal(found.unseen.style_id, style_id)


def judging_batches(judge: Any, pixels: torch.Tensor) -> Any:
    """Return what a judge says of pictures."""
    from latentart.scoring.metrics.judge import judge_in_batches

    return judge_in_batches(judge, pixels)
