"""Streams between the stages: pulled chunk by chunk, so that memory does not grow with the file."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")

_END = object()


async def in_thread(make: Callable[[], Iterator[T]]) -> AsyncGenerator[T]:
    """Iterate in worker threads, one step at a time, over what ``make`` returns there; the event loop stays free."""
    iterator = await asyncio.to_thread(make)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield item  # type: ignore[misc]  # the end mark is filtered out above


async def ahead(source: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Work ahead: the source makes its next items, of which one may wait, while the consumer uses this one.

    Items may be anything but exceptions. An error of the source comes after the items before it.
    """
    queue: asyncio.Queue[T | Exception | object] = asyncio.Queue(1)

    async def produce() -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await queue.put(item)
        except Exception as error:  # noqa: BLE001 -- handed to the consumer, who raises it
            await queue.put(error)
        else:
            await queue.put(_END)

    producer = asyncio.create_task(produce())
    try:
        while (item := await queue.get()) is not _END:
            if isinstance(item, Exception):
                raise item
            yield item  # type: ignore[misc]  # marks are filtered out above
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)
