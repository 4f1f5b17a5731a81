"""Numbers and gradients of two real processes: those of one that has the whole batch; who is alone keeps its own."""

from __future__ import annotations

import json
import runpy
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from nursery import Nursery
from torch import Tensor, nn

from latentart.process import reductions
from latentart.storage.tensors import read_tensors

HERE = Path(__file__).parent

# what each process does: exchanges, and updates with its part of each batch
MEMBER = """
import json, runpy, sys, warnings
from pathlib import Path
import torch
warnings.simplefilter("error")
from latentart.storage.checkpoints import write_tensors
from latentart.process.distributed import join_ranks, read_ranks

torch.set_num_threads(1)
here, folder = Path(sys.argv[1]), Path.cwd()
ranks = read_ranks()
with join_ranks(ranks, torch.device("cpu")):
    own = runpy.run_path(str(here / "test_reductions.py"))
    (folder / f"{ranks.rank}.json").write_text(json.dumps(own["exchange"](ranks.rank)))
    for name, (build, batch) in own["cases"]().items():
        step = build()
        for number in range(own["STEPS"]):
            step(own["part"](batch(number), ranks), number, own["RATE"])
        write_tensors(folder / f"{name}-{ranks.rank}.safetensors", own["flat"](step.state()[0]))
"""
STEPS, RATE = 4, 1e-3


def exchange(rank: int) -> dict[str, Any]:
    """Return what every exchange gives to one of two processes."""
    network = nn.Linear(3, 2, bias=False)
    network.weight.grad = torch.full((2, 3), float(rank))
    other = nn.Parameter(torch.zeros(5))
    other.grad = torch.arange(5.0) * (rank + 1)
    without = nn.Parameter(torch.zeros(2))
    reductions.BUCKET = 5
    reductions.average_gradients([network.weight, without, other])
    part = torch.full((2 - rank, 2), rank, dtype=torch.uint8)
    collected = reductions.collect_for_first(part, [2, 1])
    shared, is_sent = reductions.SharedNetwork(nn.Linear(2, 1)), []
    for is_last in (False, True, False, False, True):
        with shared.accumulating(is_last=is_last):
            is_sent.append(shared.call.require_backward_grad_sync)
    lost = reductions.mean_of_all(torch.tensor([float("nan") if rank else 1.0, 1.0]))
    return {
        "part": reductions.own_part(),
        "mean": reductions.mean_of_all(torch.tensor([1.0 + rank, 4.0 * rank])).tolist(),
        "means": {name: float(v) for name, v in reductions.means_of_all({"a": torch.tensor(2.0 * rank)}).items()},
        "batch": reductions.whole_batch(torch.tensor([[rank, 1], [rank, 2]])).tolist(),
        "largest": reductions.largest_of_all([rank, 3 - rank]),
        "first": reductions.of_first([5, 0] if rank == 0 else [7], 4),
        "collected": None if collected is None else collected.tolist(),
        "gradients": [network.weight.grad.tolist(), other.grad.tolist(), without.grad],
        "lost": lost.isnan().tolist(),
        "is_sent": is_sent,
    }


def cases() -> dict[str, Any]:
    """Return (how to build a step, a step's batch) of both trainings with all that is averaged."""
    ldm, vae = (runpy.run_path(str(HERE / name)) for name in ("test_ldm_step.py", "test_vae_step.py"))

    def build_ldm(micro_batch: int | None, **task: Any) -> Any:
        step = ldm["build"](task=ldm["DiffusionTask"](ldm["SCHEDULE"], **task), tracks=(0.1,))
        step.micro_batch = micro_batch
        return step

    def build_vae(quantizer: Any = None, r1: float = 0.0, **terms: Any) -> Any:
        plan = {"start": 1, "warmup": 1, "window": 1}
        step = vae["build"](vae["VaeTerms"](kl=1e-3, **terms), quantizer=quantizer, plan=plan)
        step.adversary.game = vae["dataclasses"].replace(step.adversary.game, r1=r1, r1_every=2)
        return step

    def vae_batch(number: int) -> Any:
        turn = vae["Transform"](number % 4, 0.5)
        return vae["dataclasses"].replace(vae["batch"](number), transform=turn)

    def book() -> Any:
        torch.manual_seed(0)
        return vae["VectorQuantizer"](8, 2, decay=0.5)

    full = {"adversarial": 0.5, "perceptual": 0.3, "equivariance": 0.2}
    return {
        "denoiser": (lambda: build_ldm(None, weighting="learned"), ldm["batch"]),
        "denoiser in parts": (lambda: build_ldm(1), ldm["batch"]),
        "autoencoder": (lambda: build_vae(r1=1.0, **full), vae_batch),
        "codes": (lambda: build_vae(book(), adversarial=0.5), vae_batch),
    }


