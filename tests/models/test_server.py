"""A server of models answers every request: with a prediction, or with an error that says what was wrong."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from bulletproof.errors import (
    AIError,
    InputValidationError,
    InvalidModelOutputError,
    ModelError,
    ModelLoadError,
    NotFoundError,
    OverloadedError,
    PredictionError,
    PredictionTimeoutError,
    ResourceError,
)
from bulletproof.models.loaded import LoadedModels
from bulletproof.models.manifest import InputSchema, Manifest, OutputSchema
from bulletproof.models.predictor import Outputs
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.runners import open_runner
from bulletproof.models.server import ModelServer, Prediction
from bulletproof.monitor import AIErrorMonitor
from bulletproof.resilience import remaining
from support import hostile

Add = Callable[..., Manifest]
FLOWER = [5.1, 3.5, 1.4, 0.2]


class Loaded:
    """Lends runners that do what a test says, in place of real models; counts those lent."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run
        self.memory_bytes = 0
        self.lent = 0

    def lease(self, manifest: Manifest) -> "Loaded":
        return self

    def is_ready(self, manifest: Manifest) -> bool:
        return True

    async def __aenter__(self) -> "Loaded":
        self.lent += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.lent -= 1


@pytest.fixture
async def serve(registry: ModelRegistry) -> AsyncIterator[Callable[..., ModelServer]]:
    servers: list[ModelServer] = []

    def make(run: Callable[..., Any] | None = None, **more: Any) -> ModelServer:
        loaded: Any = Loaded(run) if run is not None else None
        servers.append(ModelServer(registry, loaded=loaded, monitor=AIErrorMonitor(), **more))
        return servers[-1]

    yield make
    for server in servers:
        await server.aclose()


@pytest.fixture
def server(serve: Callable[..., ModelServer]) -> ModelServer:
    return serve()


async def positive(rows: Any, *, timeout: float, on_runaway: Any = None) -> Outputs:
    return Outputs(np.ones(len(rows)))


# What comes out.


async def test_the_bundled_model_answers_class_confidence_name_and_version(server: ModelServer) -> None:
    answer = await server.predict(FLOWER)
    [(prediction, confidence, label)] = answer.predictions
    assert (prediction, label, answer.model, answer.model_version, answer.single) == (0, "setosa", "iris", "v1.0", True)
    assert 0.9 < confidence <= 1


async def test_a_batch_is_answered_row_by_row_by_the_version_asked_for(server: ModelServer) -> None:
    answer = await server.predict([FLOWER, [6.7, 3.0, 5.2, 2.3]], model="iris", version="v1.1")
    assert ([one.label for one in answer.predictions], answer.model_version) == (["setosa", "virginica"], "v1.1")
    assert not answer.single


async def test_a_regression_answers_its_value(server: ModelServer, add: Add) -> None:
    model = LinearRegression().fit(np.array([[0.0, 0], [1, 1], [2, 5]]), [0.0, 1, 2])
    add(model, "line", output=OutputSchema(kind="regression"))
    [(prediction, confidence, label)] = (await server.predict([1, 1], model="line")).predictions
    assert (prediction, confidence, label) == (pytest.approx(1), 0.0, None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "rose"}, "no model 'rose': .*iris"),
        ({"version": "v9.9"}, "no version 'v9.9' of iris: there are v1.0, v1.1"),
        ({"version": "latest"}, "v1.0, v1.1"),
        ({"version": "../../etc"}, "v1.0, v1.1"),
    ],
)
async def test_what_is_not_there_is_a_404_that_lists_what_is(server: ModelServer, more: Any, message: str) -> None:
    with pytest.raises(NotFoundError, match=message) as caught:
        await server.predict(FLOWER, **more)
    assert caught.value.spec.http_status == 404


@pytest.mark.parametrize("more", [{"model": 5}, {"version": 1.0}, {"timeout": 0}, {"timeout": float("nan")}])
async def test_a_name_or_time_that_is_none_is_an_invalid_input(server: ModelServer, more: Any) -> None:
    with pytest.raises(InputValidationError):
        await server.predict(FLOWER, **more)


async def test_input_is_checked_before_the_model_is_loaded(serve: Callable[..., ModelServer]) -> None:
    server = serve(positive)
    with pytest.raises(InputValidationError, match=r"petal length is a string \(index 2\)"):
        await server.predict([5.1, 3.5, "1.4", 0.2])


@pytest.mark.parametrize(
    ("deed", "kind"),
    [
        (hostile.NAN, InvalidModelOutputError),
        (hostile.CLASS, InvalidModelOutputError),
        (hostile.RAISES, PredictionError),
        (hostile.EXITS, PredictionError),
    ],
)
async def test_a_model_in_this_process_fails_with_a_type(
    server: ModelServer, add: Add, deed: int, kind: type[AIError]
) -> None:
    add(hostile.Hostile())
    for _ in range(3):  # in a thread, then in the loop
        with pytest.raises(kind):
            await server.predict([deed, 1], model="hostile")
        assert (await server.predict([0, 1], model="hostile")).predictions[0].label == "positive"


