"""What kind of page it is: by its ``Content-Type``, and by its first bytes where that says nothing or is not true."""

import re

from bulletproof.errors import UnsupportedFormatError
from bulletproof.fetch.address import Address, shown

HTML, TEXT, JSON, PDF = "text/html", "text/plain", "application/json", "application/pdf"
XHTML = "application/xhtml+xml"
_HEAD = 1024
_TYPE = re.compile(r"\s*([\w.+-]+/[\w.+-]+)\s*(?:;(.*))?", re.ASCII | re.DOTALL)
_CHARSET = re.compile(r"""charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;]+))""", re.IGNORECASE)
_UNTOLD = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/unknown", "unknown/unknown"})
_MARKUP = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype\s+html|html|head|body|title|meta|p|div|h1)\b",
    re.IGNORECASE | re.DOTALL,
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b"))
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")


def parse_content_type(header: str | None) -> tuple[str, str | None]:
    """Return the media type in lower case, empty when there is none, and the charset.

    Example:
        >>> parse_content_type('Text/HTML; Charset="utf-8"'), parse_content_type("nonsense")
        (('text/html', 'utf-8'), ('', None))
    """
    match = _TYPE.fullmatch(header[:500]) if header else None
    if match is None:
        return "", None
    charset = _CHARSET.search(match[2] or "")
    return match[1].lower(), (charset[1] or charset[2] or charset[3] or None) if charset else None


def check_type(media_type: str, address: Address) -> None:
    """Refuse what its header says is no HTML, text, JSON or PDF, before its body is read."""
    if media_type not in _UNTOLD and not _is_text(media_type) and media_type != PDF:
        raise _unsupported(f"the page is {media_type}", address)


def settle_type(media_type: str, charset: str | None, body: bytes, address: Address) -> str:
    """Return what a page really is; refuse what is no HTML, text, JSON or PDF, whatever it says."""
    head = body[:_HEAD]
    if head.lstrip().startswith(b"%PDF-"):
        return PDF
    if media_type == PDF and b"%PDF-" in head:
        return PDF  # readers take what stands before it
    wide = head.startswith(_WIDE_BOMS) or (charset or "").lower().startswith(("utf-16", "utf16", "utf-32", "utf32"))
    # Images, archives and programs are full of control characters, whatever they begin with.
    if not wide and len(head) - len(head.translate(None, _CONTROLS)) > 1 + len(head) // 100:
        raise _unsupported(f"the page says it is {media_type or 'of no type'}, but is a binary file", address)
    if media_type in _UNTOLD or media_type == PDF:
        if _MARKUP.match(head.removeprefix(b"\xef\xbb\xbf")):
            return HTML
        return JSON if head.lstrip()[:1] in (b"{", b"[") and body.rstrip()[-1:] in (b"}", b"]") else TEXT
    return media_type


def _is_text(media_type: str) -> bool:
    return media_type.startswith("text/") or media_type.endswith("+json") or media_type in (JSON, XHTML)


def _unsupported(why: str, address: Address) -> UnsupportedFormatError:
    return UnsupportedFormatError(why, hint="Leave out what is no HTML, text, JSON or PDF.", url=shown(address))
