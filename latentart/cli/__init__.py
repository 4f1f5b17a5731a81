"""The command line: thin, instant, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import re
import sys
from pathlib import Path

import typer

from latentart.cli import (
    averages,
    configs,
    evaluating,
    measuring,
    pictures,
    planning,
    reporting,
    sampling,
    start,
    studio,
    training,
    weights,
)
from latentart.cli.endings import end, end_wrong_words, is_one_of_many
from latentart.cli.options import Commands, refuse_empty, tell
from latentart.errors import LatentArtError, ResourceError, shortened
from latentart.process.signals import ToldToEnd, raising_when_told

MEND_LINK = "Mend that link, or name what it should lead to."
NO_ROOM_OR_NO_RIGHT = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
WRONG_NAMES = {
    errno.ENAMETOOLONG: "Give it a shorter name.",
    errno.ELOOP: MEND_LINK,
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR), "Move it away, or choose another name."),
}
NO_ROOM_TO_LOAD = re.compile("failed to map segment|[Cc]annot allocate memory")

WrongWords: type[Exception] = typer.BadParameter.__mro__[1]  # typer's error of usage, which it does not export itself

app = typer.Typer(
    name="latentart",
    cls=Commands,
    help="Turn your own folder of pictures into your own class-conditional latent diffusion model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help and errors: half the time to answer, no boxes in a log
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `latentart demo`, or with `latentart init my-art --data PICTURES`.",
)
train_app = typer.Typer(cls=Commands, help="Train the autoencoder in stages, then the denoiser.", no_args_is_help=True)
config_app = typer.Typer(cls=Commands, help="Look at configs and presets.", no_args_is_help=True)
find_lr_app = typer.Typer(cls=Commands, help="Find the peak learning rate by a range test.", no_args_is_help=True)
evaluate_app = typer.Typer(
    cls=Commands, help="Score the autoencoder, or the samples of the denoiser.", no_args_is_help=True
)
runs_app = typer.Typer(cls=Commands, help="List, keep, compare and delete runs.", no_args_is_help=True)
weights_app = typer.Typer(cls=Commands, help="Fetch, check and import trained networks.", no_args_is_help=True)
export_app = typer.Typer(
    cls=Commands, help="Take a model elsewhere: as ONNX, as a page, with a card.", no_args_is_help=True
)

app.command()(start.demo)
app.command()(start.init)
app.add_typer(config_app, name="config")
app.command("clean-data")(pictures.clean_data)
app.add_typer(find_lr_app, name="find-lr")
app.add_typer(train_app, name="train")
app.command()(pictures.encode)
app.command()(averages.ema)
app.command()(sampling.sample)
app.command()(sampling.reconstruct)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(weights_app, name="weights")
app.add_typer(export_app, name="export")
app.command()(planning.plan)
app.command()(planning.schedule)
app.command()(measuring.bench)
app.command()(studio.studio)
app.add_typer(runs_app, name="runs")
app.command()(reporting.report)
app.command()(start.info)
app.command()(start.doctor)
train_app.command("vae")(training.train_vae)
train_app.command("ldm")(training.train_ldm)
find_lr_app.command("vae")(planning.find_vae_rate)
find_lr_app.command("ldm")(planning.find_ldm_rate)
evaluate_app.command("vae")(evaluating.evaluate_vae)
evaluate_app.command("ldm")(evaluating.evaluate_ldm)
runs_app.command("ls")(reporting.list_runs)
runs_app.command("keep")(reporting.keep)
runs_app.command("restore")(reporting.restore)
runs_app.command("compare")(reporting.compare)
runs_app.command("rm")(reporting.remove)
weights_app.command("list")(weights.list_files)
weights_app.command("fetch")(weights.fetch)
weights_app.command("verify")(weights.verify)
weights_app.command("import")(weights.import_file)
export_app.command("onnx")(reporting.onnx)
export_app.command("card")(reporting.card)
export_app.command("web")(reporting.web)
config_app.command("ls")(configs.list_presets)
config_app.command("show")(configs.show)
config_app.command("validate")(configs.validate)
config_app.command("schema")(configs.schema)
config_app.command("diff")(configs.diff)


def show_version(asked: bool) -> None:
    """Write the version and end."""
    if asked:
        from latentart import __version__

        tell(f"latentart {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: bool = typer.Option(False, "--version", help="Show the version.", callback=show_version, is_eager=True),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log every step on stderr."),
) -> None:
    """Set up logging for every command."""
    from latentart.cli.log_lines import log_to_stderr, write_traceback

    try:
        os.getcwd()  # noqa: PTH109 - asked before libraries ask, which end the process without a word of ours
    except FileNotFoundError:
        raise ResourceError("the current folder is gone.", "Go into one that exists, then run this again.") from None
    log_to_stderr(verbose=verbose)
    sys.excepthook = write_traceback


def bytes_of_paths(error: UnicodeError) -> tuple[bytes, int]:
    """Let a path leave as the bytes it came in, and escape what a terminal that is not UTF-8 has no letter for."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    try:
        return letters.encode("ascii", "surrogateescape"), error.end
    except UnicodeEncodeError:
        return letters.encode("ascii", "backslashreplace"), error.end


def open_streams() -> None:
    """Let what a closed stream should take or give vanish; its number would go to the next file that is opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - it stays open


def main() -> None:
    """Run the command line; known errors end in one line and their exit code, others keep their traceback."""
    open_streams()
    # read as torch is loaded, by this process and those it starts: a thread that waits leaves its core to others, but
    # not before the next small operation is likely to have come, as to wake it costs more than some of them
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # processes that this one starts run no random.py of the current folder
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("paths", bytes_of_paths)
        sys.stdout.reconfigure(errors="paths")
    try:
        refuse_empty(sys.argv[1:])
        with raising_when_told() if is_one_of_many() else contextlib.nullcontext():
            code = app(prog_name="latentart", standalone_mode=False)
        if code == 130:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code or 0)
    except KeyboardInterrupt:  # also before typer has built its commands
        end("interrupted.", "Run the same command again to go on.", 130)
    except ToldToEnd as told:
        end("stopped by a signal.", "Run the same command again to go on.", told.exit_code)
    except WrongWords as error:
        end_wrong_words(error)
    except LatentArtError as error:
        end(error.message, error.hint, error.exit_code)
    except ImportError as error:
        if not NO_ROOM_TO_LOAD.search(str(error)):
            raise
        end("the memory is too small to load PyTorch.", "Raise its limit (`ulimit -v`).", ResourceError.exit_code)
    except (RuntimeError, MemoryError) as error:
        from latentart.process.memory import explain_out_of_memory

        if str(error).startswith("Symlink loop"):  # Python's own before 3.13, for what is a fault of the disk
            end(f"{error}: a link leads to itself.", MEND_LINK, ResourceError.exit_code)
        explained = explain_out_of_memory(error, sys.argv[1:])
        if explained is None:
            raise
        end(explained.message, explained.hint, explained.exit_code)
    except OSError as error:  # the disk's or the owner's, wherever it came up
        where = f"{shortened(os.fsdecode(error.filename))}: " if error.filename else ""
        if error.errno in WRONG_NAMES:
            end(f"{where}{error.strerror}.", WRONG_NAMES[error.errno], ResourceError.exit_code)
        if error.errno not in NO_ROOM_OR_NO_RIGHT:
            raise
        end(f"{where}{error.strerror}.", "", ResourceError.exit_code)
    except SystemExit as done:  # typer's way to end after a broken pipe
        if isinstance(done.__context__, BrokenPipeError):
            sys.exit(141)
        raise
