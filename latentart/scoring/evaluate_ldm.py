"""`latentart evaluate ldm`: what samples are worth, by the tool's own judge, and by Inception where it is here.

Launch: ``latentart evaluate ldm``, or ``torchrun --nproc-per-node N -m latentart evaluate ldm`` to draw on many GPUs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from latentart.data.datasets import picture_from
from latentart.errors import DataError, ModelError
from latentart.layout import Workspace
from latentart.model.folder import load_model, trained_steps
from latentart.model.generate import SamplerSettings
from latentart.model.run_data import warn_if_held_out_was_seen
from latentart.model.weights.inception import InceptionFeatures
from latentart.process.devices import Placement
from latentart.process.distributed import join_ranks, read_ranks, wait_for_all
from latentart.sampling.room import require_room
from latentart.sampling.sample import equip
from latentart.sampling.settings import hashes_of
from latentart.scoring.evaluation_pictures import draw_confusion, draw_pairs
from latentart.scoring.evaluation_samples import SHARD, SampleSet, draw_samples
from latentart.scoring.fid import InceptionScores, find_real_features, load_if_there, score_inception
from latentart.scoring.judging import choose_halves, find_judge, open_middles
from latentart.scoring.ldm_scores import LdmScores, read_drawn, score_samples
from latentart.scoring.real_pictures import RealPictures, find_real
from latentart.storage.folders import write_json_atomic
from latentart.storage.json_files import file_errors
from latentart.storage.whole import require_file, require_folders

logger = logging.getLogger(__name__)

EVALUATIONS = "evaluations.jsonl"
PAIRS, PAIR_SIDE = 8, 128
FEWEST_REAL = 4  # real pictures beside those that teach the judge


@dataclass(frozen=True, kw_only=True)
class LdmEvaluation:
    """What was found, and where its pictures lie; ``step`` is that of the denoiser's training."""

    model: Path
    step: int
    samples: SampleSet
    scores: LdmScores
    inception: InceptionScores | None
    is_mixed: bool
    confusion: Path
    pairs: Path

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        inception = None if self.inception is None else asdict(self.inception)
        return {
            "model": str(self.model),
            "step": self.step,
            "samples": self.samples.total,
            "per_style": self.samples.per_style,
            "seed": self.samples.seed,
            **self.scores.to_json(),
            "reference_has_training_pictures": self.is_mixed,
            "inception": inception,
            "settings": self.samples.described,
            "hashes": self.samples.hashes,
            "confusion_picture": str(self.confusion),
            "closest_pairs_picture": str(self.pairs),
        }


def evaluate_ldm(
    workspace: Workspace,
    model_folder: Path,
    settings: SamplerSettings,
    placement: Placement,
    *,
    per_style: int,
    seed: int = 0,
    quiet: bool = False,
) -> LdmEvaluation | None:
    """Draw so many samples of each style, as far as they are not there, and score them; the line goes into the run.

    Of the processes that `torchrun` starts each draws a share, and the first alone scores; the others get None.

    Raises:
        ModelError: there is no model, it has no denoiser, or it knows none of the clean set's styles.
        DataError: there are no clean pictures, or too few are held out.
        UsageError: more steps than the model has.
        ResourceError: the disk or the memory does not suffice.
    """
    ranks = read_ranks()
    names, run = require_real(workspace), workspace.run_of(model_folder, workspace.ldm_run)
    with join_ranks(ranks, placement.device):
        if ranks.is_first:
            require_place_for_evaluation(run, workspace.cache)
        studio, settings = equip(load_model(model_folder, placement), model_folder, settings, placement)
        styles = tuple(style for style in studio.model.style_names if style in names)
        if not styles:
            msg = f"the model at {model_folder} knows none of the styles of {workspace.data}."
            raise ModelError(msg, "Evaluate it in the workspace that it was trained in.")
        inception = load_if_there(placement, is_silent=not ranks.is_first)
        samples = SampleSet(
            parent=run / "evaluations",
            styles=styles,
            per_style=per_style,
            seed=seed,
            settings=settings,
            hashes=hashes_of(model_folder, studio.weak.sha256 if studio.weak else None),
            precision=placement.precision,
            has_inception=inception is not None,
        )
        size, at_once = (studio.model.resolution,) * 2, min(settings.batch_size, SHARD, samples.total)
        hint = "Set a smaller sample.batch_size."
        require_room(studio.model, size, at_once, at_once, placement.device, hint, kept=at_once)
        draw_samples(samples, studio, inception, ranks, quiet=quiet or not ranks.is_first)
        wait_for_all()
    if not ranks.is_first:
        return None
    warn_if_held_out_was_seen(workspace, run, model_folder)
    found = score(workspace, model_folder, samples, names, inception, placement, quiet=quiet)
    write_json_atomic(samples.folder / "scores.json", found.to_json())
    append_evaluation(run, found.to_json())
    return found


