"""Rules for databases and their drivers."""

import re

from bulletproof.errors.reading import read, text_of
from bulletproof.errors.registry import Defer, Verdict, register, rule
from bulletproof.errors.text import without_values

# SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_TRANSIENT_STATES = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "53300", "25006", "57014"}


def by_sqlstate(state: str, details: str) -> Verdict | None:
    """Say what a SQLSTATE means, or None when it is none."""
    if len(state) != 5:
        return None
    code, retryable = "internal_error", None
    if state[:2] == "08" or state in _TRANSIENT_STATES:
        code = "database_unavailable"
    elif state in ("53100",):
        code = "disk_full"
    elif state in ("53200",):
        code = "out_of_memory"
    elif state[:2] in ("28", "3D") or state == "42501":
        code, retryable = "database_unavailable", False
    elif state[:2] in ("53", "57", "58", "XX", "F0"):
        code = "database_unavailable"
    elif state[:2] == "22":
        code = "invalid_input"
    return Verdict(code, retryable, details)


def by_sqlite_text(text: str) -> Verdict | None:
    """Say what SQLite means, whose Python errors carry little but words."""
    lower = text.lower()
    details = without_values(text)
    if "is locked" in lower or "unable to open database" in lower or "database schema has changed" in lower:
        return Verdict("database_unavailable", None if "open" not in lower else False, details)
    if "database or disk is full" in lower:
        return Verdict("disk_full", None, details)
    if "disk i/o error" in lower or "malformed" in lower or "not a database" in lower:
        return Verdict("io_error", None, details)
    if "readonly database" in lower:
        return Verdict("misconfigured", None, details)
    if "out of memory" in lower:
        return Verdict("out_of_memory", None, details)
    return None


@rule("sqlite3.Error")
def sqlite(error: BaseException) -> Verdict:
    """By SQLite's words."""
    text = text_of(error)
    return by_sqlite_text(text) or Verdict("internal_error", details=without_values(text))


@rule("sqlalchemy.exc.DBAPIError", "sqlalchemy.exc.StatementError")
def sqlalchemy(error: BaseException) -> Verdict:
    """A wrapper of the driver's error; the text around it holds the statement and its parameters."""
    driver = read(error, "orig")
    inner = driver if isinstance(driver, BaseException) else error
    details = without_values(re.sub(r"^\(\S+\)\s*", "", text_of(inner)))
    state = read(inner, "sqlstate") or read(inner, "pgcode")
    by_state = by_sqlstate(state, details) if isinstance(state, str) else None
    if by_state is not None:
        return by_state
    by_text = by_sqlite_text(details)
    if by_text is not None:
        return by_text
    if read(error, "connection_invalidated") is True:
        return Verdict("database_unavailable", None, details)
    names = {base.__name__ for base in type(error).__mro__}
    if names & {"OperationalError", "InterfaceError"}:
        return Verdict("database_unavailable", None, details, defer="no")
    defer: Defer = "cause"
    return Verdict("internal_error", None, details, defer=defer)


register("database_unavailable", "sqlalchemy.exc.TimeoutError sqlalchemy.exc.DisconnectionError")
register("internal_error", "sqlalchemy.exc.SQLAlchemyError")
register("misconfigured", "sqlalchemy.exc.ArgumentError sqlalchemy.exc.NoSuchModuleError")
