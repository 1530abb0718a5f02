"""Which format an upload is in: by its name, else its type, else its content."""

import re
import string
from typing import Literal, TypeAlias

from bulletproof.errors import InvalidFileError, UnsupportedFormatError
from bulletproof.ingest.bytestream import GZIP_MAGIC
from bulletproof.ingest.csv_dialect import DELIMITERS, NO_DELIMITER, find_dialect, sample_lines
from bulletproof.ingest.encoding import LineDecoder, bom_of, split_lines
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import shorten

Format: TypeAlias = Literal["json", "jsonl", "csv", "tsv", "text"]

HEAD = 64 * 1024

_EXTENSIONS: dict[str, Format] = {
    "json": "json", "jsonl": "jsonl", "ndjson": "jsonl", "csv": "csv", "tsv": "tsv", "tab": "tsv", "txt": "text",
    "text": "text",
}  # fmt: skip
# text/plain is left out on purpose: it is also what a client sends that knows nothing (RFC 7578, section 4.4).
_TYPES: dict[str, Format] = {
    "application/json": "json", "text/json": "json",
    "application/jsonl": "jsonl", "application/jsonlines": "jsonl", "application/json-lines": "jsonl",
    "application/ndjson": "jsonl", "application/x-jsonlines": "jsonl", "application/x-ndjson": "jsonl",
    "text/csv": "csv", "application/csv": "csv", "text/x-csv": "csv", "text/tab-separated-values": "tsv",
}  # fmt: skip
_GZIP_TYPES = {"application/gzip", "application/x-gzip"}
_SILENT_TYPES = {
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "text/plain",
    "application/x-www-form-urlencoded",
}
_TAKEN = (
    "JSON, JSON lines, CSV, TSV and plain text (.json, .jsonl, .ndjson, .csv, .tsv, .txt, each also as .gz) are taken"
)

_SIGNATURES = {
    b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"%PDF-": "a PDF document",
    b"PK\x03\x04": "a ZIP archive or an Office document", b"PK\x05\x06": "an empty ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Office document", b"\x7fELF": "a program", b"MZ\x90": "a program",
    b"SQLite format 3\0": "an SQLite database", b"PAR1": "a Parquet file", b"\x80\x04\x95": "a pickle",
    b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive", b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file", GZIP_MAGIC: "a gzip file whose name does not end in .gz",
}  # fmt: skip
_CONTROL = bytes(byte for byte in [*range(32), 127] if chr(byte) not in string.whitespace + "\x1a\x1b")
_JSON_START = re.compile(r'\s*(\{\s*["}]|\[\s*(["{\[\]]))')


def safe_name(filename: str | None) -> str | None:
    """Return the last part of a name, without folders and control characters."""
    last = re.split(r"[/\\]", filename or "")[-1]
    name = "".join(char for char in last if char.isprintable()).strip()
    return name[-255:] or None


def by_name_and_type(filename: str | None, content_type: str | None) -> tuple[Format | None, bool | None]:
    """Say what name and type tell: the format (None when they are silent), and whether it is packed (None: look)."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    typed = "json" if media_type.endswith("+json") else _TYPES.get(media_type)
    stem, dot, extension = (filename or "").lower().rstrip(". ").rpartition(".")
    packed = True if media_type in _GZIP_TYPES else None
    if dot:
        packed = extension in ("gz", "gzip")
        if packed:
            _, dot, extension = stem.rpartition(".")
    if dot:
        named = _EXTENSIONS.get(extension)
        if named is None:
            raise UnsupportedFormatError(f"Files named {shorten('.' + extension)} are not taken; {_TAKEN}")
        # A type that says JSON or CSV holds against a name that only says text.
        return typed if named == "text" and typed else named, packed
    if typed is None and packed is None and media_type not in _SILENT_TYPES:
        raise UnsupportedFormatError(f"Files of the type {shorten(media_type)} are not taken; {_TAKEN}")
    return typed, packed


def refuse_binary(head: bytes, filename: str | None) -> None:
    """Refuse content that is no text at all, or looks like UTF-16 whose byte order mark is missing."""
    if bom_of(head)[1]:
        return
    what = next((name for magic, name in _SIGNATURES.items() if head.startswith(magic)), None)
    subject = f"The file {shorten(filename)}" if filename else "The file"
    if what:
        raise UnsupportedFormatError(f"{subject} is {what}; {_TAKEN}")
    if _JSON_START.match(head[:64].decode("latin-1")):
        return  # the JSON parser names the very place that is broken
    controls = len(head) - len(head.translate(None, _CONTROL))
    # A few in a short text are flaws of the text, and named by the parser.
    if controls <= len(head) * (0.05 if controls > 3 else 0.3):
        return
    low, high = sorted((head[::2].count(0), head[1::2].count(0)))
    if len(head) > 3 and high > len(head) * 0.2 and low < len(head) * 0.02 and controls - low - high < len(head) * 0.05:
        raise InvalidFileError(
            f"{subject} looks like UTF-16 without a byte order mark", code="invalid_encoding", byte=head.index(0)
        )
    raise UnsupportedFormatError(f"{subject} has binary content; {_TAKEN}")


def by_content(head: bytes) -> Format:
    """Say what the beginning of a file, without a byte order mark, looks like."""
    text = LineDecoder(Notes()).decode(head if len(head) < HEAD else head[: head.rfind(b"\n") + 1] or head, 1)
    if _JSON_START.match(text):
        return "jsonl" if _is_json_lines(text) else "json"
    lines = sample_lines(split_lines(text))
    dialect = find_dialect(lines, DELIMITERS)
    # Prose has commas too, but not the same number in every line.
    table = dialect.delimiter != NO_DELIMITER and dialect.columns > 1 and dialect.header and len(lines) > 1
    if table and dialect.share >= 0.9:
        return "tsv" if dialect.delimiter == "\t" else "csv"
    return "text"


def _is_json_lines(text: str) -> bool:
    """Say whether a text that begins like JSON has a whole value on its first line and another on the next."""
    lines = [line.strip() for line in text.splitlines()[:20] if line.strip()]
    return len(lines) > 1 and all(
        (line[0] == "{" and line[-1] == "}") or line[0] == line[-1] == '"' for line in lines[:2]
    )
