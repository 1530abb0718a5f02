"""The records of a JSON document, one by one, however long it is."""

import codecs
import re
from collections.abc import Generator, Iterator
from dataclasses import InitVar, dataclass, field
from typing import Any, TypeAlias

from bulletproof.errors import FileTooLargeError, InvalidFileError
from bulletproof.ingest.bytestream import ByteSource
from bulletproof.ingest.encoding import BLOCK
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import IngestLimits, listing, shorten
from bulletproof.ingest.strict_json import Flaw, StrictDecoder
from bulletproof.ingest.text_field import alike, missing_field, named

_SPACE = re.compile(r"[ \t\n\r]*")
# Within so few characters of the end of what was read, a number or a literal may go on.
_SLACK = 32
_LOOK = 1024  # entries of arrays and objects between two looks at how many there are
# Texts held back in characters, in case an array of objects follows.
_HELD = 2**20
# So many elements tell what an array holds.
_TELLING = 20
# Arrays of texts that describe the records instead of being them.
_NOT_RECORDS = frozenset(("y", "columns", "fields", "header", "headers", "names", "index", "labels", "classes"))

_Sized: TypeAlias = tuple[Any, int]


@dataclass(eq=False)
class JsonCursor:
    """A place in a JSON document that is read as far as needed; ``size`` is the length of the value read last.

    ``offset`` is where in the file its bytes begin, None when they are not those of the file.
    """

    _source: ByteSource
    _limits: IngestLimits
    _notes: Notes
    offset: int | None = 0
    block: int = BLOCK
    constants: InitVar[bool] = False
    text: str = ""
    pos: int = 0
    size: int = 0
    _utf8: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8"))
    _bytes: int = 0
    _lines: int = 0
    _column: int = 0
    _entries: int = 0
    _at_end: bool = False

    def __post_init__(self, constants: bool) -> None:
        self.decoder = StrictDecoder(self._limits, constants=constants)

    def peek(self) -> str:
        """Skip whitespace and return the next character, empty at the end."""
        char = self.text[self.pos : self.pos + 1]
        if char > " ":
            return char
        while True:
            match = _SPACE.match(self.text, self.pos)
            assert match is not None
            self.pos = match.end()
            if self.pos < len(self.text):
                return self.text[self.pos]
            if self._at_end:
                return ""
            self._more()

    def value(self, depth: int, row: int | None = None) -> Any:
        """Read the next value, inside of ``depth`` arrays and objects; the row is named in errors."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.decode(self.text, self.pos, depth)
            except Flaw as flaw:
                if self._at_end or flaw.end < len(self.text) - _SLACK:
                    raise self.error(flaw.message, flaw.pos, row) from None
            else:
                if self._at_end or end < len(self.text) - _SLACK:
                    break
            self._more(row)
        if self.decoder.duplicates:
            self._notes.count_duplicate(self.decoder.duplicates[0])
        self.size = end - self.pos
        self.pos = end
        return value

    def items(self, close: str) -> Iterator[int | None]:
        """Yield before each element, which has to be read then, its number; or before each field, which has none."""
        self.pos += 1
        if self.peek() == close:
            self.pos += 1
            return
        number = 0
        while True:
            number += 1
            row = number if close == "]" else None
            yield row
            self._entries += 1
            if not self._entries % _LOOK:
                self._notes.check_count(self._entries)
            char = self.peek()
            if char not in (",", close):
                raise self.error(f"Expected ',' or '{close}' after a value", row=row)
            self.pos += 1
            if char == close:
                return

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
            byte=None if self.offset is None else self.offset + self._bytes + len(self.text[:pos].encode()),
        )

    def _more(self, row: int | None = None) -> None:
        done, rest = self.text[: self.pos], self.text[self.pos :]
        limit = self._limits.max_record_bytes
        if len(rest) > limit:
            raise FileTooLargeError(
                f"A single value is larger than the {limit:,} bytes allowed",
                row=row,
                line=self.error("").where["line"],
            )
        self._bytes += len(done.encode())
        self._lines += done.count("\n")
        newline = done.rfind("\n")
        self._column = self.pos - newline - 1 if newline >= 0 else self._column + self.pos
        # Reading as much again as is held keeps the work for a long value linear.
        size = min(max(self.block, len(rest)), limit + 1 - len(rest))
        data = self._source.read(size)
        self._at_end = len(data) < size
        self.pos = 0
        try:
            self.text = rest + self._utf8.decode(data, final=self._at_end)
        except UnicodeDecodeError as error:
            self.text = rest + error.object[: error.start].decode()
            broken = self.error("", len(self.text), row)
            raise InvalidFileError(
                f"A byte is not valid UTF-8 ({error.reason})", code="invalid_encoding", **broken.where
            ) from error


def elements(cursor: JsonCursor, depth: int) -> Iterator[Any]:
    """Yield the elements, which are at ``depth``, of the array that the cursor stands before."""
    for row in cursor.items("]"):
        yield cursor.value(depth, row)


@dataclass(slots=True, eq=False)
class JsonDocument:
    """Finds the array of records in a document and reads it.

    Records are the elements of the array at the top; or, in an object, those of its ``X`` or of its first array of
    objects that have the text field asked for. An array of texts is taken when there is no array of objects, or when it
    is the first that is larger than what is held in memory. An object with a text and no array is one record.
    """

    cursor: JsonCursor
    limits: IngestLimits
    notes: Notes
    text_field: str | None
    _kinds: dict[str, str] = field(default_factory=dict)
    _chosen: str | None = None
    _ignored: list[str] = field(default_factory=list)

    def records(self) -> Iterator[_Sized]:
        """Yield each record and its size in characters."""
        cursor = self.cursor
        first = cursor.peek()
        if not first:
            raise InvalidFileError("The file is empty", code="empty_file")
        if first == "[":
            empty = True
            for value in elements(cursor, 1):
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
        if self.cursor.peek():
            hint = " (JSON lines belong in a file named .jsonl)" if self.cursor.text[self.cursor.pos] in "[{" else ""
            raise self.cursor.error(f"There is something behind the end of the document{hint}")
        if self._ignored:
            chosen = "the object itself" if self._chosen is None else shorten(self._chosen)
            self.notes.say(f"Records were read from {chosen}; not from {listing(self._ignored)}.")

    def _object(self) -> Iterator[_Sized]:
        held: tuple[str, list[_Sized]] | None = None
        texts: dict[str, str] = {}
        for name in self._names():
            if self.cursor.peek() == "[":
                candidate = yield from self._array(name)
                if candidate and held:
                    self._ignored.append(name)
                elif candidate:
                    held = (name, candidate)
                continue
            value = self.cursor.value(1)
            self._kinds[name] = kind_of(value)
            if isinstance(value, str) and len(value) <= self.limits.max_field_bytes and len(texts) < 100:
                texts[name] = value
        if self._chosen is not None:
            if held:
                self._ignored.append(held[0])
        elif self._is_record(texts):
            self.notes.say("The file holds a single object; it was read as one record.")
            yield texts, sum(map(len, texts.values()))
        elif held:
            self._chosen = held[0]
            yield from held[1]
        else:
            self._end()
            raise self._nothing()

    def _names(self) -> Iterator[str]:
        """Yield the name of each field, when the cursor stands before its value, which has to be read then."""
        cursor = self.cursor
        for _ in cursor.items("}"):
            char = cursor.peek()
            if char == "}":
                raise cursor.error("There is a comma before the closing bracket")
            if char != '"':
                raise cursor.error("Expected a field name in double quotes")
            name = str(cursor.value(1))
            if cursor.peek() != ":":
                raise cursor.error("Expected ':' after a field name")
            cursor.pos += 1
            if name in self._kinds:
                if name == self._chosen:
                    raise cursor.error(f"The array {shorten(name)} is given twice")
                self.notes.count_duplicate(name)
            elif len(self._kinds) >= self.limits.max_columns:
                raise cursor.error(f"An object has more than the {self.limits.max_columns:,} fields allowed")
            self._kinds[name] = ""
            yield name

    def _array(self, name: str) -> Generator[_Sized, None, list[_Sized]]:
        """Yield the elements if this is the array of records; return them if they are texts that may be it."""
        values = elements(self.cursor, 2)
        may_wait = self._chosen is None and name != "X" and name.casefold() not in _NOT_RECORDS
        head: list[_Sized] = []
        size = 0
        objects = texts = whole = False
        for value in values:
            head.append((value, self.cursor.size))
            size += self.cursor.size + 8
            objects = isinstance(value, dict) and len(head) <= _TELLING
            texts = texts or isinstance(value, str)
            if objects or size > _HELD or (len(head) >= _TELLING and not (texts and may_wait)):
                break
        else:
            whole = True
        self._kinds[name] = f"array of {kind_of(head[0][0], plural=True)}" if head else "empty array"
        texts = texts and not objects and name.casefold() not in _NOT_RECORDS
        wanted = objects and (self.text_field is None or bool(alike(head[-1][0], self.text_field)))
        if self._chosen is not None or not (wanted or texts):
            if objects or texts:
                self._ignored.append(name)
            for _ in values:
                pass
            return []
        if texts and whole and may_wait:
            return head
        self._chosen = name
        yield from head
        for value in values:
            yield value, self.cursor.size
        return []

    def _is_record(self, texts: dict[str, str]) -> bool:
        return bool(named(list(texts)) if self.text_field is None else alike(texts, self.text_field))

    def _nothing(self) -> InvalidFileError:
        kinds = self._kinds
        if not kinds:
            return InvalidFileError("The file holds an empty object, no records", code="empty_file")
        if all(kind == "empty array" for kind in kinds.values()):
            return InvalidFileError(f"The file holds no records: {listing(list(kinds))} is empty", code="empty_file")
        found = ", ".join(f"{shorten(name)} ({kind})" for name, kind in list(kinds.items())[:20])
        if self.text_field is not None:
            return missing_field(self.text_field, list(kinds))
        hint = None
        if "X" in kinds and "y" in kinds:
            hint = "Put texts into X; for rows of numbers use POST /predict, or load_training_data in Python."
        return InvalidFileError(
            f"There is no text in the file: no field holds an array of objects or texts. The fields are {found}",
            code="missing_field",
            hint=hint,
        )


def kind_of(value: Any, *, plural: bool = False) -> str:
    """Return what a JSON value is, in words: a number, or numbers."""
    names = {dict: "an object", list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    one = names.get(type(value), "a number")
    return f"{one.split()[1]}s" if plural and one.startswith("a") else one
