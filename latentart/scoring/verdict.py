"""Whether a run will come to anything: a verdict from its numbers so far, with the evidence and what to do.

The seed's rule is that samples that resemble nothing after 24 hours never will. Here it is said in numbers, sooner.
"""

from __future__ import annotations

import math
import statistics

from latentart.printable import counted
from latentart.scoring.evidence import History, Verdict
from latentart.scoring.trends import (
    MIN_POINTS,
    SURE,
    Trend,
    find_best,
    finite,
    fit_trend,
    last_third,
    measure_noise,
)

LEAST_FALL = 0.005  # of the level over a third of the run: less is no progress that anybody waits for
EXPLODED = 0.25  # of the best loss, our choice: far beyond what one batch or one change of the rate does
EXPLODED_NORM = 10.0  # times the usual gradient, our choice
LEFT_OUT = 0.01  # of the updates: one or two come from rare batches
STALL_SHARE = 0.1  # of the run: the seed waited 24 hours of ten days
NEAR_CHANCE = 0.15  # of the way from guessing to real pictures, our choice
WORTH_ASKING = 0.2  # by which a judge has to know real pictures better than guessing
KNOWS_NOTHING = 0.9  # of the loss of one who knows nothing
COPIES = 0.1  # of the samples; 1 % of the held-out pictures lie as near to a training picture
COPIES_BY_CHANCE = 0.01
ALIKE = 0.3  # of the spread of real pictures, our choice


def judge_run(history: History) -> Verdict:
    """Return the gravest of what the numbers show; whatever was not measured is left out of account."""
    for judge in (_find_divergence, _find_copies, _find_overfitting, _find_stall):
        if (verdict := judge(history)) is not None:
            return verdict
    return _find_learning(history)


def _find_divergence(history: History) -> Verdict | None:
    evidence = _lost_numbers(history) or _risen_loss(history) or _large_gradients(history)
    if not evidence:
        return None
    group = "ldm.training" if history.what == "denoiser" else "vae"
    advice = f"Lower {group}.optimizer.lr, to half at first, and go on from a checkpoint before it"
    return Verdict("diverging", evidence, f"{advice}.")


def _lost_numbers(history: History) -> str:
    if sum(value is None for _, value in history.training[-5:]) >= 2:
        return f"the loss is not finite at step {history.training[-1][0]:,}"
    skipped = finite(last_third(history.skipped))
    if len(skipped) > 1:
        (first, before), (last, after) = skipped[0], skipped[-1]
        if after - before >= max(3.0, LEFT_OUT * (last - first)):
            return f"{after - before:.0f} updates between the steps {first:,} and {last:,} had to be left out"
    return ""


