"""Classifier-free guidance: its formula and its cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentart.core.diffusion.guidance import Predict, guided

NULL = 3


def make_predict(batch_sizes: list[int], dtype: torch.dtype = torch.float32) -> Predict:
    """Return a predictor that uses all of its arguments and notes the size of each call."""

    def predict(x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        batch_sizes.append(len(x_t))
        return (x_t * (t + 1).reshape(-1, 1, 1, 1) + style_id.reshape(-1, 1, 1, 1) ** 2).to(dtype)

    return predict


X_T = torch.arange(8.0).reshape(2, 1, 2, 2)
T = torch.tensor([4, 7])
STYLE_ID = torch.tensor([0, 2])


def test_scale_1_is_one_plain_call() -> None:
    """Without guidance the network runs once per image and its answer is untouched."""
    batch_sizes: list[int] = []

    prediction = guided(make_predict(batch_sizes), NULL, 1.0)(X_T, T, STYLE_ID)

    assert batch_sizes == [2]
    assert torch.equal(prediction, make_predict([])(X_T, T, STYLE_ID))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
def test_guidance_extrapolates_from_null_in_one_call(scale: float) -> None:
    """The answer is null + scale (styled - null), from one call with both branches."""
    batch_sizes: list[int] = []
    styled = make_predict([])(X_T, T, STYLE_ID)
    null = make_predict([])(X_T, T, torch.full_like(STYLE_ID, NULL))

    prediction = guided(make_predict(batch_sizes), NULL, scale)(X_T, T, STYLE_ID)

    assert batch_sizes == [4]
    torch.testing.assert_close(prediction, null + scale * (styled - null), atol=1e-5, rtol=0)


def test_guided_image_does_not_depend_on_its_batch() -> None:
    """The second of two guided images is the one made alone."""
    predict = guided(make_predict([]), NULL, 2.5)

    assert torch.equal(predict(X_T, T, STYLE_ID)[1:], predict(X_T[1:], T[1:], STYLE_ID[1:]))


def test_guidance_is_computed_in_the_precision_of_x_t() -> None:
    """Half-precision branches are combined in float32, where a scale is not rounded to 3 digits."""
    prediction = guided(make_predict([], torch.bfloat16), NULL, 4.2501)(0 * X_T, T, STYLE_ID)

    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction[0], torch.full((1, 2, 2), 9 - 4.2501 * 9), atol=1e-5, rtol=0)
