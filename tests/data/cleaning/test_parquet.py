"""Parquet tables with pictures are read in place, row group by row group; without pyarrow that is said."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentart.data.cleaning.clean import NothingKeptError, clean_folder
from latentart.data.cleaning.label_table import LabelChoice
from latentart.data.cleaning.picture import CleanRules
from latentart.data.cleaning.report import CleanReport

RULES = CleanRules(min_bytes=0, min_side=8, max_side=32, max_aspect=4.0, max_pixels=1_000_000)


def picture(seed: int) -> bytes:
    """Return a PNG of colored noise, different for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, columns: dict[str, Sequence[Any]], features: dict[str, Any] | None = None) -> Path:
    """Write a Parquet table of two rows a group, with Hugging Face's features, and return its path."""
    arrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    import pyarrow.parquet

    told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if features else None
    pyarrow.parquet.write_table(arrow.table(columns).replace_schema_metadata(told), path, row_group_size=2)
    return path


def clean(raw: Path, out: Path, label: str = "style", *, workers: int = 0, min_bytes: int = 0) -> CleanReport:
    """Clean with the rules of these tests."""
    return clean_folder(raw, out, replace(RULES, min_bytes=min_bytes), LabelChoice(label=label), workers=workers)


def kept(report: CleanReport) -> dict[str, int]:
    """Return the number of pictures kept of each style that has any."""
    return {style: counts["kept"] for style, counts in report.styles.items() if counts["kept"]}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return an empty raw folder."""
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def test_a_data_set_of_hugging_face_is_read(raw: Path, tmp_path: Path) -> None:
    """Pictures beside their paths, classes by name, in guarded workers, and a row without a picture is named."""
    images = [{"bytes": picture(i) if i != 3 else None, "path": "../../a.png"} for i in range(5)]
    features = {"image": {"_type": "Image"}, "label": {"names": ["Cubism", "Pop"], "_type": "ClassLabel"}}
    table(raw / "train-00000-of-00001.parquet", {"image": images, "label": [0, 1, 0, 1, None]}, features)

    report = clean(raw, tmp_path / "out", workers=1)

    assert kept(report) == {"Cubism": 2, "Pop": 1, "train": 1}
    (empty,) = report.dropped
    assert (empty.source, empty.reason) == ("train-00000-of-00001.parquet/00000003", "empty")
    assert kept(clean(raw, tmp_path / "out", min_bytes=1_000)) == kept(report)
    with pytest.raises(NothingKeptError, match="too_few_bytes"):
        clean(raw, tmp_path / "out", min_bytes=100_000)


def test_bare_bytes_and_another_label(raw: Path, tmp_path: Path) -> None:
    """A column of bytes and one of texts or lists, chosen by data.label; one table may be all."""
    columns = {"id": [b"x", b"y", b"z"], "image": [picture(i) for i in range(3)], "genre": [["a", "b"], ["c"], []]}
    path = table(raw / "a.parquet", columns)

    report = clean(path, tmp_path / "out", "genre")

    assert kept(report) == {"a": 1, "c": 1}
    assert [(item.source, item.reason) for item in report.dropped] == [("00000002", "no_style")]


def test_other_and_broken_tables_are_one_line(raw: Path, tmp_path: Path) -> None:
    """One of numbers, one that is cut, one that is damaged inside."""
    table(raw / "numbers.parquet", {"x": [1, 2]})
    whole = table(raw / "whole.parquet", {"image": [picture(i) for i in range(4)]}).read_bytes()
    (raw / "cut.parquet").write_bytes(whole[:-100])
    (raw / "inside.parquet").write_bytes(b"PAR1" + b"\xff" * 16 + whole[20:])

    report = clean(raw, tmp_path / "out")

    reasons = {item.source: item.reason for item in report.dropped}
    assert reasons.pop("numbers.parquet") == "other_format"
    assert reasons.pop("cut.parquet") == "damaged"
    assert kept(report)["whole"] == 2
    expected = dict.fromkeys(["inside.parquet/00000000", "inside.parquet/00000001"], "damaged")
    expected |= dict.fromkeys(["whole.parquet/00000002", "whole.parquet/00000003"], "duplicate")
    assert reasons == expected


def test_without_pyarrow_the_line_says_what_to_install(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an extra it may be missing."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (raw / "a.parquet").write_bytes(b"PAR1" + bytes(100))

    with pytest.raises(NothingKeptError, match=r'Parquet is read after: pip install "latentart\[parquet\]"'):
        clean(raw, tmp_path / "out")
