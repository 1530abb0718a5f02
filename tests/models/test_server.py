"""A server of models answers every request: with a prediction, or with an error that says what was wrong."""

import asyncio
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
from bulletproof.models.manifest import Manifest, OutputSchema
from bulletproof.models.predictor import Outputs
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.runners import open_runner
from bulletproof.models.server import ModelServer, Prediction
from bulletproof.monitor import AIErrorMonitor
from bulletproof.resilience import remaining
from support import hostile
from support.model_parts import FLOWER, positive

Add = Callable[..., Manifest]

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
