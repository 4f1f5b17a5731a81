"""Batches as a function of the step: every picture once an epoch, the same after resuming, with any workers."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from latentart.data.datasets import Crop, PictureDataset
from latentart.data.index import IndexEntry
from latentart.data.loading import (
    BalancedOrder,
    StepOrder,
    build_order,
    choose_workers,
    load_batches,
    load_items,
    prefetch,
)
from latentart.errors import DataError, ResourceError


def build(root: Path, count: int = 5, memory_bytes: int = 10**6) -> PictureDataset:
    """Return pictures of noise as random squares."""
    entries = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
        entries.append(IndexEntry(f"{number}.png", "", "ab"[number % 2], "", 16, 12))
    return PictureDataset(root, entries, ["a", "b"], Crop(8, 0, min_crop=0.5, flip=True), memory_bytes=memory_bytes)


def equal(first: Sequence[tuple[Tensor, ...]], second: Sequence[tuple[Tensor, ...]]) -> bool:
    """Tell whether two series of batches are equal bit for bit."""
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**62))
def test_every_epoch_is_a_permutation(count: int, batch_size: int, seed: int) -> None:
    """Whatever the batch size, each epoch names every picture exactly once, and epochs follow each other."""
    order = StepOrder(seed, count, batch_size, 0, -(-3 * count // batch_size))

    keys = [key for batch in order for key in batch][: 3 * count]

    assert [epoch for epoch, _ in keys] == [0] * count + [1] * count + [2] * count
    for epoch in range(3):
        assert sorted(index for e, index in keys if e == epoch) == list(range(count))


def test_epochs_and_seeds_differ_in_order() -> None:
    """No epoch repeats another."""
    orders = [
        tuple(index for _, index in StepOrder(seed, 20, 20, 0, 3).keys(step)) for seed in (0, 1) for step in (0, 1)
    ]

    assert len(set(orders)) == 4


def test_batches_have_their_size_and_number() -> None:
    """A batch may span two epochs; none is short."""
    order = StepOrder(0, 5, 4, 2, 6)

    batches = list(order)

    assert len(order) == 4
    assert [len(batch) for batch in batches] == [4, 4, 4, 4]


@pytest.mark.parametrize("step", [0, 1, 3, 6])
def test_resuming_at_a_step_gives_the_rest_of_the_batches(tmp_path: Path, step: int) -> None:
    """The same pixels, styles and indexes as a run that was never stopped."""
    dataset = build(tmp_path)
    whole = list(load_batches(dataset, StepOrder(3, 5, 4, 0, 7)))

    rest = list(load_batches(build(tmp_path), StepOrder(3, 5, 4, step, 7)))

    assert equal(rest, whole[step:])


def test_a_batch_is_pixels_styles_and_indexes(tmp_path: Path) -> None:
    """In the order of the keys."""
    order = StepOrder(0, 5, 4, 0, 1)

    pixels, style_id, index = next(load_batches(build(tmp_path), order))

    assert (pixels.shape, pixels.dtype) == ((4, 3, 8, 8), torch.uint8)
    assert (style_id.dtype, index.dtype) == (torch.int64, torch.int64)
    assert index.tolist() == [i for _, i in order.keys(0)]
    assert torch.equal(style_id, index % 2)


@pytest.mark.slow
def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    """Two workers give the batches of none, bit for bit and in order."""
    dataset, order = build(tmp_path), StepOrder(0, 5, 4, 0, 6)

    with_workers = [tuple(batch) for batch in load_batches(dataset, order, workers=2)]

    assert equal(with_workers, list(load_batches(dataset, order)))


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    batch_size=st.integers(1, 30),
    seed=st.integers(0, 2**62),
)
def test_a_balanced_order_visits_all_styles_alike(sizes: list[int], batch_size: int, seed: int) -> None:
    """Each block of K samples holds every style once, and a style shows all its pictures before one comes again."""
    style_ids = [style for style, size in enumerate(sizes) for _ in range(size)]
    num_blocks = 2 * max(sizes)
    steps = -(-num_blocks * len(sizes) // batch_size)

    keys = [key for batch in BalancedOrder(seed, style_ids, batch_size, 0, steps) for key in batch]

    for block in range(num_blocks):
        visited = [style_ids[index] for _, index in keys[block * len(sizes) : (block + 1) * len(sizes)]]
        assert sorted(visited) == list(range(len(sizes)))
    for style, size in enumerate(sizes):
        visits = [(epoch, index) for epoch, index in keys if style_ids[index] == style][:num_blocks]
        assert [epoch for epoch, _ in visits] == [visit // size for visit in range(num_blocks)]
        for epoch in range(num_blocks // size):
            seen = sorted(index for e, index in visits if e == epoch)
            assert seen == [index for index, own in enumerate(style_ids) if own == style]


def test_a_balanced_order_is_a_function_of_seed_and_step() -> None:
    """Asked at a later step it is the same; styles come in changing order; another seed gives another order."""
    style_ids = [0] * 7 + [1] * 3 + [2]

    batches = [BalancedOrder(4, style_ids, 5, 0, 20).keys(step) for step in range(20)]
    styles = [style_ids[index] for batch in batches for _, index in batch]
    blocks = {tuple(styles[n : n + 3]) for n in range(0, 99, 3)}

    assert list(BalancedOrder(4, style_ids, 5, 13, 20)) == batches[13:]
    assert list(BalancedOrder(5, style_ids, 5, 0, 20)) != batches
    assert len(blocks) == 6


def test_the_config_s_switch_chooses_the_order() -> None:
    """Both trainings build their order here."""
    plain = build_order(1, [0, 0, 0, 1], 2, 3, 9, is_balanced=False)
    balanced = build_order(1, [0, 0, 0, 1], 2, 3, 9, is_balanced=True)

    assert list(plain) == list(StepOrder(1, 4, 2, 3, 9))
    assert list(balanced) == list(BalancedOrder(1, [0, 0, 0, 1], 2, 3, 9))


def build_without(root: Path, lost: list[int]) -> PictureDataset:
    """Return 200 pictures of which some are gone."""
    dataset = build(root, 200, memory_bytes=0)
    for number in lost:
        (root / f"{number}.png").unlink()
    return dataset


def one_epoch(batch_size: int = 20) -> StepOrder:
    """Return the order of an epoch of 200 pictures."""
    return StepOrder(0, 200, batch_size, 0, 200 // batch_size)


def test_a_lost_picture_is_replaced_named_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two epochs ask for it twice; there is one line for each file, and each style belongs to what is shown."""
    dataset = build_without(tmp_path, [17, 18])

    batches = list(load_batches(dataset, StepOrder(0, 200, 20, 0, 20)))

    indexes = torch.cat([index for _, _, index in batches]).tolist()
    assert sorted(set(range(200)) - set(indexes)) == [17, 18]
    assert [indexes.count(index) for index in (16, 19, 20)] == [2, 6, 2]
    assert all(torch.equal(style_id, index % 2) for _, style_id, index in batches)
    assert sorted(record.getMessage().split(" is gone")[0] for record in caplog.records) == [
        str(tmp_path / "17.png"),
        str(tmp_path / "18.png"),
    ]
    assert "(2 of 200 so far)" in caplog.records[-1].getMessage()


