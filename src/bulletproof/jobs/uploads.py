"""Uploads that are processed later: kept in the job engine's database, so that any process and machine can do them."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from bulletproof.errors import ResourceError, StoreError, classify
from bulletproof.jobs.system import SCHEMA, Job, JobTables
from bulletproof.processor import AIDataProcessor, ProcessOptions, error_answer
from bulletproof.store import SqlUsage, Used

KIND = "upload"
_WITHDRAWN = "withdrawn"
_PIECE = 2**20
_TRIES, _DEATHS = 4, 20
_KEPT, _RECEIVING, _UNQUEUED = 7 * 86400.0, 3600.0, 10.0  # seconds
_DAY = 86400.0
_LOCK = 0x62756C6C75706C64  # of PostgreSQL's advisory locks; nobody else has this number
_log = logging.getLogger("bulletproof.jobs")

_metadata = sa.MetaData()
_uploads = sa.Table(
    "uploads",
    _metadata,
    sa.Column("processing_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),  # receiving, accepted, running, complete, failed or withdrawn
    sa.Column("owner", sa.Text),
    sa.Column("filename", sa.Text),
    sa.Column("content_type", sa.Text),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("answer", sa.JSON),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("updated_at", sa.Double, nullable=False),
)
_parts = sa.Table(
    "upload_parts",
    _metadata,
    sa.Column("processing_id", sa.Text, primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)


class Uploads:
    """Takes files to be processed later, and does so.

    Args:
        processor: Processes them.
        now: The present moment (aware UTC).

    Attributes:
        tables: The job engine's; set by ``BatchJobs``.
    """

    tables: JobTables

    def __init__(self, processor: AIDataProcessor, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._processor = processor
        self._now = now
        self._made = False

    async def accept(
        self, processing_id: str, file: Any, *, owner: str | None, options: dict[str, Any], subject: str | None = None
    ) -> None:
        """Keep a file and have it processed; it is safe when this returns.

        Args:
            processing_id: What its results will be found under.
            file: With ``filename``, ``content_type`` and an async ``read``.
            owner: Who may see what becomes of it.
            options: ``text_field``, ``labels`` and ``allow_fallback`` of ``ProcessOptions``.
            subject: On whose quota it counts when it is done.

        Raises:
            StoreError: The database cannot be used; the file was not taken.
        """
        options = options | {"subject": subject}
        values = {
            "processing_id": processing_id, "status": "receiving", "owner": owner, "options": options,
            "filename": getattr(file, "filename", None), "content_type": getattr(file, "content_type", None),
        }  # fmt: skip
        await self._run("keep an upload in", sa.insert(_uploads).values(values | {"updated_at": self._seconds()}))
        part = 0
        while data := await file.read(_PIECE):
            piece = {"processing_id": processing_id, "part": part, "data": data}
            await self._run("keep an upload in", sa.insert(_parts).values(piece))
            part += 1
        await self._set(processing_id, status="accepted")
        try:
            await self.tables.enqueue([_job(processing_id)])
        except StoreError as error:
            _log.warning("upload %s is kept, its job is enqueued later: %s", processing_id, error)

    async def state(self, processing_id: str, *, owner: str | None) -> dict[str, Any] | None:
        """Return ``status`` (``accepted``, ``running``, ``complete`` or ``failed``) and, when it failed, ``answer``.

        None when there is no such upload, or it is somebody else's.
        """
        row = await self._row(processing_id)
        if row is None or row.status in ("receiving", _WITHDRAWN) or row.owner not in (None, owner):
            return None
        return {"status": row.status, "answer": row.answer}

    async def withdraw(self, processing_id: str, *, owner: str | None) -> bool:
        """Give up a file that is not processed yet, or forget why it could not be.

        Args:
            processing_id: Its id.
            owner: Whose it must be, unless it is nobody's.

        Returns:
            Whether there was such a one. What is being made of it is not stored, or soon gone.

        Raises:
            StoreError: The database cannot be used.
        """
        mine = (_uploads.c.processing_id == processing_id) & (_uploads.c.owner.is_(None) | (_uploads.c.owner == owner))
        gone = sa.update(_uploads).where(mine, _uploads.c.status.in_(("accepted", "running", "failed")))
        values = {"status": _WITHDRAWN, "answer": None, "updated_at": self._seconds()}
        found = await self._run("withdraw an upload from", gone.values(values).returning(_uploads.c.processing_id))
        if found:
            await self._forget_file(processing_id)
        return bool(found)

    async def run(self, processing_id: str) -> None:
        """Do the job: process a file, unless that was done before.

        Raises:
            StoreError: It has to be tried again.
        """
        row = await self._row(processing_id)
        if row is None or row.status in ("complete", "failed"):
            return
        store = self._processor.store
        await store.abandon_run(processing_id)  # of a process that died
        if not await self._set(processing_id, status="running", tries=row.tries + 1):
            await store.delete_run(processing_id)  # it was withdrawn
            return
        answer: dict[str, Any] = {"status": "success", "stored": await store.get_run(processing_id) is not None}
        if not answer["stored"] and row.tries >= _DEATHS:
            error = ResourceError(f"processing was broken off {row.tries} times, probably by the death of its process")
            answer = error_answer(classify(error), processing_id=processing_id) | {"retryable": False}
        elif not answer["stored"]:
            given = {name: value for name, value in row.options.items() if name != "subject"}
            options = ProcessOptions(**given, owner=row.owner, processing_id=processing_id)
            answer = await self._processor.process_file(_Kept(self, row), options)
        failed = answer["status"] == "error"
        if (answer["retryable"] and row.tries < _TRIES) if failed else not answer["stored"]:
            why = answer["details"] if failed else "its results could not be stored"
            raise StoreError(f"upload {processing_id} is not processed yet: {why}")
        if not failed:
            await self._count(processing_id, row.options.get("subject"))
        status = "failed" if failed else "complete"
        if not await self._set(processing_id, status=status, answer=answer if failed else None):
            await store.delete_run(processing_id)
        await self._forget_file(processing_id)

    async def _count(self, processing_id: str, subject: str | None) -> None:
        """Count what was processed on the quota of whoever sent it; however often, it counts once."""
        store = self._processor.store
        run = await store.get_run(processing_id)
        if subject is None or run is None:
            return
        spent, now = run.usage or {}, self._seconds()
        used = {
            "records": (run.records or {}).get("received", 0),
            "tokens": spent.get("prompt_tokens", 0) + spent.get("completion_tokens", 0), "cost": spent.get("cost") or 0,
        }  # fmt: skip
        ends = (now // _DAY + 1) * _DAY
        rows = [Used(subject, what, ends, amount) for what, amount in used.items() if amount]
        await SqlUsage(store.access, f"{KIND}:{processing_id}").exchange(rows, (), now=now)

    async def enqueue_lost(self) -> None:
        """Enqueue what was kept but not enqueued, as when the process died in between."""
        lost = _uploads.c.status.in_(("accepted", "running")) & (_uploads.c.updated_at < self._seconds() - _UNQUEUED)
        waiting = await self._run("find uploads in", sa.select(_uploads.c.processing_id).where(lost))
        await self.tables.enqueue(_job(row.processing_id) for row in waiting)

    async def remove_old(self) -> None:
        """Remove what became of uploads a week ago, and those that were never received to their end."""
        stamp, status, now = _uploads.c.updated_at, _uploads.c.status, self._seconds()
        old = status.in_(("complete", "failed", _WITHDRAWN)) & (stamp < now - _KEPT)
        old |= (status == "receiving") & (stamp < now - _RECEIVING)
        gone = sa.select(_uploads.c.processing_id).where(old)
        parts = sa.delete(_parts).where(_parts.c.processing_id.in_(gone))
        await self._run("remove old uploads from", parts, sa.delete(_uploads).where(old))

    async def part(self, processing_id: str, number: int) -> bytes:
        """Return a part of a file; empty behind the last one."""
        mine = (_parts.c.processing_id == processing_id) & (_parts.c.part == number)
        rows = await self._run("read an upload from", sa.select(_parts.c.data).where(mine))
        return bytes(rows[0].data) if rows else b""

    async def _row(self, processing_id: str) -> Any:
        query = sa.select(_uploads).where(_uploads.c.processing_id == processing_id)
        rows = await self._run("read an upload from", query)
        return rows[0] if rows else None

    async def _set(self, processing_id: str, **values: Any) -> bool:
        """Change an upload, and tell whether it is still wanted."""
        wanted = (_uploads.c.processing_id == processing_id) & (_uploads.c.status != _WITHDRAWN)
        change = sa.update(_uploads).where(wanted).values(values | {"updated_at": self._seconds()})
        return bool(await self._run("change an upload in", change.returning(_uploads.c.processing_id)))

    async def _forget_file(self, processing_id: str) -> None:
        await self._run("remove an upload from", sa.delete(_parts).where(_parts.c.processing_id == processing_id))

    async def _run(self, doing: str, *statements: Any) -> Any:
        def work() -> Any:
            engine = self.tables.engine.execution_options(
                schema_translate_map={None: None if self.tables.engine.dialect.name == "sqlite" else SCHEMA}
            )
            with engine.begin() as connection:
                if not self._made:
                    self._make(connection)
                found = [connection.execute(statement) for statement in statements][-1]
                rows = found.all() if found.returns_rows else None
            self._made = True
            return rows

        return await self.tables.run(doing, work)

    def _make(self, connection: sa.Connection) -> None:
        if connection.dialect.name != "sqlite":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))  # two at once would collide
            connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
        for table in _metadata.sorted_tables:  # SQLite knows no such lock
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))

    def _seconds(self) -> float:
        return self._now().timestamp()


class _Kept:
    """An upload as a file."""

    def __init__(self, uploads: Uploads, row: Any) -> None:
        self._uploads = uploads
        self._id: str = row.processing_id
        self._next = 0
        self._rest = b""
        self.filename: str | None = row.filename
        self.content_type: str | None = row.content_type

    async def read(self, size: int) -> bytes:
        """Read on."""
        if not self._rest:
            self._rest = await self._uploads.part(self._id, self._next)
            self._next += 1
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _job(processing_id: str) -> Job:
    return Job(f"{KIND}:{processing_id}", KIND, (KIND, processing_id))
