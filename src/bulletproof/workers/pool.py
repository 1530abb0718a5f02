"""A pool of worker processes, each of which can be killed alone."""

import asyncio
import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from bulletproof.errors import DeadlineExceededError, ResourceError

T = TypeVar("T")

_KILLED = -signal.SIGKILL
_TASKS_BOUNDED = 2000  # of a worker with a limit on its memory, before it is replaced


class WorkerPool:
    """Runs functions in worker processes; starts them when they are first needed.

    A call that takes too long, or whose caller gives up, ends with its worker killed; the next call gets a new one.

    Args:
        size: Number of workers.
        name: What they do; named in errors.
        initializer: Called once in each worker before its first task.
        memory_bytes: Bytes that a worker may take on top of what it holds when it has started; where the system cannot
            limit that (macOS, Windows) it is not limited. A worker with a limit is replaced now and then, so that what
            its libraries leak does not count against the tasks to come.

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
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if memory_bytes is not None and memory_bytes < 1:
            raise ValueError(f"memory_bytes must be at least 1, not {memory_bytes}")
        self.name = name
        self._memory_bytes = memory_bytes
        self._size = size
        self._initializer = initializer
        self._pool: ProcessPool | None = None

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
        try:
            return await self._run(function, args, timeout)
        except BrokenProcessPool:
            # Its idle workers were killed; the task itself has not run.
            await self.aclose()
        try:
            return await self._run(function, args, timeout)
        except BrokenProcessPool as error:
            raise ResourceError(f"no worker for {self.name} can be started: they die at once") from error

    async def _run(self, function: Callable[..., T], args: tuple[Any, ...], timeout: float | None) -> T:
        if self._pool is None:
            # Spawned, not forked: a fork of a process with threads and an event loop inherits their locks.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPool(
                self._size,
                max_tasks=_TASKS_BOUNDED if self._memory_bytes is not None else 0,
                initializer=_start,
                initargs=(self._initializer, self._memory_bytes),
                context=context,
            )
        try:
            future = self._pool.schedule(function, args=args, timeout=timeout)
        except RuntimeError as error:
            raise BrokenProcessPool(str(error)) from error
        try:
            return await asyncio.wrap_future(future)
        except FutureTimeoutError as error:
            if future.done() and not future.cancelled() and isinstance(future.exception(), FutureTimeoutError):
                raise DeadlineExceededError(f"{self.name} took longer than the {timeout:g} s allowed") from error
            raise
        except ProcessExpired as error:
            raise self._died(error) from error
        except MemoryError as error:
            if self._memory_bytes is None:
                raise
            most = f"{self._memory_bytes / 2**20:,.0f} MiB"
            raise ResourceError(f"{self.name} needed more than the {most} allowed", code="out_of_memory") from error

    def _died(self, error: ProcessExpired) -> ResourceError:
        if error.exitcode == _KILLED:
            return ResourceError(
                f"a worker for {self.name} was killed, probably for want of memory", code="out_of_memory"
            )
        return ResourceError(f"a worker for {self.name} died with exit code {error.exitcode}")

    async def aclose(self) -> None:
        """Stop the workers; calls under way are broken off."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]  # pebble leaves it untyped
            await asyncio.to_thread(pool.join)


def _start(initializer: Callable[[], None] | None, memory_bytes: int | None) -> None:
    # Ctrl-C goes to the whole process group; the parent decides what becomes of its workers.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Ends a worker that is stuck in native code too, where no handler in Python would ever run.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if initializer is not None:
        initializer()
    if memory_bytes is not None and sys.platform == "linux":
        _limit_memory(memory_bytes)


def _limit_memory(memory_bytes: int) -> None:
    import resource

    # The kind that counts what is taken to be written to, not files that are mapped or room that is set aside.
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    held = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = held + memory_bytes if hard == resource.RLIM_INFINITY else min(held + memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