def require_real(workspace: Workspace) -> list[str]:
    """Return the clean set's styles, if there is enough to compare with.

    Raises:
        DataError: there is not.
    """
    entries, names = workspace.read_pictures()
    halves = choose_halves(workspace, entries)
    if len({*halves.reference, *halves.rest}) < FEWEST_REAL:
        msg = f"{workspace.data} holds {len(entries)} pictures, too few to judge samples by."
        raise DataError(msg, "Clean more pictures, then train again.")
    return names


def score(
    workspace: Workspace,
    model_folder: Path,
    samples: SampleSet,
    names: list[str],
    inception: InceptionFeatures | None,
    placement: Placement,
    *,
    quiet: bool,
) -> LdmEvaluation:
    """Score samples that are drawn, and write the confusion picture and that of the closest pairs."""
    judge = find_judge(workspace, quiet=quiet)
    real = find_real(workspace, judge, quiet=quiet)
    drawn = read_drawn(samples, judge, names)
    scores = score_samples(drawn, real, judge, names)
    fid = None
    if inception is not None and drawn.inception is not None:
        features = find_real_features(workspace, inception, placement, quiet=quiet)
        fid = score_inception(features, drawn.inception)
    step = trained_steps(model_folder, "ldm")
    title = f"Samples after step {step:,}: {scores.recognized:.1%} recognized"
    confusion, pairs = samples.folder / "confusion.png", samples.folder / "closest.png"
    draw_confusion(scores.matrix, names, confusion, title)
    draw_closest(workspace, samples, scores, real, pairs)
    return LdmEvaluation(
        model=model_folder,
        step=step,
        samples=samples,
        scores=scores,
        inception=fid,
        is_mixed=real.is_mixed,
        confusion=confusion,
        pairs=pairs,
    )


def draw_closest(workspace: Workspace, samples: SampleSet, scores: LdmScores, real: RealPictures, path: Path) -> None:
    """Write the samples that come closest to one training picture beside these."""
    entries, names = workspace.read_pictures()
    middles = open_middles(workspace, entries, names)
    rows = []
    for number in scores.neighbors.ratio.argsort()[:PAIRS].tolist():
        nearest, *_ = middles[(0, int(real.searched_index[scores.neighbors.index[number]]))]
        is_copy = scores.is_copy is not None and bool(scores.is_copy[number])
        label = f"{float(scores.neighbors.ratio[number]):.2f} {'copy' if is_copy else ''}"
        rows.append((picture_from(samples.picture(number)), picture_from(nearest), label))
    draw_pairs(rows, path, PAIR_SIDE)


def require_place_for_evaluation(run: Path, *others: Path) -> None:
    """Find out whether an evaluation can be written into a run, and into other folders, before its work begins.

    Raises:
        ResourceError: it cannot.
    """
    require_folders(run, run / "evaluations", *others)
    path = run / EVALUATIONS
    if path.exists():
        with file_errors("write", path):
            require_file(path)
            path.open("a").close()


def append_evaluation(run: Path, found: Mapping[str, Any]) -> None:
    """Append a dated line to a run's evaluations.

    Raises:
        ResourceError: the disk does not take it.
    """
    path, now = run / EVALUATIONS, datetime.now(tz=UTC).astimezone().isoformat(timespec="seconds")
    with file_errors("write", path):
        run.mkdir(parents=True, exist_ok=True)
        is_torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="ascii") as file:
            file.write(("\n" if is_torn else "") + json.dumps({"date": now, **found}, allow_nan=False) + "\n")
