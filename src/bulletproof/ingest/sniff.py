"""Which format an upload is in: by its name, else its type, else its content."""

import re
import string
from typing import Literal, NamedTuple

from bulletproof.errors import InvalidFileError, UnsupportedFormatError
from bulletproof.ingest.bytestream import GZIP_MAGIC
from bulletproof.ingest.encoding import bom_of
from bulletproof.ingest.records import shorten

Format = Literal["json", "jsonl", "csv", "tsv", "text"]

EXTENSIONS: dict[str, Format] = {
    "json": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "csv": "csv",
    "tsv": "tsv",
    "tab": "tsv",
    "txt": "text",
    "text": "text",
}
# text/plain is left out on purpose: it is also what a client sends that knows nothing (RFC 7578, section 4.4).
TYPES: dict[str, Format] = {
    "application/json": "json",
    "text/json": "json",
    "application/jsonl": "jsonl",
    "application/jsonlines": "jsonl",
    "application/json-lines": "jsonl",
    "application/ndjson": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/x-ndjson": "jsonl",
    "text/csv": "csv",
    "application/csv": "csv",
    "text/x-csv": "csv",
    "text/tab-separated-values": "tsv",
}
GZIP_TYPES = {"application/gzip", "application/x-gzip"}
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

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x80\x04\x95", "a pickle"),
    (GZIP_MAGIC, "a gzip file whose name does not end in .gz"),
)
_CONTROL = bytes(byte for byte in [*range(32), 127] if chr(byte) not in string.whitespace + "\x1a\x1b")
_JSON_START = re.compile(r'\s*(\{\s*["}]|\[\s*(["{\[\]]))')


class Guess(NamedTuple):
    """What name and type say: the format (None when they are silent) and whether it is packed (None: look)."""

    format: Format | None
    gzip: bool | None


def safe_name(filename: str | None) -> str | None:
    """Return the last part of a name, without folders and control characters.

    Example:
        >>> safe_name("../../etc/reviews.csv")
        'reviews.csv'
    """
    if filename is None:
        return None
    last = re.split(r"[/\\]", filename)[-1]
    name = "".join(char for char in last if char.isprintable()).strip()
    return name[-255:] or None


def by_name_and_type(filename: str | None, content_type: str | None) -> Guess:
    """Say what the name of a file and its declared type tell.

    Args:
        filename: As cleaned by ``safe_name``.
        content_type: A media type; parameters are ignored.

    Returns:
        The guess; both parts None when nothing tells.

    Raises:
        UnsupportedFormatError: The extension is not a known one, or there is none and the type is of another kind.

    Example:
        >>> by_name_and_type("reviews.csv.gz", None)
        Guess(format='csv', gzip=True)
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    typed = TYPES.get(media_type) or ("json" if media_type.endswith("+json") else None)
    name = (filename or "").lower().rstrip(". ")
    stem, dot, extension = name.rpartition(".")
    gzip: bool | None = None
    if dot and extension in ("gz", "gzip"):
        gzip = True
        stem, dot, extension = stem.rpartition(".")
    elif dot:
        gzip = False
    elif media_type in GZIP_TYPES:
        gzip = True
    if dot:
        named = EXTENSIONS.get(extension)
        if named is None:
            raise UnsupportedFormatError(f"Files named {shorten('.' + extension)} are not taken; {_TAKEN}")
        # A type that says JSON or CSV holds against a name that only says text.
        return Guess(typed if named == "text" and typed else named, gzip)
    if typed is None and gzip is None and media_type not in _SILENT_TYPES:
        raise UnsupportedFormatError(f"Files of the type {shorten(media_type)} are not taken; {_TAKEN}")
    return Guess(typed, gzip)


def refuse_binary(head: bytes, filename: str | None) -> None:
    """Refuse content that is no text at all.

    Args:
        head: The first bytes, unpacked.
        filename: For the message.

    Raises:
        UnsupportedFormatError: It is a binary file.
        InvalidFileError: ``invalid_encoding``: it looks like UTF-16 whose byte order mark is missing.
    """
    if bom_of(head):
        return
    what = next((name for magic, name in _SIGNATURES if head.startswith(magic)), None)
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


def is_json(text: str) -> bool:
    """Say whether a text begins the way JSON with records does."""
    return _JSON_START.match(text) is not None


def is_json_lines(text: str) -> bool:
    """Say whether a text that begins like JSON has a whole value on its first line and another on the next."""
    lines = [line.strip() for line in text.splitlines()[:20] if line.strip()]
    return len(lines) > 1 and all(
        (line[0] == "{" and line[-1] == "}") or line[0] == line[-1] == '"' for line in lines[:2]
    )
