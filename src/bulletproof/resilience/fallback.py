"""When one way fails, take the next."""

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from bulletproof.errors import ErrorType, classify
from bulletproof.resilience.attempts import Wanted, attach, check_wanted, matches
from bulletproof.resilience.callables import either, kind_of, name_of, replay
from bulletproof.resilience.streams import relay, relay_async, started, started_async

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("bulletproof.resilience")


@dataclass(frozen=True, slots=True)
class FallbackEvent:
    """What a hook is told.

    Args:
        failed: Name of the function that failed.
        taken: Name of the function taken instead.
        error: What it failed with.
    """

    failed: str
    taken: str
    error: Exception


class Fallback:
    """Call the next of several functions when one fails, with the same arguments.

    A decorator, and ``call``, for plain and coroutine functions and for generators (before their first item only).
    By default every error leads on, except a caller's own fault: what is wrong with the input stays wrong elsewhere.
    When the last one fails too, its error is raised, and the earlier ones stay reachable through ``__context__``.

    Args:
        *alternatives: The other functions, in order. Beside a coroutine function they may be plain too.
        when: Which errors lead on: a type, several, or a predicate.
        on_fallback: Called with a ``FallbackEvent`` each time.

    Raises:
        ValueError: There is no alternative.

    Example:
        >>> @Fallback(lambda prompt: "a canned answer")
        ... def ask(prompt):
        ...     raise ConnectionError("unplugged")
        >>> ask("hello")
        'a canned answer'
    """

    __slots__ = ("_on_fallback", "_when", "alternatives")

    def __init__(
        self,
        *alternatives: Callable[..., Any],
        when: Wanted | None = None,
        on_fallback: Callable[[FallbackEvent], Any] | None = None,
    ) -> None:
        if not alternatives:
            raise ValueError("a fallback needs at least one other function to call")
        for alternative in alternatives:
            kind_of(alternative)
        if when is not None:
            check_wanted("when", when)
        self.alternatives = alternatives
        self._when = when
        self._on_fallback = on_fallback

    def __repr__(self) -> str:
        return f"Fallback({', '.join(name_of(one) for one in self.alternatives)})"

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function, or an alternative; await the result of a coroutine function."""
        return self(fn)(*args, **kwargs)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Protect a function; it keeps its signature."""
        ways: tuple[Callable[..., Any], ...] = (fn, *self.alternatives)
        names = [name_of(way) for way in ways]
        kind = kind_of(fn)
        if kind == "generator":
            begin = self._plain([started(way) for way in ways], names)
            return functools.wraps(fn)(relay(begin))
        if kind == "async_generator":
            begin = self._coroutine([started_async(way) for way in ways], names)
            return functools.wraps(fn)(relay_async(begin))
        if kind == "coroutine":
            wrapper = self._coroutine(ways, names)
        else:
            wrapper = either(fn, self._plain(ways, names), lambda: self._coroutine(ways, names))
        return functools.wraps(fn)(wrapper)

    def _coroutine(self, ways: Any, names: list[str]) -> Callable[..., Any]:
        async def chain(*args: Any, **kwargs: Any) -> Any:
            earlier: list[Exception] = []
            try:
                for number, way in enumerate(ways):
                    try:
                        result = way(*args, **kwargs)
                        return await result if inspect.isawaitable(result) else result
                    except Exception as error:
                        if not self._leads_on(error, number, names, earlier):
                            raise
            finally:
                earlier.clear()  # their tracebacks hold this frame

        return chain

    def _plain(self, ways: Any, names: list[str]) -> Callable[..., Any]:
        def chain(*args: Any, **kwargs: Any) -> Any:
            earlier: list[Exception] = []
            try:
                for number, way in enumerate(ways):
                    try:
                        result = way(*args, **kwargs)
                        if type(result) is CoroutineType:
                            rest = (replay(result, way), *ways[number + 1 :])
                            return self._coroutine(rest, names[number:])(*args, **kwargs)
                        return result
                    except Exception as error:
                        if not self._leads_on(error, number, names, earlier):
                            raise
            finally:
                earlier.clear()

        return chain

    def _leads_on(self, error: Exception, number: int, names: list[str], earlier: list[Exception]) -> bool:
        if number == len(names) - 1 or not self._wanted(error):
            if earlier:
                attach(error, earlier, "fallback", f"{names[number]} failed too")
            return False
        earlier.append(error)
        taken = names[number + 1]
        _log.warning("%s failed with %s: taking %s instead", names[number], type(error).__qualname__, taken)
        if self._on_fallback is not None:
            try:
                self._on_fallback(FallbackEvent(names[number], taken, error))
            except Exception:  # noqa: BLE001 - whatever it is, it must not reach the call
                _log.exception("a fallback hook failed; the call goes on")
        return True

    def _wanted(self, error: Exception) -> bool:
        if self._when is None:
            return classify(error).error_type is not ErrorType.VALIDATION
        return matches(self._when, error)
