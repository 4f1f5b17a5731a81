"""A training as it is built, before it runs: its update, its batches, its rate, and what its checkpoints say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from latentart.data.latent_cache import LatentCache
from latentart.model.folder import Model
from latentart.model.labels import LabelColumn
from latentart.process.devices import Placement
from latentart.scoring.reconstructions import Evaluation
from latentart.training.steps.ldm_step import LdmBatch, LdmStep
from latentart.training.steps.numbers import Numbers
from latentart.training.steps.vae_step import VaeBatch, VaeStep

Batch = TypeVar("Batch")
BatchIn = TypeVar("BatchIn", contravariant=True)


class Update(Protocol[BatchIn]):
    """One update of a training: owns networks and optimizers.

    Attributes:
        numbers: says which updates may be made. notes: sentences for the log; whoever reads them empties the list.
    """

    numbers: Numbers
    notes: list[str]

    def __call__(self, batch: BatchIn, step: int, lr: float) -> dict[str, Tensor]:
        """Make update ``step`` (from 0) and return its scalars, still on the device."""
        ...

    def means(self) -> dict[str, float | None]:
        """Return more for the log, over the updates since the last time."""
        ...

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything a checkpoint needs: tensors by file, and JSON."""
        ...


class Pace(Protocol):
    """What happens once in a while in every run, as its settings say it."""

    @property
    def log_every(self) -> int:
        """Steps between lines of the log."""
        ...

    @property
    def keep_checkpoints(self) -> int:
        """How many of the newest checkpoints stay."""
        ...

    def is_checkpoint_due(self, step: int) -> bool:
        """Tell whether a checkpoint is due by count."""
        ...

    def milestones(self, first: int, last: int) -> range:
        """Return the steps after ``first``, up to ``last``, whose checkpoints stay for good."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job(Generic[Batch]):
    """A training as it is built, before it runs.

    Attributes:
        num_steps: updates from its step 0 to its end. batch_size: of all processes together.
        rate: the learning rate of an update. load: yields the batches of some steps, on the device.
        pace: what happens when. saved: what a checkpoint says beside the step: data and config.
        stage: the stage of the autoencoder that it is.
    """

    step_fn: Update[Batch]
    num_steps: int
    batch_size: int
    rate: Callable[[int], float]
    load: Callable[[range], Iterator[Batch]]
    pace: Pace
    saved: Mapping[str, Any]
    stage: str | None = None

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches from step ``first`` on."""
        return self.load(range(first, self.num_steps))


@dataclass(frozen=True)
class Start:
    """Where a job begins: at its own step ``first``, with ``base`` steps of the run before its step 0.

    ``done`` has the stages that are finished, each with the run's step at its end.
    """

    first: int = 0
    base: int = 0
    done: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageJob(Job[VaeBatch]):
    """One stage of the autoencoder; ``evaluation`` is of what it makes of pictures."""

    step_fn: VaeStep
    stage: str
    placement: Placement
    evaluation: Evaluation

    def held_out_error(self) -> float:
        """Return the average's error on held-out pictures, of the kind that the stage trains by."""
        return self.evaluation.error(self.step_fn.ema.network, self.step_fn.terms.reconstruction_kind)


@dataclass(frozen=True, kw_only=True)
class LdmJob(Job[LdmBatch]):
    """The denoiser's training on a cache of latents.

    Attributes:
        autoencoder: what made the latents. labels: of every image of the cache, int64 [N] or [N, columns].
        columns: the labels beside the style. num_pictures: how many are trained on. held_out: those that are not.
    """

    step_fn: LdmStep
    placement: Placement
    autoencoder: Model
    cache: LatentCache
    labels: Tensor
    style_names: list[str]
    columns: list[LabelColumn]
    num_pictures: int
    held_out: Sequence[int]
