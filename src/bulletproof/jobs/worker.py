"""A process that works on batches and uploads, without HTTP."""

import asyncio
import signal

from bulletproof.jobs.engine import BatchJobs

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run_until_told(jobs: BatchJobs, *, drain_seconds: float) -> None:
    """Take jobs until SIGTERM or Ctrl-C; then hand back what is not done in time. A second signal ends it at once.

    Args:
        jobs: Not yet started; closed at the end.
        drain_seconds: Most seconds for what is under way.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        told.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    await jobs.start()
    try:
        await told.wait()
    finally:
        await jobs.aclose(drain_seconds)
