"""An uploaded file, whatever it is, as a stream of records."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO, Literal

from bulletproof.errors import InvalidFileError
from bulletproof.ingest import sniff
from bulletproof.ingest.bytestream import GZIP_MAGIC, BoundedSource, ByteSource, GunzipSource, HeadSource
from bulletproof.ingest.csv_dialect import DELIMITERS, NO_DELIMITER, find_dialect, sample_lines
from bulletproof.ingest.csv_stream import CsvFile
from bulletproof.ingest.encoding import LineDecoder, Utf8Source, bom_of, line_blocks
from bulletproof.ingest.json_stream import JsonCursor, JsonDocument, kind_of
from bulletproof.ingest.line_formats import SurrogateDecoder, json_lines, paragraphs
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import Chunk, IngestLimits, Record, Rejection, Row, listing, shorten
from bulletproof.ingest.text_field import find_text_field, missing_field, named

_HEAD = 64 * 1024
_CHUNK_CHARS = 2**20
_SAMPLE_VALUES = 100
_MISSING = object()
# A file without one good row among so many from its beginning is given up.
HOPELESS_ROWS = 100_000

_Values = Iterator[tuple[Any, int] | Rejection]


class ParsedFile:
    """A file whose format is known and whose records are still to be read.

    Attributes:
        format: ``json``, ``jsonl``, ``csv``, ``tsv`` or ``text``.
        encoding: Such as ``utf-8``; what the content suggested when it is not UTF-8.
        compression: ``gzip`` or None.
        filename: Without folders; None when there is none.
        text_field: The field that holds the text; None for plain text and arrays of texts.
        received: Rows read so far.
        rejected: How many of them were bad.
    """

    def __init__(
        self,
        upload: "_Upload",
        rows: Iterator[Row],
        limits: IngestLimits,
        *,
        format: sniff.Format,  # noqa: A002 - the name of the attribute
        compression: Literal["gzip"] | None,
        filename: str | None,
    ) -> None:
        self._upload = upload
        self._rows = rows
        self._limits = limits
        self.format = format
        self.compression = compression
        self.filename = filename
        self.received = 0
        self.rejected = 0
        self._reasons: list[Rejection] = []

    @property
    def encoding(self) -> str:
        """The encoding found so far."""
        return self._upload.encoding

    @property
    def text_field(self) -> str | None:
        """The field the texts are taken from."""
        return self._upload.text_field

    @property
    def warnings(self) -> list[str]:
        """What the user should know about how the file was read; grows while it is."""
        return self._upload.notes.texts

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows, ``chunk_size`` at a time; the file is read as far as they are asked for, once.

        Raises:
            InvalidFileError: The file is broken further on, or more of its rows are bad than allowed. That share is
                looked at when the file ends; only a file whose first 100,000 rows are all bad is given up earlier.
            FileTooLargeError: The file proves larger than allowed.
        """
        size, records, rejections, chars = self._limits.chunk_size, list[Record](), list[Rejection](), 0
        for row in self._rows:
            if isinstance(row, Record):
                records.append(row)
                chars += len(row.text)
            else:
                rejections.append(row)
                self._reject(row)
            self.received += 1
            if len(records) + len(rejections) >= size or chars >= _CHUNK_CHARS:
                yield Chunk(records, rejections)
                records, rejections, chars = [], [], 0
        if records or rejections:
            yield Chunk(records, rejections)
        if self.rejected > self.received * self._limits.max_rejected_share:
            raise self._too_many("")

    def _reject(self, rejection: Rejection) -> None:
        self.rejected += 1
        if len(self._reasons) < 3:
            self._reasons.append(rejection)
        if self.rejected == HOPELESS_ROWS == self.received + 1:
            raise self._too_many("first ")

    def _too_many(self, which: str) -> InvalidFileError:
        received = self.received + bool(which)
        reasons = "; ".join(f"row {row}: {details}" for row, _, details in self._reasons)
        return InvalidFileError(
            f"{self.rejected:,} of the {which}{received:,} rows cannot be used ({reasons})",
            code="too_many_bad_rows",
        )


