"""The label columns that condition the denoiser beside the style: their values, and every picture's ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from latentart.data.index import IndexEntry
from latentart.data.index import style_names as names_of_styles
from latentart.data.latent_cache import LatentCache
from latentart.errors import DataError, listed, nearest


@dataclass(frozen=True)
class LabelColumn:
    """A column of the user's table; a label's id is its place in ``values``, and ``len(values)`` says nothing."""

    name: str
    values: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the column as plain values, as model.json has it."""
        return {**asdict(self), "values": list(self.values)}


def label_columns(entries: Sequence[IndexEntry], names: Sequence[str]) -> list[LabelColumn]:
    """Return the columns of those names with the different values that pictures have there, sorted.

    Raises:
        DataError: no picture has a label in such a column; the nearest is offered.
    """
    columns = [
        LabelColumn(name, tuple(sorted({e.labels[name] for e in entries if e.labels.get(name)}))) for name in names
    ]
    known = sorted({name for entry in entries for name, value in entry.labels.items() if value})
    for column in columns:
        if not column.values:
            msg = f"no picture has a label in a column '{column.name}'.{nearest(column.name, known)}"
            there = (
                f"Columns: {listed(known, 10)}." if known else "The clean set has no table of labels: see data.labels."
            )
            raise DataError(msg, f"{there} After a change of the table run `latentart clean-data` again.")
    return columns


def read_columns(data: Mapping[str, Any]) -> list[LabelColumn]:
    """Return the columns that a run's description of its data names, values in the order of their ids."""
    return [LabelColumn(column["name"], tuple(column["values"])) for column in data.get("labels", [])]


def label_ids(entries: Sequence[IndexEntry], style_names: Sequence[str], columns: Sequence[LabelColumn]) -> Tensor:
    """Return every picture's ids, int64 ``[N, 1 + L]``: its style, then its label in each column or that one's null."""
    places = [{name: i for i, name in enumerate(style_names)}]
    places += [{value: i for i, value in enumerate(column.values)} for column in columns]
    rows = [
        [places[0][entry.style]]
        + [
            place.get(entry.labels.get(column.name, ""), len(place))
            for place, column in zip(places[1:], columns, strict=True)
        ]
        for entry in entries
    ]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(entries), 1 + len(columns))


def ids_in_cache(
    cache: LatentCache, entries: Sequence[IndexEntry], style_names: Sequence[str], columns: Sequence[LabelColumn]
) -> Tensor:
    """Return what each image of a cache is conditioned on: its style [N], beside labels ``[N, 1 + L]`` of columns.

    ``style_names`` are those of the run; it may have more than there are pictures of.
    """
    places = torch.tensor([list(style_names).index(name) for name in names_of_styles(entries)])
    style_id = places[cache.style_id]
    if not columns:
        return style_id
    labels = label_ids(entries, style_names, columns)
    labels[:, 0] = style_id
    nulls = torch.tensor([len(column.values) for column in columns])
    labels[cache.replaced, 1:] = nulls  # they show another picture
    return labels


def describe_labels(entries: Sequence[IndexEntry], names: Sequence[str]) -> dict[str, Any]:
    """Return what a run that goes on must find unchanged of its labels: nothing where it has none."""
    if not names:
        return {}
    columns = label_columns(entries, names)
    rows = sorted((entry.sha256, [entry.labels.get(name, "") for name in names]) for entry in entries)
    fingerprint = hashlib.sha256(repr(rows).encode("utf-8", "surrogatepass")).hexdigest()
    return {"labels": [column.to_json() for column in columns], "labels_fingerprint": fingerprint}
