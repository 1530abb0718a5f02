"""The one loop: deadline, retry, gate, breaker and timeout fused into a single frame around the call."""

import asyncio
import functools
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any

from bulletproof.errors import DeadlineExceededError, ServiceTimeoutError
from bulletproof.resilience.attempts import Course
from bulletproof.resilience.callables import either, kind_of, name_of, replay
from bulletproof.resilience.deadlines import Clock, check_deadline, current, hand_down, remaining
from bulletproof.resilience.pausing import pause, pause_async
from bulletproof.resilience.streams import relay, relay_async, started, started_async

if TYPE_CHECKING:
    from bulletproof.resilience.breaker import AIServiceCircuitBreaker
    from bulletproof.resilience.gate import Gate
    from bulletproof.resilience.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Stack:
    """What stands around a call, from the outside in: deadline, retry, gate, breaker, timeout.

    Args:
        deadline: Seconds for everything.
        retry: The rules of trying again.
        gate: What holds each try while the service asked everybody to wait.
        breaker: What admits each try and counts its end.
        attempt_timeout: Seconds for each try.
        interrupts: Whether each try has a time limit; a coroutine is stopped at it.
        clock: Gives monotonic seconds.
    """

    deadline: float | None = None
    retry: "RetryPolicy | None" = None
    gate: "Gate | None" = None
    breaker: "AIServiceCircuitBreaker | None" = None
    attempt_timeout: float | None = None
    interrupts: bool = False
    clock: Clock = time.monotonic

    @property
    def retries_alone(self) -> bool:
        """Whether there is nothing to do before the first failure."""
        others = (self.deadline, self.gate, self.breaker, self.attempt_timeout)
        return self.retry is not None and not self.retry.watches_every_call and others == (None,) * 4


