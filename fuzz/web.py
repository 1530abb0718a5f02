"""Addresses, robots.txt and documents from the web."""

from urllib.parse import urlsplit

from yarl import URL

from bulletproof.errors import AIError, InputValidationError, ResourceError
from bulletproof.fetch.address import parse
from bulletproof.fetch.robots import parse_robots
from bulletproof.pipeline.content import MAX_CHARS
from bulletproof.pipeline.readers import Found, read, warm_up

_CHARSETS = (None, "utf-8", "iso-8859-1", "utf-16", "shift_jis", "utf-7", "unicode_escape", "rot13", "\x00")


def address(data: bytes) -> None:
    """An address has one spelling, and everybody who reads that sees the same host in it."""
    text = data.decode("utf-8", "surrogateescape" if data[:1] == b"\xff" else "replace")
    found = parse(text)
    spelt = str(found)
    assert spelt.isascii(), "not ASCII"
    assert parse(spelt) == found, "it is not the same when it is read again"
    theirs = urlsplit(spelt)
    assert (theirs.hostname, theirs.port or found.port, theirs.username) == (found.host, found.port, None)
    client = URL(spelt, encoded=True)  # what aiohttp connects to
    assert (client.raw_host, client.port, client.scheme) == (found.host, found.port, found.scheme)
    assert client.raw_path_qs == found.target


def robots(data: bytes) -> None:
    """Anything is a robots.txt, and every path may be fetched or not."""
    target, _, text = data.partition(b"\n")
    rules = parse_robots(text.decode("utf-8", "replace"), "bulletproof-ai")
    path = "/" + target.decode("ascii", "ignore")
    assert rules.allows(path) in (True, False)
    assert rules.allows("/robots.txt")
    assert rules.delay is None or 0 <= rules.delay < 10**6


def html(data: bytes) -> None:
    """Any page gives a text, or none; what is binary is told."""
    _document("html", data[1:], _CHARSETS[(data[:1] or b"\0")[0] % len(_CHARSETS)])


def pdf(data: bytes) -> None:
    """Any PDF gives a text, or is broken."""
    _document("pdf", data if data.startswith(b"%PDF-") else b"%PDF-1.4\n" + data, None)


def json_document(data: bytes) -> None:
    """Any JSON from the web gives a text, or is broken."""
    _document("json", data, None)


def _document(kind: str, body: bytes, charset: str | None) -> None:
    warm_up()
    try:
        found: Found = read(kind, body, charset, "https://example.com/")  # type: ignore[arg-type]
    except AIError as error:
        assert isinstance(error, InputValidationError | ResourceError)
        assert str(error).encode()
        raise
    assert len(found.text) <= MAX_CHARS
    for part in found:
        assert part is None or part.encode() is not None