async def test_a_version_that_cannot_be_loaded_is_a_503_and_others_go_on(server: ModelServer, add: Add) -> None:
    manifest = add(hostile.Hostile())
    file = server.registry.folder_of(manifest) / manifest.file
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ModelLoadError) as caught:
        await server.predict([0, 1], model="hostile")
    assert caught.value.spec.http_status == 503
    assert await server.predict(FLOWER)


async def test_errors_and_successes_are_counted_under_the_name_of_the_model(server: ModelServer, add: Add) -> None:
    add(hostile.Hostile())
    await server.predict([0, 1], model="hostile")
    with pytest.raises(PredictionError):
        await server.predict([hostile.RAISES, 1], model="hostile")
    with pytest.raises(NotFoundError):
        await server.predict(FLOWER, model="no-such-model")
    summary = server.monitor.get_error_summary()
    assert summary["by_service"] == {"model:hostile": 1, "models": 1}
    operations = summary["operations"]["model:hostile"]
    assert (operations["total"], operations["failed"]) == (2, 1)


# In time.


async def test_the_deadline_is_handed_down_and_never_longer_than_the_model_allows(
    serve: Callable[..., ModelServer],
) -> None:
    seen: list[tuple[float, float | None]] = []

    async def run(rows: Any, *, timeout: float, on_runaway: Any) -> Outputs:
        seen.append((timeout, remaining()))
        return Outputs(np.zeros(1))

    server = serve(run, clock=lambda: 100.0)
    await server.predict(FLOWER)
    await server.predict(FLOWER, timeout=2)
    await server.predict(FLOWER, timeout=60)
    assert seen == [(10.0, 10.0), (2.0, 2.0), (10.0, 10.0)]


@pytest.fixture
async def cold(registry: ModelRegistry) -> AsyncIterator[tuple[ModelServer, asyncio.Event]]:
    """A server whose models are loaded once a test says so."""
    go = asyncio.Event()

    async def later(folder: Any, manifest: Manifest) -> Any:
        await go.wait()
        return await open_runner(folder, manifest)

    loaded = LoadedModels(later, registry.folder_of, memory_bytes=2**30)
    server = ModelServer(registry, loaded=loaded, monitor=AIErrorMonitor())
    yield server, go
    await server.aclose()
    await loaded.aclose()


async def test_a_load_that_takes_longer_than_the_request_has_is_a_503_to_retry_and_goes_on_for_the_next(
    cold: tuple[ModelServer, asyncio.Event],
) -> None:
    server, go = cold
    with pytest.raises(OverloadedError, match=r"iris v1.0 is being loaded") as caught:
        await server.predict(FLOWER, timeout=0.05)
    assert (caught.value.spec.http_status, caught.value.retryable) == (503, True)
    assert caught.value.retry_after
    go.set()
    assert await server.predict(FLOWER)
    assert server.queues()["model:iris:v1.0"].limit == 16


async def test_what_a_model_allows_for_a_prediction_is_not_used_up_by_loading_it(
    cold: tuple[ModelServer, asyncio.Event], add: Add
) -> None:
    server, go = cold
    add(hostile.Hostile(), timeout_seconds=0.5)
    task = asyncio.create_task(server.predict([0, 1], model="hostile"))
    await asyncio.sleep(0.7)
    assert not task.done()
    go.set()
    assert (await task).predictions[0].label == "positive"


async def test_of_a_burst_on_a_model_that_is_being_loaded_those_beyond_its_capacity_are_refused_at_once(
    cold: tuple[ModelServer, asyncio.Event], add: Add
) -> None:
    server, go = cold
    add(hostile.Hostile(), max_concurrent=2, max_queued=8)
    tasks = [asyncio.create_task(server.predict([0, 1], model="hostile")) for _ in range(200)]
    await asyncio.sleep(0.05)
    refused = [task.exception() for task in tasks if task.done()]
    assert len(refused) == 190
    assert all(isinstance(error, OverloadedError) and error.retry_after for error in refused)
    go.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, Prediction) for one in done) == 10


