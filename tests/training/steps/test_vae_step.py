"""One update of autoencoder and discriminator: each term moves the weights it should and no other."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentart.core.ema import Ema
from latentart.core.equivariance import Transform
from latentart.core.latents import kl_per_image, sample_posterior
from latentart.core.losses import adaptive_weight, generator_loss_per_image, reconstruction_per_image
from latentart.core.networks.autoencoder import Autoencoder, Decoder, Encoder
from latentart.core.networks.blocks import BlockShape, StackShape
from latentart.core.networks.discriminator import PatchDiscriminator
from latentart.core.networks.perceptual import PerceptualDistance, build_random_slices
from latentart.core.networks.quantizer import VectorQuantizer
from latentart.errors import ModelError
from latentart.process.devices import Placement
from latentart.process.lanes import Lanes
from latentart.training.steps.adversarial_schedule import AdversarialPlan, AdversarialSchedule
from latentart.training.steps.adversary import Adversary, Game
from latentart.training.steps.numbers import LostNumbersError, Numbers
from latentart.training.steps.optim import Learner, build_adamw
from latentart.training.steps.vae_step import VaeBatch, VaeStep, VaeTerms

CPU = Placement(torch.device("cpu"), "fp32")
FULL = VaeTerms(kl=1e-3, adversarial=0.5, perceptual=0.3)


class NeverCalled(nn.Module):
    """A network that fails the test when it is used."""

    def forward(self, *_: Any) -> Tensor:
        """Refuse."""
        raise AssertionError("this network must not be called")


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float32 numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fill(network: nn.Module, first_seed: int) -> None:
    """Give a network weights everywhere, always the same."""
    for number, parameter in enumerate(network.parameters()):
        parameter.data = draw(*parameter.shape, seed=first_seed + number) / max(parameter[0].numel(), 4) ** 0.5


def build_autoencoder(quantizer: VectorQuantizer | None = None) -> Autoencoder:
    """Return a tiny autoencoder of factor 2."""
    shape = BlockShape(groups=2, head_channels=4)
    stack = StackShape(widths=(4, 8), num_blocks=1, attention=("none", "none"), middle_attention="linear", blocks=shape)
    encoder = Encoder(2, stack, has_spread=quantizer is None)
    decoder = Decoder(2, stack)
    network = Autoencoder(encoder, decoder, latent_channels=2, factor=2, quantizer=quantizer)
    fill(network, 0)
    return network


def build_perceptual() -> PerceptualDistance:
    """Return a tiny perceptual distance."""
    return PerceptualDistance(build_random_slices(torch.Generator().manual_seed(0), (4,)), [torch.ones(4)])


def build_adversary(discriminator: PatchDiscriminator, **plan: Any) -> Adversary:
    """Return an adversary with a schedule of that plan."""
    return Adversary(
        discriminator,
        build_adamw(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.9), weight_decay=1e-2),
        AdversarialSchedule(AdversarialPlan(**plan)),
        CPU,
        Game(lr=1e-3),
    )


def build(terms: VaeTerms, *, quantizer: VectorQuantizer | None = None, plan: Any = None, **others: Any) -> VaeStep:
    """Return a step over tiny networks, always the same; ``others`` replaces a network."""
    autoencoder = build_autoencoder(quantizer)
    discriminator = PatchDiscriminator(base_channels=4, num_layers=1, groups=2)
    fill(discriminator, 1000)
    given: dict[str, Any] = {"adversary": build_adversary(discriminator, **plan or {})}
    given |= {"perceptual": build_perceptual()} | others
    optimizer = build_adamw(autoencoder.parameters(), lr=1e-3, betas=(0.5, 0.9), weight_decay=1e-2)
    return VaeStep(
        Learner(autoencoder, Ema(autoencoder, decay=0.9), optimizer),
        terms,
        CPU,
        adversary=given["adversary"],
        perceptual=given["perceptual"],
        numbers=given.get("numbers"),
    )


def never_asked() -> Adversary:
    """Return an adversary whose discriminator fails the test when it is used."""
    adversary = build_adversary(PatchDiscriminator(base_channels=4, num_layers=1, groups=2))
    adversary.discriminator = NeverCalled()  # type: ignore[assignment]
    return adversary


def judge_of(step: VaeStep) -> PatchDiscriminator:
    """Return a step's discriminator."""
    assert step.adversary is not None
    return step.adversary.discriminator


