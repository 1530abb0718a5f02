"""Old results go by themselves."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from bulletproof.errors import StoreError
from bulletproof.settings import Settings
from bulletproof.store import ResultStore

logger = logging.getLogger("bulletproof.service")

_EVERY_SECONDS = 600.0


@asynccontextmanager
async def expiring(store: ResultStore, settings: Settings) -> AsyncIterator[None]:
    """Remove results that are older than the settings keep them, now and every ten minutes."""
    if settings.retention_days is None:
        yield
        return
    task = asyncio.create_task(_expire(store, timedelta(days=settings.retention_days)), name="bulletproof-retention")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _expire(store: ResultStore, kept: timedelta) -> None:
    while True:
        try:
            count = await store.expire_runs(older_than=kept)
            if count:
                logger.info("%d runs older than %g days were removed", count, kept / timedelta(days=1))
        except StoreError as error:
            logger.warning("old results stay for now: %s", error.code)
        await asyncio.sleep(_EVERY_SECONDS)
