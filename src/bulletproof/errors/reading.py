"""Reading from foreign exceptions, which may be hostile: nothing here ever raises."""

from functools import lru_cache
from types import TracebackType
from typing import Any

_DRIVERS = """aiomysql aioodbc aiosqlite asyncmy asyncpg cassandra clickhouse_connect duckdb motor MySQLdb mysql neo4j
    oracledb psycopg psycopg2 psycopg_pool pymongo pymysql pyodbc redis sqlalchemy sqlite3 valkey"""
_DATABASES = frozenset(_DRIVERS.split())
_BENEATH = frozenset(
    {"asyncio", "socket", "ssl", "selectors", "uvloop", "greenlet", "anyio", "threading", "concurrent"}
)
_FRAMES = 200

_module = type.__dict__["__module__"].__get__
_qualname = type.__dict__["__qualname__"].__get__
_mro = type.__dict__["__mro__"].__get__
_cause = BaseException.__dict__["__cause__"].__get__
_context = BaseException.__dict__["__context__"].__get__
_traceback = BaseException.__dict__["__traceback__"].__get__
_suppressed = BaseException.__dict__["__suppress_context__"].__get__


def read(source: Any, name: str) -> Any:
    """Return an attribute, or None when it is missing or refuses to be read."""
    try:
        return getattr(source, name, None)
    except BaseException:  # noqa: BLE001 - a property of foreign code may raise anything, SystemExit included
        return None


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, or an empty text when that fails."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - foreign __str__ methods may raise anything, SystemExit included
        return ""
    return text if type(text) is str else str.__str__(text)


def mro_of(cls: type) -> tuple[type, ...]:
    """Return the true method resolution order, whatever the metaclass pretends."""
    order: tuple[type, ...] = _mro(cls)
    return order


def qualified_name(cls: type) -> str:
    """Return ``package.module.Class``, and the bare name for a built-in, as tracebacks do.

    Example:
        >>> import json
        >>> qualified_name(json.JSONDecodeError), qualified_name(ValueError)
        ('json.decoder.JSONDecodeError', 'ValueError')
    """
    name: str = _qualname(cls)
    module = module_of(cls)
    return name if module in ("", "builtins") else f"{module}.{name}"


def module_of(cls: type) -> str:
    """Return the name of the module that defines a class; empty when the class hides it."""
    try:
        module = _module(cls)
    except Exception:  # noqa: BLE001 - a class body may delete its module
        return ""
    return module if type(module) is str else ""


def links(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return the explicit cause and the implicit context, the latter None when suppressed."""
    cause = _cause(error)
    return cause, (None if cause is not None or _suppressed(error) else _context(error))


def raised_by(error: BaseException) -> str:
    """Say whose code raised a built-in exception: ``database``, ``image`` or nobody's in particular.

    Database drivers let the errors of their sockets through as they are, and Pillow says of a broken file what Python
    has a class for. The traceback tells: its innermost frame that is no plumbing.
    """
    owner = ""
    link: TracebackType | None = _traceback(error)
    left = _FRAMES
    while link is not None and left:
        kind = _owner(link.tb_frame.f_globals.get("__name__"))
        if kind is not None:
            owner = kind
        link = link.tb_next
        left -= 1
    return owner


@lru_cache(maxsize=4096)
def _owner(module: object) -> str | None:
    """Return what kind of library a module belongs to; None for what lies beneath every library."""
    package, _, rest = str(module).partition(".")
    if package in _BENEATH:
        return None
    if package == "PIL" and (not rest or rest == "ImageFile" or rest.endswith("Plugin")):
        return "image"
    return "database" if package in _DATABASES else ""
