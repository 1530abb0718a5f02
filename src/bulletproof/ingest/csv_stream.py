"""The rows of a CSV file, one by one, however long it is."""

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain

from bulletproof.errors import InvalidFileError
from bulletproof.ingest.csv_dialect import NO_DELIMITER, find_dialect, is_blank, parse_sample, sample_lines
from bulletproof.ingest.encoding import Block
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits, Record, Rejection, Row, shorten
from bulletproof.ingest.text_field import find_text_field

_BLANK = frozenset(("\n", "\r\n", "\r"))
_CLOSING = {
    None: re.compile(r'(?:[^"]|"")*+"(?!")', re.DOTALL),
    "\\": re.compile(r'(?:[^"\\]|\\.|"")*+"(?!")', re.DOTALL),
}


class _Lines:
    """The lines of a file; those since ``mark`` are kept, so that reading can go back to them.

    ``number`` is the number of the line given last.
    """

    def __init__(self, blocks: Iterator[Block], limits: IngestLimits) -> None:
        self._blocks = blocks
        self._limits = limits
        self._lines: list[str] = []
        self._index = 0
        self._first = 1
        self.delimiter = NO_DELIMITER
        self.mark = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        index = self._index
        try:
            line = self._lines[index]
        except IndexError:
            self._load()
            index = self._index
            line = self._lines[index]
        self._index = index + 1
        return line

    @property
    def number(self) -> int:
        return self._first + self._index - 1

    def ahead(self) -> list[str]:
        """Go past blank lines, between two rows, and return the lines at hand: none at the end of the file alone."""
        while True:
            self.skip_blank()
            if self._index < len(self._lines):
                return self._lines[self._index :]
            try:
                self._load()
            except StopIteration:
                return []

    def skip_blank(self) -> None:
        """Go past the blank lines at hand, between two rows."""
        lines, end = self._lines, len(self._lines)
        self._index = next((index for index in range(self._index, end) if lines[index] not in _BLANK), end)
        self.keep_from_here()

    def keep_from_here(self) -> None:
        self.mark = self._first + self._index - 1

    def since_mark(self) -> list[str]:
        return self._lines[self.mark + 1 - self._first : self._index]

    def go_back(self, number: int) -> None:
        """Give the line after ``number`` next."""
        self._index = number + 1 - self._first

    def _load(self) -> None:
        block = next(self._blocks)
        limits = self._limits
        kept = self._lines[self.mark + 1 - self._first :]
        if block.overlong or sum(map(len, kept)) > limits.max_record_bytes:
            raise InvalidFileError(
                f"A row is longer than the {limits.max_record_bytes:,} bytes allowed; is a closing quote missing?",
                code="invalid_csv",
                line=block.line if block.overlong else self.mark + 1,
            )
        lines = io.StringIO(block.text, newline="").readlines()
        self._check(block, lines)
        self._first = block.line - len(kept)
        self._index = len(kept)
        self._lines = kept + lines

    def _check(self, block: Block, lines: list[str]) -> None:
        if "\0" in block.text:
            broken = next(index for index, line in enumerate(lines) if "\0" in line)
            raise InvalidFileError(
                "There is a NUL byte in the file; CSV files hold none",
                code="invalid_csv",
                hint="Export the table again as UTF-8 CSV: this file is damaged, or UTF-16 without a byte order mark.",
                line=block.line + broken,
                column=lines[broken].index("\0") + 1,
            )
        # A line of millions of fields would take a hundred times its size in memory.
        most = self._limits.max_field_bytes + self._limits.max_columns
        if max(map(len, lines)) <= most:
            return
        for index, line in enumerate(lines):
            if line.count(self.delimiter) > most:
                raise InvalidFileError(
                    f"A row has more than the {self._limits.max_columns:,} columns allowed",
                    code="invalid_csv",
                    line=block.line + index,
                )


