"""The curves of a report: losses, losses by noise, judged samples, gradient and rate, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latentart.reporting.charts import Line, draw_chart
from latentart.scoring.run_history import RunHistory

SIZE = (5.2, 3.0)  # inches: at the width of a phone its letters are still to be read
NOISE_PARTS = 8
Names = Mapping[str, str]  # a line's name by the metric that it shows

LDM_CHARTS: dict[str, Names] = {
    "Loss": {"loss": "training", "held_out_loss": "held out"},
    "Judged samples, as shares": {
        "recognition": "recognized",
        "recognition_real": "real pictures",
        "recognition_chance": "a guess",
        "spread": "spread",
        "copies": "copies",
    },
}
VAE_CHARTS: dict[str, Names] = {
    "Mean absolute error": {"reconstruction": "training", "held_out_reconstruction": "held out"},
    "Loss and its other terms": {
        "loss": "loss",
        "perceptual": "perceptual",
        "adversarial": "adversarial",
        "discriminator": "discriminator",
    },
    "What the discriminator says": {"real_logits": "of real", "fake_logits": "of reconstructions"},
    "Divergence of the latents (KL), nats": {"kl": "KL"},
}
SHARED_CHARTS: dict[str, Names] = {
    "Gradient norm": {"gradient_norm": "gradient", "discriminator_norm": "discriminator's"},
    "Learning rate": {"lr": "rate"},
    "Images per second": {"images_per_second": "images/s"},
}
LOGARITHMIC = ("Gradient norm",)
GRADED = ("Training loss by noise", "Held-out loss by noise")
NOISY = ("loss", "reconstruction")
SMOOTH_POINTS = 100
PART = "loss_t"  # of eight lines in one chart only means can be told apart


def draw_charts(history: RunHistory) -> dict[str, str]:
    """Return the charts for which there are numbers, SVG by what each shows."""
    own = LDM_CHARTS if history.what == "denoiser" else VAE_CHARTS
    chosen = {caption: _pick(history, names) for caption, names in (own | SHARED_CHARTS).items()}
    if history.what == "denoiser":
        for caption, prefix in zip(GRADED, ("loss_t", "held_out_loss_t"), strict=True):
            names = {f"{prefix}{i}": _name_part(i) for i in range(NOISE_PARTS)}
            chosen[caption] = _pick(history, names)
    marks = history.stages if len(history.stages) > 1 else {}
    return {
        caption: draw_chart(
            lines,
            x_label="step",
            y_scale="log" if caption in LOGARITHMIC else "linear",
            marks=marks,
            size=SIZE,
            alt=_describe(caption, lines),
            is_graded=caption in GRADED,
        )
        for caption, lines in chosen.items()
        if any(value is not None for line in lines for value in line.y)
    }


def _pick(history: RunHistory, names: Names) -> list[Line]:
    """Return the lines that there are numbers for; of a training loss both every value, faint, and its mean."""
    found = [(name, shown, history.traces[name]) for name, shown in names.items() if name in history.traces]
    lines = []
    for name, shown, trace in found:
        label = shown if len(found) > 1 else ""
        is_noisy = name in NOISY and len(trace) > 2 * SMOOTH_POINTS
        if is_noisy or name.startswith(PART):
            steps, means = zip(*trace.means(most=SMOOTH_POINTS), strict=True)
            lines += [Line("", *trace.values(), is_faint=True)] * is_noisy
            lines.append(Line(label or "mean", steps, means))
        else:
            lines.append(Line(label, *trace.values()))
    return lines


def _name_part(part: int) -> str:
    return {0: "least noise", NOISE_PARTS - 1: "most noise"}.get(part, f"{part + 1} of {NOISE_PARTS}")


def _describe(caption: str, lines: Sequence[Line]) -> str:
    ends = [(line.name, [value for value in line.y if value is not None][-1:]) for line in lines]
    said = [f"{name} {last[0]:.4g}".strip() for name, last in ends if last]
    return f"{caption} over the steps; at the end {', '.join(said)}"
