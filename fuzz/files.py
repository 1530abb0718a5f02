"""Uploads: JSON, CSV, text and gzip, each held against a second reading of the same bytes."""

import csv
import gzip
import io
import json
from typing import Any

from bulletproof.errors import CODES, AIError
from bulletproof.ingest import Chunk, Cleaner, IngestLimits, open_upload

ROOMY = IngestLimits()
TIGHT = IngestLimits(
    max_bytes=4096, max_decompressed_bytes=4096, max_compression_ratio=10, max_depth=4, max_field_bytes=16,
    max_record_bytes=64, max_columns=4, max_integer_digits=4, max_text_chars=16, max_rejected_share=1, chunk_size=2,
)  # fmt: skip


def read(data: bytes, name: str, limits: IngestLimits = ROOMY, field: str | None = None) -> tuple[list[str], int]:
    """Read a file to its end; return its texts and how many rows were bad.

    Raises:
        AIError: The file is refused, for a reason that concerns it alone.
    """
    texts: list[str] = []
    row = bad = 0
    try:
        file = open_upload(io.BytesIO(data), name, text_field=field, limits=limits)
        cleaner = Cleaner(limits)
        for chunk in file.chunks():
            rows = sorted([record.row for record in chunk.records] + [one.row for one in chunk.rejections])
            assert rows == list(range(row + 1, row + len(rows) + 1)), f"rows {rows} after row {row}"
            row += len(rows)
            _check(chunk)
            _check(cleaner.clean(chunk))
            texts += [record.text for record in chunk.records]
            bad += len(chunk.rejections)
    except AIError as error:
        assert error.error_type == "validation_error", f"{error.code} is no fault of a file"
        f"{error} {error.hint} {error.where}".encode()
        raise
    assert (file.received, file.rejected) == (row, bad)
    "".join([file.filename or "", file.text_field or "", *file.warnings]).encode()
    return texts, bad


def _check(chunk: Chunk) -> None:
    for record in chunk.records:
        record.text.encode()  # no half of a surrogate pair
    for rejection in chunk.rejections:
        assert rejection.code in CODES
        assert rejection.details.encode()


def json_file(data: bytes) -> None:
    """What we read, ``json`` reads too; an array of texts is read by both, and is the same."""
    mode, content = data[:1], data[1:]
    if mode == b"t":
        read(content, "a.json", TIGHT)
        return
    if mode == b"l":
        read(content, "a.jsonl")
        return
    theirs = _json(content)
    texts: list[str] | None = None
    refused: AIError | None = None
    try:
        texts, _ = read(content, "a.json", field="text" if mode == b"f" else None)
    except AIError as error:
        refused = error
    assert texts is None or theirs is not _json, "read, though it is no JSON"
    if isinstance(theirs, list) and theirs and all(isinstance(item, str) for item in theirs):
        lone = any("\ud800" <= char <= "\udfff" for item in theirs for char in item)
        if refused is not None:
            assert lone or refused.code in ("unsupported_format", "invalid_encoding"), f"refused: {refused}"
        else:
            assert texts == theirs
    if refused is not None:
        raise refused


def _json(content: bytes) -> Any:
    """Return the value, or this function when it is no JSON."""

    def no_constant(name: str) -> Any:
        raise ValueError(name)

    marks = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
    encoding = next((name for mark, name in marks if content.startswith(mark)), "utf-8-sig")
    try:
        return json.loads(content.decode(encoding), parse_constant=no_constant)
    except (ValueError, RecursionError):
        return _json


def csv_file(data: bytes) -> None:
    """A table written by ``csv`` is read as it was; any other is read or refused."""
    mode, content = data[:1], data[1:]
    if mode != b"w":
        read(content, "a.tsv" if mode == b"\t" else "a.csv", TIGHT if mode == b"t" else ROOMY)
        return
    cells = [cell for cell in content.decode("utf-8", "ignore").split("\0") if cell.strip()][:50]
    if not cells:
        return
    written = io.StringIO(newline="")
    writer = csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\r\n" if len(cells) % 2 else "\n")
    writer.writerow(["id", "text", "n"])
    writer.writerows([index, cell, len(cell)] for index, cell in enumerate(cells))
    texts, bad = read(written.getvalue().encode(), "a.csv")
    assert (texts, bad) == (cells, 0)


def text_file(data: bytes) -> None:
    """Of a text in UTF-8 no letter is lost."""
    mode, content = data[:1], data[1:]
    if mode in (b"t", b"n"):
        read(content, "a.txt" if mode == b"t" else "upload", TIGHT)
        return
    texts, bad = read(content, "a.txt")
    try:
        whole = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    if not bad and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        assert "".join("".join(texts).split()) == "".join(whole.split())


def gzip_file(data: bytes) -> None:
    """A packed file is read as the same file unpacked."""
    mode, content = data[:1], data[1:]
    if mode != b"p":
        read(content, "a.csv.gz" if mode == b"c" else "a.txt.gz", TIGHT if mode == b"t" else ROOMY)
        return
    refused: AIError | None = None
    plain = None
    try:
        plain = read(content, "a.txt")
    except AIError as error:
        refused = error
    half = len(content) // 2
    packed = gzip.compress(content[:half]) + gzip.compress(content[half:])
    try:
        assert read(packed, "a.txt.gz") == plain, "packed it reads otherwise"
    except AIError as error:
        assert refused is not None, f"packed it is refused: {error}"
        assert error.code == refused.code, f"packed it is {error.code}, else {refused.code}"
        raise
    assert refused is None, f"unpacked it is refused: {refused}"
