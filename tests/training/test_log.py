"""Logs and progress: complete lines, cut on resume, no control codes in files, never in the way of a run."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from latentart.cli.log_lines import log_to_stderr
from latentart.errors import DataError
from latentart.printable import printable
from latentart.process.progress import Progress
from latentart.training.log import RunLog


def lines(folder: Path) -> list[dict[str, Any]]:
    """Read the metrics of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_json_lines_at_once(tmp_path: Path) -> None:
    """Each call is on the disk when it returns; what is not finite is null; tensors are numbers."""
    log = RunLog(tmp_path / "runs" / "vae")
    log.metrics(1, loss=0.1 + 0.2, stage="l1")
    log.metrics(2, loss=float("nan"), grad=float("-inf"), rate=torch.tensor(0.5), images=3, best=None)

    assert lines(tmp_path / "runs" / "vae") == [
        {"step": 1, "loss": 0.1 + 0.2, "stage": "l1"},
        {"step": 2, "loss": None, "grad": None, "rate": 0.5, "images": 3, "best": None},
    ]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of a run that is not the first: every call is taken."""
    monkeypatch.chdir(tmp_path)
    log = RunLog(None, resume_step=3)

    with log.watch():
        log.metrics(4, loss=torch.tensor(1.0))
        log.note("step 4")
        log.picture(4, tmp_path / "none.png")

    assert list(tmp_path.iterdir()) == []


def test_resumed_log_is_cut_back_to_the_step(tmp_path: Path) -> None:
    """Lines after the resumed step and a line torn by a kill are gone, then the log goes on."""
    log = RunLog(tmp_path)
    for step in range(1, 6):
        log.metrics(step, loss=step / 10)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("[1]\nno json\n" + "[" * 10**5 + '\n{"step": 2, "lo')
    RunLog(tmp_path, resume_step=3).metrics(4, loss=9.0)

    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 9.0)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_reopened_log_keeps_whole_lines_and_a_fresh_run_starts_empty(tmp_path: Path) -> None:
    """Without a step only the torn line goes; with step 0 nothing of an earlier try is left."""
    RunLog(tmp_path).metrics(1, loss=1.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2}')
    RunLog(tmp_path).metrics(3)
    assert [line["step"] for line in lines(tmp_path)] == [1, 3]
    RunLog(tmp_path, resume_step=0)

    assert lines(tmp_path) == []


def test_notes_are_dated_lines_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A note is one line with its date, whatever it holds, and goes to the logger as well."""
    caplog.set_level(logging.INFO, logger="latentart.training.log")
    log = RunLog(tmp_path)
    log.note("stage l1 begins")
    log.note("style \x1b[31m\nred \ud800 naïve")
    written = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()

    assert len(written) == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d stage l1 begins", written[0])
    assert written[1].endswith(r"style \x1b[31m\nred \ud800 naïve")
    assert "stage l1 begins" in caplog.text
    assert "\ud800" not in caplog.text


def test_log_that_cannot_be_written_warns_once_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file where the folder should be: one warning, no exception."""
    (tmp_path / "run").write_text("")
    log = RunLog(tmp_path / "run", resume_step=3)
    log.metrics(1, loss=1.0)
    log.note("hello")

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "cannot be written" in warnings[0].getMessage()


def test_names_are_made_harmless_and_stay_readable() -> None:
    """Control codes and text-turning marks are escaped, letters of any script are not."""
    assert printable("浮世絵 naïve [/]") == "浮世絵 naïve [/]"
    assert printable("a\x1b\n\u202eb\udcff") == r"a\x1b\n\u202eb\udcff"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Pretend."""
        return True


class Closed(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, _text: str, /) -> int:
        """Fail as a closed pipe does."""
        raise BrokenPipeError


def run(stream: io.StringIO, steps: int = 100, start: int = 0, label: str = "vae", **options: Any) -> str:
    """Walk through a loop of one second per step and return what was shown."""
    clock = Clock()
    console = Console(file=stream, width=100)
    with Progress(label, steps, start, console=console, clock=clock, **options) as progress:
        for step in range(start + 1, steps + 1):
            clock.now += 1
            progress.update(step, loss=torch.tensor(1 / step), images_per_second=32.0)
    return stream.getvalue()


def test_plain_lines_are_few_and_say_it_all() -> None:
    """The first, one each ten seconds and the last; with loss, speed and the time left, no control codes."""
    shown = run(io.StringIO()).splitlines()

    assert len(shown) == 11
    assert shown[0] == "vae: step 1/100 (1 %), loss 1, 32.0 images/s, 0:01:39 left"
    assert shown[1] == "vae: step 11/100 (11 %), loss 0.09091, 32.0 images/s, 0:01:29 left"
    assert shown[-1] == "vae: step 100/100 (100 %), loss 0.01, 32.0 images/s"


def test_resumed_loop_reckons_from_its_start() -> None:
    """Steps done before the resume do not count as speed."""
    shown = run(io.StringIO(), start=90).splitlines()

    assert shown[0] == "vae: step 91/100 (91 %), loss 0.01099, 32.0 images/s, 0:00:09 left"


