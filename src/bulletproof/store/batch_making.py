"""Making batches of any size, without holding their URLs."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from datetime import datetime
from hashlib import blake2b, sha256
from itertools import islice
from typing import Any
from uuid import uuid4

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.errors import InputValidationError
from bulletproof.store.access import StoreAccess
from bulletproof.store.batch_records import ItemRow, host_of, to_row, url_key
from bulletproof.store.bulk import BulkInsert, insert_into
from bulletproof.store.tables import ABANDONED, CREATING, batch_items, batches
from bulletproof.store.values import MAX_ID, clean, is_id

_PART = 2000  # URLs stored in one transaction


class BatchMaker:
    """Makes batches; see ``BatchStore.create``."""

    def __init__(self, access: StoreAccess, now: Callable[[], datetime]) -> None:
        self._access = access
        self._now = now
        self._insert = insert_into(batches, access.address.kind).on_conflict_do_nothing(index_elements=["batch_id"])
        self._add = BulkInsert(batch_items, access.address.kind)

    async def make(
        self,
        urls: Iterable[str] | AsyncIterable[str],
        *,
        owner: str | None,
        key: str | None,
        options: dict[str, Any],
        chunk_size: int,
        schema_version: int,
        spelling: Callable[[str], str],
    ) -> str:
        """Make a batch and return its id, or that of the one that was made before with this key."""
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")
        if key is not None and not is_id(key):
            raise InputValidationError(
                f"an idempotency key must have between 1 and {MAX_ID} characters, all of them printable"
            )
        key_of_owner = None if key is None else sha256(orjson.dumps([clean(owner), clean(key)])).hexdigest()
        options = clean(options)
        digest = blake2b(orjson.dumps(options, option=orjson.OPT_SORT_KEYS), digest_size=16)
        earlier = None
        if key_of_owner is not None:
            earlier = await self._access.read("read a batch from", lambda c: _made_with(c, key_of_owner))
        if earlier is not None:
            async for part in _parts(urls):
                _digest(digest, part)
            return _same(earlier, digest.hexdigest())
        batch_id = uuid4().hex
        now = self._now()
        begun = self._insert.values(
            batch_id=batch_id, owner=clean(owner), key=clean(key), options=options, chunk_size=chunk_size,
            schema_version=schema_version, status=CREATING, given=0, total=0, created_at=now, updated_at=now,
        )  # fmt: skip
        await self._access.execute("begin a batch in", begun)
        given = 0
        async for part in _parts(urls):
            _digest(digest, part)
            items = [
                ItemRow(position=at, url=url, host=host_of(url), _key=url_key(spelling(url)))
                for at, url in enumerate(part, given)
            ]
            await self._add_part(batch_id, items)
            given += len(part)
        earlier = await self._show(batch_id, given, key_of_owner, digest.hexdigest())
        return batch_id if earlier is None else _same(earlier, digest.hexdigest())

    async def _add_part(self, batch_id: str, items: list[ItemRow]) -> None:
        async def work(connection: AsyncConnection) -> None:
            # The row lock that this takes keeps sweeps out; the moment says that the maker lives.
            mine = sa.update(batches).where(batches.c.batch_id == batch_id, batches.c.status == CREATING)
            now = self._now()
            number = await connection.scalar(mine.values(updated_at=now).returning(batches.c.id))
            if number is None:
                raise InputValidationError(
                    "the batch was swept while it was made: its URLs came too slowly", hint="Make it again."
                )
            added = await self._add(connection, [to_row(number, item, now.timestamp()) for item in items])
            # Tried again after its answer was lost, it adds nothing.
            await connection.execute(mine.values(total=batches.c.total + added))

        await self._access.write("add URLs to a batch in", work)

    async def _show(
        self, batch_id: str, given: int, key_of_owner: str | None, fingerprint: str
    ) -> tuple[str, str] | None:
        """Show a batch; return the one that was shown first if another maker came first with the same key."""
        mine = batches.c.batch_id == batch_id
        values = {"given": given, "fingerprint": fingerprint, "key_of_owner": key_of_owner}

        async def work(connection: AsyncConnection) -> tuple[str, str] | None:
            change = sa.update(batches).where(mine, batches.c.status == CREATING)
            await connection.execute(change.values(updated_at=self._now()))  # locks before it looks
            try:
                async with connection.begin_nested():
                    await connection.execute(change.values(values | {"status": "queued"}))
            except sa.exc.IntegrityError:
                earlier = await _made_with(connection, key_of_owner or "")
                if earlier is None:
                    raise
                await connection.execute(sa.update(batches).where(mine).values(status=ABANDONED))  # for the sweep
                return earlier
            return None

        return await self._access.write("complete a batch in", work)


async def _made_with(connection: AsyncConnection, key_of_owner: str) -> tuple[str, str] | None:
    """Find id and fingerprint of the batch that was made with a key."""
    query = sa.select(batches.c.batch_id, batches.c.fingerprint).where(batches.c.key_of_owner == key_of_owner)
    row = (await connection.execute(query)).first()
    return None if row is None else (row[0], row[1])


def _same(earlier: tuple[str, str], fingerprint: str) -> str:
    batch_id, made_from = earlier
    if made_from != fingerprint:
        raise InputValidationError(
            "this idempotency key was used for a batch of other URLs or options",
            code="conflict",
            hint="Send the same as the first time to find that batch, or use a new key.",
            batch=batch_id,
        )
    return batch_id


def _digest(digest: Any, urls: list[str]) -> None:
    for url in urls:
        data = url.encode()
        digest.update(b"%d:" % len(data) + data)


async def _parts(urls: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[list[str]]:
    if not isinstance(urls, AsyncIterable):
        left = iter(urls)
        while part := [clean(str(url)) for url in islice(left, _PART)]:
            yield part
        return
    part = []
    async for url in urls:
        part.append(clean(str(url)))
        if len(part) >= _PART:
            yield part
            part = []
    if part:
        yield part
