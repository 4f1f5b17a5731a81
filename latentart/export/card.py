"""`latentart export card`: a model folder's README.md, which says what it draws, how it was made and what it cannot do.

Launch: ``latentart export card``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from latentart.errors import UsageError
from latentart.model.description import read_description
from latentart.model.folder import weights_hash
from latentart.model.generate import SamplerSettings
from latentart.printable import counted, printable
from latentart.process.devices import Placement
from latentart.sampling.request import SampleRequest
from latentart.sampling.sample import sample_pictures
from latentart.scoring.run_history import read_end
from latentart.storage.folders import CARD
from latentart.storage.json_files import file_errors
from latentart.storage.saved_values import Saved
from latentart.storage.whole import require_place, whole_file
from latentart.workspace.inspect import describe_model

README, PICTURE = CARD
MOST_STYLES, COLUMNS = 16, 4  # of the picture
SHOWN_LABELS, MOST_WORDS = 50, 500
MEASURES = {
    "frechet": "Fréchet distance in the judge's features",
    "kernel": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}


class Measure(Saved):
    """A measure and its standard error."""

    value: float
    error: float

    @property
    def text(self) -> str:
        """Both as a table shows them."""
        return f"{self.value:.3g} ± {self.error:.1g}"


class Copies(Saved):
    """How many samples are taken for copies, and which share of unseen pictures is."""

    found: int | None
    by_chance: float | None


class Evaluation(Saved):
    """What a line of a run's evaluations says, as far as a card shows it."""

    date: datetime
    samples: Annotated[int, Field(ge=1)]
    recognized: float | None
    recognized_real: float | None
    measures: dict[str, Measure]
    real_measures: dict[str, Measure]
    copies: Copies
    hashes: dict[str, str]


def write_card(model_folder: Path, settings: SamplerSettings, placement: Placement, *, quiet: bool = False) -> Path:
    """Draw a few pictures of the model and write its card beside its networks; return the card's path.

    Raises:
        ModelError: there is no model, it is damaged, or it has no denoiser.
        UsageError: it has a card already, which may be its owner's words by now.
        ResourceError: the folder cannot be written.
    """
    about, path = describe_model(model_folder), model_folder / README
    if os.path.lexists(path):
        msg = f"{path} exists; nothing is overwritten."
        raise UsageError(msg, f"Move it and {PICTURE} away for a new one.")
    require_place(path, "Copy the model to where you may write, and name it with --model.")
    shown = tuple(about["style_names"][:MOST_STYLES])
    request = SampleRequest(styles=shown, count=COLUMNS, out=model_folder / PICTURE)
    sample_pictures(model_folder, model_folder, request, settings, placement, quiet=quiet)
    scores = find_scores(model_folder.resolve().parent / "evaluations.jsonl", weights_hash(model_folder, "denoiser"))
    text = card_of(about, settings, scores)
    with file_errors("write", path), whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def find_scores(path: Path, denoiser: str) -> Evaluation | None:
    """Return the newest of a run's evaluations that is of the weights with that SHA-256, None where there is none."""
    found = None
    for line in read_end(path).splitlines():
        with suppress(ValueError):
            one = Evaluation.model_validate_json(line)
            found = one if one.hashes.get("denoiser") == denoiser else found
    return found


def card_of(about: Mapping[str, Any], settings: SamplerSettings, scores: Evaluation | None) -> str:
    """Return the card as Markdown: what is in ``describe_model`` in sentences, and what is left to fill in."""
    names, side = about["style_names"], about["resolution"]
    shown = f"the first {MOST_STYLES} styles" if len(names) > MOST_STYLES else "each style"
    lines = [
        "---",
        "library_name: latentart",
        "license: other",
        "tags: [latent-diffusion, class-conditional, art]",
        "---",
        "",
        f"# Pictures in {counted(len(names), 'style')}",
        "",
        f"![{COLUMNS} samples of {shown}]({PICTURE})",
        "",
        f"A latent diffusion model, made with latentart. It draws pictures of {side} x {side} pixels by style",
        f"and seed. Above are {COLUMNS} samples of {shown}, seeds 0 to {COLUMNS - 1}, none left out,",
        f"by {settings.steps} steps of {settings.sampler} with guidance {settings.guidance:g}.",
        "",
        "```sh",
        "latentart sample --style all --model .",
        "```",
        "",
        "## Styles",
        "",
        *(f"- {escaped(name)}" for name in names),
        *_label_lines(about),
        "",
        "## How it was trained",
        "",
        *_training_lines(about),
        "",
        "## Scores",
        "",
        *_score_lines(scores),
        "",
        "## Limits",
        "",
        "- It knows its styles as its training pictures show them: what these lack or repeat, it lacks or repeats.",
        f"- Pictures far from {side} pixels a side, blends and large guidance lead away from what it was trained on.",
        "- What it draws can come near to a training picture; `latentart evaluate ldm` looks for copies.",
        "- Its pictures say in their metadata that a network made them. Leave that in.",
        "",
        "## License",
        "",
        "TO FILL IN: the terms of these weights, whose pictures they were trained on, and by what right.",
    ]
    return "\n".join(lines) + "\n"


def _label_lines(about: Mapping[str, Any]) -> list[str]:
    lines = []
    for column in about.get("labels", []):
        values = [escaped(value) for value in column["values"]]
        more = f" and {len(values) - SHOWN_LABELS} more" if len(values) > SHOWN_LABELS else ""
        lines += ["", f"Label {escaped(column['name'])}: {', '.join(values[:SHOWN_LABELS])}{more}."]
    return lines


def _training_lines(about: Mapping[str, Any]) -> list[str]:
    description = read_description(dict(about), Path(README))
    rows = ["| | |", "|---|---|"]
    for name, run in {"autoencoder": "vae", "denoiser": "ldm"}.items():
        rows.append(f"| {name} | {about['parameters'][name] / 1e6:.2f} M parameters |")
        found = {key: value for key, value in about.get("training", {}).get(run, {}).items() if value is not None}
        words = [f"{key} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in found.items()]
        rows.append(f"| training of the {name} | {escaped(', '.join(words)[:MOST_WORDS]) or 'unknown'} |")
    channels, diffusion = description.autoencoder.latent_channels, description.diffusion
    rows.append(f"| latents | {channels} channels, {about['latent_factor']} times smaller than the picture |")
    assert diffusion is not None
    how = f"{diffusion.num_steps} timesteps, {diffusion.schedule.kind}, predicting {diffusion.target}"
    return [*rows, f"| diffusion | {how} |"]


def _score_lines(scores: Evaluation | None) -> list[str]:
    """Return what an evaluation found as a table, beside what other real pictures get."""
    if scores is None:
        return ["Not measured: `latentart evaluate ldm` does it, before the card is written."]
    rows = [
        ("recognized as their style", _share(scores.recognized), _share(scores.recognized_real)),
        *(
            (words, scores.measures[name].text, scores.real_measures[name].text)
            for name, words in MEASURES.items()
            if name in scores.measures and name in scores.real_measures
        ),
    ]
    if scores.copies.found is not None:
        share = scores.copies.found / scores.samples
        rows.append(("taken for copies of training pictures", _share(share), _share(scores.copies.by_chance)))
    return [
        f"| {scores.date:%Y-%m-%d} | {scores.samples:,} samples | other real pictures |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "By a judge that was taught with pictures of the same set: of use within it, and not beside other sets.",
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}".replace("%", " %")


def escaped(text: str) -> str:
    """Return a stranger's text as Markdown that shows just it, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#|!&~$])", r"\\\1", printable(text))
