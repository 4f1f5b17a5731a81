"""Labels as a denoiser takes them: ids of one column or of several, or weights of every row."""

from __future__ import annotations

import torch

from latentart.core.networks.conditioning import LabelEmbedding


def build() -> LabelEmbedding:
    """Return a table for three styles and two genres, each with its null: rows 0…3 and 4…6."""
    table = LabelEmbedding([3, 2], 4)
    table.weight.data = torch.arange(28.0).reshape(7, 4) ** 1.5
    return table


def test_columns_add_up_and_a_style_alone_has_null_elsewhere() -> None:
    """Style 1 and genre 0 are rows 1 and 4; style 1 alone is row 1 and the genre's null, row 6."""
    table = build()
    rows = table.weight.data

    assert torch.equal(table(torch.tensor([[1, 0]])), rows[1:2] + rows[4:5])
    assert torch.equal(table(torch.tensor([1])), rows[1:2] + rows[6:7])
    assert torch.equal(table(torch.tensor([1])), table(torch.tensor([[1, 2]])))


def test_one_column_is_a_plain_table() -> None:
    """As a torch embedding of K + 1 rows, so models of one column keep their meaning."""
    table = LabelEmbedding([3], 5)

    assert torch.equal(table(torch.tensor([2, 3, 0])), table.weight[[2, 3, 0]])


def test_labels_as_weights_give_the_very_same_vectors() -> None:
    """To the last bit for one column, as a plain label must not change beside a blend."""
    table, one = build(), LabelEmbedding([3], 5)
    labels, styles = torch.tensor([[1, 0], [3, 2]]), torch.tensor([0, 2, 3])

    torch.testing.assert_close(table(table.weights_of(labels)), table(labels))
    torch.testing.assert_close(table(table.weights_of(styles)), table(styles))
    assert torch.equal(one(one.weights_of(styles)), one(styles))


def test_a_blend_lies_between_its_labels() -> None:
    """0.25 of one style and 0.75 of another."""
    table = LabelEmbedding([3], 5)

    blend = table(torch.tensor([[0.25, 0.0, 0.75, 0.0]]))

    torch.testing.assert_close(blend, (0.25 * table.weight[0] + 0.75 * table.weight[2])[None])


def test_null_keeps_the_form() -> None:
    """Ids of one column, of two, and weights: null in every column."""
    table = build()

    assert table.null_like(torch.tensor([1, 0])).tolist() == [3, 3]
    assert table.null_like(torch.tensor([[1, 0]])).tolist() == [[3, 2]]
    weights = table.null_like(torch.rand(2, 7))
    assert weights.tolist() == [[0, 0, 0, 1, 0, 0, 1]] * 2
    assert torch.equal(table(weights), table(torch.tensor([[3, 2], [3, 2]])))
