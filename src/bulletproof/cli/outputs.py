"""The three forms in which ``bulletproof process`` writes its answers.

Results are written as they come out of a run, so that the size of a file does not matter.
"""

import csv
import heapq
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import orjson
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bulletproof.errors import InputValidationError
from bulletproof.processor import AnalysisRun
from bulletproof.store import defuse

_EXAMPLES = 2
_REASONS = 5
_BAR = 30
_COLOURS = {"negative": "red", "neutral": "yellow", "positive": "green"}


class Output(Protocol):
    """Takes the results of each file, then its answer."""

    def results(self, name: str, run: AnalysisRun, /) -> None:
        """Take the results of a complete run; called in a thread, before the answer."""
        ...

    def answer(self, name: str, answer: dict[str, Any]) -> None:
        """Take the answer for a file."""
        ...

    def finish(self) -> None:
        """Write what comes at the end."""
        ...


class JSONOutput:
    """A list of answers as ``POST /process`` gives them, each with all of its results."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._first = True
        self._part: tempfile.SpooledTemporaryFile[bytes] | None = None

    def results(self, _name: str, run: AnalysisRun, /) -> None:
        """Keep the results until the answer is there."""
        self._part = tempfile.SpooledTemporaryFile(max_size=4 * 2**20)  # noqa: SIM115 -- closed with the answer
        for number, line in enumerate(run.spool.lines()):
            self._part.write((b"," if number else b"") + line)

    def answer(self, name: str, answer: dict[str, Any]) -> None:
        """Write the answer with its results."""
        answer = {key: value for key, value in answer.items() if key != "results"} | {"filename": name}
        head = orjson.dumps(answer).decode()
        self._out.write("[\n" if self._first else ",\n")
        self._first = False
        if self._part is None:
            self._out.write(head)
            return
        self._out.write(head[:-1] + ',"results":[')
        self._part.seek(0)
        with io.TextIOWrapper(self._part, encoding="utf-8") as part:
            shutil.copyfileobj(part, self._out)
        self._part = None
        self._out.write("]}")

    def finish(self) -> None:
        """Close the list."""
        self._out.write("[]\n" if self._first else "\n]\n")


class CSVOutput:
    """A table with a line for each result; formulas are defused."""

    def __init__(self, out: TextIO) -> None:
        self._writer = csv.writer(out, lineterminator="\n")
        self._writer.writerow(
            ("file", "row", "text", "sentiment", "score", "confidence", "language", "analyzer", "label")
        )

    def results(self, name: str, run: AnalysisRun, /) -> None:
        """Write the results."""
        for line in run.spool.lines():
            row = orjson.loads(line)
            self._writer.writerow(
                (
                    defuse(name),
                    row["row"],
                    defuse(row["text"]),
                    row["sentiment"],
                    row["score"],
                    row["confidence"],
                    row["language"],
                    row["analyzer"],
                    defuse(row.get("label") or ""),
                )
            )

    def answer(self, name: str, answer: dict[str, Any]) -> None:
        """Leave the answer out: a table holds results only."""

    def finish(self) -> None:
        """Nothing comes at the end."""


class TableOutput:
    """A report for people."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out)
        self._examples: list[dict[str, Any]] = []

    def results(self, _name: str, run: AnalysisRun, /) -> None:
        """Choose the clearest examples."""
        rows = map(orjson.loads, run.spool.lines())
        low: list[tuple[float, int, dict[str, Any]]] = []
        high: list[tuple[float, int, dict[str, Any]]] = []
        for row in rows:
            certain = row["score"] * row["confidence"]
            for heap, key in ((high, certain), (low, -certain)):
                item = (key, -row["row"], row)
                if len(heap) < _EXAMPLES:
                    heapq.heappush(heap, item)
                else:
                    heapq.heappushpop(heap, item)
        chosen = [row for _, _, row in sorted(high, reverse=True) if row["sentiment"] == "positive"]
        chosen += [row for _, _, row in sorted(low, reverse=True) if row["sentiment"] == "negative"]
        self._examples = chosen

    def answer(self, name: str, answer: dict[str, Any]) -> None:
        """Print what came of a file."""
        if answer["status"] == "error":
            body: RenderableType = _error_report(answer)
            colour = "red"
        else:
            body = _success_report(answer, self._examples)
            colour = "yellow" if answer["degraded"] or not answer["stored"] else "green"
        self._examples = []
        self._console.print(Panel(body, title=Text(name), title_align="left", border_style=colour))

    def finish(self) -> None:
        """Nothing comes at the end."""


def _error_report(answer: dict[str, Any]) -> RenderableType:
    return Group(
        Text.assemble((f"{answer['error']}  ", "bold red"), (f"{answer['error_type']} / {answer['code']}", "dim")),
        Text(answer["details"]),
        Text.assemble(("What to do: ", "bold"), answer["hint"]),
    )


