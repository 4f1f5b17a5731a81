"""Metrics are read whatever lies in the file."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from latentart.scoring.run_history import MAX_LINE_BYTES, MetricsReader, RunHistory, Trace, parse_line, read_number

GARBAGE = [
    b"\n",
    b"{\n",
    b"[1, 2]\n",
    b'"step"\n',
    b'{"loss": 1}\n',
    b'{"step": "3"}\n',
    b'{"step": true}\n',
    b'{"step": -1}\n',
    b'{"step": 1.5}\n',
    b'{"step": 99999999999999999999}\n',
    b"\xff\xfe\x00\n",
    b"[" * 100_000 + b"\n",
    b'{"step": ' + b"9" * 10_000 + b"}\n",
    b'{"step": 1' + b" " * (2 * MAX_LINE_BYTES) + b"\n",
]


def test_sound_lines_are_read_among_garbage(tmp_path: Path) -> None:
    """Torn, foreign and endless lines are counted and left out."""
    path = tmp_path / "metrics.jsonl"
    sound = [b'{"step": %d, "loss": %d}\n' % (i, i) for i in range(len(GARBAGE))]
    path.write_bytes(b"".join(a + b for a, b in zip(sound, GARBAGE, strict=True)) + b'{"step": 99, "lo')
    reader = MetricsReader(path)

    assert [entry["step"] for entry in reader.read()] == list(range(len(GARBAGE)))
    assert reader.torn >= len(GARBAGE)
    assert list(MetricsReader(tmp_path / "none.jsonl").read()) == []


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """A line that is being written is read when it is whole, and a file that was cut is read anew."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2')
    reader = MetricsReader(path)
    assert [entry["step"] for entry in reader.read()] == [1]

    with path.open("a") as file:
        file.write('2}\n{"step": 23}\n')
    assert [entry["step"] for entry in reader.read()] == [22, 23]
    assert list(reader.read()) == []


def test_of_many_lines_some_are_read(tmp_path: Path) -> None:
    """Evenly, but for those that come once in a while, and those that were not finite: all of them."""
    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        for step in range(1, 10_001):
            file.write(json.dumps({"step": step, "loss": None if step == 7777 else 0.5}) + "\n")
            if step % 100 == 0:
                file.write(json.dumps({"step": step, "held_out_loss": 1.0}) + "\n")
    reader = MetricsReader(path, max_lines=500)

    found = list(reader.read())
    steps = [entry["step"] for entry in found if entry.get("loss")]

    assert reader.stride in range(18, 22)
    assert 400 < len(steps) < 600
    assert {b - a for a, b in itertools.pairwise(steps)} <= set(range(reader.stride - 2, reader.stride + 2))
    assert sum("held_out_loss" in entry for entry in found) == 100
    assert [entry["step"] for entry in found if entry.get("loss", 0) is None] == [7777]


@pytest.mark.parametrize("line", ['{"step": 1, "loss": 1e999}', '{"step": 1, "loss": NaN}', '{"step": 1, "loss": "x"}'])
def test_what_is_no_finite_number_is_none(line: str) -> None:
    """Infinite, not a number, words, truth, and integers that no float holds."""
    entry = parse_line(line.encode())
    assert entry is not None
    assert read_number(entry, "loss") is None
    assert read_number({"a": True, "b": 10**400, "c": [1], "d": 3}, "d") == 3.0
    assert [read_number({"a": True, "b": 10**400, "c": [1]}, name) for name in "abc?"] == [None] * 4


def test_a_trace_keeps_values_and_gives_means() -> None:
    """All of the values, and the mean of the finite ones in equal parts."""
    trace = Trace()
    for step in range(10):
        trace.add(step, None if step in (3, 8, 9) else float(step))

    assert len(trace) == 10
    assert trace.values() == (list(map(float, range(10))), [0, 1, 2, None, 4, 5, 6, 7, None, None])
    assert trace.means(most=5) == [(0, 0.5), (2, 2.0), (4, 4.5), (6, 6.5), (8, None)]
    assert trace.means(start=7) == [(7, 7.0), (8, None), (9, None)]
    assert trace.last is None
    assert (Trace().last, Trace().means(), Trace().values()) == (None, [], ([], []))


def test_a_verdict_goes_by_the_plain_training_loss(tmp_path: Path) -> None:
    """On the scale of the held-out loss, of runs of before too; by the weighted one only where there is no other."""
    parts = {"loss_t0": 0.2, "loss_t1": None, "loss_t7": 0.4}
    lines: list[dict[str, object]] = [
        {"step": 1, "loss": 0.1, **parts},
        {"step": 2, "loss": 0.1, "plain_loss": 0.5, **parts},
        {"step": 3, "loss": None, "plain_loss": 0.5, **parts},
        {"step": 3, "held_out_loss": 0.5, "held_out_loss_t0": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/metrics.jsonl").write_text('{"step": 1, "loss": 0.1}\n')
    found, bare = RunHistory(tmp_path, "denoiser"), RunHistory(tmp_path / "bare", "denoiser")
    found.read()
    bare.read()

    assert found.to_history(10).training == [(1, pytest.approx(0.3)), (2, 0.5), (3, None)]
    assert bare.to_history(10).training == [(1, 0.1)]


def test_whoever_reads_a_run_counts_no_pause(tmp_path: Path) -> None:
    """Of two calls with 300 s between them, read while the second is at it: ten seconds a line, and no more."""
    start = 1_700_000_000.0
    times = [start + 10 * i for i in range(4)] + [start + 340 + 10 * i for i in range(3)]
    lines = [json.dumps({"step": i + 1, "loss": 1.0, "time": time}) + "\n" for i, time in enumerate(times)]
    begins = [datetime.fromtimestamp(at, tz=UTC).isoformat(sep=" ") for at in (start - 10, start + 330)]
    (tmp_path / "log.txt").write_text(f"{begins[0]} denoiser: steps 0 to 9, fp32\n")
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:4]))
    history = RunHistory(tmp_path, "denoiser")
    history.read()
    (tmp_path / "log.txt").write_text("".join(f"{at} denoiser: steps 0 to 9, fp32\n" for at in begins))
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    history.read()

    assert history.seconds == 3 * 10 + 3 * 10