def test_more_than_one_in_a_hundred_lost_ends_the_run(tmp_path: Path) -> None:
    """Far from each other: the third of 200 is one too many, and the line names all three."""
    dataset = build_without(tmp_path, [3, 80, 150])

    with pytest.raises(
        DataError, match=r"cleaned, 3 of 200: /.*\.png; /.*\.png; /.*\.png\. Run `latentart clean-data`"
    ):
        list(load_batches(dataset, one_epoch()))


def test_all_pictures_lost_is_an_error_at_the_first_batch(tmp_path: Path) -> None:
    """A folder that went away is no reason to look for each of its files."""
    batches = load_batches(build_without(tmp_path, list(range(200))), one_epoch())

    with pytest.raises(DataError, match=r"cleaned, 3 of 200: .*No such file"):
        next(batches)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [[17, 18], [3, 80, 150], [3, 4, 5]])
def test_lost_pictures_are_the_same_with_worker_processes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: list[int]
) -> None:
    """The same pictures, the same warnings, and where it is too many the same line without a traceback around it."""
    dataset = build_without(tmp_path, lost)

    def run(workers: int) -> tuple[list[int], list[str], str]:
        caplog.clear()
        indexes, error = [], ""
        try:
            for _, _, index in load_batches(dataset, one_epoch(), workers=workers):
                indexes += index.tolist()
        except DataError as caught:
            error = str(caught)
        return indexes, [record.getMessage() for record in caplog.records], error

    with_workers = run(2)

    assert with_workers == run(0)
    assert ("of 200" in with_workers[2]) == (len(lost) > 2)
    assert "\n" not in with_workers[2]


class Moody(torch.utils.data.Dataset[int]):
    """Gives squares of the keys, at one of them a known error."""

    def __getitem__(self, key: int) -> int:
        """Return the square of a key."""
        if key == 13:
            raise DataError("thirteen.")
        return key * key


def test_items_come_in_the_order_of_their_keys() -> None:
    """Any keys of any data set, and what it raises is raised at its place."""
    items = load_items(Moody(), [3, 1, 13, 2])

    assert [next(items), next(items)] == [9, 1]
    with pytest.raises(DataError, match=r"^thirteen\.$"):
        next(items)


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    """Torch's own loader would draw a seed from it."""
    before = torch.get_rng_state()

    list(load_batches(build(tmp_path), StepOrder(0, 5, 4, 0, 2)))

    assert torch.equal(torch.get_rng_state(), before)