def batch(step: int = 0) -> VaeBatch:
    """Return the batch of a step."""
    return VaeBatch(draw(2, 3, 16, 16, seed=step).tanh(), draw(2, 2, 8, 8, seed=100 + step))


def weights(network: nn.Module | None) -> dict[str, Tensor]:
    """Return a copy of a network's state."""
    assert network is not None
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(before: dict[str, Tensor], network: nn.Module | None) -> list[str]:
    """Return the names of the tensors that changed."""
    assert network is not None
    return [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]


def same(first: dict[str, dict[str, Tensor]], second: dict[str, dict[str, Tensor]]) -> bool:
    """Tell whether two checkpoints' tensors are equal bit for bit."""
    return first.keys() == second.keys() and all(
        part.keys() == second[name].keys() and all(torch.equal(value, second[name][key]) for key, value in part.items())
        for name, part in first.items()
    )


@pytest.mark.parametrize("updates", [1, 2])
def test_the_generator_update_leaves_the_discriminator_alone(updates: int) -> None:
    """Neither a weight nor a gradient nor a frozen flag of the discriminator is touched, after one and two updates."""
    step = build(FULL)
    before = weights(judge_of(step))

    for number in range(updates):
        step._move(step._reconstruct(batch(number), number), number)

    assert moved(before, judge_of(step)) == []
    assert all(p.grad is None for p in judge_of(step).parameters())
    assert all(p.requires_grad for p in judge_of(step).parameters())
    assert moved(weights(build_autoencoder()), step.autoencoder) == list(step.autoencoder.state_dict())


