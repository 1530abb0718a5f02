"""Streams between the stages: pulled chunk by chunk, so that memory does not grow with the file."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")

_END = object()


async def in_thread(make: Callable[[], Iterator[T]]) -> AsyncGenerator[T]:
    """Iterate in worker threads, one step at a time, so that the event loop stays free.

    Args:
        make: Returns the iterator; called in a thread too.

    Yields:
        The items in order.
    """
    iterator = await asyncio.to_thread(make)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield item  # type: ignore[misc]  # the end mark is filtered out above


async def ahead(source: AsyncGenerator[T], *, depth: int = 1) -> AsyncGenerator[T]:
    """Work ahead: the source makes its next items while the consumer uses this one.

    Args:
        source: An async generator; closed at the end.
        depth: How many finished items may wait.

    Yields:
        The items in order; an error of the source comes after the items before it.
    """
    queue: asyncio.Queue[T | BaseException | object] = asyncio.Queue(depth)

    async def produce() -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await queue.put(item)
        except Exception as error:  # noqa: BLE001 -- handed to the consumer, who raises it
            await queue.put(_Failure(error))
        else:
            await queue.put(_END)

    producer = asyncio.create_task(produce())
    try:
        while (item := await queue.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]  # marks are filtered out above
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)


class _Failure:
    """An error on its way from the producer to the consumer."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error
