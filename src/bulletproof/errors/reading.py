"""Reading from foreign exceptions, which may be hostile: nothing here ever raises."""

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
    try:
        module = _module(cls)
    except Exception:  # noqa: BLE001 - a class body may delete or hide its module
        module = None
    name: str = type.__dict__["__qualname__"].__get__(cls)
    if type(module) is not str or not module:
        return name
    return name if module == "builtins" else f"{module}.{name}"


def links(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Return the explicit cause and the implicit context, the latter None when suppressed."""
    cause = _cause(error)
    return cause, (None if cause is not None or _suppressed(error) else _context(error))


def of_database(error: BaseException) -> bool:
    """Whether a database driver raised the exception: the drivers let the errors of their sockets through as they are.

    The traceback tells: the innermost frame that is no network plumbing belongs to a driver.
    """
    owner = ""
    link: TracebackType | None = _traceback(error)
    for _ in range(_FRAMES):
        if link is None:
            break
        module = link.tb_frame.f_globals.get("__name__")
        package = module.partition(".")[0] if type(module) is str else ""
        if package not in _BENEATH:
            owner = package
        link = link.tb_next
    return owner in _DATABASES
