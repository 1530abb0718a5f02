"""The job engine's own tables: who has what to do, beside the results."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import sqlalchemy as sa

from bulletproof.errors import redact
from bulletproof.errors.installing import not_installed
from bulletproof.store.address import Address
from bulletproof.store.damage import JOBS_FILE, clear_way
from bulletproof.store.failures import explain

if TYPE_CHECKING:
    from dbos import DBOSConfig

T = TypeVar("T")

APPLICATION = "bulletproof"
# Says what the arguments of a job mean, not which code runs it: an update of the code takes up what waits already. By
# default DBOS derives it from the source, and then one changed line strands everything that was enqueued before.
JOB_SCHEMA = "1"
WORKFLOW = "bulletproof.work"
LIVE = ["ENQUEUED", "PENDING"]
_ENDED = ["SUCCESS", "ERROR", "CANCELLED"]
_PIECE = 5000
SCHEMA = "bulletproof_jobs"
_POOL = 6
_BUSY_SECONDS = 30
_log = logging.getLogger("bulletproof.jobs")


class Job(NamedTuple):
    """A piece of work; the same id is never enqueued twice.

    Args:
        id: Its id.
        queue: Where it waits.
        args: The kind of work and what that needs, all plain values.
        priority: Lower ones are taken first; at least 1.
    """

    id: str
    queue: str
    args: tuple[Any, ...]
    priority: int = 1


class JobTables:
    """The tables of DBOS: a file beside SQLite's, or a schema of its own in PostgreSQL.

    What it does raises ``StoreError`` when the database cannot be used, and may be done again.

    Args:
        address: The database of the results.

    Raises:
        ConfigurationError: The engine is not installed.
    """

    def __init__(self, address: Address) -> None:
        try:
            from dbos import DBOSClient
        except ImportError as error:
            raise not_installed("the engine for durable jobs is not installed", "pipeline") from error
        self.address = self._shown = address
        if address.path is not None:
            path = address.path.with_name(JOBS_FILE)
            self._shown = replace(address, path=path, shown=f"sqlite:///{path}")
        self.engine = _sqlite(address) if address.path is not None else _postgresql(address)
        _quieten()
        self._client = DBOSClient(
            system_database_engine=self.engine, dbos_system_schema=SCHEMA, application_name=APPLICATION,
            lazy=True, retry_connection_errors=False,
        )  # fmt: skip

    def config(self, executor_id: str) -> "DBOSConfig":
        """Return what DBOS is launched with."""
        return {
            "name": APPLICATION,
            "system_database_engine": self.engine,
            "dbos_system_schema": SCHEMA,
            "application_version": JOB_SCHEMA,
            "executor_id": executor_id,
            "use_listen_notify": False,  # nobody waits for events, and a connection is saved
            "notification_listener_polling_interval_sec": 0.2,  # asks nothing, but a stop waits for it
            "log_level": "WARNING",
        }

    async def enqueue(self, jobs: Iterable[Job]) -> None:
        """Put jobs into their queues, except those that are or were there already."""
        from dbos import WorkflowSerializationFormat

        # JSON, not the pickle that DBOS uses by default.
        portable = WorkflowSerializationFormat.PORTABLE

        def work() -> None:
            for job in jobs:
                self._client.enqueue(
                    {
                        "workflow_name": WORKFLOW, "workflow_id": job.id, "queue_name": job.queue,
                        "app_version": JOB_SCHEMA, "priority": job.priority, "serialization_type": portable,
                    },
                    *job.args,
                )  # fmt: skip

        await self.run("enqueue jobs in", work)

    async def find(self, **by: Any) -> list[Any]:
        """Return jobs by ``status``, ``executor_id``, ``workflow_ids``, ``workflow_id_prefix`` or ``limit``."""
        return await self.run(
            "find jobs in",
            lambda: self._client.list_workflows(
                **by, application_name=APPLICATION, load_input=False, load_output=False
            ),
        )

    async def take_up(self, jobs: Sequence[Any]) -> None:
        """Put jobs, as ``find`` gave them, whose executor is gone back into their queues."""
        queues: dict[str, list[str]] = {}
        for job in jobs:
            queues.setdefault(job.queue_name, []).append(job.workflow_id)

        def work() -> None:
            for queue, ids in queues.items():
                self._client.resume_workflows(ids, queue_name=queue)

        await self.run("take up jobs in", work)

    async def forget(self, ids: Sequence[str]) -> None:
        """Remove jobs, none of which is under way."""
        for start in range(0, len(ids), _PIECE):
            piece = list(ids[start : start + _PIECE])
            await self.run("remove jobs from", partial(self._client.delete_workflows, piece))

    async def forget_ended(self, *, before: datetime) -> None:
        """Remove jobs that ended before a moment; see ``forget``."""
        ended = await self.find(status=_ENDED, completed_before=before.isoformat(), limit=_PIECE)
        await self.forget([job.workflow_id for job in ended])

    async def run(self, doing: str, work: Callable[[], T]) -> T:
        """Do something blocking with the database, in a thread."""
        try:
            return await asyncio.to_thread(work)
        except Exception as error:
            raise explain(error, self._shown, doing) from error

    def close(self) -> None:
        """Close all connections."""
        self._client.destroy()
        self.engine.dispose()


def _sqlite(address: Address) -> sa.Engine:
    assert address.path is not None
    path = address.path.with_name(JOBS_FILE)
    with suppress(OSError):  # where it cannot be made, whoever uses the database is told
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_way(path)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), pool_size=_POOL, max_overflow=0)

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        # As DBOS sets up engines of its own, and WAL, without which readers and writers shut each other out.
        connection.isolation_level = "IMMEDIATE"
        for pragma in (f"busy_timeout = {_BUSY_SECONDS * 1000}", "foreign_keys = ON", "journal_mode = WAL",
                       "synchronous = NORMAL"):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _postgresql(address: Address) -> sa.Engine:
    import psycopg

    parts = urlsplit(address.dsn or "")
    known = {str(option.keyword, "ascii") for option in psycopg.pq.Conninfo.get_defaults()}
    query = parse_qsl(parts.query, keep_blank_values=True)
    dsn = parts._replace(query=urlencode([(key, value) for key, value in query if key in known])).geturl()
    # What the driver of the store passes on to the server, libpq does not know. And a process that is stopped in the
    # middle of a transaction must not keep its locks for ever.
    session = {"idle_in_transaction_session_timeout": "60s"} | {key: value for key, value in query if key not in known}

    def connect() -> Any:
        connection = psycopg.connect(
            dsn, autocommit=True, connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=3,
            tcp_user_timeout=20_000, application_name="bulletproof jobs",
        )  # fmt: skip
        for key, value in session.items():
            connection.execute("SELECT set_config(%s, %s, false)", (key, value))
        connection.autocommit = False
        return connection

    return sa.create_engine(
        "postgresql+psycopg://", creator=connect, pool_size=_POOL, max_overflow=0, pool_timeout=10, pool_pre_ping=True,
        pool_recycle=1800, hide_parameters=True,
    )  # fmt: skip


class _Forward(logging.Handler):
    """Hands what DBOS has to say to our own log, a level lower: what fails there is tried again."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        said = redact(record.getMessage()) + (f" ({type(error).__name__})" if error is not None else "")
        level = logging.WARNING if record.levelno >= logging.ERROR else logging.DEBUG
        _log.log(level, "job engine: %s", said)


def _quieten() -> None:
    # With a handler there already, DBOS adds none of its own.
    logger = logging.getLogger("dbos")
    if not any(isinstance(handler, _Forward) for handler in logger.handlers):
        logger.addHandler(_Forward())
        logger.propagate = False
