"""Generators: they are tried again before their first item only, since no caller can give items back."""

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, NamedTuple

Leave = Callable[[Any, BaseException | None, Any], None]
"""Gets what entering gave, the error that ended it, and what it returned."""


class Begun(NamedTuple):
    """A generator after its first step.

    Args:
        source: The generator.
        item: Its first item.
        ended: Whether there was none.
        value: What it returned in that case.
    """

    source: Any
    item: Any
    ended: bool = False
    value: Any = None


def started(fn: Callable[..., Any]) -> Callable[..., Begun]:
    """Turn a generator function into a plain one that takes the first item."""

    def start(*args: Any, **kwargs: Any) -> Begun:
        source = fn(*args, **kwargs)
        try:
            return Begun(source, next(source))
        except StopIteration as end:
            return Begun(source, None, True, end.value)

    return functools.update_wrapper(start, fn)


def started_async(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Turn an async generator function into a coroutine function that takes the first item."""

    async def start(*args: Any, **kwargs: Any) -> Begun:
        source = fn(*args, **kwargs)
        try:
            return Begun(source, await anext(source))
        except StopAsyncIteration:
            return Begun(source, None, True)

    return functools.update_wrapper(start, fn)


def relay(begin: Callable[..., Begun]) -> Callable[..., Any]:
    """Turn a function that begins a generator into a generator function that gives all of it."""

    def stream(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        source, item, ended, value = begin(*args, **kwargs)
        if ended:
            return value
        # As `yield from source`, which cannot be used because the first item has been taken already.
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - handed on to the source
                    item = source.throw(error)
                else:
                    item = source.send(sent)
        except StopIteration as end:
            return end.value
        finally:
            source.close()

    return stream


def relay_async(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a coroutine function that begins an async generator into a function that gives all of it."""

    async def enter() -> None:
        pass

    return _judged_async(enter, lambda *_: None, begin)


def judged(enter: Callable[[], Any], leave: Leave, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Put something to pass around a generator function: entered at its first step, left at its end."""

    def stream(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        entry = enter()
        try:
            result = yield from fn(*args, **kwargs)
        except BaseException as error:
            leave(entry, error, None)
            raise
        leave(entry, None, result)
        return result

    return stream


def judged_async(enter: Callable[[], Awaitable[Any]], leave: Leave, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Do as ``judged`` with an async generator function."""
    return _judged_async(enter, leave, started_async(fn))


def _judged_async(enter: Callable[[], Awaitable[Any]], leave: Leave, begin: Callable[..., Any]) -> Callable[..., Any]:
    async def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        entry = await enter()
        try:
            source, item, ended, _ = await begin(*args, **kwargs)
            # As `yield from source` would do, which async generators do not have.
            try:
                while not ended:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - handed on to the source
                        item = await source.athrow(error)
                    else:
                        item = await source.asend(sent)
            except StopAsyncIteration:
                pass
            finally:
                await source.aclose()
        except BaseException as error:
            leave(entry, error, None)
            raise
        leave(entry, None, None)

    return stream
