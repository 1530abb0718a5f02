"""An isolated model hangs, grows, crashes and lies in real processes, and the next request is served."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from bulletproof.errors import (
    AIError,
    InvalidModelOutputError,
    ModelError,
    ModelLoadError,
    PredictionError,
    PredictionTimeoutError,
    ResourceError,
)
from bulletproof.models.manifest import Limits, Manifest, OutputSchema
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.server import ModelServer
from bulletproof.monitor import AIErrorMonitor
from support import hostile

pytestmark = pytest.mark.asyncio(loop_scope="module")
MEMORY = 200 * 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("isolated") / "models"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(folder: Path, add_to: Callable[..., Manifest]) -> AsyncIterator[ModelServer]:
    registry = ModelRegistry(folder)
    add_to(registry, hostile.Hostile(), isolated=True, memory_bytes=MEMORY, max_concurrent=2, timeout_seconds=60)
    add_to(
        registry,
        hostile.WhoAmI(folder.parent / "pid"),
        "whoami",
        isolated=True,
        max_concurrent=1,
        timeout_seconds=60,
        output=OutputSchema(kind="regression"),
    )
    server = ModelServer(registry, default_model="hostile", monitor=AIErrorMonitor())
    yield server
    await server.aclose()


async def fails(server: ModelServer, deed: int, kind: type[AIError], code: str, **more: Any) -> AIError:
    with pytest.raises(kind) as caught:
        await server.predict([deed, 1], **more)
    assert caught.value.code == code
    return caught.value


async def served(server: ModelServer, within: float = 5.0) -> None:
    """The next request is answered without a visible delay."""
    began = time.monotonic()
    answer = await server.predict([hostile.FINE, -1])
    assert answer.predictions == [(0, 0.7, "negative")]
    assert time.monotonic() - began < within


async def pid_of(server: ModelServer) -> int:
    return int((await server.predict([hostile.FINE, 1], model="whoami")).predictions[0].prediction)


def is_gone(pid: int) -> bool:
    """The process has ended, or is a zombie that its parent has yet to look at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_it_answers_from_another_process(server: ModelServer) -> None:
    await served(server, within=60)
    assert await pid_of(server) != os.getpid()


async def test_an_onnx_model_can_be_isolated_too(server: ModelServer) -> None:
    bundled = server.registry.manifest("iris", "v1.0")
    file = server.registry.folder_of(bundled) / bundled.file
    server.registry.add("flower", "v1.0", file, type="onnx", input=bundled.input, output=bundled.output, isolated=True,
        limits=Limits(timeout_seconds=60),
    )  # fmt: skip
    for _ in range(2):
        answer = await server.predict([5.1, 3.5, 1.4, 0.2], model="flower")
        assert answer.predictions[0].label == "setosa"


async def test_a_crash_is_a_typed_503_and_the_next_request_is_served(server: ModelServer) -> None:
    await served(server, within=60)
    error = await fails(server, hostile.SEGFAULTS, ModelError, "model_crashed")
    assert (error.spec.http_status, "exit code -11" in str(error)) == (503, True)
    await served(server)


async def test_a_hang_is_a_504_in_time_and_the_worker_is_gone(server: ModelServer, folder: Path) -> None:
    await pid_of(server)
    began = time.monotonic()
    with pytest.raises(PredictionTimeoutError, match=r"whoami v1.0 did not answer within 0.[23]\d* s") as caught:
        await server.predict([hostile.HANGS, 1], model="whoami", timeout=0.3)
    assert time.monotonic() - began < 2
    assert caught.value.spec.http_status == 504
    await served(server)
    pid = int((folder.parent / "pid").read_text())
    await until(lambda: is_gone(pid), 20)


async def test_a_hang_in_native_code_is_ended_as_well(server: ModelServer) -> None:
    await fails(server, hostile.NATIVE, PredictionTimeoutError, "prediction_timeout", timeout=0.3)
    await served(server)


async def test_growth_beyond_the_limit_is_out_of_memory(server: ModelServer) -> None:
    error = await fails(server, hostile.GROWS, ResourceError, "out_of_memory")
    assert (error.spec.http_status, str(error)) == (503, "hostile v1.0 needed more memory than the 200 MiB allowed")
    await served(server)


async def test_a_worker_killed_from_elsewhere_is_said_to_be_that_and_the_next_request_is_served(
    server: ModelServer, folder: Path
) -> None:
    await pid_of(server)
    task = asyncio.create_task(server.predict([hostile.HANGS, 1], model="whoami"))
    await asyncio.sleep(0.5)
    os.kill(int((folder.parent / "pid").read_text()), signal.SIGKILL)
    with pytest.raises(ResourceError, match=r"the process of whoami v1\.0 was killed, probably for want of memory"):
        await task
    assert await pid_of(server)


