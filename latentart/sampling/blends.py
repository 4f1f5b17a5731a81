"""Blends of styles: how they are written, and what the denoiser is told of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from latentart.core.networks.conditioning import Denoiser
from latentart.errors import UsageError, listed, nearest, shortened
from latentart.model.folder import Model


@dataclass(frozen=True)
class Blend:
    """One style, or several by weights that sum to 1."""

    parts: tuple[tuple[str, float], ...]

    @property
    def text(self) -> str:
        """The blend as a user may write it."""
        return "+".join(name if len(self.parts) == 1 else f"{name}:{weight:g}" for name, weight in self.parts)

    def to_json(self) -> Any:
        """Return the style's name, or the weights of several."""
        return self.parts[0][0] if len(self.parts) == 1 else dict(self.parts)

    @classmethod
    def from_json(cls, value: Any) -> Blend:
        """Return what ``to_json`` made.

        Raises:
            ValueError: a weight is not positive.
        """
        parts = ((value, 1.0),) if isinstance(value, str) else tuple(value.items())
        if not parts or not all(0 < weight < math.inf for _, weight in parts):
            raise ValueError(f"weights: got {value}, expected positive ones")
        return cls(parts)


def parse_blend(model: Model, text: str) -> Blend:
    """Return the style that ``text`` names, else the blend that it spells, as Cubism:0.6+Ukiyo_e:0.4.

    Weights are brought to a sum of 1; one that is left out is 1. A name may hold + and : itself.

    Raises:
        UsageError: an unknown style, or a weight that is not positive.
    """
    if (name := known_style(model, text)) is not None:
        return Blend(((name, 1.0),))
    terms = _split_terms(model, text.split("+"))
    if terms is None:
        _refuse_blend(model, text)
    weights: dict[str, float] = {}
    for name, weight in terms:
        weights[name] = weights.get(name, 0.0) + weight
    total = sum(weights.values())
    return Blend(tuple((name, weight / total) for name, weight in weights.items()))


def known_style(model: Model, text: str) -> str | None:
    """Return the style of that name, None if there is none."""
    found = model.find_style(text)
    return None if found is None else str(model.about["style_names"][found])


def _split_terms(model: Model, pieces: list[str]) -> list[tuple[str, float]] | None:
    """Return the (style, weight) pairs that the pieces between plus signs spell, names with a plus sign first.

    Each piece is looked at once, from the last to the first; a term has no more of them than a name has plus signs,
    and one more in a weight as 1e+2.
    """
    longest = model.most_plus_signs + 2
    tails: list[tuple[tuple[str, float], int] | None] = [None] * len(pieces)  # the first term from here, and its end
    for start in range(len(pieces) - 1, -1, -1):
        for end in range(min(len(pieces), start + longest), start, -1):
            if end == len(pieces) or tails[end] is not None:
                term = _parse_term(model, "+".join(pieces[start:end]))
                if term is not None:
                    tails[start] = (term, end)
                    break
    terms, place = [], 0
    while place < len(pieces):
        if (tail := tails[place]) is None:
            return None
        terms.append(tail[0])
        place = tail[1]
    return terms


def _parse_term(model: Model, text: str) -> tuple[str, float] | None:
    """Return (style, weight) of NAME or NAME:WEIGHT."""
    if (name := known_style(model, text.strip())) is not None:
        return name, 1.0
    before, colon, after = text.rpartition(":")
    name = known_style(model, before.strip()) if colon else None
    weight = _positive(after)
    return None if name is None or weight is None else (name, weight)


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _refuse_blend(model: Model, text: str) -> NoReturn:
    """Say which part of a blend is wrong.

    Raises:
        UsageError: always.
    """
    unknown = text
    for piece in text.split("+") if "+" in text or ":" in text else ():
        before, colon, after = piece.rpartition(":")
        if _parse_term(model, piece) is None:
            if colon and known_style(model, before.strip()) is not None:
                msg = f"'{after}' in the blend '{shortened(text)}' is no weight."
                raise UsageError(msg, "Write positive numbers, as Cubism:0.6+Ukiyo_e:0.4.")
            unknown = (before if colon and _positive(after) is not None else piece).strip()
            break
    msg = f"this model has no style '{shortened(unknown)}'.{nearest(unknown, model.style_names)}"
    raise UsageError(msg, f"Styles: {listed(model.style_names)}.")


def labels_of(
    model: Model, denoiser: Denoiser, blends: Sequence[Blend], labels: Sequence[tuple[str, str]] = ()
) -> Tensor:
    """Return what the denoiser is told of pictures: each one's blend, and the ``labels`` (column, value) of all.

    int64 ``[B]`` where there are styles alone, int64 ``[B, columns]`` with other labels, and float ``[B, rows]``, the
    weight of each row of the embedding, where there is a blend.
    """
    given = dict(labels)
    others = [
        values.index(given[column]) if column in given else len(values)
        for column, values in model.label_columns.items()
    ]

    def ids_of(names: Sequence[str]) -> Tensor:
        ids = [model.style_id(name) for name in names]
        return torch.tensor([[style, *others] for style in ids] if given else ids)

    if all(len(blend.parts) == 1 for blend in blends):
        return ids_of([blend.parts[0][0] for blend in blends])
    weights = []
    for blend in blends:
        rows = denoiser.style_embedding.weights_of(ids_of([name for name, _ in blend.parts]))
        shares = torch.tensor([weight for _, weight in blend.parts])
        # a row that all of them share, of another column, has a weight of exactly 1
        weights.append(torch.where((rows == 1).all(0), 1.0, (shares[:, None] * rows).sum(0)))
    return torch.stack(weights)