@pytest.mark.parametrize("updates", [1, 2])
def test_the_discriminator_update_leaves_the_autoencoder_alone(updates: int) -> None:
    """Neither a weight nor a gradient of the autoencoder is touched, after one and two updates."""
    step = build(FULL)
    step._move(step._reconstruct(batch(), 0), 0)
    before, discriminator_before = weights(step.autoencoder), weights(judge_of(step))
    assert step.adversary is not None
    gradients = [None if p.grad is None else p.grad.clone() for p in step.autoencoder.parameters()]

    for number in range(updates):
        # what __call__ hands over: the detached reconstruction
        judged = step.adversary.judge(batch(number).images, draw(2, 3, 16, 16, seed=7), number)
        step.adversary.learn(judged["discriminator_norm"], 1.0)

    assert moved(before, step.autoencoder) == []
    for parameter, gradient in zip(step.autoencoder.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.equal(parameter.grad, gradient)
    assert moved(discriminator_before, judge_of(step)) == list(discriminator_before)


def test_a_whole_step_takes_the_gradients_of_its_own_losses_only() -> None:
    """After two whole steps each network's gradient equals the one of its own loss computed apart."""
    step = build(VaeTerms(kl=1e-3, adversarial=0.5, perceptual=0.3, clip_norm=0.0))
    step(batch(0), 0, 1e-3)
    twin, judge = copy.deepcopy(step.autoencoder), copy.deepcopy(judge_of(step))

    scalars = step(batch(1), 1, 1e-3)

    given = batch(1)
    moments = twin.encode(given.images)
    images_hat = twin.decode(sample_posterior(moments, given.noise))
    loss = reconstruction_per_image(images_hat, given.images).mean() + 1e-3 * kl_per_image(moments).mean()
    loss = loss + 0.3 * build_perceptual()(images_hat, given.images).mean()
    adversarial = generator_loss_per_image(judge(images_hat)).mean()
    loss = loss + 0.5 * adaptive_weight(loss, adversarial, twin.decoder.conv_out.weight) * adversarial
    wanted = torch.autograd.grad(loss, list(twin.parameters()))
    torch.testing.assert_close(scalars["loss"], loss.detach(), atol=1e-6, rtol=1e-5)
    for parameter, gradient in zip(step.autoencoder.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)
    real, fake = judge(given.images), judge(images_hat.detach())
    hinge = 0.5 * ((1 - real).relu().mean() + (1 + fake).relu().mean())
    torch.testing.assert_close(scalars["discriminator"], hinge.detach(), atol=1e-6, rtol=1e-5)
    for parameter, gradient in zip(
        judge_of(step).parameters(), torch.autograd.grad(hinge, list(judge.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)


def gradients_of(terms: VaeTerms, transform: Transform | None = None, **settings: Any) -> dict[str, Tensor]:
    """Return the autoencoder's gradients after one step with those terms."""
    step = build(terms, **settings)
    step(dataclasses.replace(batch(), transform=transform), 0, 1e-3)
    return {name: p.grad for name, p in step.autoencoder.named_parameters() if p.grad is not None}


def test_the_divergence_moves_the_encoder_alone() -> None:
    """Its gradient on every decoder weight is zero, on every encoder weight it is not."""
    gradients = gradients_of(VaeTerms(reconstruction=0.0, kl=1.0, clip_norm=0.0))

    reached = {name for name, gradient in gradients.items() if gradient.any()}

    assert reached == {name for name in gradients if name.startswith("encoder.")}
    assert any(name.startswith("decoder.") for name in gradients)


@pytest.mark.parametrize(
    "terms",
    [
        VaeTerms(kl=0.0, clip_norm=0.0),
        VaeTerms(reconstruction=0.0, kl=0.0, perceptual=1.0, clip_norm=0.0),
        VaeTerms(reconstruction=0.0, kl=0.0, perceptual=1.0, adversarial=1.0, clip_norm=0.0),
    ],
    ids=["reconstruction", "perceptual", "adversarial"],
)
def test_the_other_terms_move_encoder_and_decoder(terms: VaeTerms) -> None:
    """Each alone reaches every weight of both."""
    gradients = gradients_of(terms)

    assert [name for name, gradient in gradients.items() if not gradient.any()] == []
    assert gradients.keys() == dict(build_autoencoder().named_parameters()).keys()


def test_each_term_changes_the_gradient() -> None:
    """With a term the gradient is another than without it: no term is under no_grad."""
    plain = gradients_of(VaeTerms(kl=0.0, clip_norm=0.0))

    for terms in (
        VaeTerms(kl=0.5, clip_norm=0.0),
        VaeTerms(kl=0.0, perceptual=0.5, clip_norm=0.0),
        VaeTerms(kl=0.0, adversarial=0.5, clip_norm=0.0),
        VaeTerms(kl=0.0, reconstruction_kind="l2", clip_norm=0.0),
    ):
        gradients = gradients_of(terms)
        assert not torch.equal(gradients["encoder.conv_in.weight"], plain["encoder.conv_in.weight"])


def test_a_term_of_weight_0_is_never_called() -> None:
    """Discriminator and perceptual network may be there; without weight they are not even asked."""
    step = build(VaeTerms(kl=0.0), adversary=never_asked(), perceptual=NeverCalled())

    scalars = step(batch(), 0, 1e-3)

    assert scalars.keys() == {"loss", "reconstruction", "gradient_norm", "skipped_steps"}
    with pytest.raises(AssertionError, match="must not be called"):
        build(VaeTerms(perceptual=0.1), perceptual=NeverCalled())(batch(), 0, 1e-3)


def test_the_discriminator_is_not_called_before_its_start() -> None:
    """It begins at its step, not before; until then the steps are those without it."""
    waiting, alone = build(VaeTerms(adversarial=0.5), plan={"start": 2}), build(VaeTerms())
    assert waiting.adversary is not None
    waiting.adversary.discriminator = NeverCalled()  # type: ignore[assignment]

    for number in range(2):
        waiting(batch(number), number, 1e-3)
        alone(batch(number), number, 1e-3)

    assert moved(weights(alone.autoencoder), waiting.autoencoder) == []
    with pytest.raises(AssertionError, match="must not be called"):
        waiting(batch(2), 2, 1e-3)


def test_the_discriminator_trains_from_its_start_on() -> None:
    """At its start both its scalars and its weights move."""
    step = build(VaeTerms(adversarial=0.5), plan={"start": 1})
    before = weights(judge_of(step))

    first = step(batch(0), 0, 1e-3)
    untouched = moved(before, judge_of(step))
    second = step(batch(1), 1, 1e-3)

    assert "discriminator" not in first
    assert untouched == []
    assert {"adversarial", "adversarial_factor", "discriminator", "real_logits", "fake_logits"} <= second.keys()
    assert moved(before, judge_of(step))
    assert not any(value.requires_grad for value in second.values())


def test_in_its_warm_up_the_discriminator_learns_and_has_no_influence() -> None:
    """The autoencoder's steps are bit for bit those without it, while the discriminator's weights move."""
    warming, alone = build(VaeTerms(adversarial=0.5), plan={"warmup": 2}), build(VaeTerms())
    before = weights(judge_of(warming))

    scalars = [warming(batch(number), number, 1e-3) for number in range(2)]
    advance(alone, range(2))

    assert moved(weights(alone.autoencoder), warming.autoencoder) == []
    assert moved(before, judge_of(warming))
    assert [float(found["adversarial_share"]) for found in scalars] == [0.0, 0.0]
    assert not any("adversarial" in found for found in scalars)
    assert "adversarial" in warming(batch(2), 2, 1e-3)


def test_the_ramp_scales_the_adversarial_gradient() -> None:
    """In the first of three steps of a ramp of 2 the term has a third of its weight."""
    plain = gradients_of(VaeTerms(kl=0.0, clip_norm=0.0))
    whole = gradients_of(VaeTerms(kl=0.0, adversarial=0.6, clip_norm=0.0))

    third = gradients_of(VaeTerms(kl=0.0, adversarial=0.6, clip_norm=0.0), plan={"ramp": 2})

    for name, gradient in third.items():
        torch.testing.assert_close(gradient, plain[name] + (whole[name] - plain[name]) / 3, atol=2e-5, rtol=1e-3)


def test_the_perceptual_term_ramps_too() -> None:
    """Its gradient grows from a third to the whole."""
    plain = gradients_of(VaeTerms(kl=0.0, clip_norm=0.0))
    whole = gradients_of(VaeTerms(kl=0.0, perceptual=0.6, clip_norm=0.0))

    third = gradients_of(VaeTerms(kl=0.0, perceptual=0.6, perceptual_ramp=2, clip_norm=0.0))

    for name, gradient in third.items():
        torch.testing.assert_close(gradient, plain[name] + (whole[name] - plain[name]) / 3, atol=1e-6, rtol=1e-3)


def test_a_paused_term_leaves_the_autoencoder_to_itself_and_says_so() -> None:
    """When the error rises far above its best the term pauses; the discriminator goes on to learn."""
    plan = {"window": 1, "tolerance": 0.05}
    step = build(VaeTerms(adversarial=0.5), plan=plan)
    step(batch(0), 0, 1e-3)
    assert step.adversary is not None
    step.adversary.schedule.observe(0, 0.0001, None)  # a best that no real step comes near

    step(batch(1), 1, 1e-3)
    before = weights(judge_of(step))
    paused = step(batch(2), 2, 1e-3)

    assert any("the adversarial term is paused" in note for note in step.notes)
    assert "adversarial" not in paused
    assert float(paused["adversarial_share"]) == 0
    assert moved(before, judge_of(step))


def test_a_discriminator_held_back_looks_but_does_not_learn() -> None:
    """With far too wide a gap its weights and moments stay, and its logits are still watched."""
    step = build(VaeTerms(adversarial=0.5), plan={"max_gap": 0.1, "window": 1})
    step(batch(0), 0, 1e-3)
    assert step.adversary is not None
    notes = step.adversary.schedule.observe(0, 0.5, 50.0)
    before, state = weights(judge_of(step)), copy.deepcopy(step.adversary.state()[0])

    scalars = step(batch(1), 1, 1e-3)

    assert moved(before, judge_of(step)) == []
    assert same(step.adversary.state()[0], state)
    assert "real_logits" in scalars
    assert notes == ["the discriminator waits: real logits are 50.00 above fake ones"]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("has_quantizer", [False, True])
def test_lanes_make_the_same_step(count: int, has_quantizer: bool) -> None:
    """Five pictures in lanes leave the scalars and gradients of five at once, with every term and the penalty."""
    terms = VaeTerms(kl=1e-3, adversarial=0.5, perceptual=0.3, equivariance=0.2)

    def run(lanes: int) -> tuple[dict[str, Tensor], VaeStep]:
        step = build(terms, quantizer=VectorQuantizer(4, 2) if has_quantizer else None)
        assert step.adversary is not None
        step.adversary.game = dataclasses.replace(step.adversary.game, r1=2.0, r1_every=2)
        step.lanes = step.adversary.lanes = Lanes(lanes)
        given = VaeBatch(draw(5, 3, 16, 16).tanh(), draw(5, 2, 8, 8, seed=9), Transform(1, 0.5))
        return step(given, 0, 1e-3), step

    torch.manual_seed(0)
    wanted, whole = run(1)
    torch.manual_seed(0)
    scalars, step = run(count)

    assert scalars.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(scalars[name], value, atol=1e-5, rtol=1e-4)
    for network, other in ((step.autoencoder, whole.autoencoder), (judge_of(step), judge_of(whole))):
        for parameter, same_one in zip(network.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, same_one.grad, atol=1e-5, rtol=1e-4)


def test_r1_moves_the_discriminator_on_its_steps_only() -> None:
    """Every third step has a new penalty, in between the log keeps the last; without r1 there is none."""
    with_r1, without = build(FULL), build(FULL)
    assert with_r1.adversary is not None
    with_r1.adversary.game = dataclasses.replace(with_r1.adversary.game, r1=5.0, r1_every=3)

    found = [with_r1(batch(number), number, 1e-3) for number in range(4)]
    without(batch(0), 0, 1e-3)

    penalties = [float(scalars["r1"]) for scalars in found]
    assert penalties[0] == penalties[1] == penalties[2] != penalties[3]
    assert min(penalties) > 0
    assert "r1" not in without(batch(1), 1, 1e-3)
    assert moved(weights(judge_of(without)), judge_of(with_r1))


def test_the_equivariance_term_reaches_encoder_and_decoder() -> None:
    """It changes the gradient of both, and is not even drawn without its weight."""
    plain = gradients_of(VaeTerms(kl=0.0, clip_norm=0.0))
    turned = gradients_of(VaeTerms(kl=0.0, equivariance=0.5, clip_norm=0.0), transform=Transform(1, 0.5))

    assert {name for name in plain if not torch.equal(plain[name], turned[name])} == plain.keys()
    alone = gradients_of(VaeTerms(kl=0.0, clip_norm=0.0), transform=Transform(1, 0.5))
    assert all(torch.equal(alone[name], plain[name]) for name in plain)


def test_a_quantizer_takes_the_place_of_the_divergence() -> None:
    """Commitment and the state of the book are logged, codes move, and the encoder gets its gradient through them."""
    step = build(VaeTerms(), quantizer=VectorQuantizer(8, 2))
    before = weights(step.autoencoder)

    scalars = step(batch(), 0, 1e-3)

    assert {"commitment", "codebook_usage", "perplexity"} <= scalars.keys()
    assert "kl" not in scalars
    assert "quantizer.codes" in moved(before, step.autoencoder)
    assert all(p.grad is not None and p.grad.any() for p in step.autoencoder.encoder.parameters())


def test_the_commitment_alone_moves_the_encoder_alone() -> None:
    """Its gradient on every decoder weight is zero."""
    terms = VaeTerms(reconstruction=0.0, commitment=1.0, clip_norm=0.0)

    gradients = gradients_of(terms, quantizer=VectorQuantizer(8, 2))

    reached = {name for name, gradient in gradients.items() if gradient.any()}
    assert reached == {name for name in gradients if name.startswith("encoder.")}


def test_a_quantizer_resumes_bit_for_bit() -> None:
    """Book, counts and revivals are in the state or follow from the step."""
    whole, first, second = (build(FULL, quantizer=VectorQuantizer(16, 2)) for _ in range(3))
    for other in (first, second):
        other.autoencoder.load_state_dict(whole.autoencoder.state_dict())
        other.ema.network.load_state_dict(whole.ema.network.state_dict())
    advance(whole, range(4))
    advance(first, range(2))
    state = copy.deepcopy(first.state())

    second.restore(*state)
    advance(second, range(2, 4))

    assert same(second.state()[0], whole.state()[0])


@pytest.mark.parametrize("missing", ["adversary", "perceptual"])
def test_a_weight_without_its_network_is_refused(missing: str) -> None:
    """A term that could not be computed is a ValueError at once."""
    with pytest.raises(ValueError, match=f"got no {missing}"):
        build(FULL, **{missing: None})


def test_the_given_learning_rate_is_the_autoencoders_only() -> None:
    """The discriminator keeps its own."""
    step = build(FULL)

    step(batch(), 0, 7e-4)

    assert {group["lr"] for group in step.optimizer.param_groups} == {7e-4}
    assert step.adversary is not None
    assert {group["lr"] for group in step.adversary.optimizer.param_groups} == {1e-3}


def test_the_average_follows_after_each_step() -> None:
    """Step 0 is the average's update 1: β = 2/11."""
    step = build(VaeTerms())
    before = weights(step.autoencoder)["decoder.conv_out.weight"]

    step(batch(), 0, 1e-2)

    after = weights(step.autoencoder)["decoder.conv_out.weight"]
    expected = before * 2 / 11 + after * 9 / 11
    torch.testing.assert_close(weights(step.ema.network)["decoder.conv_out.weight"], expected, atol=1e-6, rtol=1e-5)


def test_gradients_are_clipped_to_the_norm() -> None:
    """The reported norm is the one before; what the optimizer saw is at most the limit; 0 leaves them."""
    clipped, free = build(VaeTerms(clip_norm=1e-3)), build(VaeTerms(clip_norm=0.0))

    reported = [float(step(batch(), 0, 1e-3)["gradient_norm"]) for step in (clipped, free)]

    norms = [
        float(torch.stack([p.grad.norm() for p in step.autoencoder.parameters() if p.grad is not None]).norm())
        for step in (clipped, free)
    ]
    assert reported[0] == pytest.approx(reported[1])
    assert norms == pytest.approx([1e-3, reported[1]], rel=1e-3)


def advance(step: VaeStep, numbers: range) -> None:
    """Make the updates of those numbers."""
    for number in numbers:
        step(batch(number), number, 1e-3)


def test_a_restored_step_goes_on_bit_for_bit() -> None:
    """Two updates, state into a new step, two more: all tensors equal four updates in one go."""
    whole, first, second = build(FULL), build(FULL), build(FULL)
    advance(whole, range(4))
    advance(first, range(2))
    tensors, values = copy.deepcopy(first.state())
    fill(second.autoencoder, 5000)

    second.restore(tensors, values)
    advance(second, range(2, 4))

    assert same(second.state()[0], whole.state()[0])
    assert second.state()[1] == whole.state()[1]


def test_the_state_holds_every_part() -> None:
    """A checkpoint that drops the discriminator would not resume."""
    step = build(FULL)
    advance(step, range(1))

    tensors, values = step.state()

    assert tensors.keys() == {"autoencoder", "ema", "optimizer", "discriminator", "discriminator_optimizer"}
    assert values.keys() == {"optimizer", "discriminator_optimizer", "adversarial_schedule", "numbers"}
    assert all(part for part in tensors.values())


def test_a_stage_starts_from_the_average_with_the_discriminator_and_a_fresh_optimizer() -> None:
    """Weights and average are the former's average; discriminator and its optimizer go on bit for bit."""
    former, stage = build(FULL), build(FULL)
    advance(former, range(3))
    tensors, values = copy.deepcopy(former.state())

    stage.start_from(tensors, values)

    own, own_values = stage.state()
    assert same({"": own["autoencoder"]}, {"": tensors["ema"]})
    assert not same({"": own["autoencoder"]}, {"": tensors["autoencoder"]})
    kept = ("ema", "discriminator", "discriminator_optimizer")
    assert same({name: own[name] for name in kept}, {name: tensors[name] for name in kept})
    assert own_values["discriminator_optimizer"] == values["discriminator_optimizer"]
    assert own["optimizer"] == {}


def test_a_stage_may_start_from_the_last_weights_with_the_optimizer_and_a_new_discriminator() -> None:
    """What the config says is kept or left, part by part; the schedule always begins with its stage."""
    former, stage = build(FULL), build(FULL)
    advance(former, range(3))
    fresh = weights(judge_of(stage))
    tensors, values = copy.deepcopy(former.state())

    stage.start_from(tensors, values, from_average=False, keep_optimizer=True, keep_discriminator=False)

    own, own_values = stage.state()
    assert same({"a": own["autoencoder"], "b": own["ema"]}, {"a": tensors["autoencoder"], "b": tensors["autoencoder"]})
    assert same({"": own["optimizer"]}, {"": tensors["optimizer"]})
    assert moved(fresh, judge_of(stage)) == []
    assert own["discriminator_optimizer"] == {}
    assert own_values["adversarial_schedule"]["seen"] == 0
    assert values["adversarial_schedule"]["seen"] == 3


def test_a_state_from_before_there_was_a_schedule_is_taken() -> None:
    """An older checkpoint resumes; the discriminator begins where the config says."""
    step = build(FULL)
    advance(step, range(1))
    tensors, values = copy.deepcopy(step.state())
    del values["adversarial_schedule"]
    other = build(FULL)

    other.restore(tensors, values)

    assert other.adversary is not None
    assert other.adversary.schedule.trains(1)


def test_a_stage_without_a_discriminator_takes_a_state_that_has_one() -> None:
    """And one with a discriminator takes a state without: it keeps its fresh one."""
    with_one = build(FULL)
    advance(with_one, range(1))
    without = build(VaeTerms())
    without.adversary = None

    without.start_from(*copy.deepcopy(with_one.state()))
    before = weights(judge_of(with_one))
    with_one.start_from(*copy.deepcopy(without.state()))

    assert "discriminator" not in without.state()[0]
    assert moved(before, judge_of(with_one)) == []


def test_a_state_of_another_architecture_is_refused() -> None:
    """The message says which network does not fit."""
    step = build(VaeTerms())
    tensors, values = step.state()
    tensors["autoencoder"].pop("encoder.conv_in.weight")

    with pytest.raises(ModelError, match="saved autoencoder does not fit"):
        build(VaeTerms()).restore(tensors, values)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda given: VaeBatch(given.images * float("nan"), given.noise),
        lambda given: VaeBatch(given.images * float("inf"), given.noise),
        lambda given: VaeBatch(given.images, given.noise * float("nan")),
    ],
    ids=["nan", "inf", "noise"],
)
def test_an_update_with_numbers_that_are_not_finite_is_left_out(spoil: Callable[[VaeBatch], VaeBatch]) -> None:
    """Weights, averages, schedule and both optimizers' moments are what they were; the next update is made."""
    step = build(FULL)
    advance(step, range(1))
    before = copy.deepcopy(step.state())

    left_out = step(spoil(batch(1)), 1, 1e-3)

    tensors, values = step.state()
    assert same(tensors, before[0])
    assert values == before[1] | {"numbers": before[1]["numbers"] | {"skipped": 1, "in_a_row": 1}}
    assert float(left_out["skipped_steps"]) == 1
    assert float(step(batch(2), 2, 1e-3)["skipped_steps"]) == 1
    assert step.state()[1]["numbers"]["in_a_row"] == 0
    assert not same(step.state()[0], before[0])


def test_codes_stay_where_an_update_is_left_out() -> None:
    """A quantizer's codes move with an update or not at all."""
    step = build(VaeTerms(), quantizer=VectorQuantizer(8, 2), adversary=None)
    advance(step, range(1))
    before = copy.deepcopy(step.state()[0])
    given = batch(1)

    step(VaeBatch(given.images * float("nan"), given.noise), 1, 1e-3)

    assert same(step.state()[0], before)


def test_a_diverged_discriminator_holds_the_autoencoder_back_too() -> None:
    """One step is made by both or by neither: no weight, moment or average of either moves."""
    step = build(VaeTerms(adversarial=1e-9))
    before = copy.deepcopy(step.state()[0])
    for parameter in judge_of(step).parameters():
        parameter.register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[no-untyped-call]

    scalars = step(batch(), 5, 1e-3)

    assert float(scalars["loss"]) < float("inf")
    assert float(scalars["skipped_steps"]) == 1
    assert same(step.state()[0], before)


def test_too_many_updates_left_out_say_which_networks_gradients_were_wrong() -> None:
    """The second in a row ends it: with step, parts of the loss, gradients by module, rate, pictures and losses."""
    step = build(VaeTerms(adversarial=0.5), numbers=Numbers("autoencoder", max_skipped=2))
    advance(step, range(1))
    for parameter in step.autoencoder.encoder.parameters():
        parameter.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]
    given = dataclasses.replace(batch(1), pictures=(4, 7))
    step(given, 1, 1e-3)

    with pytest.raises(LostNumbersError, match="autoencoder diverged at step 3: 2 updates in a row") as caught:
        step(given, 2, 1e-3)

    found = caught.value.evidence
    assert (found["step"], found["lr"], found["pictures"], len(found["last_losses"])) == (3, 1e-3, [4, 7], 3)
    assert {"loss", "reconstruction", "adversarial", "discriminator"} <= found["losses"].keys()
    norms = found["gradient_norms"]
    assert not math.isfinite(norms["encoder"])
    assert math.isfinite(norms["decoder"])
    assert any(name.startswith("discriminator.") for name in norms)


