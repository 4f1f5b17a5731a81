"""Options and arguments that several commands share, and how they speak."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from latentart.errors import UsageError
from latentart.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from latentart.layout import Workspace
    from latentart.process.devices import Placement

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", "-cfg", help="The workspace's config; else latentart.json in this folder."),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Settings, as ldm.training.batch_size=64.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; else the best there is.")]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes", min=0.1, max=525_600, help="Fit the steps to so many minutes; the config says them from then on."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
ModelOption = Annotated[Path | None, typer.Option("--model", help="A model folder; else the workspace's newest.")]

MOST_ROWS = 1000  # of a table on the terminal
_WALL = re.compile(r"(\S{300})\S+")  # a path of thousands of letters
_OVERRIDE = re.compile(r"[A-Za-z_$][\w$]*(\.[\w-]+)*=")


def refuse_empty(words: Sequence[str]) -> None:
    """Refuse an empty word: no option, argument or setting takes one, and as a path it would be this folder.

    Raises:
        UsageError: the first such word, named by the option before it.
    """
    for before, word in zip(("", *words), words, strict=False):
        is_named = word.startswith("--") or _OVERRIDE.match(word)
        option, equals, value = word.partition("=") if is_named else ("", "=", word)
        if equals and not value.strip():
            name = option or (before if before.startswith("-") else "")
            msg = f"{name} got an empty text." if name else "an argument is an empty text."
            raise UsageError(msg, "Write what is meant, or leave it out; this folder is written as a dot.")


def parse_grid(text: str) -> tuple[int, int]:
    """Return (rows, columns) of a grid written as 4x4.

    Raises:
        UsageError: it is not two whole numbers from 1 to 64.
    """
    match = re.fullmatch(r"(\d{1,3})[xX×](\d{1,3})", text.strip())
    rows, columns = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (1 <= rows <= 64 and 1 <= columns <= 64):
        msg = f"'{text}' is not a grid."
        raise UsageError(msg, "Write rows x columns, each from 1 to 64, as 4x4.")
    return rows, columns


def split_arguments(arguments: list[str] | None) -> tuple[list[str], list[str]]:
    """Return (plain arguments, key=value settings)."""
    given = arguments or []
    settings = [text for text in given if _OVERRIDE.match(text) and not _exists(text)]
    return [text for text in given if text not in settings], settings


def split_folder(arguments: list[str] | None, hint: str) -> tuple[Path | None, list[str]]:
    """Return (the folder that is named, key=value settings).

    Raises:
        UsageError: there are two; ``hint`` says how what was meant is written.
    """
    plain, settings = split_arguments(arguments)
    if len(plain) > 1:
        msg = f"'{plain[1]}' is one folder too many."
        raise UsageError(msg, hint)
    return Path(plain[0]) if plain else None, settings


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # a long setting is too long for a name
        return False


def only_settings(arguments: list[str] | None) -> list[str]:
    """Return key=value settings.

    Raises:
        UsageError: something else stands among them.
    """
    plain, settings = split_arguments(arguments)
    if plain:
        msg = f"'{plain[0]}' is not a setting."
        raise UsageError(msg, "Write path.to.key=value, as ldm.training.batch_size=64; options begin with --.")
    return settings


def open_workspace(config: Path | None, overrides: list[str] | None = None) -> Workspace:
    """Return the workspace of ``--config``, else of the current folder."""
    from latentart.layout import Workspace

    return Workspace.open(config, only_settings(overrides))


def place(device: str | None, precision: Any = "auto") -> Placement:
    """Return where and in which type networks run."""
    from latentart.process.devices import Placement, choose_device

    return Placement(choose_device(device), precision)


def find_model(model: Path | None, config: Path | None, *, kind: str = "ldm") -> Path:
    """Return ``--model``, else the model of the workspace's run."""
    if model is not None:
        return model
    workspace = open_workspace(config)
    return (workspace.ldm_run if kind == "ldm" else workspace.vae_run) / "model"


