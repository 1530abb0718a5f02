"""The rows of a CSV file, one by one, however long it is."""

import csv
from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

from bulletproof.errors import InvalidFileError
from bulletproof.ingest.csv_dialect import NO_DELIMITER, Dialect, find_dialect, is_blank, parse_sample, sample_lines
from bulletproof.ingest.encoding import BLOCK, Block, split_lines
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits, Record, Rejection, Row, shorten
from bulletproof.ingest.text_field import find_text_field

_MISQUOTED = "a quote is not closed, or a quote inside a text is not doubled"
_UNCLOSED = "A quote that begins in this line is never closed"
# The line in which a row begins, and its fields or, as a text, what is wrong with its quotes.
_Parsed: TypeAlias = tuple[int, list[str] | str]


def csv_rows(
    blocks: Iterator[Block], delimiters: tuple[str, ...], wanted: str | None, limits: IngestLimits, notes: Notes
) -> Iterator[Row]:
    """Return the rows of a table, each a record or a rejection; they are parsed as they are asked for."""
    # The csv module has one limit for the whole process; ours is looked at row by row, so that one must not be reached.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * limits.max_record_bytes + BLOCK))
    head = next((block for block in blocks if block.text.strip("\r\n")), Block("\n", 1))
    lines = head.lines()
    blank = next((index for index, line in enumerate(lines) if line.strip("\r\n")), 0)
    sample = sample_lines(lines[blank:])
    dialect = find_dialect(sample, delimiters, wanted)
    parsed = _parse(chain((head,), blocks), blank + dialect.skip_lines, dialect, limits)
    names, rows = _header(parsed, dialect, limits, notes)
    samples: dict[str, list[str]] = {}
    body = [row for row in parse_sample(sample, dialect)[dialect.header :] if len(row) == len(names)]
    for index, name in enumerate(names):
        if name in samples:
            notes.say(f"There are two columns named {shorten(name)}; the first was read.")
        samples.setdefault(name, [row[index] for row in body])
    notes.text_field = find_text_field(samples, wanted, notes)
    return _records(rows, names, names.index(notes.text_field), limits)


def _header(
    parsed: Iterator[_Parsed], dialect: Dialect, limits: IngestLimits, notes: Notes
) -> tuple[list[str], Iterator[_Parsed]]:
    """Return the names of the columns, and the rows of data, of which there is at least one."""
    line, first = next((row for row in parsed if isinstance(row[1], str) or not is_blank(row[1])), (1, []))
    if isinstance(first, str):
        raise InvalidFileError(f"The first row cannot be read: {first}", code="invalid_csv", line=line)
    if not first:
        raise InvalidFileError("The file is empty", code="empty_file")
    if len(first) > limits.max_columns:
        message = f"The table has {len(first):,} columns; at most {limits.max_columns:,} are allowed"
        raise InvalidFileError(message, code="invalid_csv", line=line)
    if max(map(len, first)) > limits.max_field_bytes:
        message = f"The first row has a field longer than the {limits.max_field_bytes:,} bytes allowed"
        raise InvalidFileError(message, code="invalid_csv", line=line)
    names = [f"column_{number}" for number in range(1, len(first) + 1)]
    if dialect.header:
        second = next(parsed, None)
        if second is None:
            raise InvalidFileError("The file has a header row and no other", code="empty_file")
        return [cell.strip() or name for cell, name in zip(first, names, strict=True)], chain((second,), parsed)
    notes.say(f"No header row was found; the columns were named {names[0]}, and the first row taken as data.")
    if dialect.delimiter == NO_DELIMITER:
        notes.say("No delimiter was found; each line was read as one text.")
    return names, chain(((line, first),), parsed)


def _records(rows: Iterator[_Parsed], names: list[str], text: int, limits: IngestLimits) -> Iterator[Row]:
    width, most = len(names), limits.max_field_bytes
    for number, (line, fields) in enumerate(rows, 1):
        if isinstance(fields, str):
            if fields is _UNCLOSED:
                raise InvalidFileError(fields, code="invalid_csv", row=number, line=line)
            yield Rejection(number, "invalid_csv", f"line {line}: {fields}")
        elif len(fields) != width:
            hint = "; a text with the delimiter in it must stand in quotes" if len(fields) > width else ""
            details = f"line {line}: expected {width} fields, got {len(fields)}{hint}"
            yield Rejection(number, "invalid_csv", details)
        elif max(map(len, fields)) * 4 > most and (name := _too_long(names, fields, most)):
            details = f"line {line}: the field {shorten(name)} is longer than the {most:,} bytes allowed"
            yield Rejection(number, "text_too_long", details)
        else:
            yield Record(number, fields[text])


def _too_long(names: list[str], fields: list[str], most: int) -> str | None:
    return next((name for name, value in zip(names, fields, strict=True) if len(value.encode()) > most), None)


def _parse(blocks: Iterator[Block], skip: int, dialect: Dialect, limits: IngestLimits) -> Iterator[_Parsed]:
    """Parse what comes after so many lines; after a row with broken quotes go on with the line after its first."""
    lines: list[str] = []
    number = begin = 0  # the number of the first of the lines, and the index of the one in which the next row begins
    for block in blocks:
        del lines[:begin]  # what is left is a row that goes on in this block
        number = block.line - len(lines)
        _check(block, sum(map(len, lines)), number, dialect, limits)
        lines += block.lines()
        begin, skip = skip, 0
        while begin < len(lines):
            start = begin
            reader = csv.reader(map(lines.__getitem__, range(start, len(lines))), strict=True, **dialect.options)
            try:
                for fields in reader:
                    if fields:
                        yield number + begin, fields
                    begin = start + reader.line_num
            except csv.Error as error:
                if "unexpected end" in str(error):
                    break
                # A quote that is never closed swallows the rows after it up to the next quote: give them back.
                yield number + begin, _MISQUOTED
                begin += 1
    if begin < len(lines):
        *_, last = next(csv.reader(lines[begin:], **dialect.options))
        yield number + len(lines) - max(1, len(split_lines(last))), _UNCLOSED


def _check(block: Block, kept: int, begin: int, dialect: Dialect, limits: IngestLimits) -> None:
    """Refuse what no row may hold, before it is parsed."""
    block.refuse_nul("invalid_csv")
    if block.overlong or kept > limits.max_record_bytes:
        message = f"A row is longer than the {limits.max_record_bytes:,} bytes allowed; is a closing quote missing?"
        raise InvalidFileError(message, code="invalid_csv", line=block.line if block.overlong else begin)
    # A line of millions of fields would take a hundred times its size in memory.
    most = limits.max_field_bytes + limits.max_columns
    if len(block.text) > most and block.text.count(dialect.delimiter) > most:
        for number, line in enumerate(block.lines(), block.line):
            if line.count(dialect.delimiter) > most:
                message = f"A row has more than the {limits.max_columns:,} columns allowed"
                raise InvalidFileError(message, code="invalid_csv", line=number)
