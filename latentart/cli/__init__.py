"""The command line: thin, instant, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

import typer

from latentart.cli import configs, pictures, sampling, start, training
from latentart.cli.options import write_error
from latentart.errors import LatentArtError
from latentart.printable import printable

app = typer.Typer(
    name="latentart",
    help="Turn your own folder of pictures into your own class-conditional latent diffusion model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `latentart demo`, or with `latentart init my-art --data PICTURES`.",
)
train_app = typer.Typer(help="Train the autoencoder in stages, then the denoiser.", no_args_is_help=True)
config_app = typer.Typer(help="Look at configs and presets.", no_args_is_help=True)

app.command()(start.demo)
app.command()(start.init)
app.add_typer(config_app, name="config")
app.command("clean-data")(pictures.clean_data)
app.add_typer(train_app, name="train")
app.command()(pictures.encode)
app.command()(sampling.sample)
app.command()(sampling.reconstruct)
app.command()(start.info)
app.command()(start.doctor)
train_app.command("vae")(training.train_vae)
train_app.command("ldm")(training.train_ldm)
config_app.command("ls")(configs.list_presets)
config_app.command("show")(configs.show)
config_app.command("validate")(configs.validate)
config_app.command("schema")(configs.schema)
config_app.command("diff")(configs.diff)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Show the version."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log every step on stderr."),
) -> None:
    """Set up logging for every command."""
    if version:
        from latentart import __version__

        typer.echo(f"latentart {__version__}")
        raise typer.Exit
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(message)s", stream=sys.stderr, force=True
    )
    if not verbose:
        logging.getLogger("PIL").setLevel(logging.WARNING)


def main() -> None:
    """Run the command line; known errors end in one line and their exit code, others keep their traceback."""
    try:
        app()
    except LatentArtError as error:
        write_error(printable(error.message), printable(error.hint))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        write_error("interrupted.", "Run the same command again to go on.")
        sys.exit(130)
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