def bind(stack: Stack, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Put a stack around a function.

    Generators are tried again before their first item only; a timeout ends there too, and a breaker judges them at
    their end.

    Raises:
        TypeError: ``fn`` is no function.
    """
    kind = kind_of(fn)
    retry: Any = stack.retry
    alone = stack.retries_alone
    if kind == "coroutine":
        return _coroutine_alone(retry, fn) if alone else _coroutine(stack, fn)
    if kind == "plain":
        plain = _plain_alone(retry, fn) if alone else _plain(stack, fn)
        return either(fn, plain, lambda: _coroutine(stack, fn))
    if stack.breaker is not None:
        limited = bind(Stack(attempt_timeout=stack.attempt_timeout, interrupts=stack.interrupts, clock=stack.clock), fn)
        fn = stack.breaker(limited)
        stack = Stack(stack.deadline, stack.retry, stack.gate, clock=stack.clock)
    if kind == "generator":
        return relay(_plain(stack, started(fn)))
    return relay_async(_coroutine(stack, started_async(fn)))


def protect(stack: Stack, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Put a stack around a function, as ``bind`` does, and keep its name and signature."""
    return functools.wraps(fn)(bind(stack, fn))


def _coroutine(stack: Stack, fn: Callable[..., Any]) -> Callable[..., Any]:  # noqa: C901
    # This loop and the next are the same but for the awaits. `_fast` is the breaker's own short cut.
    retry: Any = stack.retry
    gate, breaker, deadline, clock = stack.gate, stack.breaker, stack.deadline, stack.clock
    watched = retry is not None and retry.watches_every_call
    unchecked = stack.interrupts and (deadline is None or stack.attempt_timeout is not None)
    limited, limited_each = stack.interrupts, stack.attempt_timeout is not None

    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: C901
        token = None if deadline is None else hand_down(deadline, clock)
        course = Course(retry, fn) if watched else None
        try:
            while True:
                try:
                    if gate is not None:
                        await gate.enter_async()
                    if unchecked or course is not None:
                        check_deadline()
                    if breaker is not None:
                        ticket: Any = breaker._fast  # noqa: SLF001
                        if ticket is None:
                            ticket = breaker.admit()
                    try:
                        if not limited:
                            result = await fn(*args, **kwargs)
                        elif limited_each:
                            result = await _limited(stack, fn, args, kwargs)
                        else:
                            running = fn(*args, **kwargs)
                            if type(running) is not CoroutineType:
                                running = _awaited(running)
                            try:
                                step = running.send(None)
                            except StopIteration as end:
                                result = end.value
                            else:
                                result = await _interrupted(running, step, fn, None)
                    except BaseException as error:
                        if breaker is not None:
                            breaker.failed(ticket, error)
                        raise
                    if breaker is not None:
                        if ticket is breaker._fast:  # noqa: SLF001
                            next(ticket)  # type: ignore[arg-type]
                        else:
                            breaker.succeeded(ticket, result)
                    wait = None if course is None else course.returned(result)
                    if wait is None:
                        return result
                except Exception as error:
                    if gate is not None:
                        gate.learn(error)
                    if retry is None:
                        raise
                    if course is None:
                        course = Course(retry, fn)
                    wait = course.failed(error)
                    if wait is None:
                        raise
                await pause_async(wait, retry.sleep)
        finally:
            if course is not None:
                course.close()
            if token is not None:
                current.reset(token)

    return call


def _plain(stack: Stack, fn: Callable[..., Any]) -> Callable[..., Any]:  # noqa: C901
    retry: Any = stack.retry
    gate, breaker, deadline, clock = stack.gate, stack.breaker, stack.deadline, stack.clock
    watched = retry is not None and retry.watches_every_call
    unchecked = stack.interrupts and (deadline is None or stack.attempt_timeout is not None)
    target = fn if stack.attempt_timeout is None else functools.partial(_told, stack, fn)

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: C901
        token = None if deadline is None else hand_down(deadline, clock)
        course = Course(retry, fn) if watched else None
        try:
            while True:
                try:
                    if gate is not None:
                        gate.enter()
                    if unchecked or course is not None:
                        check_deadline()
                    if breaker is not None:
                        ticket: Any = breaker._fast  # noqa: SLF001
                        if ticket is None:
                            ticket = breaker.admit()
                    try:
                        result = target(*args, **kwargs)
                    except BaseException as error:
                        if breaker is not None:
                            breaker.failed(ticket, error)
                        raise
                    if type(result) is CoroutineType:
                        if breaker is not None:
                            breaker.withdraw(ticket)  # the call proper begins when it is awaited
                        return _coroutine(stack, replay(result, fn))(*args, **kwargs)
                    if breaker is not None:
                        if ticket is breaker._fast:  # noqa: SLF001
                            next(ticket)  # type: ignore[arg-type]
                        else:
                            breaker.succeeded(ticket, result)
                    wait = None if course is None else course.returned(result)
                    if wait is None:
                        return result
                except Exception as error:
                    if gate is not None:
                        gate.learn(error)
                    if retry is None:
                        raise
                    if course is None:
                        course = Course(retry, fn)
                    wait = course.failed(error)
                    if wait is None:
                        raise
                pause(wait, retry.sleep)
        finally:
            if course is not None:
                course.close()
            if token is not None:
                current.reset(token)

    return call


def _coroutine_alone(retry: "RetryPolicy", fn: Callable[..., Any]) -> Callable[..., Any]:
    """Do as ``_coroutine`` with a retry alone, which then costs no more than the frame."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await fn(*args, **kwargs)
        except Exception as error:
            course = Course(retry, fn)
            wait = course.failed(error)
            if wait is None:
                raise
        try:
            while True:
                await pause_async(wait, retry.sleep)
                try:
                    return await fn(*args, **kwargs)
                except Exception as error:
                    wait = course.failed(error)
                    if wait is None:
                        raise
        finally:
            course.close()

    return call


def _plain_alone(retry: "RetryPolicy", fn: Callable[..., Any]) -> Callable[..., Any]:
    """Do as ``_plain`` with a retry alone."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = fn(*args, **kwargs)
            if type(result) is not CoroutineType:
                return result
        except Exception as error:
            course = Course(retry, fn)
            wait = course.failed(error)
            if wait is None:
                raise
        else:
            return _coroutine_alone(retry, replay(result, fn))(*args, **kwargs)
        try:
            while True:
                pause(wait, retry.sleep)
                try:
                    return fn(*args, **kwargs)
                except Exception as error:
                    wait = course.failed(error)
                    if wait is None:
                        raise
        finally:
            course.close()

    return call


def _told(stack: Stack, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call plain code, which cannot be interrupted, with its time limit in the context."""
    token = hand_down(stack.attempt_timeout, stack.clock)  # type: ignore[arg-type]
    try:
        return fn(*args, **kwargs)
    finally:
        current.reset(token)


async def _limited(stack: Stack, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Await a coroutine function for the time of one try, at most what is left of the deadline."""
    outer = current.get()
    token = hand_down(stack.attempt_timeout, stack.clock)  # type: ignore[arg-type]
    try:
        running = fn(*args, **kwargs)
        if type(running) is not CoroutineType:
            running = _awaited(running)
        try:
            step = running.send(None)
        except StopIteration as end:
            return end.value
        return await _interrupted(running, step, fn, None if current.get() is outer else stack.attempt_timeout)
    finally:
        current.reset(token)


async def _interrupted(running: Any, step: Any, fn: Callable[..., Any], own: float | None) -> Any:
    """Await the rest of a coroutine until the nearest deadline: its ``own`` limit in seconds, or that of its caller.

    Its first step, until it first waits, was made without a timer: nothing could interrupt that anyway, and a timer
    costs more than all the rest of the loop.
    """
    scope = asyncio.timeout(remaining())
    try:
        async with scope:
            return await _rest(running, step)
    except TimeoutError as expiry:
        if not scope.expired():
            raise
        if own is None:
            raise DeadlineExceededError(f"the deadline came before {name_of(fn)} answered") from expiry
        raise ServiceTimeoutError(f"{name_of(fn)} did not answer within {own:g} s") from expiry


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


@coroutine
def _rest(running: Any, step: Any) -> Generator[Any, Any, Any]:
    """Await a coroutine whose first step has been made already."""
    while True:
        try:
            yield step
        except BaseException as error:  # noqa: BLE001 - a cancellation, handed on
            thrown = error
        else:
            return (yield from running)
        try:
            step = running.throw(thrown)
        except StopIteration as end:
            return end.value
        finally:
            del thrown
