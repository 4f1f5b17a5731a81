"""Classifier-free guidance and autoguidance: their formulas and their cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentart.core.diffusion.guidance import Predict, guided, rescaled, timesteps_within

NULL = 3


def make_predict(batch_sizes: list[int], dtype: torch.dtype = torch.float32) -> Predict:
    """Return a predictor that uses all of its arguments and notes the size of each call."""

    def predict(x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        batch_sizes.append(len(x_t))
        return (x_t * (t + 1).reshape(-1, 1, 1, 1) + style_id.reshape(-1, 1, 1, 1) ** 2).to(dtype)

    return predict


def null_like(style_id: Tensor) -> Tensor:
    """Return labels that say nothing."""
    return torch.full_like(style_id, NULL)


X_T = torch.arange(8.0).reshape(2, 1, 2, 2)
T = torch.tensor([4, 7])
STYLE_ID = torch.tensor([0, 2])


def test_scale_1_is_one_plain_call() -> None:
    """Without guidance the network runs once per image and its answer is untouched."""
    batch_sizes: list[int] = []

    prediction = guided(make_predict(batch_sizes), null_like, 1.0)(X_T, T, STYLE_ID)

    assert batch_sizes == [2]
    assert torch.equal(prediction, make_predict([])(X_T, T, STYLE_ID))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
def test_guidance_extrapolates_from_null_in_one_call(scale: float) -> None:
    """The answer is null + scale (styled - null), from one call with both branches."""
    batch_sizes: list[int] = []
    styled = make_predict([])(X_T, T, STYLE_ID)
    null = make_predict([])(X_T, T, null_like(STYLE_ID))

    prediction = guided(make_predict(batch_sizes), null_like, scale)(X_T, T, STYLE_ID)

    assert batch_sizes == [4]
    torch.testing.assert_close(prediction, null + scale * (styled - null), atol=1e-5, rtol=0)


def test_guided_image_does_not_depend_on_its_batch() -> None:
    """The second of two guided images is the one made alone."""
    predict = guided(make_predict([]), null_like, 2.5)

    assert torch.equal(predict(X_T, T, STYLE_ID)[1:], predict(X_T[1:], T[1:], STYLE_ID[1:]))


def test_guidance_is_computed_in_the_precision_of_x_t() -> None:
    """Half-precision branches are combined in float32, where a scale is not rounded to 3 digits."""
    prediction = guided(make_predict([], torch.bfloat16), null_like, 4.2501)(0 * X_T, T, STYLE_ID)

    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction[0], torch.full((1, 2, 2), 9 - 4.2501 * 9), atol=1e-5, rtol=0)


@pytest.mark.parametrize("within", [range(5), range(8, 1000), range(5, 5)])
def test_outside_of_the_interval_is_one_plain_call(within: range) -> None:
    """No image of the batch is guided: the network runs once per image and its answer is untouched."""
    batch_sizes: list[int] = []
    t = torch.tensor([5, 7])

    prediction = guided(make_predict(batch_sizes), null_like, 3.0, within=within)(X_T, t, STYLE_ID)

    assert batch_sizes == [2]
    assert torch.equal(prediction, make_predict([])(X_T, t, STYLE_ID))


@pytest.mark.parametrize("within", [range(4, 8), range(1000)])
def test_inside_of_the_interval_all_is_as_without_one(within: range) -> None:
    """Both ends belong to it: the first timestep of the range and the last."""
    prediction = guided(make_predict([]), null_like, 3.0, within=within)(X_T, T, STYLE_ID)

    assert torch.equal(prediction, guided(make_predict([]), null_like, 3.0)(X_T, T, STYLE_ID))


def test_each_image_is_guided_by_its_own_timestep() -> None:
    """In a batch of both kinds each image is what it would be alone."""
    batch_sizes: list[int] = []
    predict = guided(make_predict(batch_sizes), null_like, 3.0, within=range(5, 10), rescale=0.5)

    together = predict(X_T, T, STYLE_ID)
    alone = [predict(X_T[part], T[part], STYLE_ID[part]) for part in (slice(0, 1), slice(1, 2))]

    assert batch_sizes == [4, 1, 2]
    assert torch.equal(together, torch.cat(alone))


def test_shares_become_timesteps() -> None:
    """Share s is where (t + 1)/T = s; intervals that meet share nothing and leave nothing out."""
    assert timesteps_within((0.0, 1.0), 1000) is None
    assert timesteps_within((0.0, 0.29), 1000) == range(290)
    assert timesteps_within((0.29, 1.0), 1000) == range(290, 1000)
    assert timesteps_within((0.5, 0.5), 1000) == range(500, 500)


@pytest.mark.parametrize("interval", [(0.6, 0.5), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)])
def test_unsound_intervals_are_refused(interval: tuple[float, float]) -> None:
    """An interval rises within 0 to 1."""
    with pytest.raises(ValueError, match="expected 0 <= low <= high <= 1"):
        timesteps_within(interval, 1000)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_rescaling_brings_each_image_back_to_its_contrast(share: float) -> None:
    """At share 1 each image has the spread of its styled prediction; at less it is on the way there."""
    noise = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    styled = noise * torch.tensor([1.0, 2.0, 0.5]).reshape(3, 1, 1, 1)
    glaring = 3 * styled.flip(0) + 1

    prediction = rescaled(glaring, styled, share)

    wanted = (1 - share) * glaring.flatten(1).std(dim=1) + share * styled.flatten(1).std(dim=1)
    torch.testing.assert_close(prediction.flatten(1).std(dim=1), wanted)
    torch.testing.assert_close(prediction[1] / glaring[1], (wanted[1] / glaring[1].std()).expand(4, 5, 5))


def test_rescaling_leaves_what_has_no_contrast() -> None:
    """A constant prediction has no spread to divide by."""
    flat = torch.full((1, 4, 2, 2), 3.0)

    assert torch.equal(rescaled(flat, 2 * flat, 1.0), flat)


def test_guidance_is_rescaled_after_it_is_scaled() -> None:
    """The whole: scale, then rescale towards the styled branch; a share outside 0 … 1 is refused."""

    def predict(x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        return x_t / (1 + style_id.reshape(-1, 1, 1, 1))

    styled, null = predict(X_T, T, STYLE_ID), predict(X_T, T, null_like(STYLE_ID))

    prediction = guided(predict, null_like, 4.0, rescale=0.7)(X_T, T, STYLE_ID)

    torch.testing.assert_close(prediction, rescaled(null + 4.0 * (styled - null), styled, 0.7))
    assert not torch.allclose(prediction, guided(predict, null_like, 4.0)(X_T, T, STYLE_ID))
    with pytest.raises(ValueError, match=r"rescale: got 1\.5, expected 0 to 1"):
        guided(predict, null_like, 4.0, rescale=1.5)


def test_autoguidance_extrapolates_from_the_weak_network() -> None:
    """The answer is weak + scale (strong - weak), both for the style itself, from one call of each network."""
    strong_sizes: list[int] = []
    weak_sizes: list[int] = []
    weak_plain = make_predict(weak_sizes)

    def weak(x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        return 0.5 * weak_plain(x_t, t, style_id)

    prediction = guided(make_predict(strong_sizes), null_like, 2.0, weak=weak)(X_T, T, STYLE_ID)

    styled = make_predict([])(X_T, T, STYLE_ID)
    torch.testing.assert_close(prediction, 0.5 * styled + 2.0 * (styled - 0.5 * styled))
    assert (strong_sizes, weak_sizes) == ([2], [2])


def test_autoguidance_keeps_to_its_interval() -> None:
    """Outside of it the weak network is not asked; inside each image has its own timestep."""
    weak_sizes: list[int] = []
    weak = make_predict(weak_sizes)

    def strong(x_t: Tensor, t: Tensor, style_id: Tensor) -> Tensor:
        return 3 * make_predict([])(x_t, t, style_id)

    outside = guided(strong, null_like, 2.0, weak=weak, within=range(20, 30))(X_T, T, STYLE_ID)
    both = guided(strong, null_like, 2.0, weak=weak, within=range(5, 10))(X_T, T, STYLE_ID)

    assert torch.equal(outside, strong(X_T, T, STYLE_ID))
    assert weak_sizes == [2]
    assert torch.equal(both[:1], strong(X_T, T, STYLE_ID)[:1])
    torch.testing.assert_close(both[1:], 5 * make_predict([])(X_T, T, STYLE_ID)[1:])
