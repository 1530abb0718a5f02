"""The records of JSON lines and of plain text."""

import re
from collections.abc import Iterator
from typing import Any

from bulletproof.ingest.encoding import Block
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits, Record, Rejection, Row
from bulletproof.ingest.strict_json import WHITESPACE, Flaw, StrictDecoder

_BROKEN_BYTES = re.compile("[\udc80-\udcff]")


def decode_json_lines(data: bytes, _line: int) -> str:
    """Decode UTF-8; bytes that are not valid become lone surrogates, which show later which lines are bad."""
    return data.decode("utf-8", "surrogateescape")


def json_lines(blocks: Iterator[Block], limits: IngestLimits, notes: Notes) -> Iterator[tuple[Any, int] | Rejection]:
    """Yield the value of each line that is not blank, and its size in characters; a broken line is a rejection."""
    decoder = StrictDecoder(limits)
    row = 0
    for block in blocks:
        for number, raw in enumerate(block.text.split("\n"), block.line):
            line = raw.strip(WHITESPACE)
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
                if rest := line[end:].lstrip(WHITESPACE):
                    raise Flaw("There is something behind the end of the value", len(line) - len(rest), len(line))
            except Flaw as flaw:
                column = flaw.pos + raw.index(line) + 1
                yield Rejection(row, "invalid_json", f"line {number}, column {column}: {flaw.message}")
                continue
            if decoder.duplicates:
                notes.count_duplicate(decoder.duplicates[0])
            yield value, len(line)


def paragraphs(blocks: Iterator[Block], limits: IngestLimits) -> Iterator[Row]:
    """Yield each paragraph of a plain text: lines up to a blank one; one over ``max_field_bytes`` is a rejection."""
    parts: list[str] = []
    size = row = 0
    begin = 1
    for block in blocks:
        block.refuse_nul("invalid_encoding")
        for number, line in enumerate(block.lines(), block.line):
            if not line.isspace():
                if not size:
                    begin = number
                line = line.rstrip("\r\n")
                size += len(line) + 1 + block.overlong * limits.max_field_bytes
                if size <= limits.max_field_bytes + 1:
                    parts.append(line)
            elif size:
                row += 1
                yield _paragraph(row, begin, parts, size, limits)
                parts, size = [], 0
    if size:
        yield _paragraph(row + 1, begin, parts, size, limits)


def _paragraph(row: int, begin: int, parts: list[str], size: int, limits: IngestLimits) -> Row:
    text, most = "\n".join(parts), limits.max_field_bytes
    if size > most + 1 or len(text.encode()) > most:
        details = f"line {begin}: the paragraph is longer than the {most:,} bytes allowed; "
        return Rejection(row, "text_too_long", details + "blank lines separate the records of a text file")
    return Record(row, text)
