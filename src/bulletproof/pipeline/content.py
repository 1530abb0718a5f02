"""What kind of document a body is, and its text as far as decoding goes."""

import codecs
import re
from typing import Literal, TypeAlias

from bulletproof.errors import UnsupportedFormatError
from bulletproof.ingest.cleaning import clean_text
from bulletproof.ingest.encoding import bom_of, guess_encoding

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
_DECLARED = re.compile(
    rb"""(?:<meta[^>]{0,200}?charset|<\?xml[^>]{0,200}?encoding)\s*=\s*["']?\s*([\w.:-]{2,40})""", re.I
)
_CONTROL = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f\x7f\ufffd]")
_BINARY_SHARE = 0.02
# Not ways of writing text: some of them take quadratic time.
_NO_CHARSETS = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}


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
    text = body.encode("utf-8", "replace").decode() if isinstance(body, str) else _decode(body, charset)
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


def _decode(body: bytes, charset: str | None) -> str:
    marked, length = bom_of(body)
    if length:
        return body[length:].decode(marked, "replace")
    declared = _DECLARED.search(body[:_LOOKED_AT])
    names = [charset, declared[1].decode("ascii", "replace") if declared else None, "utf-8"]
    encodings = [found for found in map(_known, names) if found is not None]
    if encodings[0] == "cp1252":  # said by many a server of everything; and what is not UTF-8 rarely looks like it
        encodings.insert(0, "utf-8")
    for encoding in encodings:
        try:
            return body.decode(encoding)
        except UnicodeDecodeError as error:
            text = body.decode(encoding, "replace")
            # Damaged or cut off here and there, rather than in another encoding?
            if error.start and text.count("\ufffd") * 200 < len(text) - len(text.encode("ascii", "ignore")):
                return text
    return body.decode(guess_encoding(body[:_LOOKED_AT]), "replace")


def _known(name: str | None) -> str | None:
    try:
        found = codecs.lookup((name or "").strip()).name
    except (LookupError, ValueError):
        return None
    # What is called Latin-1 on the web is cp1252 (WHATWG Encoding Standard, section 4.2).
    found = "cp1252" if found in ("iso8859-1", "ascii") else found
    return None if found in _NO_CHARSETS or not codecs.lookup(found)._is_text_encoding else found  # noqa: SLF001