def open_upload(
    source: BinaryIO,
    filename: str | None,
    content_type: str | None = None,
    *,
    text_field: str | None = None,
    limits: IngestLimits = IngestLimits(),  # noqa: B008 - frozen
) -> ParsedFile:
    """Find out what a file is and get ready to read its records.

    The name decides, else the type, else the content. A name or type that says JSON or CSV is held to it. Only the
    beginning of the file is read, as far as is needed to find its format, encoding and text field.

    Args:
        source: A binary file, read from where it stands; it stays open. Blocks, so call this in a worker thread.
        filename: As the user named it.
        content_type: As the client declared it.
        text_field: The field that holds the text; found by name or content when None.
        limits: What the file may hold.

    Returns:
        The file, whose ``chunks()`` are still to be read.

    Raises:
        UnsupportedFormatError: The extension or the content is of a kind that is not taken.
        FileTooLargeError: The file is larger than allowed, or unpacks to more.
        InvalidFileError: The content is broken, empty, or holds no text; the code says which.

    Example:
        >>> import io
        >>> file = open_upload(io.BytesIO(b"id,review\\n1,I love it\\n2,Too loud\\n"), "reviews.csv")
        >>> file.format, file.text_field
        ('csv', 'review')
        >>> [record for chunk in file.chunks() for record in chunk.records]
        [Record(row=1, text='I love it'), Record(row=2, text='Too loud')]
    """
    name = sniff.safe_name(filename)
    guess = sniff.by_name_and_type(name, content_type)
    bounded = BoundedSource(source, limits.max_bytes)
    stream = HeadSource(bounded)
    packed = guess.gzip
    if packed is None:
        packed = stream.peek(len(GZIP_MAGIC)) == GZIP_MAGIC
    if packed:
        # The head that was looked at counts as read, so the ratio is taken from the bytes of the file itself.
        stream = HeadSource(GunzipSource(stream, bounded, limits))
    head = stream.peek(_HEAD)
    if not head:
        raise InvalidFileError("The file is empty", code="empty_file")
    sniff.refuse_binary(head, name)
    upload = _Upload(stream, head, text_field, limits)
    found = guess.format or upload.format_of_content()
    rows = upload.rows(found)
    first = next(rows, None)
    if first is None:
        raise InvalidFileError("The file holds no records", code="empty_file")
    return ParsedFile(
        upload,
        chain((first,), rows),
        limits,
        format=found,
        compression="gzip" if packed else None,
        filename=name,
    )


