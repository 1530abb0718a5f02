"""Rules for databases and their drivers.

Their texts quote statements, parameters and rows, so what is shown leaves out everything quoted or in brackets.
"""

import re

from bulletproof.errors.reading import mro_of, read, text_of
from bulletproof.errors.registry import Verdict, phrases, rule, verdicts
from bulletproof.errors.text import without_values

_DRIVER_IN_TEXT = re.compile(r"^\(([\w.]+)\)\s*")

# SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_STATES = verdicts({
    "database_unavailable": "08 53 57 58 XX F0 40001 40P01 55P03 25006",
    "database_unavailable, final": "28 3D 42501",
    "disk_full": "53100",
    "out_of_memory": "53200",
    "invalid_input": "22",
})  # fmt: skip
_SQLITE = phrases("""
database_unavailable:
    (?:database|table).* is locked|schema has changed|busy
database_unavailable, final:
    unable to open database
disk_full:
    database or disk is full
io_error:
    disk i/o error|malformed|not a database
misconfigured:
    readonly database
out_of_memory:
    out of memory
""")


def by_sqlite_words(text: str) -> Verdict | None:
    """Say what SQLite means, whose errors carry little but words: https://www.sqlite.org/rescode.html."""
    return next((verdict for pattern, verdict in _SQLITE if pattern.search(text[:400])), None)


@rule("sqlite3.Error", "aiosqlite.Error")
def sqlite(error: BaseException) -> Verdict:
    """By SQLite's words."""
    text = text_of(error)
    return (by_sqlite_words(text) or Verdict("internal_error"))._replace(details=without_values(text))


@rule(
    "asyncpg.PostgresError", "asyncpg.InterfaceError", "asyncpg.InternalClientError",
    "psycopg.Error", "psycopg2.Error", "pg8000.Error",
    "pymysql.Error", "MySQLdb.Error",
    "sqlalchemy.AsyncAdapt_Error", "sqlalchemy.EmulatedDBAPIException",
    "sqlalchemy.engine.interfaces.DBAPIModule.Error",
    "sqlalchemy.dialects.postgresql.asyncpg.AsyncAdapt_asyncpg_dbapi.Error",
)  # fmt: skip
def driver(error: BaseException) -> Verdict:
    """By the SQLSTATE; without one, by the name that PEP 249 gives the class or PostgreSQL gives the condition."""
    details = without_values(text_of(error))
    for attribute in ("sqlstate", "pgcode"):
        state = read(error, attribute)
        if isinstance(state, str) and len(state) == 5:
            verdict = _STATES.get(state) or _STATES.get(state[:2]) or Verdict("internal_error")
            return verdict._replace(details=details)
    names = [base.__name__.removesuffix("Error") for base in mro_of(type(error))]
    verdict = next((_CONDITIONS[name] for name in names if name in _CONDITIONS), Verdict("internal_error"))
    return verdict._replace(details=details)


_CONDITIONS = verdicts({
    "database_unavailable": """TooManyConnections CannotConnectNow DeadlockDetected Serialization
        SerializationFailure QueryCanceled QueryCanceledError AdminShutdown CrashShutdown ConnectionDoesNotExist
        ConnectionFailure PostgresConnection LockNotAvailable TransactionRollback OperatorIntervention
        InsufficientResources System InternalServer Operational Interface TargetServerAttributeNotMatched""",
    "database_unavailable, final": """InvalidPassword InvalidAuthorizationSpecification InvalidCatalogName
        InsufficientPrivilege""",
    "disk_full": "DiskFull",
    "out_of_memory": "OutOfMemory",
    "invalid_input": "Data",
    "internal_error": "Integrity Programming NotSupported Internal IntegrityConstraintViolation",
    "misconfigured, final": "ClientConfiguration",
})  # fmt: skip


@rule("sqlalchemy.exc.DBAPIError", "sqlalchemy.exc.StatementError")
def sqlalchemy(error: BaseException) -> BaseException | Verdict:
    """A wrapper: what the driver says decides. The text around it holds the statement and its parameters."""
    inner = read(error, "orig")
    text = text_of(inner if isinstance(inner, BaseException) else error)
    named = _DRIVER_IN_TEXT.match(text)
    details = without_values(text[named.end() :] if named else text)
    package = type(inner).__module__.partition(".")[0] if isinstance(inner, Exception) else (named[1] if named else "")
    if package.startswith("sqlite3"):
        return (by_sqlite_words(details) or Verdict("internal_error"))._replace(details=details)
    if isinstance(inner, Exception) and (isinstance(inner, OSError) or not isinstance(error, OSError)):
        verdict = driver(inner)
        if verdict.code != "internal_error":
            return verdict
    if read(error, "connection_invalidated") is True:
        return Verdict("database_unavailable", details=details)
    names = {base.__name__ for base in mro_of(type(error))}
    code = "database_unavailable" if names & {"OperationalError", "InterfaceError"} else "internal_error"
    return Verdict("invalid_input" if "DataError" in names else code, details=details)


@rule("pymongo.OperationFailure")
def mongo(error: BaseException) -> Verdict:
    """By MongoDB's error code, else its words."""
    details = without_values(text_of(error))
    if read(error, "code") in (13, 18) or "uthentication failed" in details or "not authorized" in details:
        return Verdict("database_unavailable", retryable=False, details=details)
    if read(error, "code") in (6, 7, 89, 91, 189, 9001, 10107, 11600, 11602, 13435, 13436, 112, 251):
        return Verdict("database_unavailable", details=details)
    return Verdict("internal_error", details=details)
