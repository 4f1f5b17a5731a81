"""Known errors are one line and an exit code, whatever the names in them; unknown ones keep their traceback."""

from __future__ import annotations

import errno
import logging
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from latentart import cli, errors
from latentart.cli import options
from latentart.cli.log_lines import PrintableFormatter, write_traceback
from latentart.config.workspace import resolve
from latentart.errors import ConfigError, LatentArtError, StoppedBySignal, nearest
from latentart.printable import printable
from latentart.process.progress import Progress

Run = Callable[..., Any]
COLOR = re.compile(r"\x1b\[[\d;]*\b[34]\d")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Add the command `fail` to the real program for one test."""
    monkeypatch.setattr(cli.app, "registered_commands", cli.app.registered_commands[:])
    monkeypatch.setattr(typer.main, "get_command", typer.main.get_command.__wrapped__)  # the tests build it once
    return cli.app.command("fail")


@pytest.fixture
def fail(latentart: Run, command: Callable[..., Any]) -> Callable[[BaseException], Any]:
    """Run a command that ends with the given exception, in the real program."""

    def run(error: BaseException) -> Any:
        @command
        def fail() -> None:
            raise error

        return latentart("fail")

    return run


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("UsageError", 2),
        ("ConfigError", 3),
        ("DataError", 4),
        ("ResourceError", 5),
        ("ModelError", 6),
        ("TrainingDivergedError", 7),
        ("DownloadError", 8),
    ],
)
def test_a_known_error_is_one_line_with_its_exit_code(
    fail: Callable[[BaseException], Any], name: str, code: int
) -> None:
    """What and where, then what to do; never wrapped, boxed or colored where nobody looks."""
    done = fail(getattr(errors, name)("it is wrong " * 30 + "here.", "Do that."))

    assert (done.code, done.out) == (code, "")
    assert done.err == f"error: {'it is wrong ' * 30}here. Do that.\n"


def test_every_known_error_has_its_own_code() -> None:
    """A script can tell the errors apart, and none looks like success or like our bug."""
    codes = [kind.exit_code for kind in LatentArtError.__subclasses__() if kind is not StoppedBySignal]

    assert len(codes) == len(set(codes))
    assert not {0, 1} & set(codes)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_full_disk_or_a_missing_right_is_no_bug(fail: Callable[[BaseException], Any], number: int) -> None:
    """Wherever the system refuses room or a right, the line names the file and the exit code is 5."""
    done = fail(OSError(number, os.strerror(number), "runs/[/]"))

    assert done.code == 5
    assert done.err.startswith(f"error: runs/[/]: {os.strerror(number)}. Make room")


@pytest.mark.parametrize("number", [errno.EISDIR, errno.ENOTDIR])
def test_what_lies_in_a_file_s_place_is_no_bug(fail: Callable[[BaseException], Any], number: int) -> None:
    """A folder of a file's name, or a file of a folder's."""
    done = fail(OSError(number, os.strerror(number), "log.txt"))

    assert done.code == 5
    assert done.err == f"error: log.txt: {os.strerror(number)}. Move it away, or choose another name.\n"


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_full_memory_is_no_bug(fail: Callable[[BaseException], Any], kind: type[Exception]) -> None:
    """Whoever says it: one line with what was asked for, and exit code 5."""
    done = fail(kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3221225472 bytes."))

    assert done.code == 5
    assert done.err.startswith("error: the ")
    assert "memory is full: 3.00 GiB were asked for. Stop what else uses the memory" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_by_signal_ends_with_the_shell_s_code(fail: Callable[[BaseException], Any], number: int) -> None:
    """130 after Ctrl-C, 143 after a scheduler's request, and the way to go on."""
    done = fail(StoppedBySignal("stopped; the checkpoint is saved.", number))

    assert done.code == 128 + number
    assert "Run the same command again" in done.err


