"""Ask a second time when the first answer is late, and take whichever comes first."""

import asyncio
import contextvars
import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from bulletproof.resilience.backoff import require
from bulletproof.resilience.callables import either, kind_of, name_of
from bulletproof.resilience.deadlines import Clock
from bulletproof.resilience.pausing import Sleep, sleep_async

P = ParamSpec("P")
R = TypeVar("R")

_MEMORY = 256  # answering times remembered
_FEWEST = 20  # answering times needed before their quantile means anything
_RENEWED = 16  # calls between two looks at the quantile


class Hedge:
    """Start the same call again when it takes longer than most, and use the first answer.

    For calls that may safely be made twice, and whose slowness is the bad luck of one server (J. Dean and L. Barroso,
    "The Tail at Scale", 2013). In coroutines the loser is cancelled and awaited. Plain functions run in threads; there
    the loser cannot be stopped, and its answer is thrown away. An error of one is raised only when no other is left.

    Args:
        delay: Seconds after which the next one is started; None to take them from the calls' own times.
        quantile: Which of the latest answering times that is: 0.95 repeats the slowest 5 %. Nothing is repeated before
            20 answers are known.
        max_extra: Calls started besides the first.
        clock: Gives monotonic seconds.
        sleep: Waits the delay, plain or async; coroutines only.

    Raises:
        ValueError: A number is outside its range.

    Example:
        >>> import asyncio
        >>> times = iter([3600, 0])
        >>> @Hedge(delay=0.01)
        ... async def ask():
        ...     await asyncio.sleep(next(times))
        ...     return "answer"
        >>> asyncio.run(ask())
        'answer'
    """

    __slots__ = ("_calls", "_clock", "_learned", "_sleep", "_times", "fixed_delay", "max_extra", "quantile")

    def __init__(
        self,
        *,
        delay: float | None = None,
        quantile: float = 0.95,
        max_extra: int = 1,
        clock: Clock = time.monotonic,
        sleep: Sleep | None = None,
    ) -> None:
        if delay is not None:
            require("delay", delay, delay >= 0, "at least 0 seconds, or None")
        require("quantile", quantile, 0 < quantile < 1, "above 0 and below 1")
        require("max_extra", max_extra, max_extra >= 1, "at least 1")
        self.fixed_delay = delay
        self.quantile = quantile
        self.max_extra = max_extra
        self._times: deque[float] = deque(maxlen=_MEMORY)
        self._learned: float | None = None
        self._calls = 0
        self._clock = clock
        self._sleep = sleep

    def __repr__(self) -> str:
        when = f"quantile={self.quantile!r}" if self.fixed_delay is None else f"delay={self.fixed_delay!r}"
        return f"Hedge({when}, max_extra={self.max_extra})"

    @property
    def delay(self) -> float | None:
        """Seconds after which a call is repeated now; None while too few are known."""
        return self._learned if self.fixed_delay is None else self.fixed_delay

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function, twice if it is late; await the result of a coroutine function."""
        return self(fn)(*args, **kwargs)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Protect a function; it keeps its signature.

        Raises:
            TypeError: It is a generator, whose items cannot come from two calls.
        """
        kind = kind_of(fn)
        if kind not in ("plain", "coroutine"):
            raise TypeError(f"{name_of(fn)} is a generator: its items cannot come from two calls, so it has no hedge")

        async def hedged(*args: Any, **kwargs: Any) -> Any:
            return await self._race(functools.partial(fn, *args, **kwargs))

        def threaded(*args: Any, **kwargs: Any) -> Any:
            return self._race_threads(functools.partial(fn, *args, **kwargs))

        wrapper: Any = hedged if kind == "coroutine" else either(fn, threaded, lambda: hedged)
        return functools.wraps(fn)(wrapper)

    async def _race(self, run: Callable[[], Any]) -> Any:
        start, delay = self._clock(), self.delay
        if delay is None:
            return self._note(start, await run())
        racers: set[asyncio.Future[Any]] = {_task(run())}
        extra = 0
        timer: asyncio.Future[Any] | None = None
        try:
            while True:
                if timer is None and extra < self.max_extra:
                    timer = _task(sleep_async(delay, self._sleep))
                waited = racers if timer is None else {*racers, timer}
                done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for racer in racers & done:
                    if not racer.cancelled() and racer.exception() is None:
                        return self._note(start, racer.result())
                failed = racers & done
                racers -= failed
                if not racers:
                    return failed.pop().result()  # raises
                if timer is not None and timer in done:
                    timer.result()
                    timer = None
                    extra += 1
                    racers.add(_task(run()))
        finally:
            losers = [task for task in (*racers, timer) if task is not None]
            for loser in losers:
                loser.cancel()
            await asyncio.gather(*losers, return_exceptions=True)

    def _race_threads(self, run: Callable[[], Any]) -> Any:
        start, delay = self._clock(), self.delay
        if delay is None:
            return self._note(start, run())
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        _thread(run, answers)
        running, extra = 1, 0
        while True:
            try:
                result, error = answers.get(timeout=delay if extra < self.max_extra else None)
            except queue.Empty:
                extra += 1
                running += 1
                _thread(run, answers)
                continue
            if error is None:
                return self._note(start, result)
            running -= 1
            if not running:
                try:
                    raise error
                finally:
                    del error  # its traceback holds this frame

    def _note(self, start: float, result: Any) -> Any:
        times = self._times
        times.append(self._clock() - start)
        self._calls += 1
        if len(times) >= _FEWEST and (self._learned is None or self._calls % _RENEWED == 0):
            ordered = sorted(times.copy())
            self._learned = ordered[min(len(ordered) - 1, int(self.quantile * len(ordered)))]
        return result


def _task(awaitable: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.ensure_future(awaitable)
    return future


def _thread(run: Callable[[], Any], answers: "queue.SimpleQueue[tuple[Any, BaseException | None]]") -> None:
    def answer() -> None:
        try:
            result = run()
        except BaseException as error:  # noqa: BLE001 - raised again where the answer is waited for
            answers.put((None, error))
        else:
            answers.put((result, None))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(answer,), name="bulletproof-hedge", daemon=True).start()
