"""``bulletproof process``: files from the command line through the processor."""

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_INTERRUPTED = 130
_TERMINATED = 143


class Format(StrEnum):
    """The form of the output."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def process(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="JSON, JSON lines, CSV, TSV or text files; - for standard input."),
    ],
    form: Annotated[Format, typer.Option("--format", help="Form of the output.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(help="Write the output to this file.")] = None,
    text_field: Annotated[
        str | None, typer.Option(help="Field or column that holds the text; found by itself when not given.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Labels to sort each record into, separated by commas; needs an LLM or a text classifier of your own."
        ),
    ] = None,
    no_fallback: Annotated[
        bool, typer.Option("--no-fallback", help="Fail rather than let the local model stand in for the LLM.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Analyse files: every record gets a sentiment, a score and a confidence, and is stored.

    Bad records are rejected with their row and reason; the rest goes on.
    Exit code: 0 all files done, 1 some failed, 2 wrong use.

      bulletproof process reviews.csv

      bulletproof process *.jsonl --format json --out results.json

      bulletproof process export.csv --text-field comment --format csv > results.csv

      zcat old.csv.gz | bulletproof process -
    """
    # The rooms behind are slow to import; --help and --version do without them.
    from bulletproof.cli.run import run_files

    if out is not None and out.is_dir():
        raise typer.BadParameter(f"{out} is a folder; name a file", param_hint="--out")
    console = Console(stderr=True)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet,
    )
    try:
        failed = asyncio.run(
            run_files(
                files,
                form=str(form),
                out=out,
                text_field=text_field,
                labels=labels,
                allow_fallback=False if no_fallback else None,
                progress=progress,
            )
        )
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        console.print(Text("Stopped. The file under way was not stored; those before it were.", style="yellow"))
        raise typer.Exit(_INTERRUPTED if isinstance(stop, KeyboardInterrupt) else _TERMINATED) from None
    if failed:
        sys.stdout.flush()
        console.print(Text(f"{failed} of {len(files)} files failed", style="red"))
    raise typer.Exit(1 if failed else 0)
