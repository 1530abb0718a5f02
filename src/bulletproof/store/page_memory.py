"""What earlier runs made of pages whose servers can tell whether there is a newer version."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bulletproof.store.batch_records import ItemRow, url_key
from bulletproof.store.bulk import BulkInsert, replace
from bulletproof.store.tables import pages
from bulletproof.store.values import clean


class PageMemory:
    """Keeps the last result of each page that has an ``etag`` or ``last_modified``, for each owner."""

    def __init__(self, kind: str) -> None:
        self._remember = BulkInsert(
            pages, kind, lambda insert: replace(insert, where=insert.excluded.checked_at >= pages.c.checked_at)
        )

    async def remember(
        self, connection: AsyncConnection, owner: str | None, items: Sequence[ItemRow], now: float
    ) -> None:
        kept = [(item.url, item.result) for item in items if item.status == "success" and item.result]
        known = {
            url_key(clean(url), owner): orjson.dumps(clean(result), default=str).decode()
            for url, result in kept
            if result.get("etag") or result.get("last_modified")
        }
        await self._remember(connection, [(key, result, now) for key, result in sorted(known.items())])

    async def recall(
        self, connection: AsyncConnection, owner: str | None, urls: Iterable[str]
    ) -> dict[str, dict[str, Any]]:
        keys = {url_key(clean(url), owner): url for url in urls}
        query = sa.select(pages.c.url_key, pages.c.result).where(pages.c.url_key.in_(list(keys)))
        return {keys[bytes(row[0])]: orjson.loads(row[1]) for row in await connection.execute(query)}
