"""How a CSV file is written: its delimiter, its quoting, whether its first row names the columns."""

import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from bulletproof.ingest.text_field import alike, tells_header

DELIMITERS = (",", ";", "\t", "|")
# Stands for "no delimiter": a character that no text has.
NO_DELIMITER = "\x1f"
_SAMPLE_LINES = 200
_SAMPLE_CHARS = 128 * 1024
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*$', re.IGNORECASE)
_IDENTIFIER = re.compile(r"[^\W\d][\w.\-/%#()]*$")
_NUMBER = re.compile(r"[-+]?[\d.,:/\- ]*\d[\d.,:/\- %]*$")


class Dialect(NamedTuple):
    delimiter: str
    header: bool = False
    escape: str | None = None  # a backslash when quotes inside of texts are escaped by it instead of being doubled
    skip_spaces: bool = False  # whether blanks follow the delimiters
    skip_lines: int = 0  # lines before the first row: Excel's sep=;
    share: float = 1.0  # of the sample's rows with as many fields as the first
    columns: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """What ``csv.reader`` has to be told."""
        return {"delimiter": self.delimiter, "escapechar": self.escape, "skipinitialspace": self.skip_spaces}


def sample_lines(lines: Sequence[str]) -> list[str]:
    """Return the first lines, as many as are needed to tell the dialect."""
    chosen, size = [], 0
    for line in lines[:_SAMPLE_LINES]:
        chosen.append(line[:_SAMPLE_CHARS])
        size += len(line)
        if size > _SAMPLE_CHARS:
            break
    return chosen


def parse_sample(lines: Sequence[str], dialect: Dialect) -> list[list[str]]:
    rows: list[list[str]] = []
    with suppress(csv.Error):
        reader = csv.reader(lines[dialect.skip_lines :], **dialect.options)
        rows.extend(row for row in reader if not is_blank(row))
    return rows


def is_blank(row: Sequence[str]) -> bool:
    """Say whether a row comes from a line with nothing in it."""
    return not any(map(str.strip, row))


def find_dialect(lines: Sequence[str], delimiters: Sequence[str], wanted: str | None = None) -> Dialect:
    """Find out how a file is written from its first lines; a first row that has the field wanted is the header."""
    skip = 0
    first = next((index for index, line in enumerate(lines) if line.strip()), 0)
    if lines and (told := _SEP_LINE.match(lines[first])):
        skip, delimiters = first + 1, (told[1],)
    best: Dialect | None = None
    rank: tuple[float, int] = (0.0, 0)
    for delimiter in delimiters:
        dialect = _quoting(lines, Dialect(delimiter, skip_lines=skip))
        rows = parse_sample(lines, dialect)
        if not rows or len(rows[0]) < 2:
            continue
        share = _share(rows)
        dialect = dialect._replace(header=is_header(rows, wanted), share=share, columns=len(rows[0]))
        is_table = share >= 0.6 or (dialect.header and all(_IDENTIFIER.match(cell) or not cell for cell in rows[0]))
        if is_table and (round(share, 1), len(rows[0])) > rank:
            best, rank = dialect, (round(share, 1), len(rows[0]))
    return best or _single_column(lines, delimiters, skip, wanted)


def _single_column(lines: Sequence[str], delimiters: Sequence[str], skip: int, wanted: str | None) -> Dialect:
    dialect = _quoting(lines, Dialect(delimiters[0], skip_lines=skip))
    rows = parse_sample(lines, dialect)
    header = is_header(rows, wanted)
    ragged = sum(len(row) > 1 for row in rows)
    if header and len(rows[0]) == 1 and ragged * 2 <= len(rows):
        return dialect._replace(header=True)
    # Commas are then a part of the texts.
    return dialect._replace(delimiter=NO_DELIMITER, header=header and len(rows[0]) == 1)


def _quoting(lines: Sequence[str], dialect: Dialect) -> Dialect:
    text = "".join(lines)
    if f'{dialect.delimiter} "' in text:
        spaced = dialect._replace(skip_spaces=True)
        better = _share(parse_sample(lines, spaced)) - _share(parse_sample(lines, dialect))
        if better > 0 or (better == 0 and _orderly(lines, spaced) >= _orderly(lines, dialect)):
            dialect = spaced
    if '\\"' in text:
        escaped = dialect._replace(escape="\\")
        if _orderly(lines, escaped) > _orderly(lines, dialect):
            dialect = escaped
    return dialect


def _orderly(lines: Sequence[str], dialect: Dialect) -> int:
    """Return the number of lines before the first row whose quotes are not in order."""
    orderly = 0
    with suppress(csv.Error):
        reader = csv.reader(lines[dialect.skip_lines :], strict=True, **dialect.options)
        for _ in reader:
            orderly = reader.line_num
    return orderly


def _share(rows: Sequence[Sequence[str]]) -> float:
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows) if rows else 0.0


def is_header(rows: Sequence[Sequence[str]], wanted: str | None = None) -> bool:
    """Say whether the first row names the columns."""
    if not rows:
        return False
    first = [cell.strip() for cell in rows[0]]
    if wanted is not None and alike(first, wanted):
        return True
    filled = [cell for cell in first if cell]
    if not filled or any(_NUMBER.match(cell) for cell in filled) or any(len(cell) > 100 for cell in filled):
        return False
    if tells_header(filled):
        return True
    if len(first) == 1:
        return "_" in first[0] and _IDENTIFIER.match(first[0]) is not None
    if any(cell.endswith((".", "!", "?", "…")) or len(cell.split()) > 4 for cell in filled):
        return False
    body = [row for row in rows[1:] if len(row) == len(first)]
    columns = [[row[index].strip() for row in body] for index in range(len(first))]
    if any(cell and cell in column for cell, column in zip(first, columns, strict=True)):
        return False  # a value that comes again is no name
    numeric = any(column and all(map(_NUMBER.match, column)) for column in columns)
    return numeric or all(_IDENTIFIER.match(cell) or len(cell.split()) <= 3 for cell in filled)
