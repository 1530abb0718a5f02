"""Where results are kept."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.errors import InputValidationError, NotFoundError
from bulletproof.resilience import AIServiceCircuitBreaker, RetryPolicy
from bulletproof.store.access import OPERATION_SECONDS, RETRY, StoreAccess
from bulletproof.store.address import parse_address
from bulletproof.store.bulk import BulkInsert, insert_into
from bulletproof.store.records import RejectionRow, ResultRow, RunRecord
from bulletproof.store.removal import remove_run
from bulletproof.store.tables import ABANDONED, COMPLETE, RUNNING, rejections, results, runs
from bulletproof.store.values import MAX_ID, MAX_ROW, check_rows, checked_limit, clean, is_id

ORPHAN_AGE = timedelta(hours=1)
_RUN = sa.select(*(column for column in runs.c if column.name not in ("id", "status", "writer", "heartbeat_at"))).where(
    runs.c.status == COMPLETE
)


class ResultStore:
    """Keeps the results of runs in SQLite or PostgreSQL.

    A run is begun, gets its rows in chunks, and is completed; readers see it whole from then on and nothing of it
    before. Every operation is retried on passing errors and takes a bounded time. It is opened by its first use, and
    a database that went away is used again as soon as it is back. It may be used from several tasks and event loops.

    Args:
        url: ``sqlite:///path`` or ``postgresql://...`` as hosts give it; None for ``results.db`` in the data folder.
        data_dir: The data folder; made, for this user only, if need be.
        now: Gives the present moment (aware).
        retry: Which operations are tried again, and when.
        breaker: Stops asking a database that keeps failing.
        operation_timeout: Seconds for one try of one operation.
        orphan_age: How long nothing must have been heard of a run before ``open`` takes its process for dead.

    Raises:
        ConfigurationError: The URL makes no sense, or the driver is not installed.

    Example:
        >>> import asyncio, tempfile
        >>> async def main(folder):
        ...     store = ResultStore(data_dir=folder)
        ...     await store.begin_run("r1", filename="reviews.csv", format="csv")
        ...     await store.add_chunk("r1", [ResultRow(1, "Lovely", "positive", 0.8, 0.9, "en", "local/1.0")])
        ...     await store.complete_run("r1", records={"received": 1, "analyzed": 1, "rejected": 0}, summary={},
        ...         analyzer="local/1.0", degraded=False, reason=None, warnings=[], duration_ms=3.5)
        ...     rows = await store.get_results("r1")
        ...     await store.aclose()
        ...     return rows[0].text
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        'Lovely'
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        data_dir: Path | str = ".bulletproof",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        retry: RetryPolicy = RETRY,
        breaker: AIServiceCircuitBreaker | None = None,
        operation_timeout: float = OPERATION_SECONDS,
        orphan_age: timedelta = ORPHAN_AGE,
    ) -> None:
        self.access = StoreAccess(
            parse_address(url, data_dir), retry=retry, breaker=breaker, operation_seconds=operation_timeout
        )
        self._now = now
        self._orphan_age = orphan_age
        self._swept_at: datetime | None = None
        kind = self.access.address.kind
        self._add_results = BulkInsert(results, kind)
        self._add_rejections = BulkInsert(rejections, kind)
        self._add_run = insert_into(runs, kind).on_conflict_do_nothing(index_elements=["processing_id"])

    @property
    def breaker(self) -> AIServiceCircuitBreaker:
        """What stops asking a database that keeps failing."""
        return self.access.breaker

    def __repr__(self) -> str:
        return f"ResultStore({str(self.access.address)!r})"

    async def open(self) -> None:
        """Make or update the tables and remove what dead processes left behind; once, however often it is called.

        Raises:
            StoreError: The database cannot be used; says why. It may be called again.
        """
        if await self.access.open():
            await self.sweep_orphans(older_than=self._orphan_age)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.access.aclose()

    async def ping(self) -> None:
        """Reach the database, within two seconds.

        Raises:
            StoreError: It cannot be reached.
        """
        await self.access.ping()

    async def begin_run(
        self,
        processing_id: str,
        *,
        filename: str | None,
        format: str | None,  # noqa: A002 - named as in every answer
        owner: str | None = None,
        text_field: str | None = None,
    ) -> None:
        """Begin a run, which nobody sees before it is complete.

        Args:
            processing_id: Its id, not used before.
            filename: Name of the file.
            format: Its format, such as ``csv``.
            owner: Who may read the results.
            text_field: Field or column that holds the text.

        Raises:
            StoreError: The database cannot be used.
            InputValidationError: There is a run of this id already.
        """
        if not is_id(processing_id):
            raise InputValidationError(
                f"a processing id must have between 1 and {MAX_ID} characters, all of them printable"
            )
        writer = uuid4().hex
        values = {
            "processing_id": processing_id, "status": RUNNING, "writer": writer, "filename": clean(filename),
            "format": clean(format), "owner": clean(owner), "text_field": clean(text_field),
        }  # fmt: skip

        async def work(connection: AsyncConnection) -> None:
            now = self._now()
            await connection.execute(self._add_run.values(values | {"started_at": now, "heartbeat_at": now}))
            found = await connection.scalar(sa.select(runs.c.writer).where(runs.c.processing_id == processing_id))
            if found != writer:
                raise InputValidationError(f"there is a run {processing_id!r} already")

        await self.open()
        if self._swept_at is None or self._now() - self._swept_at >= self._orphan_age:
            await self.sweep_orphans(older_than=self._orphan_age)
        await self.access.write("begin a run in", work)

    async def add_chunk(
        self, processing_id: str, results: Sequence[ResultRow], rejections: Sequence[RejectionRow] = ()
    ) -> None:
        """Add rows to a run. Rows that it has already are left as they are, so a chunk may be sent again.

        Args:
            processing_id: A run that was begun.
            results: Records that were analysed.
            rejections: Records that were not.

        Raises:
            StoreError: The database cannot be used; nothing of the chunk was stored.
            InputValidationError: There is no such run, or a text cannot be stored.
        """
        check_rows(results, rejections)

        async def work(connection: AsyncConnection) -> None:
            # The row lock that this takes keeps sweeps and completion out until the chunk is in.
            run_id = await self._advance(connection, processing_id, {"heartbeat_at": self._now()})
            await self._add_results(
                connection,
                # Numbers of other libraries are no numbers to a driver.
                ((run_id, *row[:3], float(row.score), float(row.confidence), *row[5:]) for row in results),
            )
            await self._add_rejections(
                connection, ((run_id, item.row, item.code, clean(item.details)) for item in rejections)
            )

        await self.open()
        await self.access.write("store results in", work)

    async def complete_run(
        self,
        processing_id: str,
        *,
        records: Mapping[str, Any],
        summary: Mapping[str, Any],
        analyzer: str,
        degraded: bool,
        reason: str | None,
        warnings: Sequence[str],
        duration_ms: float,
        usage: Any = None,
    ) -> None:
        """Make a run visible, with all its rows at once.

        Args:
            processing_id: A run that was begun.
            records: How many records were ``received``, ``analyzed`` and ``rejected``.
            summary: Totals over the results.
            analyzer: Name and version of the analyzer.
            degraded: Whether a fallback answered for at least a part.
            reason: Why it was degraded.
            warnings: What the sender of the file should know.
            duration_ms: Milliseconds that processing took.
            usage: What it consumed at paid services: a mapping or a dataclass.

        Raises:
            StoreError: The database cannot be used.
            InputValidationError: There is no such run, or it is complete already.
        """
        writer = uuid4().hex
        values = {
            "status": COMPLETE, "writer": writer, "records": clean(dict(records)), "summary": clean(dict(summary)),
            "analyzer": clean(analyzer), "degraded": degraded, "reason": clean(reason),
            "warnings": clean(list(warnings)), "duration_ms": float(duration_ms), "usage": clean(usage),
        }  # fmt: skip

        async def work(connection: AsyncConnection) -> None:
            now = self._now()
            await self._advance(
                connection, processing_id, values | {"completed_at": now, "heartbeat_at": now}, writer=writer
            )

        await self.open()
        await self.access.write("complete a run in", work)

    async def abandon_run(self, processing_id: str) -> None:
        """Remove a run that will not be completed, with its rows. Without such a run nothing happens.

        Raises:
            StoreError: The database cannot be used; a sweep will remove the run.
        """
        if is_id(processing_id):
            await self.open()
            await self._remove((runs.c.processing_id == processing_id) & (runs.c.status != COMPLETE))

    async def delete_run(self, processing_id: str, *, owner: str | None = None) -> bool:
        """Remove a complete run with its rows.

        Args:
            processing_id: Id of the run.
            owner: Only if it is of this owner, or of nobody; anybody's when None.

        Returns:
            Whether there was such a run. Nobody sees it any more, even if not all its rows are gone yet.

        Raises:
            StoreError: The database cannot be used.
        """
        which = (runs.c.processing_id == processing_id) & (runs.c.status == COMPLETE)
        if owner is not None:
            which &= runs.c.owner.is_(None) | (runs.c.owner == clean(owner))
        if not is_id(processing_id):
            return False
        await self.open()
        return await self._remove(which) > 0

    async def expire_runs(self, *, older_than: timedelta) -> int:
        """Remove the complete runs that are older than that.

        Returns:
            How many.

        Raises:
            StoreError: The database cannot be used.
        """
        await self.open()
        return await self._remove((runs.c.status == COMPLETE) & (runs.c.completed_at < self._now() - older_than))

    async def _remove(self, which: sa.ColumnElement[bool]) -> int:
        mark = sa.update(runs).where(which).values(status=ABANDONED).returning(runs.c.id)

        async def work(connection: AsyncConnection) -> Sequence[int]:
            return (await connection.scalars(mark)).all()

        numbers = await self.access.write("remove a run from", work)
        for number in numbers:
            await remove_run(self.access, number)
        return len(numbers)

    async def sweep_orphans(self, *, older_than: timedelta) -> int:
        """Remove the runs of processes that died: those that have got no chunk for so long.

        Args:
            older_than: For how long; longer than any chunk takes to be analysed.

        Returns:
            How many runs were removed.

        Raises:
            StoreError: The database cannot be used.
        """
        dead = (runs.c.status == RUNNING) & (runs.c.heartbeat_at < self._now() - older_than)

        async def work(connection: AsyncConnection) -> tuple[int, Sequence[int]]:
            found = await connection.execute(sa.update(runs).where(dead).values(status=ABANDONED))
            ids = await connection.scalars(sa.select(runs.c.id).where(runs.c.status == ABANDONED))
            return found.rowcount, ids.all()

        await self.access.open()
        count, ids = await self.access.write("remove orphans from", work)
        for run_id in ids:
            await remove_run(self.access, run_id)
        self._swept_at = self._now()
        return count

    async def get_run(self, processing_id: str) -> RunRecord | None:
        """Return a complete run, or None.

        Raises:
            StoreError: The database cannot be used.
        """
        found = await self._runs(_RUN.where(runs.c.processing_id == processing_id)) if is_id(processing_id) else []
        return found[0] if found else None

    async def recent_runs(self, limit: int = 20, *, owner: str | None = None) -> list[RunRecord]:
        """Return the complete runs, the last one first.

        Args:
            limit: At most so many.
            owner: Only those of this owner; those of everybody when None.

        Raises:
            StoreError: The database cannot be used.
            InputValidationError: ``limit`` is below 1.
        """
        query = _RUN if owner is None else _RUN.where(runs.c.owner == clean(owner))
        return await self._runs(
            query.order_by(runs.c.completed_at.desc(), runs.c.id.desc()).limit(checked_limit(limit))
        )

    async def get_results(self, processing_id: str, *, after: int = 0, limit: int = 1000) -> list[ResultRow]:
        """Return results of a complete run, ordered by row.

        Args:
            processing_id: The run.
            after: Only rows with a greater number; for the next page the number of the last row of this one.
            limit: At most so many.

        Raises:
            StoreError: The database cannot be used.
            InputValidationError: There is no complete run of this id (a ``NotFoundError``), or ``limit`` is below 1.
        """
        return [ResultRow._make(row) for row in await self._page(results, processing_id, after, limit)]

    async def get_rejections(self, processing_id: str, *, after: int = 0, limit: int = 1000) -> list[RejectionRow]:
        """Return rejections of a complete run, ordered by row; see ``get_results``."""
        return [RejectionRow._make(row) for row in await self._page(rejections, processing_id, after, limit)]

    async def _runs(self, query: sa.Select[Any]) -> list[RunRecord]:
        await self.open()
        return [RunRecord(**row._asdict()) for row in await self.access.rows("read runs from", query)]

    async def _page(self, table: sa.Table, processing_id: str, after: int, limit: int) -> Sequence[sa.Row[Any]]:
        run_id = sa.select(runs.c.id).where(runs.c.processing_id == processing_id, runs.c.status == COMPLETE)
        query = (
            sa.select(*(column for column in table.c if column.name != "run_id"))
            .where(table.c.row > min(after, MAX_ROW))
            .order_by(table.c.row)
            .limit(checked_limit(limit))
        )

        async def work(connection: AsyncConnection) -> Sequence[sa.Row[Any]]:
            found = await connection.scalar(run_id) if is_id(processing_id) else None
            if found is None:
                raise NotFoundError(f"there is no complete run {processing_id!r:.80}")
            return (await connection.execute(query.where(table.c.run_id == found))).all()

        await self.open()
        return await self.access.read(f"read {table.name} from", work)

    async def _advance(
        self, connection: AsyncConnection, processing_id: str, values: dict[str, Any], writer: str | None = None
    ) -> int:
        """Change a running run and return its number."""
        run = runs.c.processing_id == processing_id
        found: int | None = None
        if is_id(processing_id):
            found = await connection.scalar(
                sa.update(runs).where(run, runs.c.status == RUNNING).values(values).returning(runs.c.id)
            )
            if found is None and writer is not None:
                # Done by an earlier try whose answer was lost?
                found = await connection.scalar(sa.select(runs.c.id).where(run, runs.c.writer == writer))
        if found is None:
            raise NotFoundError(
                f"there is no run {processing_id!r:.80} under way",
                hint="Begin a run first. One that got no chunk for long was removed, and a complete one takes no more.",
            )
        return found
