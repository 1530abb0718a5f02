"""What a process started ends with it, also when it is killed with -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PARENT = """
import asyncio, os, re, sys, time
from bulletproof.workers import WorkerPool
async def main():
    pool = WorkerPool(2, name="orphans", preload={preload})
    ids = set()
    while len(ids) < 2:
        ids |= set(await asyncio.gather(*(pool.run(os.getpid) for _ in range(8))))
    print(*ids, flush=True)
    if {busy}:  # native code that lets no other thread of the worker run
        asyncio.create_task(pool.run(re.match, r"(a|a)*$", "a" * 60 + "b"))
    await asyncio.sleep(60)
asyncio.run(main())
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("preload", "busy"), [("()", False), ('("json",)', False), ("()", True)])
def test_workers_end_with_a_parent_that_is_killed(preload: str, busy: bool) -> None:
    script = _PARENT.replace("{preload}", preload).replace("{busy}", str(busy))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 2
        if busy:
            time.sleep(0.3)
        assert all(map(lives, workers))
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        limit = time.monotonic() + 10
        while any(map(lives, workers)):
            assert time.monotonic() < limit, "a worker outlived its parent"
            time.sleep(0.02)
