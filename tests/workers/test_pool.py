"""Workers that hang, crash or are given up die alone, and the next call is served."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulletproof.errors import DeadlineExceededError, ResourceError
from bulletproof.workers import WorkerPool
from bulletproof.workers.starting import Aside

# The first pool decides for the whole process, and so for other tests: let it be what those want.
PRELOADED = ("bulletproof.models.isolated", "joblib", "sklearn.utils.validation", "onnxruntime")


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, name="tests")
    yield pool
    await pool.aclose()


async def test_a_function_runs_in_another_process(pool: WorkerPool) -> None:
    assert await pool.run(os.getpid) != os.getpid()


async def test_an_error_of_the_function_comes_back(pool: WorkerPool) -> None:
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 1, 0)


async def test_a_hang_ends_with_its_worker_and_the_next_call_is_served(pool: WorkerPool) -> None:
    worker = await pool.run(os.getpid)
    with pytest.raises(DeadlineExceededError, match=r"tests took longer than the 0.2 s"):
        await pool.run(time.sleep, 60, timeout=0.2)
    assert await pool.run(os.getpid) != worker


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSEGV, "internal_error"), (signal.SIGKILL, "out_of_memory")])
async def test_a_crash_is_a_typed_error_and_the_next_call_is_served(
    pool: WorkerPool, number: signal.Signals, code: str
) -> None:
    worker = await pool.run(os.getpid)
    with pytest.raises(ResourceError) as caught:
        await pool.run(os.kill, worker, number)
    assert caught.value.code == code
    assert await pool.run(os.getpid) != worker


async def test_a_caller_that_gives_up_leaves_no_work_behind(pool: WorkerPool) -> None:
    await pool.run(os.getpid)
    task = asyncio.create_task(pool.run(time.sleep, 60))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.wait_for(pool.run(pow, 2, 3), 20) == 8


async def test_a_closed_pool_starts_again_when_it_is_needed(pool: WorkerPool) -> None:
    await pool.run(pow, 2, 2)
    await pool.aclose()
    assert await pool.run(pow, 2, 4) == 16


def test_a_pool_without_workers_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="size must be at least 1"):
        WorkerPool(0, name="nothing")


async def test_workers_that_are_killed_while_idle_are_replaced(pool: WorkerPool) -> None:
    worker = await pool.run(os.getpid)
    os.kill(worker, signal.SIGKILL)
    await asyncio.sleep(0.3)
    assert await pool.run(os.getpid) != worker


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot limit it")
async def test_a_task_that_needs_more_memory_than_allowed_fails_alone() -> None:
    pool = WorkerPool(1, name="tests", memory_bytes=64 * 2**20)
    try:
        assert len(await pool.run(bytes, 16 * 2**20)) == 16 * 2**20
        with pytest.raises(ResourceError, match="tests needed more than the 64 MiB allowed") as caught:
            await pool.run(bytes, 256 * 2**20)
        assert caught.value.code == "out_of_memory"
        assert await pool.run(pow, 2, 3) == 8
    finally:
        await pool.aclose()


@pytest.mark.parametrize("preload", [(), PRELOADED])
async def test_workers_that_die_at_once_are_an_error_and_no_endless_wait(preload: tuple[str, ...]) -> None:
    pool = WorkerPool(2, name="tests", initializer=os.abort, preload=preload)
    with pytest.raises(ResourceError, match="no worker for tests can be started"):
        await asyncio.wait_for(pool.run(pow, 2, 3), 20)
    await pool.aclose()


async def test_a_preloaded_worker_is_replaced_like_any_other() -> None:
    pool = WorkerPool(1, name="tests", preload=PRELOADED)
    worker = await pool.run(os.getpid)
    with pytest.raises(ResourceError, match="exit code -11"):
        await pool.run(os.kill, worker, signal.SIGSEGV)
    assert await pool.run(os.getpid) != worker
    await pool.aclose()


async def test_closing_ends_the_calls_under_way_and_starts_no_worker_anew(pool: WorkerPool) -> None:
    await pool.run(pow, 2, 2)
    task = asyncio.create_task(pool.run(time.sleep, 60))
    await asyncio.sleep(0.1)
    await pool.aclose()
    with pytest.raises(ResourceError) as caught:
        await asyncio.wait_for(task, 20)
    assert caught.value.code == "cancelled"


_SCRIPT = """
import asyncio
from bulletproof.workers import WorkerPool
print("the script runs")
async def main():
    pool = WorkerPool(1, name="tests", preload=PRELOAD)
    try:
        print(await pool.run(pow, 2, 3))
    finally:
        await pool.aclose()
asyncio.run(main())
"""


@pytest.mark.parametrize("preload", ["()", "('json',)"])
@pytest.mark.parametrize("typed_in", [True, False])
def test_a_script_without_a_guard_is_not_run_again_by_the_workers(tmp_path: Path, preload: str, typed_in: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.replace("PRELOAD", preload))
    with script.open() as source:
        command = [sys.executable, "-"] if typed_in else [sys.executable, str(script)]
        done = subprocess.run(command, stdin=source, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.splitlines(), done.returncode) == (["the script runs", "8"], 0), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot limit it")
async def test_a_task_too_large_to_be_received_within_the_limit_is_still_answered() -> None:
    pool = WorkerPool(1, name="tests", memory_bytes=16 * 2**20)
    try:
        assert await pool.run(len, bytes(64 * 2**20)) == 64 * 2**20
    finally:
        await pool.aclose()


_FORGETFUL = """
import asyncio, time
from bulletproof.workers import WorkerPool
async def main():
    pool = WorkerPool(1, name="forgotten", preload={preload})
    print(await pool.run(pow, 2, 3), flush=True)
    task = asyncio.create_task(pool.run(time.sleep, 60))
    await asyncio.sleep(0.2)
asyncio.run(main())
"""


@pytest.mark.parametrize("preload", ["()", '("json",)'])
def test_a_program_that_forgets_to_close_its_pool_ends_all_the_same(preload: str) -> None:
    script = _FORGETFUL.replace("{preload}", preload)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("8\n", 0)


_SLOW_START = """
import asyncio, sys, time
from pathlib import Path
from bulletproof.workers import WorkerPool
Path("slow_to_import.py").write_text("import time; time.sleep(1.5)")
sys.path.insert(0, "")
async def main():
    pool, ticks = WorkerPool(2, name="slow", preload=("slow_to_import",)), 0
    task = asyncio.create_task(pool.run(pow, 2, 3))
    while not task.done():
        await asyncio.sleep(0.05)
        ticks += 1
    print(task.result(), ticks >= 10, flush=True)
    await pool.aclose()
asyncio.run(main())
"""


def test_the_event_loop_goes_on_while_the_workers_are_started(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SLOW_START], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert (done.stdout, done.returncode) == ("8 True\n", 0), done.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_ctrl_c_does_not_reach_a_process_while_it_starts(method: str) -> None:
    process = Aside(multiprocessing.get_context(method)).Process(target=signal.raise_signal, args=(signal.SIGINT,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    process.close()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


async def test_workers_ignore_ctrl_c_and_hand_on_no_signal_that_is_held_back(pool: WorkerPool) -> None:
    assert await pool.run(signal.getsignal, signal.SIGINT) == signal.SIG_IGN
    assert await pool.run(signal.pthread_sigmask, signal.SIG_BLOCK, []) == set()
