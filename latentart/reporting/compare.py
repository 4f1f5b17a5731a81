"""`latentart runs compare`: two runs of one network side by side: settings that differ, numbers of like with like."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentart.errors import UsageError
from latentart.printable import counted, duration
from latentart.reporting.report import read_object
from latentart.reporting.run_charts import Line, write_chart
from latentart.reporting.runs import read_run
from latentart.scoring.run_history import HELD_OUT_LOSS, TRAINING_LOSS, RunHistory, read_end
from latentart.storage.json_files import leaves, object_in

Row = tuple[str, str, str]  # what, and of each run

# what else than its own network's settings a run is not trained by
OTHERS = {"denoiser": ("vae.", "sample.", "tracking."), "autoencoder": ("ldm.", "sample.", "tracking.")}
MACHINE = ("latentart", "torch", "threads", "processes", "devices")
# in which two runs must agree for their losses to have one measure
LIKE = {
    "denoiser": (
        "ldm.diffusion.num_steps",
        "ldm.diffusion.schedule",
        "ldm.diffusion.target",
        "ldm.diffusion.zero_terminal_snr",
        "ldm.training.resolution",
    ),
    "autoencoder": (),
}
STAGE_LIKE = ("resolution", "reconstruction")
TRAINING_SCORES = {
    "denoiser": {"recognition": "recognized while training", "spread": "spread", "copies": "copies"},
    "autoencoder": {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "frechet": "Fréchet, untrained features"},
}
SHOWN_STEPS = 200  # parts of a curve of which the last is a run's training loss


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    history: RunHistory
    config: dict[str, Any]
    machine: dict[str, Any]
    data: dict[str, Any]
    evaluation: dict[str, Any]

    @classmethod
    def read(cls, run: Path) -> Side:
        """Read a run, however damaged."""
        states = sorted((run / "checkpoints").glob("step-*/state.json"))
        state = read_object(states[-1]).get("state") if states else None
        data = state.get("data") if isinstance(state, dict) else None
        evaluations = filter(None, map(object_in, reversed(read_end(run / "evaluations.jsonl").splitlines())))
        return cls(
            run.name,
            read_run(run),
            dict(leaves(read_object(run / "config.json"))),
            read_object(run / "machine.json"),
            data if isinstance(data, dict) else {},
            next(evaluations, {}),
        )

    @property
    def stage(self) -> str | None:
        """The autoencoder's last stage."""
        return list(self.history.stages)[-1] if self.history.stages else None

    def value_at(self, name: str, step: int) -> float | None:
        """Return a number of the run at a step, or the last one before it."""
        if name not in self.history.traces:
            return None
        pairs = zip(*self.history.traces[name].values(), strict=True)
        known = [value for at, value in pairs if at <= step and value is not None]
        return known[-1] if known else None


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs, and how each did; ``notes`` say what does not compare."""

    names: tuple[str, str]
    settings: list[Row]
    numbers: list[Row]
    notes: list[str]


def compare(first: Path, second: Path, figure: Path) -> Comparison:
    """Compare two runs, and draw their losses into a figure.

    Raises:
        UsageError: they are one run, or train different networks.
    """
    a, b = Side.read(first), Side.read(second)
    what = a.history.what
    if first.resolve() == second.resolve():
        raise UsageError(f"{first} is compared with itself.", "Name two runs; `latentart runs ls` lists them.")
    if what != b.history.what:
        msg = f"{a.name} trains the {what}, {b.name} the {b.history.what}: their numbers are of different things."
        raise UsageError(msg, "Name two runs of one network; `latentart runs ls` says which is which.")
    found = Comparison((a.name, b.name), list(_settings(a, b)), list(_numbers(a, b)), list(_notes(a, b)))
    _draw(a, b, figure)
    return found


def _settings(a: Side, b: Side) -> Iterator[Row]:
    """Yield the settings, and what is known of machine and pictures, that differ."""
    for path in dict.fromkeys([*a.config, *b.config]):
        if path.startswith((*OTHERS[a.history.what], "$")):
            continue
        if a.config.get(path) != b.config.get(path):
            yield path, _word(a.config, path), _word(b.config, path)
    for name in MACHINE:
        if a.machine.get(name) != b.machine.get(name):
            yield name, _word(a.machine, name), _word(b.machine, name)


def _word(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else ""


def _numbers(a: Side, b: Side) -> Iterator[Row]:
    """Yield what each run came to; a row that neither has is left out."""
    what, histories = a.history.what, (a.history, b.history)
    last = (a.history.last_step, b.history.last_step)
    yield _row("steps", [f"{step:,}" for step in last])
    if a.stage or b.stage:
        yield _row("stage", [a.stage or "", b.stage or ""])
    yield _row("time", [duration(one.seconds) if one.seconds else "" for one in histories])
    rates = [_mean(one, "images_per_second") for one in histories]
    losses = {"training loss": TRAINING_LOSS[what], "held-out loss": HELD_OUT_LOSS[what]}
    rows = [_row("images per second", map(_number, rates))]
    for words, name in losses.items():
        rows.append(_row(words, [_number(_end(one, name)) for one in histories]))
    if last[0] != last[1]:
        at, name = min(last), HELD_OUT_LOSS[what]
        rows.append(_row(f"held-out loss by step {at:,}", [_number(one.value_at(name, at)) for one in (a, b)]))
    for name, words in TRAINING_SCORES[what].items():
        rows.append(_row(words, [_number(one.fixed.get(name)) for one in histories]))
    scores = [_evaluated(one) for one in (a, b)]
    evaluated = dict.fromkeys([*scores[0], *scores[1]])
    rows += [_row(f"evaluate: {name}", [_number(one.get(name)) for one in scores]) for name in evaluated]
    yield from (row for row in rows if row[1] or row[2])


def _row(words: str, values: Any) -> Row:
    first, second = values
    return words, first, second


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _mean(history: RunHistory, name: str) -> float | None:
    means = history.traces[name].means(most=1) if name in history.traces else []
    return means[0][1] if means else None


def _end(history: RunHistory, name: str) -> float | None:
    """Return a number at the end; of a training loss the mean of its last part, as single batches differ."""
    means = history.traces[name].means(most=SHOWN_STEPS) if name in history.traces else []
    return next((value for _, value in reversed(means) if value is not None), None)


def _evaluated(side: Side) -> dict[str, float]:
    """Return the numbers of the newest evaluation by their names."""
    found, entry = {}, side.evaluation
    parts: dict[str, Any] = {name: entry.get(name) for name in ("step", "samples", "recognized")}
    for name, measured in _group(entry, "measures").items():
        parts[name] = measured.get("value") if isinstance(measured, dict) else None
    parts |= {name: value for name, value in _group(entry, "all").items() if name != "style"}
    parts |= {name: value for name, value in _group(entry, "inception").items() if name in ("fid", "kid")}
    for name, value in parts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name.replace("_", " ")] = float(value)
    return found


def _group(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _notes(a: Side, b: Side) -> Iterator[str]:
    """Yield in words why numbers of the two do not compare, as far as that is known."""
    differing = [path for path in dict.fromkeys([*a.config, *b.config]) if a.config.get(path) != b.config.get(path)]
    alike = [path for path in differing if f"{path}.".startswith(tuple(f"{one}." for one in LIKE[a.history.what]))]
    if a.stage and a.stage == b.stage:
        prefix = f"vae.stages.{a.stage}."
        alike += [path for path in differing if path.removeprefix(prefix) in STAGE_LIKE and path.startswith(prefix)]
    elif a.stage or b.stage:
        alike.append("the stage that they are in")
    if alike:
        yield f"The losses have no common measure, as these differ: {', '.join(alike)}."
    if a.data and b.data:
        if any(a.data.get(name) != b.data.get(name) for name in ("fingerprint", "held_out", "twins")):
            sizes = " and ".join(counted(one.data.get("num_pictures") or 0, "picture") for one in (a, b))
            yield f"They were trained on different sets ({sizes}), so other pictures are held out."
        if a.data.get("autoencoder") != b.data.get("autoencoder"):
            yield "They learn the latents of different autoencoders, so their losses have no common measure."
    if a.evaluation and b.evaluation:
        names = [
            name for name in ("recognized_real", "real_measures") if a.evaluation.get(name) != b.evaluation.get(name)
        ]
        if names:
            yield "They were evaluated by different judges or beside different pictures: distances do not compare."
        asked = [name for name in ("per_style", "settings") if a.evaluation.get(name) != b.evaluation.get(name)]
        if asked:
            yield f"Their samples were drawn in different ways ({', '.join(asked)}): see the evaluations."


def _draw(a: Side, b: Side, path: Path) -> None:
    """Draw the losses of both over their steps."""
    what, lines = a.history.what, []
    for words, name in (("training", TRAINING_LOSS[what]), ("held out", HELD_OUT_LOSS[what])):
        for side in (a, b):
            if name in side.history.traces:
                steps, means = zip(*side.history.traces[name].means(most=SHOWN_STEPS), strict=True)
                lines.append(Line(f"{side.name}, {words}", steps, means))
    caption = "loss of the denoiser" if what == "denoiser" else "reconstruction error"
    write_chart(lines, path, x_label="step", y_label=caption)
