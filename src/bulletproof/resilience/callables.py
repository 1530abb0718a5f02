"""Which kind of function is this, and what is it called."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

Kind = Literal["plain", "coroutine", "generator", "async_generator"]

_COROUTINE = inspect.CO_COROUTINE
_SPECIAL = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def is_coroutine_function(fn: Callable[..., Any]) -> bool:
    """Tell whether calling ``fn`` gives a coroutine.

    Args:
        fn: A function, method, partial, or object with ``__call__``.

    Returns:
        True for coroutine functions, under whatever of these wrappings.

    Example:
        >>> async def fetch(): ...
        >>> is_coroutine_function(functools.partial(fetch)), is_coroutine_function(len)
        (True, False)
    """
    try:
        return fn.__code__.co_flags & _COROUTINE != 0 or _marked(fn)
    except (AttributeError, TypeError):
        return kind_of(fn) == "coroutine"


def kind_of(fn: Callable[..., Any]) -> Kind:
    """Tell what calling ``fn`` gives: a value, a coroutine, a generator or an async generator.

    Args:
        fn: A function, method, partial, or object with ``__call__``.

    Returns:
        The kind.

    Raises:
        TypeError: ``fn`` cannot be called.
    """
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
    # Mocks and some C extensions are coroutine functions by mark only.
    return getattr(fn, "_is_coroutine", None) is asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001
