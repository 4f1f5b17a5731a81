"""Ranks: read from the environment or refused in plain words; they share work, meet, wait and part."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nursery import Nursery

from latentart.errors import ConfigError, ResourceError, UsageError
from latentart.process.distributed import Ranks, join_ranks, read_ranks, wait_for_all

CPU = torch.device("cpu")
MEETING = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def port() -> int:
    """Return a port that is free."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("environment", [{}, {"HOME": "/root"}, MEETING])
def test_without_torchrun_a_process_is_alone(environment: dict[str, str]) -> None:
    """It is the first of one, and all the work is its own."""
    ranks = read_ranks(environment)

    assert ranks == Ranks(0, 1, 0)
    assert ranks.is_first
    assert list(ranks.share(4)) == [0, 1, 2, 3]


def test_torchrun_s_variables_say_which_process_this_is() -> None:
    """Rank, number of processes, and the place on this machine."""
    ranks = read_ranks({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", **MEETING})

    assert ranks == Ranks(rank=5, world_size=8, local_rank=1)
    assert not ranks.is_first


def test_one_process_under_torchrun_needs_nobody_to_meet() -> None:
    """A container that sets all three for its only process is no error."""
    assert read_ranks({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) == Ranks()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, r"RANK is set in the environment, but not WORLD_SIZE, LOCAL_RANK\."),
        ({"WORLD_SIZE": "2"}, r"WORLD_SIZE is set in the environment, but not RANK, LOCAL_RANK, MASTER_ADDR, MASTER"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, r"but not MASTER_ADDR, MASTER_PORT\."),
        ({"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **MEETING}, r"RANK='x', .* are not whole numbers"),
        ({"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **MEETING}, r"RANK='-1', .* are not whole numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **MEETING}, r"RANK='2', .* contradict each other"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1", **MEETING}, r"LOCAL_RANK='1' .* contradict each other"),
        ({"RANK": "0", "WORLD_SIZE": "0", "LOCAL_RANK": "0", **MEETING}, r"WORLD_SIZE='0', .* contradict each other"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment: dict[str, str], message: str) -> None:
    """The line names the variables and how processes are started; a guess would have two of them write one file."""
    with pytest.raises(UsageError, match=message) as caught:
        read_ranks(environment)

    assert "torchrun --nproc-per-node" in caught.value.hint


@pytest.mark.parametrize(("count", "world_size"), [(0, 3), (2, 3), (10, 1), (10, 3), (9, 3)])
def test_shares_are_disjoint_even_and_whole(count: int, world_size: int) -> None:
    """Every piece belongs to one process, and no process has more than one piece more than another."""
    shares = [list(Ranks(rank, world_size).share(count)) for rank in range(world_size)]

    assert sorted(piece for share in shares for piece in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("count", "world_size"), [(0, 2), (1, 3), (8, 1), (8, 4), (10, 3)])
def test_parts_are_stretches_that_make_the_whole_in_order(count: int, world_size: int) -> None:
    """So that a batch put together again is the batch."""
    parts = [list(range(count))[Ranks(rank, world_size).part(count)] for rank in range(world_size)]

    assert [piece for part in parts for piece in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_is_shared_evenly_or_not_at_all() -> None:
    """Means of parts that differ in size would not be the mean of the whole."""
    assert Ranks(1, 4).share_batch(12, "ldm.training.batch_size") == 3
    assert Ranks().share_batch(7, "ldm.training.batch_size") == 7
    with pytest.raises(ConfigError, match=r"batch_size=10 cannot be shared evenly by 4 processes\.") as caught:
        Ranks(1, 4).share_batch(10, "ldm.training.batch_size")
    assert "take a multiple of 4" in caught.value.hint


@pytest.mark.parametrize(("said", "size"), [("4", 4), ("", 1), ("0", 1), ("x", 1)])
def test_how_many_share_a_machine_is_known_where_it_is_said(said: str, size: int) -> None:
    """They have its cores together; a launcher that does not say so is no error."""
    place = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", **MEETING}

    assert read_ranks({**place, "LOCAL_WORLD_SIZE": said}).local_size == size


def test_a_process_alone_waits_for_nobody() -> None:
    """No group is made, also where torchrun says that it is the only one, and waiting returns at once."""
    with join_ranks(read_ranks({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}), CPU):
        wait_for_all()

        assert not torch.distributed.is_initialized()


def test_nobody_to_meet_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is no port: who was looked for, where, and why it failed."""
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "99999999")

    with (
        pytest.raises(ResourceError, match="the 2 processes do not find each other at localhost:99999999: ") as caught,
        join_ranks(Ranks(0, 2), CPU),
    ):
        pass

    assert "\n" not in str(caught.value)


def test_who_waits_for_another_says_for_whom_and_where_and_not_forever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, port: int
) -> None:
    """A line soon, an error at the limit, which the environment sets."""
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LATENTART_MEETING_MINUTES", "0.001")
    monkeypatch.setattr("latentart.process.meeting._TOLD_AFTER", 0.0)

    with (
        pytest.raises(ResourceError, match=f"at localhost:{port}: rank 1 of 2 has not come"),
        join_ranks(Ranks(0, 2), CPU),
    ):
        pass
    with pytest.raises(ResourceError, match="rank 0 of 2 has not come"), join_ranks(Ranks(1, 2), CPU):
        pass

    lines = [record.message for record in caplog.records]
    assert f"rank 0 of 2 waits at localhost:{port} for rank 1 of 2, 0.001 minutes at most" in lines


MEMBER = """
import sys
from pathlib import Path
import torch
from latentart.errors import LatentArtError
from latentart.process.distributed import join_ranks, read_ranks, wait_for_all

folder, fails = Path("meeting"), "fail" in sys.argv
folder.mkdir(exist_ok=True)
ranks = read_ranks()
try:
    with join_ranks(ranks, torch.device("cpu")):
        if fails and not ranks.is_first:
            raise SystemExit(3)
        (folder / f"{ranks.rank}-came").touch()
        wait_for_all()
        print(ranks.rank, sorted(path.name for path in folder.iterdir()))
except LatentArtError as error:
    print(error, file=sys.stderr)
    raise SystemExit(1)
"""


@pytest.fixture
def start(nursery: Nursery, tmp_path: Path, port: int) -> Callable[..., list[int]]:
    """Start two processes as torchrun does; each speaks into files of its rank."""

    def start(*words: str) -> list[int]:
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        return [
            nursery.start(
                tmp_path,
                *words,
                said=(f"{rank}-out", f"{rank}-err"),
                environment={**place, "RANK": rank, "LOCAL_RANK": rank},
                program=MEMBER,
            )
            for rank in ("0", "1")
        ]

    return start


def test_processes_wait_for_each_other(nursery: Nursery, start: Callable[..., list[int]], tmp_path: Path) -> None:
    """Behind the barrier each sees what the other did before it; they part without a word."""
    codes = [nursery.wait(pid) for pid in start()]

    assert codes == [0, 0], (tmp_path / "0-err").read_text()
    assert [(tmp_path / f"{rank}-out").read_text() for rank in range(2)] == [
        "0 ['0-came', '1-came']\n",
        "1 ['0-came', '1-came']\n",
    ]
    assert [(tmp_path / f"{rank}-err").read_text() for rank in range(2)] == ["", ""]


def test_a_process_whose_partner_ends_says_so_in_one_line(
    nursery: Nursery, start: Callable[..., list[int]], tmp_path: Path
) -> None:
    """It does not wait for one that is gone."""
    assert [nursery.wait(pid) for pid in start("fail")] == [1, 3]
    assert (tmp_path / "0-err").read_text().splitlines()[-1] == (
        "another process of this run has ended: rank 1 of 2. If it wrote no reason, it was killed, as the system does"
        " where memory is short. Saved checkpoints are kept: run the same command again to go on."
    )
