"""An uploaded file, whatever it is, as a stream of records."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import BinaryIO, Literal

from bulletproof.errors import InvalidFileError
from bulletproof.ingest import sniff
from bulletproof.ingest.bytestream import GZIP_MAGIC, BoundedSource, GunzipSource, HeadSource, RecordLimit
from bulletproof.ingest.csv_dialect import DELIMITERS
from bulletproof.ingest.csv_stream import csv_rows
from bulletproof.ingest.encoding import LineDecoder, Utf8Source, bom_of, line_blocks
from bulletproof.ingest.json_stream import JsonCursor, JsonDocument
from bulletproof.ingest.json_texts import json_texts
from bulletproof.ingest.line_formats import decode_json_lines, json_lines, paragraphs
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import MIB, Chunk, IngestLimits, Record, Rejection, Row

# A file without one good row among so many from its beginning is given up.
_HOPELESS_ROWS = 100_000


@dataclass(eq=False, repr=False)
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

    _rows: Iterator[Row]
    _notes: Notes
    _limits: IngestLimits
    format: sniff.Format
    compression: Literal["gzip"] | None
    filename: str | None
    received: int = 0
    rejected: int = 0
    _reasons: list[str] = field(default_factory=list)

    @property
    def encoding(self) -> str:
        return self._notes.encoding

    @property
    def text_field(self) -> str | None:
        return self._notes.text_field

    @property
    def warnings(self) -> list[str]:
        """What the user should know about how the file was read; grows while it is."""
        return self._notes.texts

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows, ``chunk_size`` at a time; the file is read as far as they are asked for, once.

        Raises:
            InvalidFileError: The file is broken further on, or more of its rows are bad than allowed. That share is
                looked at when the file ends; only a file whose first 100,000 rows are all bad is given up earlier.
            FileTooLargeError: The file proves larger than allowed, or holds too many records.
        """
        size, records, rejections, chars = self._limits.chunk_size, list[Record](), list[Rejection](), 0
        for row in self._rows:
            self.received += 1
            if isinstance(row, Record):
                records.append(row)
                chars += len(row.text)
            else:
                rejections.append(row)
                self.rejected += 1
                if len(self._reasons) < 3:
                    self._reasons.append(f"row {row.row}: {row.details}")
                if self.rejected == self.received == _HOPELESS_ROWS:
                    raise self._too_many("first ")
            if len(records) + len(rejections) >= size or chars >= MIB:
                self._notes.check_count(self.received)
                yield Chunk(records, rejections)
                records, rejections, chars = [], [], 0
        if records or rejections:
            yield Chunk(records, rejections)
        if self.rejected > self.received * self._limits.max_rejected_share:
            raise self._too_many("")

    def _too_many(self, which: str) -> InvalidFileError:
        return InvalidFileError(
            f"{self.rejected:,} of the {which}{self.received:,} rows cannot be used ({'; '.join(self._reasons)})",
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
    named, packed = sniff.by_name_and_type(name, content_type)
    bounded = BoundedSource(source, limits.max_bytes)
    stream = HeadSource(bounded)
    if packed is None:
        packed = stream.peek(len(GZIP_MAGIC)) == GZIP_MAGIC
    if packed:
        stream = HeadSource(GunzipSource(stream, bounded, limits))
    head = stream.peek(sniff.HEAD)
    if not head:
        raise InvalidFileError("The file is empty", code="empty_file")
    sniff.refuse_binary(head, name)
    notes = Notes()
    notes.check_count = RecordLimit(limits, bounded if packed else None).check
    notes.encoding, offset = bom_of(head)
    stream.read(offset)
    if notes.encoding != "utf-8":
        stream = HeadSource(Utf8Source(stream, notes.encoding, offset))
    found = named or sniff.by_content(stream.peek(sniff.HEAD))
    rows = _rows(stream, found, text_field, limits, notes, offset)
    first = next(rows, None)
    if first is None:
        raise InvalidFileError("The file holds no records", code="empty_file")
    return ParsedFile(chain((first,), rows), notes, limits, found, "gzip" if packed else None, name)


def _rows(
    stream: HeadSource, found: sniff.Format, wanted: str | None, limits: IngestLimits, notes: Notes, offset: int
) -> Iterator[Row]:
    """Return the rows of a file, read as the format found asks for."""
    if found == "json":
        cursor = JsonCursor(stream, limits, notes, offset=offset if notes.encoding == "utf-8" else None)
        return json_texts(JsonDocument(cursor, limits, notes, wanted).records(), wanted, limits, notes)
    if found == "jsonl":
        lines = json_lines(line_blocks(stream, decode_json_lines, limits), limits, notes)
        return json_texts(lines, wanted, limits, notes)
    blocks = line_blocks(stream, LineDecoder(notes).decode, limits)
    if found != "text":
        return csv_rows(blocks, ("\t",) if found == "tsv" else DELIMITERS, wanted, limits, notes)
    if wanted is not None:
        notes.say("The text field was ignored: a plain text has no fields.")
    return paragraphs(blocks, limits)
