"""The quantizer against loops over single vectors: nearest codes, straight-through gradient, averages, revival."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from latentart.core.networks.quantizer import VectorQuantizer, vectors_of


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(num_codes: int = 6, channels: int = 3, decay: float = 0.5) -> VectorQuantizer:
    """Return a quantizer with known codes."""
    quantizer = VectorQuantizer(num_codes, channels, decay=decay)
    quantizer.get_buffer("codes").copy_(draw(num_codes, channels, seed=1))
    return quantizer


def generator() -> torch.Generator:
    """Return a generator, always the same."""
    return torch.Generator().manual_seed(0)


def test_every_vector_becomes_its_nearest_code() -> None:
    """By a loop over all codes, at every position of every image."""
    quantizer, z = build(), draw(2, 3, 4, 5)
    codes = quantizer.get_buffer("codes").tolist()

    quantized = quantizer(z)

    for b in range(2):
        for y in range(4):
            for x in range(5):
                vector = z[b, :, y, x].tolist()
                distances = [sum((v - c) ** 2 for v, c in zip(vector, code, strict=True)) for code in codes]
                nearest = distances.index(min(distances))
                assert quantized.code_ids[b, y, x].item() == nearest
                assert quantized.z[b, :, y, x].tolist() == pytest.approx(codes[nearest], abs=1e-6)


def test_the_gradient_goes_straight_through() -> None:
    """dL/dz is dL/dz_q, bit for bit, and the codes want none."""
    quantizer, z, slope = build(), draw(2, 3, 4, 5).requires_grad_(), draw(2, 3, 4, 5, seed=2)

    torch.autograd.backward((quantizer(z).z * slope).sum())

    assert z.grad is not None
    assert torch.equal(z.grad, slope)
    assert list(quantizer.parameters()) == []


def test_the_commitment_pulls_the_latents_to_their_codes() -> None:
    """Mean squared distance per image; its slope is 2 (z - c) / n."""
    quantizer, z = build(), draw(2, 3, 4, 5).requires_grad_()
    quantized = quantizer(z)
    difference = (z - quantized.z).detach()

    torch.autograd.backward(quantized.commitment.sum())

    torch.testing.assert_close(quantized.commitment, difference.square().flatten(1).mean(1))
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 2 * difference / 60)


def test_quantizing_codes_changes_nothing() -> None:
    """A code is its own nearest: decode(quantize(quantize(z))) is decode(quantize(z))."""
    quantizer = build()
    once = quantizer(draw(1, 3, 4, 4)).z

    again = quantizer(once)

    torch.testing.assert_close(again.z, once)
    assert again.commitment.item() == pytest.approx(0, abs=1e-10)


def test_codes_become_the_averages_of_the_latents_that_choose_them() -> None:
    """With fixed choices the book converges to the mean of each group."""
    quantizer, z = build(num_codes=2, channels=1), torch.tensor([0.0, 1.0, 10.0, 12.0]).view(1, 1, 1, 4)
    ids = torch.tensor([0, 0, 1, 1]).view(1, 1, 4)

    for _ in range(20):
        quantizer.update(z, ids, generator())

    torch.testing.assert_close(quantizer.get_buffer("codes"), torch.tensor([[0.5], [11.0]]), atol=1e-3, rtol=0)


def test_an_update_is_the_papers_average() -> None:
    """N ← γN + (1-γ)n, m ← γm + (1-γ)Σz, e = m / N, for codes that are alive."""
    quantizer = build(num_codes=2, channels=2, decay=0.75)
    quantizer.get_buffer("counts").copy_(torch.tensor([4.0, 6.0]))
    quantizer.get_buffer("sums").copy_(torch.tensor([[4.0, 8.0], [6.0, -6.0]]))
    z, ids = draw(1, 2, 2, 2), torch.tensor([[[0, 1], [1, 1]]])
    vectors = vectors_of(z)

    quantizer.update(z, ids, generator())

    sums = [
        0.75 * torch.tensor([4.0, 8.0]) + 0.25 * vectors[0],
        0.75 * torch.tensor([6.0, -6.0]) + 0.25 * vectors[1:].sum(0),
    ]
    counts = [0.75 * 4 + 0.25, 0.75 * 6 + 0.75]
    wanted = torch.stack([part / count for part, count in zip(sums, counts, strict=True)])
    torch.testing.assert_close(quantizer.get_buffer("codes"), wanted)


def test_a_new_book_fills_itself_from_its_first_batch() -> None:
    """After two updates every code is a latent, or the mean of those that chose it; the distance falls."""
    quantizer, z = VectorQuantizer(16, 3), 50 + draw(4, 3, 8, 8)
    before = quantizer(z)

    for _ in range(2):
        quantizer.update(z, quantizer.nearest(z), generator())

    assert quantizer.get_buffer("codes").min() > 40
    assert quantizer(z).commitment.mean() < before.commitment.mean() / 100
    assert torch.isfinite(quantizer.get_buffer("codes")).all()


def test_a_dead_code_moves_onto_a_latent_and_a_living_one_stays() -> None:
    """A code that nothing chose for long is replaced, the others only follow their own latents."""
    quantizer = build(num_codes=3, channels=1, decay=0.9)
    z = torch.tensor([0.0, 0.1, 5.0, 5.1]).view(1, 1, 1, 4)
    quantizer.get_buffer("codes").copy_(torch.tensor([[0.0], [5.0], [900.0]]))
    quantizer.get_buffer("counts").copy_(torch.tensor([2.0, 2.0, 0.001]))
    quantizer.get_buffer("sums").copy_(torch.tensor([[0.0], [10.0], [0.9]]))

    quantizer.update(z, quantizer.nearest(z), generator())

    codes = quantizer.get_buffer("codes").flatten()
    assert any(torch.isclose(codes[2], value, atol=1e-5) for value in z.flatten())
    assert codes[0].item() == pytest.approx(0.005, abs=1e-3)
    assert codes[1].item() == pytest.approx(5.005, abs=1e-2)


def test_revival_follows_from_the_generator() -> None:
    """The same generator revives the same latents; another one others."""
    z, books = draw(2, 3, 8, 8), []
    for seed in (0, 0, 1):
        quantizer = build(num_codes=32)
        quantizer.update(z, quantizer.nearest(z), torch.Generator().manual_seed(seed))
        books.append(quantizer.get_buffer("codes"))

    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


def test_usage_and_perplexity_of_known_counts() -> None:
    """Even use of k codes is a perplexity of k; a code used a twentieth of the mean is not in use."""
    quantizer = VectorQuantizer(8, 2)
    quantizer.get_buffer("choices").copy_(torch.tensor([3.0] * 4 + [0.0] * 4))

    assert quantizer.perplexity().item() == pytest.approx(4)
    assert quantizer.usage().item() == pytest.approx(0.5)
    quantizer.get_buffer("choices").copy_(torch.tensor([1.0] * 8))
    assert quantizer.perplexity().item() == pytest.approx(8)
    quantizer.get_buffer("choices").copy_(torch.tensor([0.5, 0.25, 0.25] + [0.0] * 5))
    assert quantizer.perplexity().item() == pytest.approx(math.exp(1.5 * math.log(2)))


def test_revived_codes_that_nothing_chooses_do_not_count_as_used() -> None:
    """After the first update the state of the book is that of the choices made, however many codes were moved."""
    quantizer, z = VectorQuantizer(64, 3), draw(2, 3, 8, 8)
    code_ids = quantizer.nearest(z)

    quantizer.update(z, code_ids, generator())

    chosen = torch.bincount(code_ids.flatten(), minlength=64).double()
    shares = chosen[chosen > 0] / chosen.sum()
    assert quantizer.perplexity().item() == pytest.approx((-shares * shares.log()).sum().exp().item(), rel=1e-5)
    assert quantizer.usage().item() == pytest.approx((chosen >= 0.1 * chosen.mean()).double().mean().item())
    assert quantizer.usage().item() < 1


def test_a_latent_that_is_met_well_gets_no_second_code() -> None:
    """Once a book holds all there is, its other codes stay where they are."""
    quantizer, z = build(num_codes=8, channels=1), torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 2, 2)
    codes = torch.tensor([0.0, 1.0, 2.0, 3.0, 50.0, 60.0, 70.0, 80.0])[:, None]
    quantizer.get_buffer("codes").copy_(codes)
    quantizer.get_buffer("counts").copy_(torch.tensor([1.0] * 4 + [1e-6] * 4))
    quantizer.get_buffer("sums").copy_(codes * quantizer.get_buffer("counts")[:, None])

    quantizer.update(z, quantizer.nearest(z), generator())

    torch.testing.assert_close(quantizer.get_buffer("codes"), codes)


def test_large_books_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row or all at once: the same codes."""
    quantizer, z = build(), draw(2, 3, 4, 5)
    whole = quantizer.nearest(z)
    monkeypatch.setattr("latentart.core.networks.quantizer.MAX_DISTANCES", 20)

    assert torch.equal(quantizer.nearest(z), whole)


def test_the_nearest_code_is_found_in_float32_under_autocast() -> None:
    """Two codes that bf16 cannot tell apart are told apart."""
    quantizer = VectorQuantizer(2, 1)
    quantizer.get_buffer("codes").copy_(torch.tensor([[100.0], [100.1]]))
    z = torch.full((1, 1, 1, 1), 100.09)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized = quantizer(z)

    assert quantized.code_ids.item() == 1
    assert quantized.z.dtype == torch.float32


def test_image_i_does_not_depend_on_its_batch() -> None:
    """Alone or among others, an image gets the same codes."""
    quantizer, z = build(), draw(4, 3, 4, 4)

    assert torch.equal(quantizer(z).code_ids[2:3], quantizer(z[2:3]).code_ids)