def _success_report(answer: dict[str, Any], examples: list[dict[str, Any]]) -> RenderableType:
    records, summary = answer["records"], answer["summary"]
    kind = " ".join(filter(None, (answer["format"], answer["encoding"], answer["compression"])))
    field = f", text in {answer['text_field']!r}" if answer["text_field"] else ""
    parts: list[RenderableType] = [
        Text.assemble(
            (f"{records['received']:,} received, {records['analyzed']:,} analysed, ", "bold"),
            (f"{records['rejected']:,} rejected", "bold red" if records["rejected"] else "bold"),
            (f"   {kind}{field}; {summary['duplicates']:,} duplicates", "dim"),
        ),
        _split(summary["sentiment"]),
    ]
    if "labels" in summary:
        parts.append(Text("labels: " + ", ".join(f"{name} {count:,}" for name, count in summary["labels"].items())))
    languages = ", ".join(f"{name} {count:,}" for name, count in list(summary["languages"].items())[:8])
    parts.append(Text(f"languages: {languages}", style="dim"))
    for rejection in answer["rejections"][:_REASONS]:
        parts.append(
            Text.assemble((f"row {rejection['row']}: ", "red"), f"{rejection['details']} ", (rejection["code"], "dim"))
        )
    if records["rejected"] > _REASONS:
        parts.append(Text(f"... and {records['rejected'] - _REASONS:,} more rejected", style="dim"))
    parts += [Text(f"note: {warning}", style="yellow") for warning in answer["warnings"]]
    if not answer["stored"]:
        problem = answer["store_error"]
        parts.append(Text(f"not stored: {problem['details']}", style="red"))
        parts.append(Text.assemble(("What to do: ", "bold"), problem["hint"]))
    if answer["degraded"]:
        parts.append(Text(f"degraded: {answer.get('degraded_reason', 'a fallback answered')}", style="yellow"))
    if examples:
        table = Table(box=None, show_header=False, pad_edge=False, expand=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for row in examples:
            colour = _COLOURS[row["sentiment"]]
            table.add_row(
                Text(f"{row['score']:+.2f}", style=colour),
                Text(row["sentiment"], style=colour),
                Text(" ".join(row["text"].split())),
            )
        parts.append(table)
    return Group(*parts)


def _split(sentiment: dict[str, int]) -> Text:
    total = sum(sentiment.values()) or 1
    line = Text()
    for name in ("positive", "neutral", "negative"):
        share = sentiment[name] / total
        line.append("█" * round(share * _BAR), style=_COLOURS[name])
        line.append(f" {name} {sentiment[name]:,} ({share:.0%})  ", style=_COLOURS[name])
    return line


def summary_line(name: str, answer: dict[str, Any]) -> str | None:
    """Return what a reader of bare results would not see: why a file failed, what is missing, what was not stored.

    Args:
        name: The file.
        answer: The answer for it.

    Returns:
        One line, or None when all is well.
    """
    if answer["status"] == "error":
        return f"{name}: {answer['error'].lower()}: {answer['details']}. {answer['hint']}"
    parts = []
    if answer["records"]["rejected"]:
        first = answer["rejections"][0]
        parts.append(f"{answer['records']['rejected']:,} rejected, first row {first['row']}: {first['details']}")
    if answer["degraded"]:
        parts.append(f"degraded: {answer.get('degraded_reason')}")
    parts += answer["warnings"]
    return f"{name}: " + "; ".join(parts) if parts else None


@contextmanager
def destination(path: Path | None, standard: TextIO, *, lossy: bool) -> Iterator[TextIO]:
    """Open where the output goes; a file appears under its name only when it is complete.

    Args:
        path: The file, or None for standard output.
        standard: Standard output.
        lossy: Whether characters that a terminal cannot show may be replaced; else all is UTF-8.

    Yields:
        A text stream.

    Raises:
        InputValidationError: The file cannot be written.
    """
    if path is None:
        if isinstance(standard, io.TextIOWrapper):
            standard.reconfigure(errors="replace") if lossy else standard.reconfigure(encoding="utf-8")
        yield standard
        standard.flush()
        return
    path = path.resolve()
    special = path.exists() and not path.is_file()
    # A device or a pipe is written as it is: it must not be replaced by a file.
    unfinished = path if special else path.with_name(f".{path.name}.part")
    try:
        stream = unfinished.open("w", encoding="utf-8", newline="")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise InputValidationError(
            f"cannot write {path}: {error.strerror}",
            code="file_not_found" if missing else "permission_denied",
            hint="Choose another file with --out.",
        ) from error
    try:
        with stream:
            yield stream
        if not special:
            if path.exists():
                shutil.copymode(path, unfinished)
            unfinished.replace(path)
    finally:
        if not special:
            unfinished.unlink(missing_ok=True)