class _Upload:
    """What is known about a file while it is being opened."""

    def __init__(self, stream: ByteSource, head: bytes, wanted: str | None, limits: IngestLimits) -> None:
        mark = bom_of(head)
        self.notes = Notes()
        self.text_field: str | None = None
        self._declared = mark[0] if mark else "utf-8"
        self._offset: int | None = None
        length = mark[1] if mark else 0
        if length:
            stream.read(length)
        if self._declared == "utf-8":
            self._stream = HeadSource(stream)
            self._offset = length
        else:
            self._stream = HeadSource(Utf8Source(stream, self._declared, length))
        self._decoder = LineDecoder(self.notes)
        self._wanted = wanted
        self._limits = limits

    @property
    def encoding(self) -> str:
        return self._decoder.encoding if self._declared == "utf-8" else self._declared

    def format_of_content(self) -> sniff.Format:
        data = self._stream.peek(_HEAD)
        text = LineDecoder(Notes()).decode(data if len(data) < _HEAD else data[: data.rfind(b"\n") + 1] or data, 1)
        if sniff.is_json(text):
            return "jsonl" if sniff.is_json_lines(text) else "json"
        lines = sample_lines(text.splitlines(keepends=True))
        dialect = find_dialect(lines, DELIMITERS)
        # Prose has commas too, but not the same number in every line.
        table = dialect.delimiter != NO_DELIMITER and dialect.columns > 1 and dialect.header and len(lines) > 1
        if table and dialect.share >= 0.9:
            return "tsv" if dialect.delimiter == "\t" else "csv"
        return "text"

    def rows(self, found: sniff.Format) -> Iterator[Row]:
        limits, notes = self._limits, self.notes
        if found == "json":
            cursor = JsonCursor(self._stream, limits, notes, offset=self._offset)
            document = JsonDocument(cursor, limits, notes, self._wanted)
            return self._texts(document.records())
        if found == "jsonl":
            lines = line_blocks(self._stream, SurrogateDecoder(), limits, returns=False)
            return self._texts(json_lines(lines, limits, notes))
        blocks = line_blocks(self._stream, self._decoder, limits)
        if found == "text":
            if self._wanted is not None:
                notes.say("The text field was ignored: a plain text has no fields.")
            return paragraphs(blocks, limits)
        table = CsvFile(blocks, ("\t",) if found == "tsv" else DELIMITERS, self._wanted, limits, notes)
        self.text_field = table.text_field
        return table.rows()

    def _texts(self, values: _Values) -> Iterator[Row]:
        """Take the texts out of JSON values; the field is found from the first of them."""
        head, size = list[tuple[Any, int] | Rejection](), 0
        for value in values:
            head.append(value)
            size += 200 if isinstance(value, Rejection) else value[1]
            if len(head) >= _SAMPLE_VALUES or size > _CHUNK_CHARS:
                break
        self._find_field([value[0] for value in head if not isinstance(value, Rejection)])
        return self._take(chain(head, values))

    def _find_field(self, values: Sequence[Any]) -> None:
        samples: dict[str, list[Any]] = {}
        for value in values:
            if isinstance(value, dict):
                for name, content in value.items():
                    samples.setdefault(name, []).append(content)
        if samples:
            choice = find_text_field(samples, self._wanted)
            self.text_field = choice.name
            if choice.how == "content" and len(samples) > 1:
                self.notes.say(
                    f"The text was taken from the field {shorten(choice.name)}, which has the longest texts; "
                    "name another with text_field."
                )
        elif any(isinstance(value, str) for value in values):
            if self._wanted is not None:
                self.notes.say("The text field was ignored: the file holds plain texts, which have no fields.")
        elif values and not isinstance(values[0], dict):
            raise InvalidFileError(
                f"There is no text in the file: its records are {kind_of(values[0], plural=True)}; "
                "expected objects with a text field, or texts",
                code="missing_field",
            )
        elif values:
            raise missing_field(self._wanted or "text", [])

    def _take(self, values: _Values) -> Iterator[Row]:
        field, most = self.text_field, self._limits.max_field_bytes
        for row, item in enumerate(values, 1):
            if isinstance(item, Rejection):
                yield item
                continue
            value, size = item
            text = value
            if isinstance(value, dict):
                if field is None:  # the first object comes after what the field was looked for in
                    field = self.text_field = self._wanted or named(list(value))
                text = value.get(field, _MISSING)
            if size * 4 > most and (name := _oversized(value, most)):
                yield Rejection(row, "text_too_long", f"{name} is longer than the {most:,} bytes allowed")
            elif isinstance(text, str):
                yield Record(row, text)
            elif not isinstance(value, dict):
                yield Rejection(row, "invalid_input", f"expected an object or a text, got {kind_of(value)}")
            elif text is None:
                yield Record(row, "")
            elif text is _MISSING:
                wanted = f"field {shorten(field)}" if field else "text field"
                found = listing(list(value), 5) or "none"
                yield Rejection(row, "missing_field", f"there is no {wanted}; the fields are {found}")
            else:
                yield Rejection(row, "invalid_input", f"the field {shorten(field)} is {kind_of(text)}, not a text")


def _oversized(value: Any, most: int) -> str | None:
    """Return the name of a text in a record that is over the limit, None when there is none."""
    stack = [("the text", value)]
    while stack:
        name, item = stack.pop()
        if isinstance(item, str):
            if len(item) * 4 > most and len(item.encode()) > most:
                return name
        elif isinstance(item, dict):
            stack.extend((f"the field {shorten(key)}", inner) for key, inner in item.items())
            stack.extend(("a field name", key) for key in item)
        elif isinstance(item, list):
            stack.extend((name, inner) for inner in item)
    return None
