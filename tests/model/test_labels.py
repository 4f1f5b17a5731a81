"""Labels beside the style: from the table's columns to ids, batches, the model folder and a resumed run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentart.data.index import IndexEntry
from latentart.errors import DataError
from latentart.model.folder import load_model
from latentart.model.labels import LabelColumn, describe_labels, label_columns, label_ids
from latentart.process.devices import Placement
from latentart.training.ldm_batches import drop_labels

Run = Callable[..., Any]


def entry(number: int, style: str, **labels: str) -> IndexEntry:
    """Return a picture of a style, with labels."""
    return IndexEntry(f"{number}.png", f"{number}.png", style, f"{number:064d}", 32, 32, labels)


ENTRIES = [
    entry(0, "Cubism", genre="still life", artist="Gris"),
    entry(1, "Minimalism", artist="Judd"),
    entry(2, "Cubism", genre="portrait", artist=""),
    entry(3, "Cubism", genre="still life"),
]


def test_columns_have_their_values_sorted() -> None:
    """Each value once; an empty one is none."""
    assert label_columns(ENTRIES, ("artist", "genre")) == [
        LabelColumn("artist", ("Gris", "Judd")),
        LabelColumn("genre", ("portrait", "still life")),
    ]
    assert label_columns(ENTRIES, ()) == []


def test_ids_are_places_and_null_where_there_is_no_label() -> None:
    """The style first, then a column each; who has no value there says nothing."""
    columns = label_columns(ENTRIES, ("genre", "artist"))

    ids = label_ids(ENTRIES, ["Cubism", "Minimalism"], columns)

    assert ids.dtype == torch.int64
    assert ids.tolist() == [[0, 1, 0], [1, 2, 1], [0, 0, 2], [0, 1, 2]]
    assert label_ids(ENTRIES, ["Cubism", "Minimalism"], []).tolist() == [[0], [1], [0], [0]]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (ENTRIES, "no picture has a label in a column 'gener'. Did you mean 'genre'? Columns: artist, genre."),
        ([entry(0, "Cubism")], "no picture has a label in a column 'gener'. The clean set has no table of labels"),
    ],
)
def test_a_column_that_is_not_there_is_refused(entries: list[IndexEntry], message: str) -> None:
    """The line names those there are, and the nearest."""
    with pytest.raises(DataError) as caught:
        label_columns(entries, ("gener",))

    assert message in str(caught.value)


def test_the_description_follows_every_label_and_not_the_order() -> None:
    """A run goes on with the same labels only; one without columns has nothing to describe."""
    described = describe_labels(ENTRIES, ("genre",))
    changed = [*ENTRIES[:3], entry(3, "Cubism", genre="portrait")]

    assert described["labels"] == [{"name": "genre", "values": ["portrait", "still life"]}]
    assert describe_labels(ENTRIES[::-1], ("genre",)) == described
    assert describe_labels(changed, ("genre",)) != described
    assert describe_labels(ENTRIES, ()) == {}


def test_a_style_alone_is_dropped_with_its_share() -> None:
    """One column: null with probability p, untouched otherwise."""
    made = drop_labels(torch.zeros(4000, dtype=torch.int64), [7], 0, range(4000), 0.2)

    assert set(made.tolist()) == {0, 7}
    assert float((made == 7).float().mean()) == pytest.approx(0.2, abs=0.02)


def test_columns_are_dropped_together_and_each_alone() -> None:
    """All with p, and each on its own with p/2 on top."""
    made = drop_labels(torch.zeros(8000, 3, dtype=torch.int64), [7, 8, 9], 0, range(8000), 0.2)
    is_null = made == torch.tensor([7, 8, 9])

    shares = [float((is_null == torch.tensor(pattern)).all(1).float().mean()) for pattern in (
        [True, True, True], [False, False, False], [True, False, False], [False, False, True],
    )]  # fmt: skip
    assert shares == pytest.approx(
        [0.2 + 0.8 * 0.1**3, 0.8 * 0.9**3, 0.8 * 0.1 * 0.9**2, 0.8 * 0.1 * 0.9**2], abs=0.015
    )
    assert torch.equal(
        drop_labels(torch.zeros(4, 3, dtype=torch.int64), [7, 8, 9], 0, range(4), 0.0).sum(), torch.tensor(0)
    )


@pytest.fixture
def labeled(init_tiny: Run, pictures: Run, run: Run, tmp_path: Path) -> Path:
    """Return a workspace of pictures with a table of labels and a trained autoencoder."""
    raw = pictures(tmp_path / "raw")
    paths = sorted(path.relative_to(raw) for path in raw.rglob("*.png"))
    rows = [f"{path},{path.parent},{('portrait', 'landscape', '')[i % 3]}" for i, path in enumerate(paths)]
    (raw / "labels.csv").write_text("\n".join(["path,style,genre", *rows]) + "\n", encoding="utf-8")
    art: Path = init_tiny(raw, "vae.stages.hires.resolution=32")
    assert run(art, "clean-data", "data.workers=1").code == 0
    assert run(art, "train", "vae").code == 0
    return art


def test_a_denoiser_with_labels_is_trained_saved_and_sampled(run: Run, labeled: Path, snapshot: Run) -> None:
    """The model names its columns, has their rows, and is sampled; a run with other labels does not go on."""
    trained = run(labeled, "train", "ldm", 'ldm.labels=["genre"]', "ldm.training.steps=2")
    model = load_model(labeled / "runs/ldm/model", Placement(torch.device("cpu"), "fp32"))
    sampled = run(labeled, "sample", "-s", "all", "-n", "1")
    said = run(labeled, "info")
    before = snapshot(labeled / "runs")
    other = run(labeled, "train", "ldm").error(4)
    again = run(labeled, "train", "ldm", 'ldm.labels=["genre"]')

    assert (trained.code, sampled.code, again.code) == (0, 0, 0), trained.err
    assert model.about["labels"] == [{"name": "genre", "values": ["landscape", "portrait"]}]
    assert "genre: landscape, portrait" in said.out.splitlines()
    assert model.denoiser is not None
    assert model.denoiser.style_embedding.nulls == (3, 2)
    assert (
        "the labels that runs/ldm is trained with have changed since it began (columns: genre then, none now)" in other
    )
    assert "move runs/ldm away" in other
    assert {name: before[name] for name in before if "metrics" in name}


def test_a_changed_label_ends_a_run_that_goes_on(run: Run, labeled: Path) -> None:
    """The same pictures under other labels are other data."""
    assert run(labeled, "train", "ldm", 'ldm.labels=["genre"]').code == 0
    index = labeled / "data/index.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    lines[0]["labels"]["genre"] = "landscape" if lines[0]["labels"].get("genre") != "landscape" else "portrait"
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))

    line = run(labeled, "train", "ldm", 'ldm.labels=["genre"]').error(4)

    assert "the labels that runs/ldm is trained with have changed since it began." in line


def test_an_unknown_column_ends_before_anything_is_made(run: Run, labeled: Path) -> None:
    """One line, and no run."""
    line = run(labeled, "train", "ldm", 'ldm.labels=["gene"]').error(4)

    assert "no picture has a label in a column 'gene'. Did you mean 'genre'?" in line
    assert not (labeled / "runs/ldm").exists()