DEADLY = """
import os, signal, threading, torch
from pathlib import Path
def kill():
    Path(__file__).with_name("killed").touch()
    os.kill(os.getpid(), signal.SIGKILL)
def break_off():
    raise ConnectionResetError
class Torn:
    def __reduce__(self):
        threading.Timer(1, kill).start()
        return break_off, ()
class Deadly(torch.utils.data.Dataset):
    def __getitem__(self, key):
        if key == "kill":
            kill()
        return Torn() if key == "tear" else key
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.utils.data.Dataset[object]:
    """Return items whose process is killed, in a module that it can import too; it leaves a file ``killed``."""
    (tmp_path / "deadly_set.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deadly_set", raising=False)
    return importlib.import_module("deadly_set").Deadly()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_killed_worker_is_one_line_before_it_is_gone(
    tmp_path: Path, deadly: torch.utils.data.Dataset[object]
) -> None:
    """What it was sending is torn, while the system still counts it among the living, as on a busy machine."""
    with pytest.raises(ResourceError, match=r"^a process that loads data was ended from outside"):
        list(prefetch(load_items(deadly, ["tear"], workers=1)))  # in a thread, as trainings do

    assert (tmp_path / "killed").exists()


@pytest.mark.slow
def test_a_killed_worker_is_one_line(tmp_path: Path, deadly: torch.utils.data.Dataset[object]) -> None:
    """The system ends a process that takes too much memory: the line says so, and which setting helps."""
    items = load_items(deadly, [1, 2, "kill", 3], workers=1)

    with pytest.raises(ResourceError, match=r"^a process that loads data was ended from outside.*data\.workers=1"):
        list(items)

    assert (tmp_path / "killed").exists()


UNGUARDED = """
from latentart.data.loading import load_items
from latentart.errors import ResourceError
try:
    list(load_items([1], [0], workers=1))
except ResourceError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_script_without_its_guard_is_told_so(tmp_path: Path) -> None:
    """Its processes run it anew and end as they would start others; nobody ended them from outside."""
    (tmp_path / "run.py").write_text(UNGUARDED)

    done = subprocess.run([sys.executable, tmp_path / "run.py"], capture_output=True, text=True, check=False)

    assert done.stdout.startswith("a process that loads data cannot begin. Put what the script does below"), done.stderr
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)


STOPPED = """
import os, signal, subprocess, sys
from contextlib import closing
from latentart.data.loading import load_items, prefetch
from latentart.process.signals import StopSignal

if __name__ == "__main__":
    with StopSignal() as stop, closing(prefetch(load_items(range(10**9), iter(range(10**9)), workers=2))) as items:
        for number, item in enumerate(items):
            if number == 5:
                subprocess.run(["kill", f"-{sys.argv[1]}", "--", f"-{os.getpid()}"], check=False)  # it hits itself too
            if number == 500:
                break
    print(number, item, stop.received)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_to_all_processes_is_the_parent_s_alone(tmp_path: Path, name: str) -> None:
    """Ctrl-C and a scheduler's stop reach the workers too: they go on, so that the parent ends its step and saves."""
    (tmp_path / "run.py").write_text(STOPPED)

    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", name], capture_output=True, text=True, start_new_session=True, check=False
    )

    assert done.stdout.split() == ["500", "500", str(int(getattr(signal, f"SIG{name}")))]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("asked", "device", "expected"), [(3, "cpu", 3), (0, "cpu", 0), (12, "cuda", 12)])
def test_workers_are_those_asked_for_and_none_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, asked: int, device: str, expected: int
) -> None:
    """On a CPU a thread reads ahead: processes would take the step's cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert choose_workers(asked, device) == expected


def test_workers_beside_a_gpu_follow_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each core this process may use, up to a limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)

    assert [choose_workers(0, "cuda"), choose_workers(0, "cuda", at_most=4)] == [6, 4]


def prefetch_threads() -> list[threading.Thread]:
    """Return the threads that read ahead."""
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@given(count=st.integers(0, 20), depth=st.integers(1, 5))
def test_reading_ahead_changes_neither_items_nor_their_order(count: int, depth: int) -> None:
    """And its thread ends with them."""
    assert list(prefetch(iter(range(count)), depth)) == list(range(count))
    assert prefetch_threads() == []


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_more_is_drawn_than_the_depth_allows(depth: int) -> None:
    """With n items taken, the thread draws n + depth, and that many only."""
    drawn: list[int] = []
    enough = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            enough.release()
            yield number

    with closing(prefetch(items(), depth)) as ahead:
        assert [next(ahead) for _ in range(4)] == [0, 1, 2, 3]
        for _ in range(4 + depth):
            assert enough.acquire(timeout=10)
        assert not enough.acquire(timeout=0.05)

    assert drawn == list(range(4 + depth))


def test_an_error_comes_in_its_turn() -> None:
    """The items before it come first, then the error itself; the thread is gone."""

    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise DataError("three is gone.", "Make it again.")

    ahead, taken = prefetch(items()), []
    with pytest.raises(DataError, match=r"^three is gone\. Make it again\.$"):
        taken.extend(ahead)

    assert taken == [1, 2]
    assert prefetch_threads() == []


def test_stopping_early_ends_the_thread_and_closes_what_it_reads() -> None:
    """In the middle of an endless series, and also before the first item was asked for."""
    is_closed = []

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            is_closed.append(True)

    with closing(prefetch(items())) as ahead:
        next(ahead)
    prefetch(items()).close()

    assert prefetch_threads() == []
    assert is_closed == [True]
