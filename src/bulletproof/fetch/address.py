"""Addresses of pages: one spelling for each, and a reason where there is none."""

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from bulletproof.errors import InputValidationError
from bulletproof.errors.text import one_line

MAX_CHARS = 8000
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SPLIT = re.compile(r"([a-z][a-z0-9+.-]*):(?:[/\\]{2}([^/?#\\]*))?([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[^\[\]@]*\]|[^\[\]:@]*)(?::([0-9]*))?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_PART = re.compile(r"%([0-9A-Fa-f]{2})?|[^A-Za-z0-9\-._~!$&'()*+,;=:@/]", re.ASCII)
_NEVER = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Address(NamedTuple):
    """A normalised address in parts."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def site(self) -> str:
        """Host, and port unless it is the scheme's own, as in ``example.com`` or ``[::1]:8080``."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and site."""
        return f"{self.scheme}://{self.site}"

    def __str__(self) -> str:
        return self.origin + self.target


def normalize_url(url: str) -> str:
    """Return the one spelling of a page's address, so that equal addresses are equal texts.

    Scheme and host in lower case, names in ASCII (IDNA, UTS 46), IPv4 addresses in four decimal parts whichever way
    they were written (decimal, hexadecimal, octal, with fewer parts), no default port, no fragment, no dot segments,
    percent-encoding only where it is needed and in upper case (RFC 3986 §6.2.2, WHATWG URL §3.5).

    Args:
        url: An absolute http or https address, of at most 8,000 characters.

    Returns:
        The normalised address; normalising it again changes nothing.

    Raises:
        InputValidationError: It is none: ``blocked_url`` for another scheme and for user names or passwords in it,
            ``invalid_input`` for what cannot be read; says why.

    Example:
        >>> normalize_url("HTTPS://Bücher.example:443/a/../%7ebob?q=ä#top")
        'https://xn--bcher-kva.example/~bob?q=%C3%A4'
        >>> normalize_url("http://0x7f.1:8080")
        'http://127.0.0.1:8080/'
    """
    return str(parse(url))


def host_of(url: str) -> str:
    """Return what an address's site is known by: host, and port unless it is the default.

    Raises:
        InputValidationError: As for ``normalize_url``.

    Example:
        >>> host_of("https://Example.com/page"), host_of("http://127.0.0.1:8080/")
        ('example.com', '127.0.0.1:8080')
    """
    return parse(url).site


def shown(url: object) -> str:
    """An address fit for a message: bounded, without secrets."""
    return one_line(str(url)[:2000], limit=200)


class _BlockedError(ValueError):
    """What could be fetched but is not."""


def parse(url: str) -> Address:
    """Do as ``normalize_url`` and return the parts."""
    try:
        return _parse(url)
    except _BlockedError as error:
        raise InputValidationError(str(error), code="blocked_url", url=shown(url)) from error
    except ValueError as error:
        hint = "Write an absolute address such as https://example.com/page."
        raise InputValidationError(str(error), hint=hint, url=shown(url)) from error


def _parse(url: str) -> Address:
    if not isinstance(url, str):
        raise ValueError(f"the address of a page is text, not {type(url).__name__}")
    text = url.strip()
    if not text:
        raise ValueError("the address is empty")
    if len(text) > MAX_CHARS:
        raise ValueError(f"the address has {len(text):,} characters, more than {MAX_CHARS:,}")
    if wrong := _NEVER.search(text):
        what = "control characters" if wrong[0] < "\xff" else "half of a surrogate pair, which is no character"
        raise ValueError(f"the address contains {what}")
    found = _SPLIT.fullmatch(text)
    if found is None or (found[2] is None and re.match(r"[0-9]+(?:/|$)", found[3])):
        raise ValueError("the address has no scheme: it must begin with https:// or http://")
    scheme = found[1].lower()
    if scheme not in _DEFAULT_PORTS:
        raise _BlockedError(f"the scheme {scheme[:40]!r} is not fetched, only http and https")
    if not found[2]:
        raise ValueError("the address has no host")
    if "@" in found[2]:
        raise _BlockedError("the address holds a user name or password, which are not sent")
    host, port = _authority(found[2])
    target = encode(_without_dots(encode(found[3].replace("\\", "/"))) or "/")
    query = encode(found[4] or "", more="?")
    return Address(scheme, host, port or _DEFAULT_PORTS[scheme], f"{target}?{query}" if query else target)


@lru_cache(maxsize=4096)
def _authority(text: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)!r} is not a host with an optional port")
    host, port = match[1], int(match[2][:6]) if match[2] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError("the port is not between 1 and 65535")
    if host.startswith("["):
        if "%" in host:
            raise ValueError(f"{shown(host)!r}: a zone has no meaning outside of its machine")
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), port
        except ValueError as error:
            raise ValueError(f"{shown(host)!r} is not an IPv6 address: {error}") from error
    name = (host.lower() if host.isascii() and "xn--" not in host.lower() else _idna(host)).removesuffix(".")
    labels = name.split(".")
    if not name or len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{shown(host)!r} is not a host name")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        return _ipv4(labels), port
    return name, port


def _idna(host: str) -> str:
    import idna

    try:
        name = (host if host.isascii() else idna.encode(host, uts46=True).decode("ascii")).lower()
        try:
            idna.decode(name)
        except idna.IDNAError:
            name.encode().decode("idna")  # the older standard has more names, such as those with emoji
        return name
    except (ValueError, IndexError) as error:
        raise ValueError(f"{shown(host)!r} is not a host name: {error}") from error


def _ipv4(labels: list[str]) -> str:
    """Read an IPv4 address in any of the forms that C libraries take (WHATWG URL §3.5, IPv4 parser)."""
    try:
        *high, low = (int(part[2:] or "0", 16) if part[:2] == "0x" else _decimal(part) for part in labels)
        if len(high) > 3 or any(part > 255 for part in high) or low >= 256 ** (4 - len(high)):
            raise ValueError("a part is too large")
    except ValueError as error:
        raise ValueError(f"{shown('.'.join(labels))!r} is not an IPv4 address") from error
    return str(ipaddress.IPv4Address(int.from_bytes(bytes(high), "big") << 8 * (4 - len(high)) | low))


def _decimal(part: str) -> int:
    return int(part, 8 if part.startswith("0") else 10)


def encode(text: str, *, more: str = "") -> str:
    """Percent-encode what has to be, and nothing else; ``more`` are characters that may stand as they are."""

    def fix(match: re.Match[str]) -> str:
        if match[1]:
            code = int(match[1], 16)
            return chr(code) if code in _UNRESERVED else f"%{match[1].upper()}"
        return match[0] if match[0] in more else quote(match[0], safe="")

    return _PART.sub(fix, text)


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)
