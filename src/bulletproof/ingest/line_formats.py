"""The records of JSON lines and of plain text."""

import re
from collections.abc import Iterator
from typing import Any

from bulletproof.errors import InvalidFileError
from bulletproof.ingest.encoding import Block
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits, Record, Rejection, Row, shorten
from bulletproof.ingest.strict_json import Flaw, StrictDecoder

_BROKEN_BYTES = re.compile("[\udc80-\udcff]")


class SurrogateDecoder:
    """Decodes lines of UTF-8; bytes that are not valid become lone surrogates, which show later which lines are bad."""

    encoding = "utf-8"

    def decode(self, data: bytes, line: int) -> str:  # noqa: ARG002 - the twin of LineDecoder.decode
        """Return the text of whole lines."""
        return data.decode("utf-8", "surrogateescape")


def json_lines(blocks: Iterator[Block], limits: IngestLimits, notes: Notes) -> Iterator[tuple[Any, int] | Rejection]:
    """Yield the value of each line that is not blank, and its size in characters; a broken line is a rejection.

    Args:
        blocks: Whole lines, decoded by ``SurrogateDecoder``.
        limits: Those of ``StrictDecoder``, and the length of a line.
        notes: Where warnings go.
    """
    decoder = StrictDecoder(limits)
    row = 0
    for block in blocks:
        for number, raw in enumerate(block.text.split("\n"), block.line):
            line = raw.strip(" \t\r")
            if not line:
                continue
            row += 1
            if block.overlong:
                too_long = f"line {number} is longer than the {limits.max_record_bytes:,} bytes allowed"
                yield Rejection(row, "text_too_long", too_long)
                continue
            if not line.isascii() and (broken := _BROKEN_BYTES.search(raw)):
                where = f"line {number}, column {broken.start() + 1}"
                yield Rejection(row, "invalid_encoding", f"{where}: a byte is not valid UTF-8")
                continue
            try:
                value, end = decoder.decode(line, 0)
                if rest := line[end:].lstrip(" \t"):
                    raise Flaw("There is something behind the end of the value", len(line) - len(rest), len(line))
            except Flaw as flaw:
                column = flaw.pos + len(raw) - len(raw.lstrip(" \t\r")) + 1
                yield Rejection(row, "invalid_json", f"line {number}, column {column}: {flaw.message}")
                continue
            if decoder.duplicates:
                name = shorten(decoder.duplicates[0])
                notes.count("duplicates", f"{{n}} record(s) give a field twice (such as {name}); the last counts.")
            yield value, len(line)


def paragraphs(blocks: Iterator[Block], limits: IngestLimits) -> Iterator[Row]:
    """Yield each paragraph of a plain text: lines up to a blank one.

    Args:
        blocks: Whole lines.
        limits: ``max_field_bytes`` bounds a paragraph.

    Raises:
        InvalidFileError: There is a NUL byte; names the line.
    """
    parts: list[str] = []
    size = row = 0
    begin = 1
    for block in blocks:
        text = block.text
        if "\0" in text:
            raise _nul(block)
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        for number, line in enumerate(lines, block.line):
            if line and not line.isspace():
                if not size:
                    begin = number
                size += len(line) + 1 + block.overlong * limits.max_field_bytes
                if size <= limits.max_field_bytes:
                    parts.append(line)
            elif size:
                row += 1
                yield _paragraph(row, begin, parts, size, limits)
                parts, size = [], 0
    if size:
        yield _paragraph(row + 1, begin, parts, size, limits)


def _paragraph(row: int, begin: int, parts: list[str], size: int, limits: IngestLimits) -> Row:
    text = "\n".join(parts)
    if size > limits.max_field_bytes + 1 or len(text.encode()) > limits.max_field_bytes:
        return Rejection(
            row,
            "text_too_long",
            f"line {begin}: the paragraph is longer than the {limits.max_field_bytes:,} bytes allowed; "
            "blank lines separate the records of a text file",
        )
    return Record(row, text)


def _nul(block: Block) -> InvalidFileError:
    before = block.text[: block.text.index("\0")]
    return InvalidFileError(
        "There is a NUL byte in the file; text files hold none",
        code="invalid_encoding",
        line=block.line + before.count("\n"),
        column=len(before) - before.rfind("\n"),
    )