def test_after_going_back_the_discriminator_slows_down_too() -> None:
    """Its own rate is lowered by the same factor, and a restored step keeps that."""
    step, other = build(VaeTerms(adversarial=0.5)), build(VaeTerms(adversarial=0.5))
    step.numbers.go_back()
    step(batch(), 0, 1e-3)
    other.restore(*step.state())

    other(batch(), 1, 1e-3)

    for one in (step, other):
        assert one.adversary is not None
        assert {group["lr"] for group in one.adversary.optimizer.param_groups} == {5e-4}


def test_bf16_keeps_weights_losses_and_moments_in_float32() -> None:
    """Under autocast a step works, with the same updates up to rounding, and nothing stored is half."""
    step, exact = build(FULL), build(FULL)
    step.placement = Placement(torch.device("cpu"), "bf16")

    scalars = step(batch(), 0, 1e-3)
    expected = exact(batch(), 0, 1e-3)

    dtypes = {value.dtype for part in step.state()[0].values() for value in part.values()}
    assert dtypes == {torch.float32}
    assert {value.dtype for value in scalars.values()} == {torch.float32}
    assert float(scalars["reconstruction"]) == pytest.approx(float(expected["reconstruction"]), rel=0.02)
    assert float(scalars["kl"]) == pytest.approx(float(expected["kl"]), rel=0.05)
