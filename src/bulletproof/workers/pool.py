"""A pool of worker processes, each of which can be killed alone."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from bulletproof.errors import DeadlineExceededError, ResourceError
from bulletproof.workers.starting import Aside, end_with_parent

T = TypeVar("T")

_KILLED = -signal.SIGKILL
_WATCH_SECONDS = 1.0  # between two looks at whether the pool that has a task still works
OVERFLOW = 77
"""Exit code of a worker whose task wanted too much memory."""


class WorkerPool:
    """Runs functions in worker processes; starts them when they are first needed.

    A call that takes too long, or whose caller gives up, ends with its worker killed; the next call gets a new one.

    Args:
        size: Number of workers.
        name: What they do; named in errors.
        initializer: Called once in each worker before its first task.
        memory_bytes: Bytes that one task may take on top of what its worker holds already; where the system cannot
            limit that (macOS, Windows) it is not limited. A worker whose task wanted more is replaced.
        preload: Modules that a process of their own imports once, of which the workers are forked: a new one is there
            in a moment. The first pool of this process that names some decides; without any, workers start from
            nothing.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     pool = WorkerPool(1, name="squares")
        ...     try:
        ...         return await pool.run(pow, 7, 2)
        ...     finally:
        ...         await pool.aclose()
        >>> asyncio.run(main())
        49
    """

    def __init__(
        self,
        size: int,
        *,
        name: str,
        initializer: Callable[[], None] | None = None,
        memory_bytes: int | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if memory_bytes is not None and memory_bytes < 1:
            raise ValueError(f"memory_bytes must be at least 1, not {memory_bytes}")
        self.name = name
        self._memory_bytes = memory_bytes
        self._preload = preload
        self._size = size
        self._initializer = initializer
        self._pool: ProcessPool | None = None
        self._started: ProcessPool | None = None
        self._closings = 0

    async def run(self, function: Callable[..., T], /, *args: Any, timeout: float | None = None) -> T:
        """Run a function in a worker.

        Args:
            function: Can be imported by name; its arguments and its result can be pickled.
            *args: Its arguments.
            timeout: Seconds it may take, without the time in the queue.

        Returns:
            What it returns.

        Raises:
            DeadlineExceededError: It took too long.
            ResourceError: Its worker died, or needed more memory than allowed; ``out_of_memory`` for the latter and
                when it was killed from outside.
        """
        closings = self._closings
        for last in (False, True):
            pool = self._opened()
            if pool is not self._started:
                # Waits for the first workers to be forked; any call before that would wait for the same lock.
                await asyncio.to_thread(getattr, pool, "active")
                self._started = pool
            try:
                return await self._run(pool, function, args, timeout)
            except BrokenProcessPool as error:
                # Its idle workers were killed; the task itself has not run.
                if self._closings != closings:
                    raise ResourceError(f"the workers for {self.name} were stopped", code="cancelled") from error
                if self._pool is pool:
                    self._pool = None
                    await _stop(pool)
                if last:
                    raise ResourceError(f"no worker for {self.name} can be started: they die at once") from error
        raise AssertionError("not reached")

    def _opened(self) -> ProcessPool:
        if self._pool is None:
            self._pool = ProcessPool(
                self._size,
                initializer=_start,
                initargs=(self._initializer,),
                context=Aside(_context(self._preload)),
            )
        return self._pool

    async def _run(
        self, pool: ProcessPool, function: Callable[..., T], args: tuple[Any, ...], timeout: float | None
    ) -> T:
        try:
            if self._memory_bytes is None:
                future = pool.schedule(function, args=args, timeout=timeout)
            else:
                future = pool.schedule(_bounded, args=(self._memory_bytes, function, *args), timeout=timeout)
        except RuntimeError as error:
            raise BrokenProcessPool(str(error)) from error
        answer = asyncio.wrap_future(future)
        try:
            while not (await asyncio.wait({answer}, timeout=_WATCH_SECONDS))[0]:
                if not pool.active:  # it broke at the moment at which it was given the task, and has forgotten it
                    raise BrokenProcessPool("the workers are gone")
            return answer.result()
        except FutureTimeoutError as error:
            if future.done() and not future.cancelled() and isinstance(future.exception(), FutureTimeoutError):
                raise DeadlineExceededError(f"{self.name} took longer than the {timeout:g} s allowed") from error
            raise
        except ProcessExpired as error:
            raise self._died(error) from error
        finally:
            answer.cancel()

    def _died(self, error: ProcessExpired) -> ResourceError:
        if error.exitcode == OVERFLOW:
            most = "memory than" if self._memory_bytes is None else f"than the {self._memory_bytes / 2**20:,.0f} MiB"
            return ResourceError(f"{self.name} needed more {most} allowed", code="out_of_memory")
        if error.exitcode == _KILLED:
            return ResourceError(
                f"a worker for {self.name} was killed, probably for want of memory", code="out_of_memory"
            )
        return ResourceError(f"a worker for {self.name} died with exit code {error.exitcode}")

    async def aclose(self) -> None:
        """Stop the workers; calls under way are broken off."""
        self._closings += 1
        pool, self._pool = self._pool, None
        if pool is not None:
            await _stop(pool)


async def _stop(pool: ProcessPool) -> None:
    await asyncio.to_thread(pool.stop)
    await asyncio.to_thread(pool.join)


def _context(preload: Sequence[str]) -> Any:
    # Never a fork of this process: one with threads and an event loop has locks that a fork inherits.
    if not preload or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def _start(initializer: Callable[[], None] | None) -> None:
    # Ctrl-C goes to the whole process group; the parent decides what becomes of its workers.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Ends a worker that is stuck in native code too, where no handler in Python would ever run.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if hasattr(signal, "pthread_sigmask"):  # held back since the start, see Aside
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent()
    if initializer is not None:
        initializer()


def _bounded(memory_bytes: int, function: Callable[..., T], /, *args: Any) -> T:
    """Run a function within a limit, which ends the worker: what its libraries hold after that may be in any state."""
    before = limit_memory(memory_bytes)
    try:
        return function(*args)
    except MemoryError:
        if before is None:
            raise
        os._exit(OVERFLOW)
    finally:
        if before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, before)


def limit_memory(memory_bytes: int) -> tuple[int, int] | None:
    """Bound what this process may take on top of what it holds; nothing happens where the system cannot do that.

    Returns:
        The limits before, for ``resource.setrlimit``; None when there is no limit.
    """
    if sys.platform != "linux":
        return None
    import resource

    # The kind that counts what is taken to be written to, not files that are mapped or room that is set aside.
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    held = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = held + memory_bytes if hard == resource.RLIM_INFINITY else min(held + memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    return soft, hard
