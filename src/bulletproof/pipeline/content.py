"""What kind of document a body is, and its text as far as decoding goes."""

import re
from contextlib import suppress
from typing import Literal, TypeAlias

from bulletproof.errors import UnsupportedFormatError
from bulletproof.fetch.charset import declared
from bulletproof.ingest.cleaning import clean_text
from bulletproof.ingest.encoding import guess_encoding

Kind: TypeAlias = Literal["html", "json", "pdf", "text"]

MAX_CHARS = 1_000_000
"""Most characters of a text that are kept."""

_TYPES: dict[str, Kind] = {
    "text/html": "html", "application/xhtml+xml": "html", "text/xml": "html", "application/xml": "html",
    "application/json": "json", "text/json": "json", "application/pdf": "pdf", "application/x-pdf": "pdf",
    "application/x-ndjson": "text", "application/jsonl": "text",
}  # fmt: skip
_SILENT = ("", "application/octet-stream", "binary/octet-stream")
_LOOKED_AT = 16 * 1024
_CONTROL = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")
_BINARY_SHARE = 0.02


def kind_of(media_type: str, body: bytes | str) -> Kind:
    """Tell the kind of a document by its type, else by its content (PDF: by its content in any case), or refuse it.

    Example:
        >>> kind_of("application/ld+json; charset=utf-8", b"{}"), kind_of("", b" <!doctype html>")
        ('json', 'html')
    """
    if isinstance(body, bytes) and body.startswith(b"%PDF-"):
        return "pdf"
    name = media_type.partition(";")[0].strip().lower()
    if name in _SILENT:
        head = body[:_LOOKED_AT]
        start = (head.encode("utf-8", "replace") if isinstance(head, str) else head).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        return "html" if start == b"<" else "json" if start in (b"{", b"[") else "text"
    known = _TYPES.get(name)
    if known is not None:
        return known
    if name.endswith("+json"):
        return "json"
    if name.endswith("+xml") and not name.startswith("image/"):
        return "html"
    if name.startswith("text/") and name not in ("text/css", "text/javascript"):
        return "text"
    raise UnsupportedFormatError(
        f"no text can be read from content of the type {name!r:.80}",
        hint="HTML, plain text, JSON and PDF are read; leave other addresses out.",
    )


def decode(body: bytes | str, charset: str | None) -> str:
    """Return the text of a document without NUL and lone surrogates, so that any parser and any database takes it.

    A byte order mark tells the encoding; else the charset given, or the one that the document declares, if it is
    right; else UTF-8, if it is that; else a guess. What is binary is an ``UnsupportedFormatError``.

    Example:
        >>> decode(b"caf\\xe9", "utf-8"), decode(b"caf\\xe9", "no-such-charset")
        ('café', 'café')
    """
    text = body.encode("utf-8", "replace").decode() if isinstance(body, str) else _text(body, charset)
    head = text[:_LOOKED_AT]
    if len(_CONTROL.findall(head)) > max(1, _BINARY_SHARE * len(head)):
        raise UnsupportedFormatError(
            "the content is binary, though its type says that it is text",
            hint="HTML, plain text, JSON and PDF are read; leave other addresses out.",
        )
    return text.replace("\0", "\ufffd")


def tidy(text: str) -> str:
    """Clean each line of a text, leave out the empty ones, and cut it off at ``MAX_CHARS``.

    Example:
        >>> tidy("One \\u200b  two\\n\\n \\n three")
        'One two\\nthree'
    """
    return cut(text)[0]


def cut(text: str) -> tuple[str, int]:
    """Do as ``tidy``, and say how many characters were cut off."""
    lines = (clean_text(line) for line in text[: 4 * MAX_CHARS].splitlines())
    clean = "\n".join(line for line in lines if line)
    return clean[:MAX_CHARS], max(0, len(clean) - MAX_CHARS) + max(0, len(text) - 4 * MAX_CHARS)


def _text(body: bytes, charset: str | None) -> str:
    encoding = declared(body, charset) or guess_encoding(body[:_LOOKED_AT])
    if encoding == "cp1252":  # said by many a server of everything; and what is not UTF-8 rarely looks like it
        with suppress(UnicodeDecodeError):
            return body.decode()
    return body.decode(encoding, "replace").removeprefix("\ufeff")