async def test_few_wait_for_the_first_load_of_an_isolated_model_and_all_for_one_after_a_change(
    cold: tuple[ModelServer, asyncio.Event], add: Add
) -> None:
    server, _ = cold
    add(hostile.Hostile(), isolated=True, max_concurrent=1)

    async def refused() -> int:
        tasks = [asyncio.create_task(server.predict([0, 1], model="hostile", timeout=1)) for _ in range(100)]
        await asyncio.sleep(0.1)
        count = sum(task.done() for task in tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        return count

    assert await refused() == 84
    server._lanes["hostile", "v1.0"].usual = 0.001
    assert await refused() == 0


async def test_what_a_model_says_when_it_fails_is_for_the_log_alone(
    server: ModelServer, add: Add, caplog: pytest.LogCaptureFixture
) -> None:
    add(hostile.Hostile())
    with pytest.raises(PredictionError) as caught:
        await server.predict([hostile.RAISES, 1], model="hostile")
    assert str(caught.value) == "hostile v1.0 raised RuntimeError"
    [record] = [one for one in caplog.records if one.name == "bulletproof.models" and one.levelname == "ERROR"]
    assert record.said == "the flux capacitor is empty"  # type: ignore[attr-defined]


async def test_who_cannot_have_a_place_in_time_is_told_as_soon_as_it_is_known_how_long_runs_take(
    serve: Callable[..., ModelServer], add: Add
) -> None:
    async def run(rows: Any, *, timeout: float, on_runaway: Any) -> Outputs:
        await asyncio.sleep(0.2)
        return await positive(rows, timeout=timeout)

    add(hostile.Hostile(), max_concurrent=2)
    server = serve(run, default_model="hostile")
    began = time.monotonic()
    moments: list[float] = []

    async def ask() -> bool:
        try:
            await server.predict([0, 1], timeout=2)
        except OverloadedError as error:
            moments.append(time.monotonic() - began)
            return not error.retry_after
        return True

    answered = sum(await asyncio.gather(*(ask() for _ in range(200))))
    assert 10 <= answered <= 20  # 2 places for 2 s
    early = sum(moment < 1.0 for moment in moments)
    assert early > 150, sorted(moments)[:3]


async def test_crashes_and_overflows_leave_limit_and_reckoning_as_they_were(
    serve: Callable[..., ModelServer], add: Add
) -> None:
    now = [100.0]
    errors: list[AIError] = []

    async def run(rows: Any, *, timeout: float, on_runaway: Any) -> Outputs:
        now[0] += 9.0 if errors else 0.01
        if errors:
            raise errors.pop()
        return await positive(rows, timeout=timeout)

    add(hostile.Hostile(), max_concurrent=4)
    server = serve(run, default_model="hostile", clock=lambda: now[0])
    await server.predict([0, 1])
    for error in (
        ModelError("crashed", code="model_crashed"),
        ResourceError("too much", code="out_of_memory"),
        OverloadedError("it is being loaded"),
    ) * 20:
        errors.append(error)
        with pytest.raises(AIError):
            await server.predict([0, 1])
    lane = server._lanes["hostile", "v1.0"]
    assert lane.limit.limit == 4
    assert lane.usual == pytest.approx(0.01)


async def test_the_models_that_answer_by_default_are_loaded_ahead_of_time(
    serve: Callable[..., ModelServer], add: Add, registry: ModelRegistry
) -> None:
    add(hostile.Hostile(), "fine")
    broken = add(hostile.Hostile(), "broken")
    (registry.folder_of(broken) / broken.file).write_bytes(b"rubbish")
    server = serve()
    server.warm()
    async with asyncio.timeout(20):
        while len(versions := server.loaded.health()["versions"]) < 3 or "loading" in str(versions):
            await asyncio.sleep(0.01)
    states = {name: one["state"] for name, one in versions.items()}
    assert states == {"iris:v1.0": "loaded", "fine:v1.0": "loaded", "broken:v1.0": "failed"}


async def test_closing_breaks_off_what_is_loaded_ahead_of_time(cold: tuple[ModelServer, asyncio.Event]) -> None:
    server, _ = cold
    server.warm()
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        await server.aclose()


async def test_a_thread_that_runs_away_is_answered_in_time_and_keeps_its_place(
    server: ModelServer, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(hostile.Hostile, "do", lambda self, deed, answers: go.wait(20) and answers if deed else answers)
    add(hostile.Hostile(), max_concurrent=1, timeout_seconds=0.1)
    with pytest.raises(PredictionTimeoutError):
        await server.predict([1, 1], model="hostile")
    began = time.monotonic()
    with pytest.raises(OverloadedError, match="all 1 places are taken by runs that go on beyond their time") as caught:
        await server.predict([0, 1], model="hostile")
    assert time.monotonic() - began < 0.05
    assert caught.value.retry_after
    go.set()
    for _ in range(100):
        await asyncio.sleep(0.01)
        try:
            answer = await server.predict([0, 1], model="hostile")
        except OverloadedError:
            continue
        assert answer.predictions[0].label == "positive"
        break
    else:
        pytest.fail("the place was not given back")


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
