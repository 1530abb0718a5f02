"""Work for a client that may hang up meanwhile."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")

HUNG_UP = 499
"""Status of what nobody waits for any more; what web servers log for it."""

_WATCH_AFTER = 0.01  # nobody hangs up sooner, and watching costs more than a quick answer


async def while_connected(work: Awaitable[T], receive: Receive) -> T:
    """Await work, and cancel it as soon as the client hangs up.

    Args:
        work: What to await, in this task.
        receive: The channel of the request, whose body has been read.

    Returns:
        What the work gives.

    Raises:
        ClientDisconnect: The client hung up first.
    """
    task = asyncio.current_task()
    assert task is not None
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    def start() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, start)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and not task.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
