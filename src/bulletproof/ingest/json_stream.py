"""The records of a JSON document, one by one, however long it is."""

import codecs
import re
from collections.abc import Generator, Iterator
from typing import Any, TypeAlias

from bulletproof.errors import FileTooLargeError, InvalidFileError
from bulletproof.ingest.bytestream import ByteSource
from bulletproof.ingest.encoding import BLOCK, read_full
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits, listing, shorten
from bulletproof.ingest.strict_json import Flaw, StrictDecoder
from bulletproof.ingest.text_field import missing_field, named

_SPACE = re.compile(r"[ \t\n\r]*")
# Within so few characters of the end of what was read, a number or a literal may go on.
_SLACK = 32
# Texts held back in characters, in case an array of objects follows.
_HELD = 2**20

_END = object()
_Sized: TypeAlias = tuple[Any, int]


class JsonCursor:
    """A place in a JSON document that is read as far as needed.

    Args:
        source: Bytes, UTF-8, without a byte order mark.
        limits: ``max_record_bytes`` bounds what is held in memory.
        notes: Where warnings go.
        offset: Bytes before the first one of the source; None when its bytes are not those of the file.
        block: Bytes to read at a time.
    """

    def __init__(
        self, source: ByteSource, limits: IngestLimits, notes: Notes, *, offset: int | None = 0, block: int = BLOCK
    ) -> None:
        self._source = source
        self._limits = limits
        self._notes = notes
        self._block = block
        self._decoder = StrictDecoder(limits)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("strict")
        self._offset = offset
        self._bytes = 0
        self._lines = 0
        self._column = 0
        self._at_end = False
        self.text = ""
        self.pos = 0
        self.size = 0

    def peek(self) -> str:
        """Skip whitespace and return the next character, empty at the end."""
        while True:
            match = _SPACE.match(self.text, self.pos)
            assert match is not None
            self.pos = match.end()
            if self.pos < len(self.text):
                return self.text[self.pos]
            if not self._more():
                return ""

    def value(self, depth: int, row: int | None = None) -> Any:
        """Read the next value; ``size`` is its length in characters then.

        Args:
            depth: Arrays and objects around it.
            row: The number of the record it is, for messages.

        Raises:
            InvalidFileError: The document is broken here; names line, column and byte.
            FileTooLargeError: The value is larger than ``max_record_bytes``.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.decode(self.text, self.pos, depth)
            except Flaw as flaw:
                if self._at_end or flaw.end < len(self.text) - _SLACK:
                    raise self.error(flaw.message, flaw.pos, row) from None
            else:
                if self._at_end or end < len(self.text) - _SLACK:
                    break
            self._more(row)
        if self._decoder.duplicates:
            self.warn_duplicates(self._decoder.duplicates[0])
        self.size = end - self.pos
        self.pos = end
        return value

    def warn_duplicates(self, name: str) -> None:
        """Tell the user that a field is given more than once."""
        self._notes.count(
            "duplicates", f"{{n}} record(s) give a field twice (such as {shorten(name)}); the last counts."
        )

    def error(self, message: str, pos: int | None = None, row: int | None = None) -> InvalidFileError:
        """Return the error for a place in the text, by default the current one."""
        pos = self.pos if pos is None else min(pos, len(self.text))
        if pos == len(self.text) and self._at_end:
            message = f"The document ends too early. {message}"
        newline = self.text.rfind("\n", 0, pos)
        return InvalidFileError(
            message,
            code="invalid_json",
            row=row,
            line=self._lines + self.text.count("\n", 0, pos) + 1,
            column=pos - newline if newline >= 0 else self._column + pos + 1,
            byte=None if self._offset is None else self._offset + self._bytes + len(self.text[:pos].encode()),
        )

    def _more(self, row: int | None = None) -> bool:
        if self._at_end:
            return False
        done, rest = self.text[: self.pos], self.text[self.pos :]
        if len(rest) > self._limits.max_record_bytes:
            raise FileTooLargeError(
                f"A single value is larger than the {self._limits.max_record_bytes:,} bytes allowed",
                row=row,
                line=self.error("").where["line"],
            )
        self._bytes += len(done.encode())
        self._lines += done.count("\n")
        newline = done.rfind("\n")
        self._column = self.pos - newline - 1 if newline >= 0 else self._column + self.pos
        # Reading as much again as is held keeps the work for a long value linear.
        data = read_full(self._source, max(self._block, len(rest)))
        self._at_end = not data
        self.pos = 0
        try:
            self.text = rest + self._utf8.decode(data, final=self._at_end)
        except UnicodeDecodeError as error:
            self.text = rest + error.object[: error.start].decode()
            broken = self.error("", len(self.text), row)
            raise InvalidFileError(
                f"A byte is not valid UTF-8 ({error.reason})", code="invalid_encoding", **broken.where
            ) from error
        return not self._at_end


def elements(cursor: JsonCursor, depth: int, *, rows: bool = False) -> Iterator[Any]:
    """Yield the elements of the array that the cursor stands before.

    Args:
        cursor: Stands at ``[``; behind the array at the end.
        depth: Arrays and objects around the elements, this array included.
        rows: Whether the elements are the records of the file, for messages.
    """
    cursor.pos += 1
    if cursor.peek() == "]":
        cursor.pos += 1
        return
    number = 0
    while True:
        number += 1
        yield cursor.value(depth, number if rows else None)
        char = cursor.peek()
        if char != "," and char != "]":
            raise cursor.error("Expected ',' or ']' after an element", row=number if rows else None)
        cursor.pos += 1
        if char == "]":
            return


class JsonDocument:
    """Finds the array of records in a document and reads it.

    Records are the elements of the array at the top; or, in an object, those of its ``X`` or of its first array of
    objects. An array of texts is taken when there is no array of objects, or when it is the first that is larger than
    what is held in memory. An object with a text and no array is one record.

    Args:
        cursor: The document.
        limits: Bounds what is held.
        notes: Where warnings go.
        text_field: The field asked for; arrays whose objects lack it are passed over.
    """

    # Arrays of texts that describe the records instead of being them.
    NOT_RECORDS = frozenset(("y", "columns", "fields", "header", "headers", "names", "index", "labels", "classes"))

    def __init__(self, cursor: JsonCursor, limits: IngestLimits, notes: Notes, text_field: str | None) -> None:
        self._cursor = cursor
        self._limits = limits
        self._notes = notes
        self._text_field = text_field
        self._kinds: dict[str, str] = {}
        self._chosen: str | None = None
        self._ignored: list[str] = []

    def records(self) -> Iterator[_Sized]:
        """Yield each record and its size in characters.

        Raises:
            InvalidFileError: The document is broken, empty or holds no records.
        """
        cursor = self._cursor
        first = cursor.peek()
        if not first:
            raise InvalidFileError("The file is empty", code="empty_file")
        if first == "[":
            empty = True
            for value in elements(cursor, 1, rows=True):
                empty = False
                yield value, cursor.size
            if empty:
                self._end()
                raise InvalidFileError("The file holds an empty array, no records", code="empty_file")
        elif first == "{":
            yield from self._object()
        else:
            value = cursor.value(0)
            self._end()
            raise InvalidFileError(
                f"The top level is {kind_of(value)}; expected an array of objects or texts, or an object that holds one"
            )
        self._end()

    def _end(self) -> None:
        if self._cursor.peek():
            hint = " (JSON lines belong in a file named .jsonl)" if self._cursor.text[self._cursor.pos] in "[{" else ""
            raise self._cursor.error(f"There is something behind the end of the document{hint}")
        if self._ignored:
            self._notes.say(f"Records were read from {shorten(self._chosen)}; not from {listing(self._ignored)}.")

    def _object(self) -> Iterator[_Sized]:
        held: tuple[str, list[_Sized]] | None = None
        texts: dict[str, str] = {}
        for name in self._members():
            if self._cursor.peek() == "[":
                candidate = yield from self._array(name)
                if candidate and held:
                    self._ignored.append(name)
                elif candidate:
                    held = (name, candidate)
                continue
            value = self._cursor.value(1)
            self._kinds[name] = kind_of(value)
            if isinstance(value, str) and len(value) <= self._limits.max_field_bytes and len(texts) < 100:
                texts[name] = value
        if self._chosen is not None:
            if held:
                self._ignored.append(held[0])
        elif self._single(texts):
            self._notes.say("The file holds a single object; it was read as one record.")
            yield texts, sum(map(len, texts.values()))
        elif held:
            self._chosen = held[0]
            yield from held[1]
        else:
            self._end()
            raise self._nothing()

    def _members(self) -> Iterator[str]:
        """Yield the name of each member; the cursor stands behind the colon, and has to be behind the value after."""
        cursor = self._cursor
        cursor.pos += 1
        if cursor.peek() == "}":
            cursor.pos += 1
            return
        while True:
            yield self._name()
            char = cursor.peek()
            if char not in (",", "}"):
                raise cursor.error("Expected ',' or '}' after a value")
            cursor.pos += 1
            if char == "}":
                return
            if cursor.peek() == "}":
                raise cursor.error("There is a comma before the closing bracket")

    def _name(self) -> str:
        cursor = self._cursor
        if cursor.peek() != '"':
            raise cursor.error("Expected a field name in double quotes")
        name = str(cursor.value(1))
        if cursor.peek() != ":":
            raise cursor.error("Expected ':' after a field name")
        cursor.pos += 1
        if name in self._kinds:
            if name == self._chosen:
                raise cursor.error(f"The array {shorten(name)} is given twice")
            cursor.warn_duplicates(name)
        elif len(self._kinds) >= self._limits.max_columns:
            raise cursor.error(f"An object has more than the {self._limits.max_columns:,} fields allowed")
        self._kinds[name] = ""
        return name

    def _array(self, name: str) -> Generator[_Sized, None, list[_Sized]]:
        """Yield the elements if this is the array of records; return them if they are texts that may be it."""
        values = elements(self._cursor, 2, rows=True)
        head: list[_Sized] = []
        size = 0
        for value in values:
            head.append((value, self._cursor.size))
            size += self._cursor.size + 8
            if isinstance(value, dict) or len(head) == 20 or size > _HELD:
                break
        self._kinds[name] = f"array of {kind_of(head[0][0], plural=True)}" if head else "empty array"
        objects = [value for value, _ in head if isinstance(value, dict)]
        wanted = bool(objects) and (self._text_field is None or any(self._has_field(value) for value in objects))
        texts = not objects and name.casefold() not in self.NOT_RECORDS and any(isinstance(v, str) for v, _ in head)
        if self._chosen is not None or not (wanted or texts):
            if objects or texts:
                self._ignored.append(name)
            for _ in values:
                pass
            return []
        while texts and name != "X" and size <= _HELD:
            value = next(values, _END)
            if value is _END:
                return head
            head.append((value, self._cursor.size))
            size += self._cursor.size + 8
        self._chosen = name
        yield from head
        for value in values:
            yield value, self._cursor.size
        return []

    def _single(self, texts: dict[str, str]) -> str | None:
        if self._text_field is not None:
            return self._text_field if self._has_field(texts) else None
        return named(list(texts))

    def _has_field(self, fields: dict[str, Any]) -> bool:
        wanted = (self._text_field or "").strip().casefold()
        return any(name.strip().casefold() == wanted for name in fields)

    def _nothing(self) -> InvalidFileError:
        kinds = self._kinds
        if not kinds:
            return InvalidFileError("The file holds an empty object, no records", code="empty_file")
        if all(kind == "empty array" for kind in kinds.values()):
            return InvalidFileError(f"The file holds no records: {listing(list(kinds))} is empty", code="empty_file")
        found = ", ".join(f"{shorten(name)} ({kind})" for name, kind in list(kinds.items())[:20])
        if self._text_field is not None:
            return missing_field(self._text_field, list(kinds))
        hint = None
        if "X" in kinds and "y" in kinds:
            hint = "Put texts into X; for rows of numbers use POST /predict, or load_training_data in Python."
        return InvalidFileError(
            f"There is no text in the file: no field holds an array of objects or texts. The fields are {found}",
            code="missing_field",
            hint=hint,
        )


def kind_of(value: Any, *, plural: bool = False) -> str:
    """Return what a JSON value is, in words.

    Example:
        >>> kind_of(1.5), kind_of(["a"]), kind_of("a", plural=True)
        ('a number', 'an array', 'texts')
    """
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    one = names.get(type(value), "a number")
    return one if not plural else f"{one.split()[-1]}s" if " or " not in one and one != "null" else one
