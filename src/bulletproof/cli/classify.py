"""``bulletproof classify``: what does this traceback mean?"""

import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bulletproof.errors import InputValidationError, explain, load_rules

_LARGEST = 4 * 2**20


def classify_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON.")] = False,
) -> None:
    """Explain a traceback given on standard input: type, code, severity, retry or not, and the rule that decided.

    python train.py 2>&1 | bulletproof classify

    bulletproof classify < traceback.txt
    """
    if sys.stdin.isatty():
        typer.echo("Paste a traceback, then press Ctrl-D:", err=True)
    text = sys.stdin.buffer.read(_LARGEST).decode("utf-8", "replace")
    if not text.strip():
        raise InputValidationError(
            "there is nothing on standard input", hint="Pipe a traceback in: bulletproof classify < traceback.txt"
        )
    load_rules()
    diagnosis = explain(text)
    if as_json:
        typer.echo(orjson.dumps(diagnosis.as_dict(), option=orjson.OPT_INDENT_2))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    wait = "" if diagnosis.retry_after is None else f", after {diagnosis.retry_after:g} s"
    rows = {
        "what": diagnosis.title,
        "type": str(diagnosis.error_type),
        "code": diagnosis.code,
        "severity": str(diagnosis.severity),
        "retry": f"yes{wait}" if diagnosis.retryable else "no",
        "counts for a breaker": "yes" if diagnosis.counts_as_failure else "no, neutral",
        "HTTP status": str(diagnosis.http_status),
        "details": diagnosis.details,
        "what to do": diagnosis.hint,
        "exceptions": " <- ".join(diagnosis.exception_chain),
        "decided by": diagnosis.rule,
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    Console().print(table)
