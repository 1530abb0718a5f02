"""Calls that failed on the way out are kept, and run again when the service is back."""

import asyncio
import functools
import inspect
import logging
import random
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime
from typing import Any, ParamSpec, Self, TypeVar, get_args

from bulletproof.errors import StoreError, classify, redact
from bulletproof.jobs.reruns import Line, Order, Reruns, worth_keeping
from bulletproof.llm.listener import ErrorListener
from bulletproof.resilience import AIServiceCircuitBreaker, Backoff, CircuitEvent, CircuitState
from bulletproof.resilience.backoff import drawer, require
from bulletproof.resilience.callables import kind_of
from bulletproof.resilience.pausing import Sleep, pause_async
from bulletproof.settings import load_settings
from bulletproof.store import KeptCall, KeptStore, ResultStore
from bulletproof.store.access import StoreAccess

P = ParamSpec("P")
R = TypeVar("R")

BACKOFF = Backoff(base=5, cap=300, jitter="equal")
_SWEEP_SECONDS = 10.0
_log = logging.getLogger("bulletproof.jobs")


class KeptCalls:
    """Keeps calls that failed for good on the way out, and runs them again.

    Kept is what another time may mend: the service was down or asked to wait, its circuit open, the deadline over, the
    database away. A mistake of the caller, a refused key or a bug is not kept. The caller gets the error all the same,
    with ``error.kept_id`` and a note. Kept calls are rows in the database of the results. Any process that decorates a
    function of the same name runs them, never two at the same time; a process that dies while it does loses its claim
    after ``lease`` seconds, and the call is run once more: so give the service an idempotency key, where it takes one.

    Arguments have to be JSON and are stored as they are, secrets included; they are never logged. Put ``keep`` outside
    everything else, so that it sees the last error, not the cancellation by a time limit further out.

    Args:
        store: The database; by default that of the settings.
        monitor: Told of calls that expire, or fail in a way that running them again does not mend.
        backoff: Waits between two runs of the same call.
        lease: Seconds after which a call belongs to nobody when nothing is heard of the process that took it.
        poll: Seconds between two looks for calls that are due.
        max_kept: Most calls kept of one function; further ones are not kept.
        now: Gives the present moment (aware).
        sleep: Waits so many seconds, plain or async.
        rng: A ``random.Random``, or a function that gives numbers in [0, 1).

    Example:
        >>> import asyncio, tempfile
        >>> up = False
        >>> async def main(folder):
        ...     global up
        ...     store = ResultStore(data_dir=folder)
        ...     kept = KeptCalls(store, backoff=Backoff(base=0))
        ...     @kept.keep(name="greet", on_result=lambda call, result: print(result, "at attempt", call.attempts))
        ...     async def greet(name):
        ...         if not up:
        ...             raise ConnectionError("the service is down")
        ...         return f"Hello {name}"
        ...     try:
        ...         await greet("Ada")
        ...     except ConnectionError as error:
        ...         print(error, "- kept:", error.kept_id is not None)
        ...     up = True
        ...     print(await kept.run_due(), "run again")
        ...     await store.aclose()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        the service is down - kept: True
        Hello Ada at attempt 1
        1 run again
    """

    def __init__(
        self,
        store: ResultStore | StoreAccess | None = None,
        *,
        monitor: ErrorListener | None = None,
        backoff: Backoff = BACKOFF,
        lease: float = 30.0,
        poll: float = 1.0,
        max_kept: int = 100_000,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Sleep | None = None,
        rng: Any = random,
    ) -> None:
        for name, value in (("lease", lease), ("poll", poll), ("max_kept", max_kept)):
            require(name, value, value > 0, "above 0")
        self._own = store is None
        if store is None:
            from bulletproof.processor.defaults import default_store

            store = default_store(load_settings())
        self.store = KeptStore(store.access if isinstance(store, ResultStore) else store, now=now)
        self._reruns = Reruns(
            self.store, monitor=monitor, backoff=backoff, lease=lease, poll=poll, now=now, draw=drawer(rng)
        )
        self._poll, self._most, self._now, self._sleep = poll, max_kept, now, sleep
        self._lines: dict[str, Line] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._thread: tuple[threading.Thread, asyncio.AbstractEventLoop] | None = None
        self._lock = threading.Lock()

    def keep(
        self,
        *,
        name: str | None = None,
        breaker: AIServiceCircuitBreaker | None = None,
        key: Callable[..., str] | None = None,
        expires: float | None = 7 * 86_400.0,
        order: Order = "fifo",
        rate: float = 5.0,
        on_result: Callable[[KeptCall, Any], Any] | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Keep the failed calls of a function; a decorator, which leaves the signature as it is.

        Args:
            name: Under which its calls are kept; by default module and name. Other processes know it by this name.
            breaker: The breaker of the service: nothing is run again while it refuses calls, and all when it closes.
            key: Makes an idempotency key from the arguments: of calls with the same key one is kept.
            expires: Seconds after which a call is dropped and reported; None: never.
            order: ``fifo`` runs one call at a time, in the order in which they were kept: while the first one goes on
                failing, the others wait. With ``any`` the others go on, one at a time in each process.
            rate: Most calls run again in a second, in all processes together.
            on_result: Called, and awaited if it can be, with each call that was run again and its result. Its errors
                count as errors of the call.

        Returns:
            The decorator.

        Raises:
            TypeError: What is decorated is no function, or a method or generator, whose calls cannot be kept.
            ValueError: A number is outside its range, or the name is taken.
            InputValidationError: From a call: an argument cannot be kept; the function was not run.
        """
        require("rate", rate, rate > 0, "above 0 calls a second")
        if expires is not None:
            require("expires", expires, expires > 0, "above 0 seconds, or None")
        if order not in get_args(Order):
            raise ValueError(f"order={order!r} is unknown: use 'fifo' or 'any'")

        def decorate(fn: Callable[P, R]) -> Callable[P, R]:
            kind = kind_of(fn)
            parameters = list(inspect.signature(fn).parameters)
            if kind not in ("plain", "coroutine") or parameters[:1] in (["self"], ["cls"]):
                raise TypeError(f"calls of {fn!r:.80} cannot be kept: a function is needed, no method and no generator")
            known = name if name is not None else f"{fn.__module__}.{fn.__qualname__}"
            line = Line(known, fn, kind == "coroutine", breaker, key, expires, order, 1 / rate, on_result)
            self._add(line)

            @functools.wraps(fn)
            async def waiting(*args: P.args, **kwargs: P.kwargs) -> Any:
                written = line.written(args, kwargs)
                try:
                    return await fn(*args, **kwargs)  # type: ignore[misc]
                except Exception as error:
                    # Without the deadline of the call, which may be over.
                    await asyncio.create_task(self._keep(line, written, error), context=Context())
                    raise

            @functools.wraps(fn)
            def plain(*args: P.args, **kwargs: P.kwargs) -> R:
                written = line.written(args, kwargs)
                try:
                    return fn(*args, **kwargs)
                except Exception as error:
                    self._aside(self._keep(line, written, error))
                    raise

            return waiting if line.waits else plain  # type: ignore[return-value]

        return decorate

    def start(self) -> None:
        """Begin to run kept calls again, in tasks of the running event loop; end it with ``aclose``."""
        if self._loop is not None:
            raise RuntimeError("it has been started already")
        self._loop = asyncio.get_running_loop()
        self._tasks[""] = self._loop.create_task(self._sweep(), name="bulletproof-kept", context=Context())
        for line in self._lines.values():
            self._attend(line)

    async def aclose(self) -> None:
        """Run nothing any more; what is under way is cancelled and handed back."""
        await self._stop()
        await asyncio.to_thread(self.stop_thread)
        if self._own:
            await self.store.access.aclose()

    async def __aenter__(self) -> Self:
        """Start."""
        self.start()
        return self

    async def __aexit__(self, *how: object) -> None:
        """Close."""
        await self.aclose()

    def start_thread(self) -> None:
        """Begin to run kept calls again in a thread, for programs without an event loop; see ``stop_thread``."""

        async def begin() -> None:
            self.start()

        self._aside(begin())

    def stop_thread(self) -> None:
        """End what plain calls and ``start_thread`` began."""
        with self._lock:
            found, self._thread = self._thread, None
        if found is not None:
            thread, loop = found
            asyncio.run_coroutine_threadsafe(self._end(loop), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def run_due(self) -> int:
        """Run what is due now, for programs that look from time to time instead of all the time.

        Returns:
            How many calls were run. It goes on to the next function when a call has to wait once more.
        """
        count = 0
        await self._reruns.report_expired()
        for line in list(self._lines.values()):
            while True:
                call, claim, wait = await self._reruns.take(line)
                if call is not None:
                    count += 1
                    if not await self._reruns.run_again(line, call, claim):
                        break
                elif wait is None or wait > line.spacing:
                    break
                else:
                    await pause_async(wait, self._sleep)
        return count

    async def _keep(self, line: Line, written: tuple[str, str | None], error: Exception) -> None:
        """Keep a call if it is worth it, and say so at its error; never raises one of its own."""
        found = classify(error)
        if not worth_keeping(found):
            return
        arguments, key = written
        now = self._now().timestamp()
        try:
            kept_id = await self.store.keep(
                line.name,
                arguments,
                key=key,
                code=found.code,
                error=redact(found.details),
                due=now + self._reruns.wait(found, 0),
                expires=None if line.expires is None else now + line.expires,
                limit=self._most,
            )
        except Exception as failure:  # noqa: BLE001 - the caller has to get the error of the call
            reason = classify(failure)
            error.add_note(f"This call of {line.name} could not be kept: {reason.details}")
            _log.error("a call of %s could not be kept: %s", line.name, reason.details, extra={"code": reason.code})
            return
        error.add_note(f"This call of {line.name} is kept as {kept_id} and run again by itself; see: bulletproof kept")
        with suppress(AttributeError):  # a few exceptions take no further attributes
            error.kept_id = kept_id  # type: ignore[attr-defined]
        _log.info("a call of %s is kept as %s: %s", line.name, kept_id, found.code)

    def _add(self, line: Line) -> None:
        if line.name in self._lines:
            raise ValueError(f"calls of a function named {line.name!r} are kept already: give this one another name=")
        self._lines[line.name] = line

        def heard(event: CircuitEvent) -> None:
            if event.new is CircuitState.CLOSED:
                line.back = True
                loop = self._loop
                if loop is not None:
                    loop.call_soon_threadsafe(line.awake.set)

        if line.breaker is not None:
            line.breaker.add_listener(heard)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._attend, line)

    def _attend(self, line: Line) -> None:
        if self._loop is not None and line.name not in self._tasks:
            line.awake = asyncio.Event()
            task = self._loop.create_task(self._tend(line), name=f"bulletproof-kept-{line.name}", context=Context())
            self._tasks[line.name] = task

    async def _tend(self, line: Line) -> None:
        alone = False
        while True:
            line.awake.clear()
            wait = self._poll
            try:
                call, claim, known = await self._reruns.take(line)
                if call is not None:
                    await self._reruns.run_again(line, call, claim)
                    continue
                wait = min(self._poll if known is None else known, self._poll)
                alone = False
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may go well
                if not alone:
                    _log.warning("kept calls of %s have to wait: %s", line.name, classify(error).details)
                alone = True
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await line.awake.wait()

    async def _sweep(self) -> None:
        while True:
            with suppress(StoreError):  # the others say that it is away
                await self._reruns.report_expired()
            await asyncio.sleep(_SWEEP_SECONDS)

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on the event loop of a thread, without the deadline of whoever waits for it."""
        with self._lock:
            if self._thread is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="bulletproof-kept", daemon=True)
                thread.start()
                self._thread = thread, loop
            thread, loop = self._thread
        done = Context().run(asyncio.run_coroutine_threadsafe, work, loop)
        if threading.current_thread() is not thread:  # the thread itself cannot wait for what it has to do
            done.result()

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            await self._stop()
        await self.store.access.aclose(everywhere=False)

    async def _stop(self) -> None:
        tasks, self._tasks, self._loop = list(self._tasks.values()), {}, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
