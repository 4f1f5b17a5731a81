"""Scripted runs, good and bad, and what is said of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from latentart.scoring.evidence import History
from latentart.scoring.trends import find_best, fit_trend, last_third, measure_noise
from latentart.scoring.verdict import judge_run

STEPS = 100_000
Curve = Callable[[float], float]


def series(curve: Curve, every: int = 1000, noise: float = 0.0, end: int = STEPS, seed: int = 0) -> list[Any]:
    """Return (step, curve of the run's share, 0…1) with relative noise."""
    rng = random.Random(seed)
    return [(step, curve(step / STEPS) * (1 + rng.gauss(0, noise))) for step in range(every, end + 1, every)]


def fall(share: float) -> float:
    """Fall as sound losses do, to the very end."""
    return 0.3 + 0.5 * math.exp(-4 * share)


def scripted(seed: int = 0, end: int = STEPS, **changes: Any) -> History:
    """Return a sound run of the denoiser, with some of its numbers changed."""
    values: dict[str, Any] = {
        "training": series(fall, every=200, noise=0.15, end=end, seed=seed),
        "held_out": series(lambda share: 1.03 * fall(share), noise=0.002, end=end, seed=seed + 1),
        "gradient_norm": series(lambda share: 0.5 + math.exp(-5 * share), every=200, noise=0.2, end=end, seed=seed),
        "skipped": series(flat(0.0), every=200, end=end),
        "recognition": series(lambda share: min(0.85, 0.2 + share), end=end),
        "spread": series(flat(0.8), end=end),
        "copies": series(flat(0.01), end=end),
        "samples": 128,
        "chance": 0.125,
        "ceiling": 0.93,
        "blank_loss": 1.0,
    }
    return History("denoiser", STEPS, **{**values, **changes})


def flat(level: float) -> Curve:
    """Return a curve that stays where it is."""
    return lambda _: level


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_a_sound_run_is_learning(share: float, seed: int) -> None:
    """Whatever its noise, and from a tenth of the run on."""
    verdict = judge_run(scripted(seed, int(share * STEPS)))

    assert verdict.kind == "learning"
    assert not verdict.is_warning
    assert verdict.advice.startswith("It is finished" if share == 1.0 else "Go on.")


def test_the_evidence_has_the_numbers() -> None:
    """How far the loss fell, who is recognized against whom, and how much samples differ."""
    verdict = judge_run(scripted())

    assert "85% of the samples are recognized (a guess 12%, real pictures 93%)" in verdict.evidence
    assert "the spread within a style is 80% of real pictures'" in verdict.evidence
    assert "the loss fell 7." in verdict.evidence
    assert str(verdict).startswith("learning: the loss fell")


def test_a_run_that_is_done_has_converged() -> None:
    """A flat loss with samples that are recognized is no stall."""
    verdict = judge_run(scripted(held_out=series(flat(0.3), noise=0.002), training=series(flat(0.3), noise=0.1)))

    assert verdict.kind == "learning"
    assert verdict.advice.startswith("It has converged")


@pytest.mark.parametrize("seed", range(20))
def test_a_flat_loss_with_samples_as_by_guessing_is_a_stall(seed: int) -> None:
    """The seed's rule, a tenth into the run: more steps will not help."""
    end = STEPS // 10
    flat_losses = {
        "training": series(flat(0.9), every=100, noise=0.15, end=end, seed=seed),
        "held_out": series(flat(0.92), every=1000, noise=0.002, end=end, seed=seed),
    }
    history = scripted(seed, end, **flat_losses, recognition=series(flat(0.14), end=end, noise=0.1, seed=seed))

    verdict = judge_run(history)

    assert verdict.kind == "stalled"
    assert "a guess 12%" in verdict.evidence
    assert "after 10% of the run" in verdict.advice


@pytest.mark.parametrize(
    "changes",
    [
        {"recognition": series(flat(0.6))},
        {"recognition": series(lambda share: 0.02 + 0.55 * max(0.0, share - 0.6))},  # below chance, but on its way
        {"held_out": series(fall, noise=0.002)},
        {"held_out": series(flat(0.92), noise=0.002)[:9], "recognition": series(flat(0.14))[:9]},  # below a tenth
        {"ceiling": 0.2},  # the judge cannot tell these styles apart
    ],
)
def test_what_is_no_stall(changes: dict[str, Any]) -> None:
    """Recognized samples, ever more of them, a loss that falls, a short run, or a judge that knows nothing."""
    base: dict[str, Any] = {
        "held_out": series(flat(0.5), noise=0.002),
        "training": series(flat(0.5), every=200, noise=0.1),
        "recognition": series(flat(0.13)),
    }
    if len(changes.get("held_out", [0] * 100)) < 10:
        base["training"] = series(flat(0.5), every=200, noise=0.1, end=9000)

    assert judge_run(scripted(**{**base, **changes})).kind == "learning"


@pytest.mark.parametrize("seed", range(20))
def test_overfitting_is_seen(seed: int) -> None:
    """The held-out loss comes back over its best while the training loss falls on."""
    turn = series(lambda share: fall(share) + 0.15 * max(0.0, share - 0.5), noise=0.003, seed=seed)

    verdict = judge_run(scripted(seed, held_out=turn))

    assert verdict.kind == "overfitting"
    assert "the training loss falls" in verdict.evidence
    assert "more pictures" in verdict.advice


@pytest.mark.parametrize("seed", range(20))
def test_a_noisy_held_out_loss_is_not_overfitting(seed: int) -> None:
    """Its noise is measured from itself: a flat loss with much of it does not rise."""
    noisy = series(lambda share: 0.3 + 0.5 * math.exp(-20 * share), noise=0.05, seed=seed)

    assert judge_run(scripted(seed, held_out=noisy)).kind == "learning"


@pytest.mark.parametrize(
    ("share", "kind"), [(0.02, "learning"), (0.08, "learning"), (0.12, "memorizing"), (0.9, "memorizing")]
)
def test_copies_are_memorizing(share: float, kind: str) -> None:
    """From a tenth of the samples on; one in a hundred is chance."""
    verdict = judge_run(scripted(copies=[*series(flat(0.01))[:-1], (STEPS, share)]))

    assert verdict.kind == kind
    assert kind == "learning" or f"{share:.0%} of 128 samples" in verdict.evidence


def test_few_samples_need_more_copies() -> None:
    """One of eight samples may be chance, half of them is not."""
    assert judge_run(scripted(samples=4, copies=[(STEPS, 0.125)])).kind == "learning"
    assert judge_run(scripted(samples=4, copies=[(STEPS, 0.5)])).kind == "memorizing"


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_that_rises_is_diverging(seed: int) -> None:
    """To half more than its best, at the end of the run."""
    exploded = series(lambda share: fall(share) + 3 * max(0.0, share - 0.85), every=200, noise=0.15, seed=seed)
    held_out = series(lambda share: fall(share) + 3 * max(0.0, share - 0.85), noise=0.002, seed=seed)

    verdict = judge_run(scripted(seed, training=exploded, held_out=held_out))

    assert verdict.kind == "diverging"
    assert "the training loss rose to" in verdict.evidence
    assert "Lower ldm.training.optimizer.lr" in verdict.advice


def test_lost_numbers_are_diverging() -> None:
    """Losses that are not finite, or a percent of the updates left out; one of each is none."""
    sound = series(fall, every=200, noise=0.1)

    lost = [*sound[:-3], *((step, None) for step, _ in sound[-3:])]
    assert judge_run(scripted(training=lost)).evidence == f"the loss is not finite at step {STEPS:,}"
    assert judge_run(scripted(training=[*sound[:-1], (STEPS, None)])).kind == "learning"
    skipped = series(lambda share: max(0.0, share - 0.7) * STEPS * 0.02, every=200)
    assert "had to be left out" in judge_run(scripted(skipped=skipped)).evidence
    assert judge_run(scripted(skipped=series(lambda share: float(share > 0.8), every=200))).kind == "learning"


def test_exploding_gradients_are_diverging_unless_the_loss_falls() -> None:
    """Ten times the usual norm, while the training loss stands still."""
    norms = series(lambda share: 100.0 if share > 0.88 else 1.0, every=200)
    still = {"training": series(flat(0.4), every=200, noise=0.05), "held_out": series(flat(0.4), noise=0.002)}

    assert "the gradient norm is 100" in judge_run(scripted(gradient_norm=norms, **still)).evidence
    assert judge_run(scripted(gradient_norm=series(flat(1.0)), **still)).kind == "learning"


def test_the_gravest_is_said() -> None:
    """A run that diverges and copies diverges."""
    lost = [(step, None) for step, _ in series(fall)]

    assert judge_run(scripted(training=lost, copies=series(flat(0.9)))).kind == "diverging"


@pytest.mark.parametrize("end", [0, 1000, 4000])
def test_it_waits_for_five_measurements(end: int) -> None:
    """Before, only samples that are recognized say that something is learned."""
    early = scripted(end=end, recognition=[], spread=[], training=[], gradient_norm=[])

    assert judge_run(early).kind == "too_early"
    assert judge_run(scripted(end=end, recognition=[(1000, 0.6)], spread=[])).kind == "learning"


@pytest.mark.parametrize(("count", "words"), [(0, "there are 0 measurements"), (1, "there is 1 measurement of")])
def test_measurements_are_counted_as_people_do(count: int, words: str) -> None:
    """One measurement is one."""
    early = scripted(end=0, held_out=series(fall, end=count * 1000))

    assert judge_run(early).evidence.startswith(words)


@pytest.mark.parametrize(
    ("changes", "kind", "evidence", "advice"),
    [
        (
            {},
            "finished",
            "the loss is 0.4 (knowing nothing gives 1) at the end, by 1 measurement, too few",
            "evaluate ldm",
        ),
        ({"held_out": [], "training": []}, "too_early", "there are 0 measurements", "Wait."),
        ({"held_out": [(STEPS, 0.95)]}, "finished", "the loss is 0.95", "learned little"),
        ({"recognition": [(STEPS, 0.12)]}, "finished", "12% of the samples are recognized", "learned little"),
        ({"recognition": [(STEPS, 0.9)]}, "learning", "90% of the samples", "It is finished: judge it by"),
    ],
)
def test_a_finished_run_is_told_what_it_became(changes: dict[str, Any], kind: str, evidence: str, advice: str) -> None:
    """Not to wait: there is nothing to wait for."""
    bare: dict[str, Any] = {"held_out": [(STEPS, 0.4)], "training": [(STEPS, 0.3)], "recognition": [], "spread": []}
    bare |= {"copies": [], "gradient_norm": [], "skipped": []}

    verdict = judge_run(scripted(**{**bare, **changes}))

    assert verdict.kind == kind
    assert evidence in verdict.evidence
    assert advice in verdict.advice
    assert not verdict.is_warning


def test_a_finished_run_is_not_told_to_go_on_or_stop() -> None:
    """What still fell may fall on; what is flat, or rose, is told what to do without "stop"."""
    rising = {"held_out": series(lambda share: 0.5 + 0.3 * abs(share - 0.5), noise=0.002)}
    still = {"held_out": series(flat(0.95), noise=0.002), "training": series(flat(0.95), noise=0.1)}
    for changes in ({}, rising, still | {"recognition": series(flat(0.12))}):
        finished = judge_run(scripted(**changes))

        assert "Go on" not in finished.advice
        assert "Stop" not in finished.advice
        assert "Wait" not in finished.advice


def test_samples_that_are_alike_are_named() -> None:
    """Recognized, but all the same."""
    verdict = judge_run(scripted(spread=series(flat(0.1))))

    assert verdict.kind == "learning"
    assert "lower sample.guidance" in verdict.advice


def test_an_autoencoder_is_judged_by_its_error() -> None:
    """Without a judge: against one who knows each picture's mean color alone; steps count from its stage on."""
    begun = 50_000
    stage: dict[str, Any] = {"begun": begun, "blank_loss": 0.35}
    points = range(begun + 500, begun + 10_001, 500)

    def judged(curve: Curve, training: Curve) -> str:
        held_out = [(step, curve((step - begun) / 10_000)) for step in points]
        losses = [(step, training((step - begun) / 10_000)) for step in points]
        return judge_run(History("autoencoder", 10_000, training=losses, held_out=held_out, **stage)).kind

    assert judged(lambda s: 0.1 + 0.2 * math.exp(-4 * s), lambda s: 0.1 + 0.2 * math.exp(-4 * s)) == "learning"
    assert judged(flat(0.34), flat(0.34)) == "stalled"
    assert judged(flat(0.1), flat(0.1)) == "learning"
    assert judged(lambda s: 0.1 + 0.1 * abs(s - 0.5), lambda s: 0.2 - 0.1 * s) == "overfitting"
    assert judged(lambda s: 0.1 + 0.5 * s, lambda s: 0.1 + 0.5 * s) == "diverging"


def test_without_held_out_pictures_it_goes_by_the_training_loss() -> None:
    """And says that overfitting would not be seen."""
    verdict = judge_run(scripted(held_out=[]))

    assert verdict.kind == "learning"
    assert "no pictures are held out" in verdict.evidence


def test_a_line_is_fitted_with_its_error() -> None:
    """Exact on a line; the error is that of the textbook; points that make no line are refused."""
    trend = fit_trend([(x, 3 - 2 * x) for x in range(5)])
    assert (trend.change, trend.level) == pytest.approx((-8, -5))
    assert trend.error == pytest.approx(0, abs=1e-9)
    assert trend.falls

    # y = 0, 1, 0, 1: slope 1/5, residual sum 0.8, error sqrt(0.8 / 2 / 5)
    trend = fit_trend([(0, 0), (1, 1), (2, 0), (3, 1)])
    assert trend.change == pytest.approx(3 / 5)
    assert trend.error == pytest.approx(3 * math.sqrt(0.4 / 5))
    for points in ([(0, 1), (1, 2)], [(2, 1), (2, 2), (2, 3)]):
        with pytest.raises(ValueError, match="expected at least 3"):
            fit_trend(points)


def test_noise_is_measured_about_a_curve() -> None:
    """Nothing on a line, the deviation of white noise whatever it lies on."""
    rng = random.Random(0)

    assert measure_noise([3.0 * x for x in range(10)]) == pytest.approx(0)
    assert measure_noise([x * x / 1e4 + rng.gauss(0, 0.5) for x in range(4000)]) == pytest.approx(0.5, rel=0.1)
    assert measure_noise([1.0, 2.0]) == 0.0


def test_the_best_is_three_in_a_row() -> None:
    """One lucky measurement is no best."""
    values = [5.0, 4, 3, 0.5, 3, 2, 2, 2, 3, 4]
    best = find_best(list(enumerate(values)))

    assert best is not None
    assert (best.step, best.value, best.last) == (4, pytest.approx(5.5 / 3), 3.0)
    assert find_best([(1, 1.0)] * 4) is None
    assert last_third([(0, 1.0), (10, 2.0), (20, 3.0), (30, 4.0)]) == [(20, 3.0), (30, 4.0)]
