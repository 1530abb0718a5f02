"""The ways through a circuit breaker besides ``call``: decorated functions, streams, ``with`` blocks."""

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from bulletproof.resilience.breaker_parts import Ticket
from bulletproof.resilience.callables import kind_of
from bulletproof.resilience.streams import judged, judged_async

if TYPE_CHECKING:
    from bulletproof.resilience.breaker import AIServiceCircuitBreaker

P = ParamSpec("P")
T = TypeVar("T")

STREAMS = frozenset({AsyncGeneratorType, CoroutineType, GeneratorType})
"""What a function may return that has not begun yet."""

# Blocks that this thread or task is inside of, the outermost first. A tuple, since tasks inherit it.
_inside: ContextVar[tuple[tuple["AIServiceCircuitBreaker", Ticket], ...]] = ContextVar(
    "bulletproof_breakers", default=()
)


def guard(breaker: "AIServiceCircuitBreaker", func: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function so that every call goes through the breaker; its kind and signature stay."""
    makers = {"plain": _plain, "coroutine": _coroutine, "generator": _stream, "async_generator": _async_stream}
    wrapper = makers[kind_of(func)](breaker, func)
    return cast("Callable[P, T]", wraps(func)(wrapper))


def _plain(breaker: "AIServiceCircuitBreaker", func: Callable[..., Any]) -> Callable[..., Any]:
    # An extra Python frame costs as much as all the rest, so `call_sync` and `call` are spelt out here once more.
    def guarded(*args: Any, **kwargs: Any) -> Any:
        ticket: Any = breaker._fast  # noqa: SLF001
        if ticket is None:
            ticket = breaker.admit()
        try:
            result = func(*args, **kwargs)
            if type(result) in STREAMS:
                breaker.withdraw(ticket)
                return watch(breaker, result)
        except BaseException as error:
            breaker.failed(ticket, error)
            raise
        if ticket is breaker._fast:  # noqa: SLF001
            next(ticket)  # type: ignore[arg-type]
        else:
            breaker.succeeded(ticket, result)
        return result

    return guarded


def _coroutine(breaker: "AIServiceCircuitBreaker", func: Callable[..., Any]) -> Callable[..., Any]:
    if breaker.config.rated:
        return _watched_coroutine(breaker, func)

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        ticket: Any = breaker._fast  # noqa: SLF001
        if ticket is None:
            ticket = breaker.admit()
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            breaker.failed(ticket, error)
            raise
        if ticket is breaker._fast:  # noqa: SLF001
            next(ticket)  # type: ignore[arg-type]
        else:
            breaker.succeeded(ticket, result)
        return result

    return guarded


def _watched_coroutine(breaker: "AIServiceCircuitBreaker", func: Callable[..., Any]) -> Callable[..., Any]:
    clock = breaker._clock  # noqa: SLF001

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        way = breaker._way  # noqa: SLF001
        if way is not None and way.refused is None:
            ticket: Any = (way.era, clock(), 0)
        else:
            ticket = breaker.admit()
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            breaker.failed(ticket, error)
            raise
        way = breaker._way  # noqa: SLF001
        if way is not None and way.refused is None:
            now = clock()
            if now < way.until and now - ticket[1] < way.limit and ticket[0] == way.era:
                next(breaker._plain)  # noqa: SLF001
                return result
        breaker.succeeded(ticket, result)
        return result

    return guarded


def _stream(breaker: "AIServiceCircuitBreaker", func: Callable[..., Any]) -> Callable[..., Any]:
    return judged(breaker.admit, partial(_ended, breaker), func)


def _async_stream(breaker: "AIServiceCircuitBreaker", func: Callable[..., Any]) -> Callable[..., Any]:
    async def admit() -> Ticket:
        return breaker.admit()

    return judged_async(admit, partial(_ended, breaker), func)


def _ended(breaker: "AIServiceCircuitBreaker", ticket: Ticket, error: BaseException | None, result: Any) -> None:
    if error is not None:
        breaker.failed(ticket, error)
    else:
        breaker.succeeded(ticket, result)


def watch(breaker: "AIServiceCircuitBreaker", source: Any) -> Any:
    """Return one that does the same but is admitted when it starts: if it never does it must not keep a place."""
    if isinstance(source, CoroutineType):
        return breaker.call(_the(source))
    return (_stream if isinstance(source, GeneratorType) else _async_stream)(breaker, _the(source))()


def _the(value: Any) -> Callable[[], Any]:
    return lambda: value


def entered(breaker: "AIServiceCircuitBreaker") -> None:
    """Admit a block of code, or raise; note the ticket for this thread or task."""
    ticket = breaker.admit()
    _inside.set((*_inside.get(), (breaker, ticket)))


def left(breaker: "AIServiceCircuitBreaker", error: BaseException | None) -> None:
    """End the block entered last."""
    blocks = _inside.get()
    for place in range(len(blocks) - 1, -1, -1):
        if blocks[place][0] is breaker:
            ticket = blocks[place][1]
            _inside.set(blocks[:place] + blocks[place + 1 :])
            break
    else:
        # Entered in another context, as when an async generator is closed by the event loop: the present era it is.
        ticket = None
    breaker.conclude(ticket, error)