def part(batch: Any, ranks: Any) -> Any:
    """Return a process's part of a batch of either kind."""
    changed = {name: value[ranks.part(len(value))] for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return type(batch)(**{**vars(batch), **changed})


def flat(tensors: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return all tensors of a step in one mapping."""
    return {f"{name}.{key}": value for name, inner in tensors.items() for key, value in inner.items()}


@pytest.fixture(scope="module")
def together(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two processes and return the folder of what they left."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(probe.getsockname()[1])}
    pids = [
        nursery.start(
            folder,
            str(HERE),
            said=(f"out{rank}", f"err{rank}"),
            environment={**place, "RANK": rank, "LOCAL_RANK": rank},
            program=MEMBER,
        )
        for rank in ("0", "1")
    ]
    assert [nursery.wait(pid) for pid in pids] == [0, 0], (folder / "err0").read_text() + (folder / "err1").read_text()
    return folder


def test_every_exchange_gives_both_the_same(together: Path) -> None:
    """Means, a whole batch, the largest and the first one's numbers; what is collected is the first one's alone."""
    first, second = (json.loads((together / f"{rank}.json").read_text()) for rank in range(2))

    assert first == {
        "part": 0,
        "mean": [1.5, 2.0],
        "means": {"a": 1.0},
        "batch": [[0, 1], [0, 2], [1, 1], [1, 2]],
        "largest": [1, 3],
        "first": [5, 0],
        "collected": [[0, 0], [0, 0], [1, 1]],
        "gradients": [[[0.5] * 3] * 2, [0.0, 1.5, 3.0, 4.5, 6.0], None],
        "lost": [True, False],
        "is_sent": [True, True, False, False, True],  # with the last part alone, but for the very first one
    }
    assert second == {**first, "part": 1, "collected": None}


def test_one_process_alone_keeps_its_own() -> None:
    """Nothing is copied, and no group is made."""
    value, network = torch.tensor([1.0, 2.0]), nn.Linear(2, 1)
    shared = reductions.SharedNetwork(network)

    assert reductions.mean_of_all(value) is value
    assert reductions.whole_batch(value) is value
    assert reductions.collect_for_first(value, [2]) is value
    assert reductions.means_of_all({"a": value}) == {"a": value}
    assert reductions.largest_of_all([1, 2]) == [1, 2]
    assert reductions.of_first([1, 2], 5) == [1, 2]
    assert reductions.own_part() == 0
    assert shared.call is network
    with shared.accumulating(is_last=False):
        network(value).sum().backward()
    reductions.average_gradients(network.parameters())
    assert network.weight.grad is not None
    assert network.weight.grad.tolist() == [[1.0, 2.0]]
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("name", ["denoiser", "denoiser in parts", "autoencoder", "codes"])
def test_two_processes_make_the_updates_of_one(together: Path, name: str) -> None:
    """Learned weights, parts, adaptive weight, R1, equivariance and a book of codes: all within 1e-5 of the whole's."""
    build, batch = cases()[name]
    step = build()
    before = {key: value.clone() for key, value in flat(step.state()[0]).items()}

    for number in range(STEPS):
        step(batch(number), number, RATE)

    whole = flat(step.state()[0])
    first, second = (read_tensors(together / f"{name}-{rank}.safetensors") for rank in range(2))
    assert first.keys() == second.keys() == whole.keys()
    assert max(float((first[key] - value).abs().max()) for key, value in whole.items()) < 1e-5
    assert all(torch.equal(first[key], second[key]) for key in whole), "both have the same bits"
    assert sum(not torch.equal(whole[key], before[key]) for key in before) > 10
