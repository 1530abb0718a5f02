"""Where the database is."""

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from bulletproof.errors import ConfigurationError
from bulletproof.errors.installing import not_installed

FILE_NAME = "results.db"

_EXAMPLES = "Use sqlite:///path/to/results.db or postgresql://user:password@host:5432/name."
_ENCODE = (
    "In the user name and the password, write special characters as in a URL: %40 for @, %23 for #, %2F for /, "
    "%3A for :, %3F for ?, %25 for %."
)
# Known to libpq or to other clients, but not to the driver, which would pass them on to the server.
_NOT_FOR_SERVER = {
    "channel_binding", "connect_timeout", "gssencmode", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "pgbouncer", "schema", "sslcompression", "sslsni", "tcp_user_timeout",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """A database that can be connected to.

    Args:
        kind: Which of the two.
        shown: How it is called in messages; never holds a user name or a password.
        path: The file of an SQLite database.
        dsn: What the driver of PostgreSQL connects to; holds the password.
        named: Whether the user named it, rather than leaving it to the data folder.
    """

    kind: Literal["sqlite", "postgresql"]
    shown: str
    path: Path | None = None
    dsn: str | None = field(default=None, repr=False)
    named: bool = True

    def __str__(self) -> str:
        return self.shown


def parse_address(url: str | None, data_dir: Path | str) -> Address:
    """Read the URL of a database.

    Args:
        url: ``sqlite:///`` and a path, or ``postgresql://`` (also ``postgres://``, and any driver after a ``+``) as
            hosts give it; None for a file in the data folder.
        data_dir: The data folder.

    Returns:
        The address.

    Raises:
        ConfigurationError: The URL makes no sense, or a library is missing; the message holds no part of a password.

    Example:
        >>> print(parse_address("postgres://app:secret@db.example.com/app?sslmode=require", "."))
        postgresql://db.example.com/app
        >>> parse_address("mysql://root:secret@localhost/app", ".")
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.ConfigurationError: the database URL begins with 'mysql', which is not supported
    """
    if url is None or not url.strip():
        return _file(Path(data_dir) / FILE_NAME, named=False)
    scheme, separator, rest = url.strip().partition("://")
    name = scheme.lower().partition("+")[0]
    if not separator or not re.fullmatch(r"[a-z][a-z0-9.-]{0,30}", name):
        raise ConfigurationError("the database URL does not begin with a scheme and ://", hint=_EXAMPLES)
    if name == "sqlite":
        return _sqlite(rest)
    if name in ("postgres", "postgresql"):
        return _postgresql(rest)
    raise ConfigurationError(f"the database URL begins with {name!r}, which is not supported", hint=_EXAMPLES)


def _sqlite(rest: str) -> Address:
    path = rest.removeprefix("/")
    if path == rest and rest:
        raise ConfigurationError(
            "the SQLite URL names a host",
            hint="Write three slashes before a relative path and four before an absolute one: sqlite:///data/results.db",
        )
    if path in ("", ":memory:") or path.startswith("file:"):
        raise ConfigurationError("the SQLite URL names no file; results in memory would be lost", hint=_EXAMPLES)
    if "?" in path or "\0" in path:
        raise ConfigurationError("the SQLite URL has options, which are not supported", hint=_EXAMPLES)
    return _file(Path(path).expanduser(), named=True)


def _file(path: Path, *, named: bool) -> Address:
    path = path.absolute()
    return Address("sqlite", f"sqlite:///{path}", path, named=named)


def _postgresql(rest: str) -> Address:
    try:
        parts = urlsplit(f"postgresql://{rest}")
        hosts = parts.netloc.rpartition("@")[2]
        ports = [re.fullmatch(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::(\d{1,5}))?", host) for host in hosts.split(",")]
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        # Not chained: the message of the parser quotes what may be a piece of the password.
        raise ConfigurationError("the database URL cannot be read", hint=_ENCODE) from None
    if parts.fragment or "@" in parts.path or not all(ports):
        raise ConfigurationError("the database URL cannot be read: host or port make no sense", hint=_ENCODE)
    if find_spec("asyncpg") is None:
        raise not_installed("the driver for PostgreSQL is not installed", "postgres")
    kept = [(key, value) for key, value in query if key not in _NOT_FOR_SERVER]
    where = hosts or next((value for key, value in kept if key == "host"), "")
    # A path in front of the name of the database is the folder of a socket.
    shown = f"postgresql://{where}/{parts.path.removeprefix('/')}"
    dsn = f"postgresql://{parts.netloc}{parts.path}" + (f"?{urlencode(kept)}" if kept else "")
    return Address("postgresql", shown, dsn=dsn)
