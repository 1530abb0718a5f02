"""The command ``bulletproof`` and what all its parts share."""

import logging
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from bulletproof._version import __version__
from bulletproof.cli import batch, dashboard, demo, doctor, kept, keys, models, process, serve, stress, worker
from bulletproof.cli import classify as classify_cli
from bulletproof.errors import AIError, ConfigurationError, InputValidationError, classify

app = typer.Typer(
    name="bulletproof",
    help="Process files with AI analysis that survives bad input, full disks, rubbish models and dead services.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("process")(process.process)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.command("dashboard")(dashboard.dashboard)
app.command("doctor")(doctor.doctor)
app.add_typer(batch.batch, name="batch")
app.add_typer(kept.kept, name="kept")
app.add_typer(demo.demo, name="demo")
app.add_typer(keys.keys, name="keys")
app.command("stress")(stress.stress)
app.command("classify")(classify_cli.classify_command)
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bulletproof {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Carry the options of the command itself."""


def main() -> None:
    """Run the command; no traceback reaches a user for anything that has a name."""
    # The output tells what the log would; the service sets up its own.
    logging.getLogger("bulletproof").addHandler(logging.NullHandler())
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has seen enough, such as `head`.
        _give_up_output()
        sys.exit(1)
    except (AIError, OSError, UnicodeError, ModuleNotFoundError) as error:
        diagnosis = classify(error)
        console = Console(stderr=True)
        console.print(Text.assemble((f"{diagnosis.title}: ", "bold red"), diagnosis.details))
        console.print(Text.assemble(("What to do: ", "bold"), diagnosis.hint))
        _give_up_output()
        sys.exit(2 if isinstance(error, InputValidationError | ConfigurationError | ModuleNotFoundError) else 1)


def _give_up_output() -> None:
    """Let what is still unwritten go nowhere: Python would try once more at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