def test_an_interruption_outside_a_run_ends_in_one_line(fail: Callable[[BaseException], Any]) -> None:
    """Ctrl-C is never a traceback."""
    done = fail(KeyboardInterrupt())

    assert done.code == 130
    assert done.err == "interrupted. Run the same command again to go on.\n"


def test_an_interruption_at_the_start_ends_in_one_line_too(latentart: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before typer has built its commands it catches nothing."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(typer.main, "get_command", interrupted)
    done = latentart("info")

    assert (done.code, done.err) == (130, "interrupted. Run the same command again to go on.\n")


def test_a_reader_that_leaves_is_no_bug(fail: Callable[[BaseException], Any]) -> None:
    """`latentart … | head` ends as programs do that get SIGPIPE."""
    done = fail(BrokenPipeError(32, "Broken pipe"))

    assert (done.code, done.err) == (141, "")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[/].jpg", "[/].jpg"),
        ("[bold red]x[/bold red].jpg", "[bold red]x[/bold red].jpg"),
        (":smile:.jpg", ":smile:.jpg"),
        ("back\\", "back\\"),
        ("\x1b[31mred\r\n\x07", r"\x1b[31mred\r\n\x07"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("日本_é.jpg", "日本_é.jpg"),
    ],
)
def test_a_stranger_s_name_is_shown_as_it_is(
    fail: Callable[[BaseException], Any], capsys: pytest.CaptureFixture[str], name: str, shown: str
) -> None:
    """Markup and emoji codes are text, and control bytes are escaped, in errors and in notes."""
    done = fail(errors.DataError(f"{name} is broken."))
    cli.options.say(f"wrote {name}")

    next_step = "Bring back a sound copy, or name another."  # which the error itself does not say
    assert done.err == f"error: {shown} is broken. {next_step}\n"
    assert capsys.readouterr().err == f"wrote {shown}\n"


HOSTILE = "\x1b]0;x\x07\x1b[2J\r\u202e"


def test_every_way_to_the_terminal_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    """Results, tables, notes, errors, JSON, log lines, progress and tracebacks: whatever they are handed."""
    options.tell(HOSTILE)
    options.say(HOSTILE)
    options.show_table([HOSTILE], [[HOSTILE]], fold=[0])
    options.write_json({HOSTILE: HOSTILE})
    options.write_error(HOSTILE, HOSTILE)
    with Progress(HOSTILE, 2) as progress:
        progress.update(1, loss=1.0)
    error = ValueError(HOSTILE)
    write_traceback(ValueError, error, None)
    record = logging.LogRecord(HOSTILE, logging.ERROR, "", 1, "%s", (HOSTILE,), (ValueError, error, None))
    said, told = capsys.readouterr()[::-1]
    logged = PrintableFormatter("%(name)s %(message)s").format(record)

    for text, times in ((told, 5), (said, 5), (logged, 3)):
        assert all(letter.isprintable() or letter == "\n" for letter in text)
        assert len(re.findall(r"(?<!u00)1b]0;x|u001b]0;x", text)) >= times