def _risen_loss(history: History) -> str:
    values = [value for _, value in finite(history.training)]
    window = max(3, len(values) // 10)
    if len(values) >= 3 * window:
        medians = [statistics.median(values[i : i + window]) for i in range(0, len(values) - window + 1, window)]
        best, last = min(medians), statistics.median(values[-window:])
        if last - best > max(SURE * measure_noise(values[len(values) // 2 :]), EXPLODED * abs(best)):
            return f"the training loss rose to {last:.4g}, after {best:.4g}"
    found = find_best(history.held_out)
    if found is not None and found.rise > EXPLODED and _training_change(history, found.step) >= 0:
        return f"the held-out loss rose to {found.last:.4g}, after {found.value:.4g} at step {found.step:,}"
    return ""


def _large_gradients(history: History) -> str:
    values = [value for _, value in finite(history.gradient_norm)]
    window = max(3, len(values) // 10)
    if len(values) < 3 * window or _training_falls(history, history.gradient_norm[-window][0]):
        return ""
    usual, last = statistics.median(values[:-window]), statistics.median(values[-window:])
    if last <= EXPLODED_NORM * usual or usual <= 0:
        return ""
    return f"the gradient norm is {last:.3g}, usual were {usual:.3g}, and the loss no longer falls"


def _find_copies(history: History) -> Verdict | None:
    copies = finite(history.copies)
    if not copies or not history.samples:
        return None
    step, share = copies[-1]
    by_chance = SURE * math.sqrt(COPIES_BY_CHANCE * (1 - COPIES_BY_CHANCE) / history.samples)
    if share < max(COPIES, COPIES_BY_CHANCE + by_chance):
        return None
    evidence = (
        f"{share:.0%} of {history.samples} samples at step {step:,} lie nearer to a training picture than held-out "
        f"pictures do ({COPIES_BY_CHANCE:.0%} by chance)"
    )
    advice = "Use an earlier checkpoint; then more pictures, a smaller network, ldm.model.dropout or fewer steps."
    return Verdict("memorizing", evidence, advice)


def _find_overfitting(history: History) -> Verdict | None:
    best = find_best(history.held_out)
    if best is None or not best.rise or best.points_since < 3:
        return None
    if _training_change(history, best.step) >= 0:
        return None
    group = "ldm" if history.what == "denoiser" else "vae"
    evidence = (
        f"the held-out loss rose {best.rise:.1%} over its best, {best.value:.4g} at step {best.step:,}, with a noise "
        f"of {best.noise / best.value:.1%}, while the training loss falls"
    )
    first = "Use" if history.is_finished else "Stop, and use"
    advice = (
        f"{first} what stood near step {best.step:,}; then more pictures, {group}.model.dropout or a smaller network."
    )
    return Verdict("overfitting", evidence, advice)


def _find_stall(history: History) -> Verdict | None:
    trend = _recent_trend(history)
    if trend is None or history.share < STALL_SHARE or _is_progress(trend):
        return None
    flat = f"the loss no longer falls, it is {trend.level:.4g} at step {history.step:,}"
    if _can_ask(history):
        if _rises(history) or not _is_near_chance(history):
            return None
        evidence = f"{flat}, and {_say_recognition(history)}"
    elif history.blank_loss is not None and trend.level > KNOWS_NOTHING * history.blank_loss:
        evidence = f"{flat}, and knowing nothing gives {history.blank_loss:.4g}"
    else:
        return None
    group, word = "ldm.training" if history.what == "denoiser" else "vae", _command(history)
    then = ", then fewer and clearer styles" if _can_ask(history) else ""
    advice = f"Stop: after {history.share:.0%} of the run, more steps will not help. Try another"
    if history.is_finished:
        advice = "More steps will not help. Try another"
    return Verdict(
        "stalled", evidence, f"{advice} {group}.optimizer.lr (`latentart find-lr {word}`), then a larger network{then}."
    )


def _find_learning(history: History) -> Verdict:
    trend, said = _recent_trend(history), []
    is_recognized = _can_ask(history) and not _is_near_chance(history)
    if _can_ask(history):
        said.append(_say_recognition(history))
    spread = finite(history.spread)
    if spread:
        said.append(f"the spread within a style is {spread[-1][1]:.0%} of real pictures'")
    is_flat = trend is not None and not _is_progress(trend)
    if trend is None:
        said.insert(0, _say_measurements(history))
    elif is_flat:
        said.insert(0, f"the loss stays at {trend.level:.4g}")
    else:
        before = trend.level - trend.change
        share, error = -trend.change / abs(before), trend.error / abs(before)
        said.insert(0, f"the loss fell {share:.1%} (± {error:.1%}) in the last third, to {trend.level:.4g}")
    if not history.held_out:
        said.append("no pictures are held out, so that overfitting would not be seen")
    evidence = "; ".join(said)
    if trend is None and not is_recognized:
        return _judge_end(history, evidence) if history.is_finished else Verdict("too_early", evidence, "Wait.")
    if spread and spread[-1][1] < ALIKE and is_recognized:
        return Verdict("learning", evidence, "Samples of one style are too much alike: lower sample.guidance.")
    if is_flat and is_recognized:
        return Verdict("learning", evidence, "It has converged: more steps change little, a lower learning rate may.")
    if is_flat:
        return Verdict("learning", evidence, "Look at the previews: the loss alone says little more.")
    if history.is_finished:
        more = "" if trend is None else "; the loss still fell, so that more steps may help"
        return Verdict(
            "learning", evidence, f"It is finished: judge it by `latentart evaluate {_command(history)}`{more}."
        )
    return Verdict("learning", evidence, "Go on.")


def _say_measurements(history: History) -> str:
    """Say how often the loss was measured, where that is too seldom to see where it goes."""
    points = finite(history.held_out or history.training)
    if not history.is_finished:
        are = "is" if len(points) == 1 else "are"
        return f"there {are} {counted(len(points), 'measurement')} of the loss, {MIN_POINTS} are needed"
    if not points:
        return "its loss was never measured"
    knows_nothing = "" if history.blank_loss is None else f" (knowing nothing gives {history.blank_loss:.4g})"
    often = f"{counted(len(points), 'measurement')}, too few to say where it went"
    return f"the loss is {points[-1][1]:.4g}{knows_nothing} at the end, by {often}"


def _judge_end(history: History, evidence: str) -> Verdict:
    """Return what became of a run that was measured too seldom for a trend, and whose samples are not recognized."""
    points = finite(history.held_out or history.training)
    is_blank = bool(points) and history.blank_loss is not None and points[-1][1] > KNOWS_NOTHING * history.blank_loss
    if is_blank or _can_ask(history):
        return Verdict("finished", evidence, "It has learned little so far: give it many more steps.")
    return Verdict("finished", evidence, f"Judge it by `latentart evaluate {_command(history)}`.")


def _command(history: History) -> str:
    return "ldm" if history.what == "denoiser" else "vae"


def _recent_trend(history: History) -> Trend | None:
    """Return the held-out loss's trend over the last third, at least five points; the training loss's without one."""
    points = finite(history.held_out or history.training)
    if len(points) < MIN_POINTS:
        return None
    recent = finite(last_third(points))
    return fit_trend(recent if len(recent) >= MIN_POINTS else points[-MIN_POINTS:])


def _is_progress(trend: Trend) -> bool:
    return trend.falls and -trend.change > LEAST_FALL * abs(trend.level)


def _training_falls(history: History, since: int) -> bool:
    points = [point for point in finite(history.training) if point[0] >= since]
    return len(points) >= MIN_POINTS and fit_trend(points).falls


def _training_change(history: History, since: int) -> float:
    """Return where the training loss more likely goes: its noise is large, so its sign alone parts two sure rises."""
    points = [point for point in finite(history.training) if point[0] >= since]
    return fit_trend(points).change if len(points) >= MIN_POINTS else 0.0


def _can_ask(history: History) -> bool:
    """Tell whether there is a judge that knows real pictures."""
    if not finite(history.recognition) or history.chance is None or history.ceiling is None:
        return False
    return history.samples > 0 and history.ceiling - history.chance >= WORTH_ASKING


def _is_near_chance(history: History) -> bool:
    assert history.chance is not None
    assert history.ceiling is not None
    by_chance = 2 * math.sqrt(history.chance * (1 - history.chance) / history.samples)
    limit = history.chance + max(by_chance, NEAR_CHANCE * (history.ceiling - history.chance))
    return finite(history.recognition)[-1][1] <= limit


def _rises(history: History) -> bool:
    """Tell whether more samples are recognized than at the start of the last third, beyond chance."""
    recent = finite(last_third(history.recognition))
    share = (recent[0][1] + recent[-1][1]) / 2
    return recent[-1][1] - recent[0][1] > SURE * math.sqrt(2 * share * (1 - share) / history.samples)


def _say_recognition(history: History) -> str:
    share = finite(history.recognition)[-1][1]
    return (
        f"{share:.0%} of the samples are recognized (a guess {history.chance:.0%}, real pictures {history.ceiling:.0%})"
    )
