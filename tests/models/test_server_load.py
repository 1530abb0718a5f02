"""The server of models under load, and with a candidate beside the active version."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from bulletproof.errors import (
    InputValidationError,
    OverloadedError,
)
from bulletproof.models.manifest import InputSchema, Manifest
from bulletproof.models.predictor import Outputs
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.server import ModelServer
from support import hostile
from support.model_parts import FLOWER, Loaded, positive

Add = Callable[..., Manifest]

# Under load.


async def gated(serve: Callable[..., ModelServer], add: Add, **limits: Any) -> tuple[ModelServer, asyncio.Event]:
    go = asyncio.Event()

    async def run(rows: Any, *, timeout: float, on_runaway: Any) -> Outputs:
        await go.wait()
        return await positive(rows, timeout=timeout)

    add(hostile.Hostile(), **limits)
    return serve(run, default_model="hostile"), go


async def test_no_more_run_or_wait_than_allowed_and_the_rest_is_refused_at_once(
    serve: Callable[..., ModelServer], add: Add
) -> None:
    server, go = await gated(serve, add, max_concurrent=2, max_queued=3)
    tasks = [asyncio.create_task(server.predict([0, 1])) for _ in range(5)]
    await asyncio.sleep(0)
    assert server.loaded.lent == 2  # type: ignore[attr-defined]
    with pytest.raises(OverloadedError) as caught:
        await server.predict([0, 1])
    assert (caught.value.spec.http_status, caught.value.retryable) == (503, True)
    go.set()
    assert len(await asyncio.gather(*tasks)) == 5
    assert await server.predict([0, 1])


async def test_who_would_wait_longer_than_it_has_is_refused_at_once(
    serve: Callable[..., ModelServer], add: Add
) -> None:
    now = [100.0]

    async def run(rows: Any, *, timeout: float, on_runaway: Any) -> Outputs:
        now[0] += 3.0
        await asyncio.sleep(0)
        return await positive(rows, timeout=timeout)

    add(hostile.Hostile(), max_concurrent=1)
    server = serve(run, default_model="hostile", clock=lambda: now[0])
    await server.predict([0, 1])
    busy = asyncio.create_task(server.predict([0, 1]))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match=r"free in about 3 s, and this request has 2 s left") as caught:
        await server.predict([0, 1], timeout=2)
    assert caught.value.retry_after == pytest.approx(3.0)
    assert await server.predict([0, 1], timeout=9)
    await busy


async def test_a_caller_that_gives_up_in_the_queue_leaves_its_place_to_others(
    serve: Callable[..., ModelServer], add: Add
) -> None:
    server, go = await gated(serve, add, max_concurrent=1, max_queued=1)
    running, queued = (asyncio.create_task(server.predict([0, 1])) for _ in range(2))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    third = asyncio.create_task(server.predict([0, 1]))
    await asyncio.sleep(0)
    go.set()
    assert await running
    assert await third


async def test_requests_are_joined_when_the_model_says_so(serve: Callable[..., ModelServer], add: Add) -> None:
    sizes: list[int] = []

    async def run(rows: Any, *, timeout: float, on_runaway: Any) -> Outputs:
        sizes.append(len(rows))
        return Outputs((rows[:, 1] > 0).astype(float))

    add(hostile.Hostile(), batch_rows=64, batch_wait_ms=5)
    server = serve(run, default_model="hostile")
    answers = await asyncio.gather(*(server.predict([0, sign]) for sign in (-1, 1, 1, -1)))
    assert [one.predictions[0].label for one in answers] == ["negative", "positive", "positive", "negative"]
    assert sizes == [4]


async def test_draining_answers_those_under_way_and_refuses_the_rest(
    serve: Callable[..., ModelServer], add: Add
) -> None:
    server, go = await gated(serve, add)
    task = asyncio.create_task(server.predict([0, 1]))
    await asyncio.sleep(0)
    assert not await server.drain(0.01)
    with pytest.raises(OverloadedError, match="about to stop"):
        await server.predict([0, 1])
    go.set()
    assert await server.drain(5)
    assert (await task).predictions[0].label == "positive"


async def test_a_new_manifest_is_followed_at_once(server: ModelServer, add: Add, registry: ModelRegistry) -> None:
    manifest = add(hostile.Hostile())
    await server.predict([0, 1], model="hostile")
    file = registry.folder_of(manifest) / "manifest.json"
    changed = manifest.model_copy(update={"input": InputSchema(features=manifest.input.features, max_rows=1)})
    file.write_text(changed.model_dump_json())
    with pytest.raises(InputValidationError, match="at most 1"):
        await server.predict([[0, 1], [0, 1]], model="hostile")


# A candidate.


class Draws(random.Random):
    """Draws what a test says."""

    def __init__(self, *draws: float) -> None:
        super().__init__()
        self.draws = list(draws)

    def random(self) -> float:
        return self.draws.pop(0) if self.draws else 0.0


async def settled(server: ModelServer) -> dict[str, Any]:
    while server._trials._beside:
        await asyncio.gather(*server._trials._beside)
    [report] = server.reports()
    return report


async def test_a_canary_gets_its_share_of_what_names_no_version(
    serve: Callable[..., ModelServer], registry: ModelRegistry
) -> None:
    registry.canary("iris", "v1.1", 0.25)
    server = serve(rng=Draws(0.1, 0.25, 0.9))
    versions = [(await server.predict(FLOWER)).model_version for _ in range(3)]
    assert versions == ["v1.1", "v1.0", "v1.0"]
    assert (await server.predict(FLOWER, version="v1.0")).model_version == "v1.0"
    report = await settled(server)
    assert (report["mode"], report["agreement"], report["rows_compared"]) == ("canary", 1.0, 1)
    assert report["candidate"]["answered"] == 1
    registry.stop_rollout("iris")
    assert (await server.predict(FLOWER)).model_version == "v1.0"


async def test_the_active_version_answers_when_the_canary_fails(
    serve: Callable[..., ModelServer], registry: ModelRegistry, add: Add
) -> None:
    add(hostile.Hostile(), version="v1.0")
    add(hostile.Hostile(), version="v1.1")
    registry.canary("hostile", "v1.1", 1.0)
    manifest = registry.manifest("hostile", "v1.1")
    file = registry.folder_of(manifest) / manifest.file
    file.write_bytes(b"broken")
    server = serve(default_model="hostile")
    answer = await server.predict([0, 1])
    assert (answer.model_version, answer.predictions[0].label) == ("v1.0", "positive")
    report = await settled(server)
    assert (report["rescued"], report["candidate"]["errors_by_code"]) == (1, {"model_tampered": 1})
    assert server.monitor.get_health_status() == "healthy"


async def test_a_shadow_is_compared_and_never_answers(
    serve: Callable[..., ModelServer], registry: ModelRegistry, add: Add
) -> None:
    add(hostile.Hostile(), version="v1.0")
    add(hostile.Hostile(), version="v1.1")
    registry.shadow("hostile", "v1.1", 1.0)
    server = serve(default_model="hostile")
    for row in ([0, 1], [0, -1]):
        assert (await server.predict(row)).model_version == "v1.0"
    report = await settled(server)
    assert (report["mode"], report["rows_compared"], report["agreement"]) == ("shadow", 2, 1.0)
    assert report["active"]["answered"] == report["candidate"]["answered"] == 2
    assert report["candidate"]["p50_ms"] is not None


async def test_a_shadow_that_hangs_delays_nobody_and_is_bounded(
    serve: Callable[..., ModelServer], registry: ModelRegistry, add: Add
) -> None:
    shadowed = 0

    class Runners(Loaded):
        def lease(self, manifest: Manifest) -> Any:
            return Loaded(self.slow if manifest.version == "v1.1" else positive)

        async def slow(self, rows: Any, *, timeout: float, on_runaway: Any) -> Outputs:
            nonlocal shadowed
            shadowed += 1
            await asyncio.sleep(60)
            raise AssertionError

    add(hostile.Hostile(), version="v1.0")
    add(hostile.Hostile(), version="v1.1")
    registry.shadow("hostile", "v1.1", 1.0)
    server = serve(positive, default_model="hostile")
    server.loaded = Runners(positive)  # type: ignore[assignment]
    began = time.monotonic()
    for _ in range(20):
        assert (await server.predict([0, 1])).model_version == "v1.0"
        await asyncio.sleep(0)
    assert time.monotonic() - began < 1
    assert (shadowed, server.reports()[0]["skipped"]) == (8, 12)