def test_a_table_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 200,000 styles nobody reads more than the first, and how many pictures there are in all."""
    options.show_table(["style", "kept"], [*((f"style {i}", "1") for i in range(200_000)), ("all", "200000")])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < options.MOST_ROWS + 10
    assert "… and 199,000 more" in lines[-3]
    assert "all" in lines[-2]


def test_an_unknown_error_is_not_caught(latentart: Run, command: Callable[..., Any]) -> None:
    """A bug of ours leaves `main` as it is."""

    @command
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        latentart("fail")


def test_an_unknown_error_keeps_its_traceback(tmp_path: Path) -> None:
    """A bug of ours ends the process with a whole traceback and exit code 1."""
    code = "from latentart import cli; import sys; sys.argv = ['latentart', 'fail']\n"
    code += "cli.app.command('fail')(lambda: 1 / 0); cli.main()"

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "╭" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("smaple",), "No such command 'smaple'"),
        (("train", "vea"), "No such command 'vea'"),
        (("\x1b[31m",), r"'\x1b[31m'"),
        (("sample",), "Missing option"),
        (("reconstruct",), "Missing argument"),
        (("sample", "--styl", "x"), "--style"),
        (("--frobnicate",), "No such option"),
        (("sample", "--style", "x", "--eta", "lots"), "--eta"),
        (("sample", "--style", "x", "--eta", "1.5"), "--eta"),
        (("sample", "--style", "x", "--eta", "nan"), "--eta"),
        (("sample", "--style", "x", "--guidance", "-1"), "--guidance"),
        (("sample", "--style", "x", "--steps", "0"), "--steps"),
        (("sample", "--style", "x", "--seed", "-1"), "--seed"),
        (("sample", "--style", "x", "--sampler", "plms"), "--sampler"),
        (("sample", "--style", "x", "--grid", "-1x2"), "'-1x2' is not a grid."),
        (("sample", "--style", "x", "--grid", "2x2", "-n", "4"), "--grid and --count both say how many."),
        (("demo", "a", "b"), "'b' is one folder too many."),
        (("clean-data", "a", "b"), "'b' is one folder too many."),
        (("doctor", "now"), "unexpected extra argument"),
    ],
)
def test_wrong_words_are_usage_errors(latentart: Run, words: tuple[str, ...], message: str) -> None:
    """Unknown, missing or impossible words end with exit code 2, plainly, and nothing on stdout."""
    done = latentart(*words)

    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not set(done.err) & set("\x1b╭│")
    assert re.fullmatch("error: .+\n", done.err)
    assert not re.search("Input should|Value error|latentart latentart", done.err)


def stderr_on_a_terminal(folder: Path, **environment: str) -> str:
    """Return what a wrong call writes when its stderr is a terminal."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "latentart", "sample", "-s", "x", "--grid", "4"]
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    subprocess.run(words, cwd=folder, stderr=theirs, env=kept | {"TERM": "xterm-256color"} | environment, check=False)
    os.close(theirs)
    with open(ours, "rb", closefd=True, buffering=0) as terminal:  # noqa: PTH123 - a descriptor, not a path
        return terminal.read(65536).decode()


def test_a_terminal_gets_color_unless_it_asks_for_none(tmp_path: Path) -> None:
    """The word error is red on a terminal; NO_COLOR is honored; the line is never wrapped."""
    colored = stderr_on_a_terminal(tmp_path)
    plain = stderr_on_a_terminal(tmp_path, NO_COLOR="1", COLUMNS="20")

    assert COLOR.search(colored)
    assert not COLOR.search(plain)
    assert re.sub(r"\x1b\[[\d;]*m", "", plain) == (
        "error: '4' is not a grid. Write rows x columns, each from 1 to 64, as 4x4.\r\n"
    )


@pytest.mark.parametrize(
    ("name", "offered"),
    [("cubsim", "Cubism"), ("high renaissance", "High_Renaissance"), ("CUBISM", "Cubism"), ("qqqq", None), ("", None)],
)
def test_the_nearest_name_is_offered(name: str, offered: str | None) -> None:
    """A slip is put right whatever its case; what is near nothing gets no offer."""
    assert nearest(name, ["Cubism", "High_Renaissance"]) == (f" Did you mean '{offered}'?" if offered else "")


