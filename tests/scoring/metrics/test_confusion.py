"""The confusion matrix and what is read from it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from latentart.scoring.metrics.confusion import confusion_matrix, most_mistaken, recognized_by_style


def test_the_matrix_counts_what_is_taken_for_what() -> None:
    """Rows are the styles, columns what the greatest logit says; rows without pictures stay empty."""
    style_id, guesses = torch.tensor([0, 0, 0, 1, 1, 3]), torch.tensor([0, 1, 1, 1, 1, 0])
    matrix = confusion_matrix(functional.one_hot(guesses, 4).float(), style_id)

    assert matrix.tolist() == [[1, 2, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert recognized_by_style(matrix) == [pytest.approx(1 / 3), 1.0, None, 0.0]
    assert most_mistaken(matrix) == [1, None, None, 0]


def test_one_style_has_a_matrix_too() -> None:
    """All that there is."""
    assert confusion_matrix(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)).tolist() == [[3]]