def require_place(path: Path | None) -> None:
    """Find out whether what ``--out`` names can be written, before the work begins.

    Raises:
        ResourceError: it cannot.
    """
    if path is not None:
        from latentart.storage.whole import require_place as require

        require(path)


def speaks() -> bool:
    """Tell whether this process is the one of its run that writes results."""
    from latentart.process.distributed import read_ranks

    return read_ranks().is_first


def tell(text: object) -> None:
    """Write one line of a result on stdout, safe to show; a path that goes into a file or a pipe stays as it is."""
    if isinstance(text, Path) and not sys.stdout.isatty():
        typer.echo(text)
    else:
        sys.stdout.write(f"{printable(str(text))}\n")  # typer would write UTF-8 where the locale is ASCII
        sys.stdout.flush()


def write_json(value: Any) -> None:
    """Write one JSON object on stdout, all ASCII, so that every name survives."""
    import json

    typer.echo(json.dumps(value, indent=2))


def show_table(headings: Sequence[str], rows: Iterable[Sequence[str]], fold: Sequence[int] = ()) -> None:
    """Write a table on stdout, safe to show; the columns in ``fold`` break what is too wide.

    Of very many rows the first and the last are shown.
    """
    from rich.table import Table

    table = Table(*map(printable, headings))
    for i in fold:
        table.columns[i].overflow = "fold"
    found = list(rows)
    if (left := len(found) - MOST_ROWS - 1) > 0:
        found[MOST_ROWS:-1] = [(f"… and {left:,} more",)]
    for row in found:
        table.add_row(*map(printable, row))
    _draw(table)


def _draw(what: RenderableType, *, stderr: bool = False) -> None:
    """Show text as it stands: no markup, no emoji, no line breaks of rich's own."""
    from rich.console import Console

    Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True).print(what)


def write_error(message: str, hint: str, *, is_stop: bool = False) -> None:
    """Write one line on stderr: what and where, then what to do; a stop that was asked for is no error."""
    from rich.text import Text

    kind = ("", "") if is_stop else ("error: ", "bold red")
    message = _WALL.sub(r"\1…", message)
    line = Text.assemble(kind, printable(message), (printable(f" {hint}" if hint else ""), "cyan"))
    _draw(line, stderr=True)


def ask(question: str, hint: str) -> str:
    """Return what a person types as the answer to a question on stderr; ``hint`` is what a program does instead.

    Raises:
        UsageError: nobody sits there.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("this asks back, and nobody is there to answer.", hint)
    sys.stderr.write("\n".join(map(printable, question.split("\n"))))
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def say(text: str) -> None:
    """Write one line for people on stderr."""
    _draw(printable(text), stderr=True)


SECTIONS = {
    "Begin": ("demo", "init", "clean-data"),
    "Train": ("plan", "train", "encode", "find-lr", "schedule", "ema"),
    "Draw": ("sample", "reconstruct", "studio"),
    "Judge": ("report", "runs", "evaluate", "info"),
    "More": ("config", "weights", "export", "bench", "doctor"),
}
KINDS = {"str": "TEXT", "path": "PATH", "int": "N", "float": "X"}  # what a value is called, but not by Python's name


class Commands(TyperGroup):
    """Commands whose help speaks to people; those of the whole program stand in sections, in the order of the path."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command that shows TEXT for a str."""
        command = super().get_command(ctx, cmd_name)
        for param in command.params if command is not None else ():
            if hasattr(param, "display_type_rich"):
                param.display_type_rich = _kind_of(param)
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, one section after the other."""
        if "demo" not in self.commands:
            super().format_commands(ctx, formatter)
            return
        width = max(map(len, self.commands))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", self.commands[name].get_short_help_str(80)) for name in names])


def _kind_of(param: Any) -> Any:
    shown = param.display_type_rich

    def kind(ctx: Any) -> str:
        if param.param_type_name == "argument":
            return ""  # its name says all
        words = shown(ctx).strip("<>").removeprefix("list[").removesuffix("]").removesuffix(" range")
        return KINDS.get(words, words)

    return kind