def test_printable_text_stays_one_line_of_the_same_letters() -> None:
    """Letters of any script pass; what moves a cursor, turns or breaks the line is escaped."""
    assert printable("Ünïcode 日本 [x] 'y' \\n") == "Ünïcode 日本 [x] 'y' \\n"
    whole = "👩‍🎨 می‌خواهم 日本　画 🏴󠁧󠁢󠁥󠁮󠁧󠁿"
    assert printable(whole) == whole
    assert printable("Cu\u200dbism \u200d日\u202e \U000e0067") == r"Cu\u200dbism \u200d日\u202e \U000e0067"
    assert printable("a\nb\tc\x00\x9b\u2028\u200b\ud800") == r"a\nb\tc\x00\x9b\u2028\u200b\ud800"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("info", ""), "an argument"),
        (("info", "  "), "an argument"),
        (("config", "show", "-c", ""), "-c"),
        (("sample", "--style", ""), "--style"),
        (("sample", "--style", "x", "--model="), "--model"),
        (("clean-data", "data.raw="), "data.raw"),
        (("demo", "--device", ""), "--device"),
        (("init", "art", "--data", ""), "--data"),
    ],
)
def test_an_empty_word_is_a_usage_error_everywhere(latentart: Run, words: tuple[str, ...], named: str) -> None:
    """As a path it would be the current folder, which nobody asked for: it is named before anything is read."""
    done = latentart(*words)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {named} {'is' if named == 'an argument' else 'got'} an empty text.")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("", "is an empty text"),
        (" ", "is an empty text"),
        ("a\0b", "has a letter that may not stand there"),
        ("~nosuchuser/x", "begins with a user who has no home here"),
    ],
)
@pytest.mark.parametrize("setting", ["data.raw", "data.root", "data.labels", "vae.perceptual.weights"])
def test_a_path_in_a_config_leads_somewhere(setting: str, path: str, fault: str) -> None:
    """As on the command line: what is empty, or no path of this system, is named before anything is looked for."""
    group, _, name = setting.rpartition(".")
    tree: dict[str, Any] = {name: path}
    for part in reversed(group.split(".")):
        tree = {part: tree}

    with pytest.raises(ConfigError, match=f"^config: {setting}: {fault} "):
        resolve(tree)


def test_a_name_that_is_too_long_is_one_line(latentart: Run) -> None:
    """Whichever folder or file it was meant for."""
    for words in (("init", "n" * 300), ("init", f"art/{'n' * 300}"), ("info", "n" * 300)):
        done = latentart(*words)

        assert (done.code, done.out, done.err.count("\n")) == (5, "", 1)
        assert "too long" in done.err

    wall = latentart("info", "-c", "x/" * 3000).err
    assert "too long" in wall
    assert len(wall) < 500


@pytest.mark.parametrize(("words", "code"), [("config show --preset demo >&-", 0), ("info nowhere <&- >&- 2>&-", 6)])
def test_a_closed_stream_is_no_bug(tmp_path: Path, words: str, code: int) -> None:
    """A service may start without them; nothing that is opened later takes their place."""
    command = f"{shlex.quote(sys.executable)} -m latentart {words}"

    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_link_that_leads_to_itself_is_one_line(latentart: Run, tmp_path: Path) -> None:
    """Whether it is to be written or read: Python tells of it in two ways."""
    (tmp_path / "loop").symlink_to("loop")
    latentart("init", "art")
    (tmp_path / "raw").mkdir()
    out = ("clean-data", "raw", "--dry-run", "--out", "loop/x")
    for words in (out, ("clean-data", "loop"), ("train", "vae", "data.root=loop/x")):
        done = latentart(*words, "-c", "art/latentart.json")

        assert done.code in (3, 4, 5), done.err
        assert (done.out, done.err.count("\n")) == ("", 1)


def test_a_current_folder_that_is_gone_is_named(latentart: Run, tmp_path: Path) -> None:
    """Before libraries look for it, which end the process."""
    tmp_path.rmdir()

    done = latentart("config", "ls")

    assert (done.code, done.err) == (
        5,
        "error: the current folder is gone. Go into one that exists, then run this again.\n",
    )


def test_memory_too_small_for_torch_is_one_line(tmp_path: Path) -> None:
    """A process of its own, for the limit is the process's."""
    script = f"ulimit -v 700000; exec {shlex.quote(sys.executable)} -m latentart doctor"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (
        5,
        "error: the memory is too small to load PyTorch. Raise its limit (`ulimit -v`).\n",
    )
