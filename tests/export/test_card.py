"""A model folder's card says what is known of it, its owner may change it, and it stands in nobody's way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latentart.export.card import escaped, find_scores
from latentart.model.folder import weights_hash
from latentart.sampling.settings import read_text
from latentart.scoring.evaluate_ldm import append_evaluation

Run = Callable[..., Any]
MODEL = Path("runs/ldm/model")
MEASURED = {"frechet": {"value": 0.66912, "error": 0.0903}}
FOUND: dict[str, Any] = {
    "samples": 512,
    "recognized": 0.984,
    "recognized_real": 1.0,
    "measures": MEASURED,
    "real_measures": MEASURED,
    "copies": {"found": 2, "by_chance": 0.016},
}


def test_a_card_says_what_is_known(run: Run, workspace: Path) -> None:
    """Styles, a picture with its settings, training, scores of these weights alone; the model stays whole."""
    model = workspace / MODEL
    hashes = {"denoiser": weights_hash(model, "denoiser")}
    append_evaluation(model.parent, FOUND | {"hashes": hashes})
    append_evaluation(model.parent, FOUND | {"hashes": {"denoiser": "0"}, "samples": 7})
    append_evaluation(model.parent, {"hashes": hashes})
    done = run(workspace, "export", "card")

    assert done.code == 0, done.err
    assert done.out == f"{MODEL / 'README.md'}\n"
    text = (model / "README.md").read_text(encoding="utf-8")
    for said in (
        "- High\\_Renaissance\n",
        "![4 samples of each style](card.png)",
        "pictures of 32 x 32 pixels",
        "by 3 steps of ddim with guidance 1.5.",
        "| training of the denoiser | step 3, steps 3 |",
        "512 samples",
        "| recognized as their style | 98.4 % | 100.0 % |",
        "| Fréchet distance in the judge's features | 0.669 ± 0.09 | 0.669 ± 0.09 |",
        "| taken for copies of training pictures | 0.4 % | 1.6 % |",
        "TO FILL IN",
    ):
        assert said in text
    assert json.loads(read_text(model / "card.png") or "null")["grid"] == [3, 4]
    assert run(workspace, "info").code == 0


def test_a_card_is_its_owners(run: Run, workspace: Path) -> None:
    """It is not written again, may be changed, and stays where a training replaces the model."""
    model = workspace / MODEL
    assert run(workspace, "export", "card").code == 0
    (model / "README.md").write_text("mine")

    assert "README.md exists; nothing is overwritten." in run(workspace, "export", "card").error(2)
    trained = run(workspace, "train", "ldm", "ldm.training.steps=4", "-q")
    assert trained.code == 0, trained.err
    assert json.loads((model / "model.json").read_text())["training"]["ldm"]["step"] == 4
    assert (model / "README.md").read_text() == "mine"
    assert run(workspace, "info").code == 0
    assert "has no denoiser yet" in run(workspace, "export", "card", "--model", "runs/vae/model").error(6)
    assert not (workspace / "runs/vae/model/README.md").exists()


def test_a_model_without_scores_says_so(tmp_path: Path) -> None:
    """Where there are none, or where what lies there cannot be read."""
    assert find_scores(tmp_path / "evaluations.jsonl", "0") is None
    (tmp_path / "evaluations.jsonl").write_text('{"hashes": 3}\n[]\nnothing\n{"samples": 0}\n')
    assert find_scores(tmp_path / "evaluations.jsonl", "0") is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Color_Field", "Color\\_Field"),
        ("a|b\n# c", "a\\|b\\\\n\\# c"),
        ("<img src=x>[y](z)`!", "\\<img src=x\\>\\[y\\]\\(z\\)\\`\\!"),
    ],
)
def test_a_strangers_name_is_no_markdown(name: str, shown: str) -> None:
    """It shows as it is, in its own line and cell."""
    assert escaped(name) == shown
