"""`studio`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from latentart.cli.options import DeviceOption, ModelOption, say, tell


def studio(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="A workspace or a model folder; else this folder.")
    ] = None,
    model: ModelOption = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any that is free.")] = 7878,
    host: Annotated[
        str, typer.Option("--host", help="Another than 127.0.0.1 asks for the token in the link.")
    ] = "127.0.0.1",
    opens: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open the browser; by default where there is a screen.")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Open a page to draw, to watch trainings, to see pictures."""
    from latentart.studio.studio import find_place
    from latentart.studio.studio import studio as run_studio

    def greet(address: str) -> None:
        tell(address)
        say("Ctrl-C ends the studio.")
        if sees_screen() if opens is None else opens:
            import webbrowser

            webbrowser.open(address)

    run_studio(find_place(path, model), host, port, device, greet)


def sees_screen() -> bool:
    """Tell whether a person sits before this process and a browser has where to appear."""
    has_screen = sys.platform in ("darwin", "win32") or any(
        name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return sys.stdout.isatty() and has_screen
