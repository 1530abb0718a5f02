"""What bulkhead, rate limit, adaptive limit and gate share: something to pass before a call and to leave after it."""

import functools
from collections.abc import Callable
from types import CoroutineType, TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from bulletproof.resilience.callables import either, kind_of
from bulletproof.resilience.streams import judged, judged_async

P = ParamSpec("P")
R = TypeVar("R")


class Guard:
    """Stands before every call; a decorator, and ``call``, for plain and coroutine functions and both generators.

    Subclasses say how to get in (waiting in a thread or in a task) and what happens at the end.
    """

    __slots__ = ()

    def enter(self) -> Any:
        """Wait in a thread until the call may go on; returns what ``leave`` needs."""
        raise NotImplementedError

    async def enter_async(self) -> Any:
        """Wait in a task until the call may go on; returns what ``leave`` needs."""
        raise NotImplementedError

    def leave(self, entry: Any, error: BaseException | None) -> None:
        """End the call: what entering gave, and the error if it ended with one."""

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function through the guard; await the result of a coroutine function."""
        return self(fn)(*args, **kwargs)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Protect a function; it keeps its signature."""
        kind = kind_of(fn)
        if kind == "plain":
            wrapper = either(fn, self._plain(fn), lambda: self._coroutine(fn))
        elif kind == "coroutine":
            wrapper = self._coroutine(fn)
        elif kind == "generator":
            wrapper = judged(self.enter, self._left, fn)
        else:
            wrapper = judged_async(self.enter_async, self._left, fn)
        return functools.wraps(fn)(wrapper)

    def _left(self, entry: Any, error: BaseException | None, _result: Any) -> None:
        self.leave(entry, error)

    def _plain(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            entry = self.enter()
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                self.leave(entry, error)
                raise
            if type(result) is CoroutineType:
                return self._finish(entry, result)
            self.leave(entry, None)
            return result

        return guarded

    async def _finish(self, entry: Any, begun: Any) -> Any:
        try:
            result = await begun
        except BaseException as error:
            self.leave(entry, error)
            raise
        self.leave(entry, None)
        return result

    def _coroutine(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            entry = await self.enter_async()
            try:
                result = await fn(*args, **kwargs)
            except BaseException as error:
                self.leave(entry, error)
                raise
            self.leave(entry, None)
            return result

        return guarded


class Block(Guard):
    """A guard that serves ``with`` and ``async with`` too, because leaving it needs nothing from entering."""

    __slots__ = ()

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(None, error)

    async def __aenter__(self) -> Self:
        await self.enter_async()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave(None, error)