def test_forced_color_does_not_put_control_codes_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log file stays text even where the environment forces color."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")

    assert run(io.StringIO()).isascii()
    assert "\x1b" not in run(io.StringIO(), label="[red]\x1b[31m")


def test_terminal_gets_a_bar_with_harmless_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the bar ends full; brackets in a name are shown, not obeyed."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = run(Terminal(), label="[/] [bold]x\x1b[2J")

    assert "100/100" in shown
    assert "loss 0.01, 32.0 images/s" in shown
    assert r"[/] [bold]x\x1b[2J" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    assert "\x1b[2J" not in shown
    assert re.search(r"\x1b\[[\d;]*3\d", shown)


def bar_of(width: int, label: str) -> list[str]:
    """Return what a bar of a terminal as wide as that shows at each 50th step, without its control codes."""
    stream, clock = Terminal(), Clock()
    console = Console(file=stream, width=width)
    with Progress(label, 1000, console=console, clock=clock) as progress:
        for step in range(50, 1001, 50):
            clock.now += 50
            progress.update(step, loss=torch.tensor(0.123456), images_per_second=1234.5)
    return [part.strip() for part in re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", stream.getvalue()))]


@pytest.mark.parametrize(
    ("width", "label"), [(40, "vae"), (40, "vae, stage adversarial"), (30, "vae"), (60, "ldm"), (120, "ldm")]
)
def test_a_narrow_terminal_loses_the_rate_first(monkeypatch: pytest.MonkeyPatch, width: int, label: str) -> None:
    """The step and the time left stay whole, in one line; what there is room for stands between them."""
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = [line for line in bar_of(width, label) if "500/1000" in line][-1]

    assert shown.endswith("0:08:20")
    assert len(shown) < width
    assert ("images/s" in shown) == (width >= 60)
    assert ("loss" in shown) == (width >= 60)


def test_what_is_logged_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at the end, and where a limit ends the run: no line is joined to the bar."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stderr", Terminal())
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log_to_stderr(verbose=False)
    try:
        with Progress("vae", 3) as progress:
            for step in range(1, 4):
                progress.update(step)
                root.info("step %d is saved", step)
        shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)

    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown))
    assert [line for line in lines if "saved" in line] == [f"step {step} is saved" for step in (1, 2, 3)]


def test_a_terminal_made_narrower_keeps_no_dead_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old bar was broken into several lines: all of them are taken back before the new one is drawn."""
    monkeypatch.setenv("TERM", "xterm-256color")
    stream, clock = Terminal(), Clock()
    console = Console(file=stream, width=100)
    with Progress("vae", 9, console=console, clock=clock) as progress:
        clock.now += 1
        progress.update(1, loss=0.5, images_per_second=2.0)
        console.width, before = 40, len(stream.getvalue())
        clock.now += 1
        progress.update(2, loss=0.5, images_per_second=2.0)

    assert stream.getvalue()[before:].startswith("\x1b[1A\r\x1b[J")


def test_no_color_is_honored_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR the bar has no colors."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = run(Terminal())

    assert "100/100" in shown
    assert not re.search(r"\x1b\[[\d;]*3\d", shown)


def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cannot move its cursor is treated as a file."""
    monkeypatch.setenv("TERM", "dumb")

    assert "\x1b" not in run(Terminal())


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``quiet`` neither a terminal nor a file sees anything."""
    monkeypatch.setenv("TERM", "xterm")

    assert run(io.StringIO(), quiet=True) == ""
    assert run(Terminal(), quiet=True) == ""


def test_stream_that_is_gone_stops_nothing() -> None:
    """A closed pipe or terminal is no error."""
    assert run(Closed()) == ""


def fail_after_three_steps(progress: Progress) -> None:
    """Take three steps and fail."""
    for step in (1, 2, 3):
        progress.update(step)
    raise KeyError("bug")


def test_loop_that_fails_still_shows_where_it_was() -> None:
    """The last step done is shown when an exception leaves the block, and the exception goes on."""
    stream = io.StringIO()
    with (
        pytest.raises(KeyError, match="bug"),
        Progress("ldm", 10, console=Console(file=stream), clock=Clock()) as progress,
    ):
        fail_after_three_steps(progress)

    assert stream.getvalue().splitlines()[-1] == "ldm: step 3/10 (30 %), 0:00:00 left"


def test_warnings_and_the_end_are_kept(tmp_path: Path) -> None:
    """What is warned of while a run is watched, and the known error that ends it, stand in its log; no more after."""
    log = RunLog(tmp_path)
    loading = logging.getLogger("latentart.data.loading")

    def run() -> None:
        with log.watch():
            loading.info("chatter")
            loading.warning("%s is gone", "a\nb.jpg")
            raise DataError("too many are gone.")

    with pytest.raises(DataError):
        run()
    loading.warning("another run's")

    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["a\\nb.jpg is gone", "ended: too many are gone."]


def test_full_memory_and_bugs_are_kept_too(tmp_path: Path) -> None:
    """Nobody may have seen the traceback."""
    for error in (MemoryError(), ZeroDivisionError("by zero")):
        with pytest.raises(type(error)), RunLog(tmp_path).watch():
            raise error

    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "ended: the memory is full.",
        "ended: ZeroDivisionError('by zero')",
    ]