async def test_after_all_workers_were_killed_a_burst_is_served(server: ModelServer) -> None:
    for _ in range(3):
        await asyncio.gather(*(served(server, within=60) for _ in range(4)))
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # one that was just replaced
                if process.ppid() != os.getpid():  # but what the workers are forked of
                    process.kill()
        outcomes = await asyncio.gather(*(server.predict([hostile.FINE, 1]) for _ in range(50)), return_exceptions=True)
        failed = [one for one in outcomes if isinstance(one, BaseException)]
        assert len(failed) <= 2, failed  # those that a worker had in hand as it died
        assert all(isinstance(one, AIError) for one in failed)
        await served(server, within=60)
    assert server.queues()["model:hostile:v1.0"].limit == 2


async def test_what_a_model_leaks_from_request_to_request_counts_against_its_limit(server: ModelServer) -> None:
    outcomes = [await asyncio.gather(server.predict([hostile.LEAKS, 1]), return_exceptions=True) for _ in range(12)]
    codes = [getattr(outcome, "code", "fine") for [outcome] in outcomes]
    assert set(codes) == {"fine", "out_of_memory"}
    await served(server, within=60)


async def test_a_model_that_keeps_what_it_takes_does_not_spoil_the_requests_to_come(server: ModelServer) -> None:
    for _ in range(3):
        await fails(server, hostile.HOARDS, ResourceError, "out_of_memory")
        await served(server, within=60)


@pytest.mark.parametrize(
    ("deed", "kind", "code"),
    [
        (hostile.NAN, InvalidModelOutputError, "invalid_model_output"),
        (hostile.CLASS, InvalidModelOutputError, "invalid_model_output"),
        (hostile.SHAPE, InvalidModelOutputError, "invalid_model_output"),
        (hostile.RAISES, PredictionError, "prediction_failed"),
        (hostile.EXITS, PredictionError, "prediction_failed"),
        (hostile.UNPICKLABLE, PredictionError, "prediction_failed"),
        (hostile.INTERRUPTS, PredictionError, "prediction_failed"),
        (hostile.CANCELS, PredictionError, "prediction_failed"),
    ],
)
async def test_rubbish_and_exceptions_are_typed(server: ModelServer, deed: int, kind: type[AIError], code: str) -> None:
    error = await fails(server, deed, kind, code)
    assert "flux" not in str(error)
    if deed == hostile.RAISES:
        assert error.__notes__ == ["the flux capacitor is empty"]
    await served(server)


async def test_a_caller_that_goes_away_takes_its_work_along(server: ModelServer) -> None:
    await served(server)
    task = asyncio.create_task(server.predict([hostile.HANGS, 1]))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await served(server)


async def test_a_storm_of_crashes_and_hangs_ends_with_every_request_answered(server: ModelServer) -> None:
    deeds = [hostile.FINE, hostile.SEGFAULTS, hostile.FINE, hostile.HANGS, hostile.RAISES, hostile.FINE] * 3
    outcomes = await asyncio.gather(
        *(server.predict([deed, 1], timeout=30 if deed != hostile.HANGS else 0.3) for deed in deeds),
        return_exceptions=True,
    )
    assert all(isinstance(one, AIError) or one.predictions[0].label == "positive" for one in outcomes)  # type: ignore[union-attr]
    for deed, outcome in zip(deeds, outcomes, strict=True):
        if deed == hostile.FINE:
            assert not isinstance(outcome, ModelError), outcome
    await served(server, within=60)


async def test_a_model_that_kills_whoever_loads_it_is_a_typed_load_failure(
    server: ModelServer, add_to: Callable[..., Manifest]
) -> None:
    add_to(server.registry, hostile.DiesOnLoad(), "deadly", isolated=True, timeout_seconds=60)
    with pytest.raises(ModelLoadError, match=r"loading deadly v1.0 crashes the process that does it") as caught:
        await server.predict([0, 1], model="deadly")
    assert caught.value.spec.http_status == 503
    await served(server)


async def test_a_model_that_cannot_be_loaded_says_why_through_the_worker(
    server: ModelServer, add_to: Callable[..., Manifest], folder: Path
) -> None:
    manifest = add_to(server.registry, hostile.Hostile(), "changed", isolated=True, timeout_seconds=60)
    file = server.registry.folder_of(manifest) / manifest.file
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ModelLoadError) as caught:
        await server.predict([0, 1], model="changed")
    assert caught.value.code == "model_tampered"


async def test_a_worker_that_nobody_is_left_to_kill_ends_by_itself() -> None:
    stuck = (
        "import ctypes; from bulletproof.models import isolated; isolated._last_for(0.1); ctypes.PyDLL(None).sleep(60)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", stuck)
    assert await asyncio.wait_for(process.wait(), 50) == -signal.SIGALRM
