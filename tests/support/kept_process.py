"""A process that runs kept calls, for tests that kill it: ``python kept_process.py DATA_DIR LOG SECONDS [URL]``.

Every run is a line in LOG: process, ``begin`` or ``end``, argument. It prints ``ready`` when it has begun.
"""

import asyncio
import os
import sys
from pathlib import Path

from bulletproof.jobs import KeptCalls
from bulletproof.store import ResultStore


async def main(folder: str, log: str, seconds: str, url: str | None = None) -> None:
    kept = KeptCalls(ResultStore(url, data_dir=Path(folder)), lease=1.0, poll=0.05)
    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @kept.keep(name="work", rate=1000)
    async def work(number: int) -> None:
        os.write(lines, f"{os.getpid()} begin {number}\n".encode())
        await asyncio.sleep(float(seconds))
        os.write(lines, f"{os.getpid()} end {number}\n".encode())

    async with kept:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
