"""Retry of generators: before the first item only, since a caller cannot take items back."""

from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulletproof.resilience.retry import RetryPolicy

_END = object()


def retried_stream(policy: "RetryPolicy", fn: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a generator function so that it is started again if it fails before its first item.

    Args:
        policy: The rules.
        fn: A generator function.

    Returns:
        A generator function.
    """

    def start(*args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        stream = fn(*args, **kwargs)
        try:
            return stream, next(stream), None
        except StopIteration as end:
            return stream, _END, end.value

    start.__qualname__ = getattr(fn, "__qualname__", start.__qualname__)
    begin = policy(start)

    def stream(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        source, item, value = begin(*args, **kwargs)
        if item is _END:
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


def retried_async_stream(policy: "RetryPolicy", fn: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an async generator function so that it is started again if it fails before its first item.

    Args:
        policy: The rules.
        fn: An async generator function.

    Returns:
        An async generator function.
    """

    async def start(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        stream = fn(*args, **kwargs)
        try:
            return stream, await anext(stream)
        except StopAsyncIteration:
            return stream, _END
        except BaseException:
            await stream.aclose()
            raise

    start.__qualname__ = getattr(fn, "__qualname__", start.__qualname__)
    begin = policy(start)

    async def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        source, item = await begin(*args, **kwargs)
        if item is _END:
            return
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - handed on to the source
                    item = await source.athrow(error)
                else:
                    item = await source.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            await source.aclose()

    return stream