class CsvFile:
    """The rows of a table, with the text column found.

    Args:
        blocks: The text of the file in whole lines.
        delimiters: Those that come into question.
        wanted: The text field that the caller named.
        limits: Columns, field and record sizes.
        notes: Where warnings go.

    Raises:
        InvalidFileError: The head of the file is broken, empty, or has no text column.
    """

    def __init__(
        self,
        blocks: Iterator[Block],
        delimiters: tuple[str, ...],
        wanted: str | None,
        limits: IngestLimits,
        notes: Notes,
    ) -> None:
        # The csv module has one limit for the whole process; ours is looked at row by row, so it must not be lower.
        csv.field_size_limit(max(csv.field_size_limit(), limits.max_field_bytes))
        self._limits = limits
        self._notes = notes
        self._lines = _Lines(blocks, limits)
        sample = sample_lines(self._lines.ahead())
        self.dialect = find_dialect(sample, delimiters, wanted)
        self._lines.delimiter = self.dialect.delimiter
        for _ in range(self.dialect.skip_lines):
            next(self._lines)
        self._lines.keep_from_here()
        self._first: list[list[str]] = []
        self.fields = self._read_header()
        self.text_field = self._find_text(parse_sample(sample, self.dialect), wanted)
        self._index = self.fields.index(self.text_field)

    def _read_header(self) -> list[str]:
        try:
            first = next((row for row in self._reader() if not is_blank(row)), None)
        except csv.Error as error:
            raise InvalidFileError(
                f"The first row cannot be read: {error}", code="invalid_csv", line=self._lines.mark + 1
            ) from error
        if first is None:
            raise InvalidFileError("The file is empty", code="empty_file")
        if len(first) > self._limits.max_columns:
            raise InvalidFileError(
                f"The table has {len(first):,} columns; at most {self._limits.max_columns:,} are allowed",
                code="invalid_csv",
                line=self._lines.number,
            )
        self._lines.keep_from_here()
        if self.dialect.header:
            return [cell.strip() or f"column_{number}" for number, cell in enumerate(first, 1)]
        self._first = [first]
        names = [f"column_{number}" for number in range(1, len(first) + 1)]
        self._notes.say(f"No header row was found; the columns were named {names[0]}, and the first row taken as data.")
        if self.dialect.delimiter == NO_DELIMITER:
            self._notes.say("No delimiter was found; each line was read as one text.")
        return names

    def _find_text(self, rows: list[list[str]], wanted: str | None) -> str:
        body = [row for row in rows[self.dialect.header :] if len(row) == len(self.fields)]
        samples: dict[str, list[str]] = {}
        for index, name in enumerate(self.fields):
            if name in samples:
                self._notes.say(f"There are two columns named {shorten(name)}; the first was read.")
            samples.setdefault(name, [row[index] for row in body])
        if not body and not self._first and not self._lines.ahead():
            raise InvalidFileError("The file has a header row and no other", code="empty_file")
        choice = find_text_field(samples, wanted)
        if choice.how == "content" and len(self.fields) > 1:
            self._notes.say(
                f"The text was taken from the column {shorten(choice.name)}, which has the longest texts; "
                "name another with text_field."
            )
        return choice.name

    def _reader(self) -> "Iterator[list[str]]":
        dialect = self.dialect
        return csv.reader(
            self._lines,
            delimiter=dialect.delimiter,
            escapechar=dialect.escape,
            skipinitialspace=dialect.skip_spaces,
            strict=True,
        )

    def rows(self) -> Iterator[Row]:
        """Yield each row of the table as a record or a rejection.

        Raises:
            InvalidFileError: A quote is never closed, or there is a NUL byte; names the line.
        """
        width, index, lines = len(self.fields), self._index, self._lines
        long_field = self._limits.max_field_bytes // 4
        number = 0
        first, self._first = self._first, []
        while True:
            reader = chain(first, self._reader())
            first = []
            try:
                for fields in reader:
                    if not fields:
                        lines.skip_blank()
                        continue
                    number += 1
                    if len(fields) != width:
                        yield self._ragged(number, len(fields))
                    elif max(map(len, fields)) > long_field and (name := self._too_long(fields)):
                        yield self._too_long_row(number, f"the field {shorten(name)}")
                    else:
                        yield Record(number, fields[index])
                    lines.keep_from_here()
                return
            except csv.Error as error:
                number += 1
                yield self._recover(number, error)

    def _ragged(self, number: int, count: int) -> Rejection:
        line = self._lines.mark + 1
        width = len(self.fields)
        hint = ""
        if count > width:
            hint = "; a text with the delimiter in it must stand in quotes"
        return Rejection(number, "invalid_csv", f"line {line}: expected {width} fields, got {count}{hint}")

    def _too_long(self, fields: list[str]) -> str | None:
        limit = self._limits.max_field_bytes
        return next(
            (name for name, value in zip(self.fields, fields, strict=True) if len(value.encode()) > limit), None
        )

    def _too_long_row(self, number: int, what: str) -> Rejection:
        line, limit = self._lines.mark + 1, self._limits.max_field_bytes
        return Rejection(number, "text_too_long", f"line {line}: {what} is longer than the {limit:,} bytes allowed")

    def _recover(self, number: int, error: csv.Error) -> Rejection:
        """Say what is wrong with the row that begins at the mark, and go to where the next one begins."""
        lines = self._lines
        begin = lines.mark + 1
        message = str(error)
        if "unexpected end" in message:
            raise self._unclosed(number) from error
        if "field larger" in message:
            rejection = self._too_long_row(number, "a field")
            self._skip_row(number)
            return rejection
        # A quote that is never closed swallows the rows after it up to the next quote: give them back.
        lines.go_back(begin)
        lines.keep_from_here()
        return Rejection(
            number, "invalid_csv", f"line {begin}: a quote is not closed, or a quote inside a text is not doubled"
        )

    def _unclosed(self, number: int) -> InvalidFileError:
        begin, inside = self._lines.mark + 1, False
        for line_number, line in enumerate(self._lines.since_mark(), self._lines.mark + 1):
            was, inside = inside, self._ends_inside(line, inside)
            if inside and (not was or not self._ends_inside(line, was, stop=True)):
                begin = line_number
        return InvalidFileError(
            "A quote that begins in this line is never closed", code="invalid_csv", row=number, line=begin
        )

    def _skip_row(self, number: int) -> None:
        lines = self._lines
        inside = False
        for line in lines.since_mark():
            inside = self._ends_inside(line, inside)
        begin = lines.mark + 1
        while inside:
            lines.keep_from_here()
            try:
                inside = self._ends_inside(next(lines), inside)
            except StopIteration:
                raise InvalidFileError(
                    "A quote that begins in this line is never closed", code="invalid_csv", row=number, line=begin
                ) from None
        lines.keep_from_here()

    def _ends_inside(self, line: str, inside: bool, *, stop: bool = False) -> bool:
        """Say whether a quoted field is open at the end of a line, given whether one is at its beginning."""
        closing, delimiter = _CLOSING[self.dialect.escape], self.dialect.delimiter
        pos = 0
        if not inside and line.startswith('"'):
            inside, pos = True, 1
        while True:
            if inside:
                closed = closing.match(line, pos)
                if closed is None:
                    return True
                if stop:
                    return False
                pos, inside = closed.end(), False
            pos = line.find(delimiter, pos) + 1
            if not pos:
                return False
            if line.startswith('"', pos):
                inside, pos = True, pos + 1
