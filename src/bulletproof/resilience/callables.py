"""Which kind of function is this, and what is it called."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any, Literal

Kind = Literal["plain", "coroutine", "generator", "async_generator"]

_MARK = getattr(asyncio.coroutines, "_is_coroutine", object())
_SPECIAL = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_KINDS: dict[int, Kind] = {
    0: "plain",
    inspect.CO_COROUTINE: "coroutine",
    inspect.CO_GENERATOR: "generator",
    inspect.CO_ASYNC_GENERATOR: "async_generator",
}


def kind_of(fn: Callable[..., Any]) -> Kind:
    """Tell what calling ``fn`` gives: a value, a coroutine, a generator or an async generator.

    Raises:
        TypeError: ``fn`` cannot be called.

    Example:
        >>> async def fetch(): ...
        >>> kind_of(functools.partial(fetch)), kind_of(len)
        ('coroutine', 'plain')
    """
    code = getattr(fn, "__code__", None)
    if type(code) is CodeType:
        flags = code.co_flags & _SPECIAL
        if flags or not fn.__dict__:
            return _KINDS[flags]
    if not callable(fn):
        raise TypeError(f"a function is needed, not {type(fn).__name__}: {fn!r:.80}")
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not (inspect.isroutine(fn) or inspect.isclass(fn) or _marked(fn)):
        fn = getattr(fn, "__call__", fn)  # noqa: B004  # an object: its call decides
    if inspect.iscoroutinefunction(fn) or _marked(fn):
        return "coroutine"
    if inspect.isasyncgenfunction(fn):
        return "async_generator"
    if inspect.isgeneratorfunction(fn):
        return "generator"
    return "plain"


def name_of(fn: Callable[..., Any]) -> str:
    """Return a name of the function that people recognise."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__


def _marked(fn: Callable[..., Any]) -> bool:
    # Some extensions compiled from coroutine functions are so by mark only.
    return getattr(fn, "_is_coroutine", None) is _MARK


def either(
    fn: Callable[..., Any], plain: Callable[..., Any], coroutine: Callable[[], Callable[..., Any]]
) -> Callable[..., Any]:
    """Choose what to protect a plain function with: ``plain``, or at each call either that or what ``coroutine`` makes.

    Decorators often hide a coroutine function in a plain one, as some SDK methods do. Whether such a function is
    called from a task decides: there it must not block the event loop.
    """
    inner = inspect.unwrap(fn) if hasattr(fn, "__wrapped__") else fn
    if inner is fn or not inspect.iscoroutinefunction(inner):
        return plain
    awaited = coroutine()

    def choose(*args: Any, **kwargs: Any) -> Any:
        in_task = asyncio._get_running_loop() is not None  # noqa: SLF001
        return (awaited if in_task else plain)(*args, **kwargs)

    return choose


def replay(first: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that gives ``first`` at its first call and then does as ``fn``."""
    made = [first]

    def again(*args: Any, **kwargs: Any) -> Any:
        return made.pop() if made else fn(*args, **kwargs)

    return functools.update_wrapper(again, fn)
