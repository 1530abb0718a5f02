"""Models in memory: loaded once, let go when there is no room, replaced without dropping a request."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulletproof.errors import (
    ModelLoadError,
    NotFoundError,
    OverloadedError,
)
from bulletproof.models import LoadedModels, Manifest
from bulletproof.models.loaded import LOADING
from bulletproof.resilience import BreakerRegistry, CircuitState, deadline
from support.model_shelf import FOLDER, Shelf, ShelfRunner, cache, manifest_of, settle, use

# Once.


async def test_a_model_is_loaded_once_however_many_wait(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    waiting = [asyncio.create_task(use(models, manifest_of("iris"))) for _ in range(100)]
    await settle()
    assert models.health()["versions"]["iris:v1.0"]["state"] == "loading"
    shelf.gate.set()
    assert set(await asyncio.gather(*waiting)) == {"iris:v1.0"}
    assert shelf.opened == ["iris:v1.0"]
    await models.aclose()


async def test_one_that_gives_up_waiting_leaves_the_load_to_the_others(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    first, second = (asyncio.create_task(use(models, manifest_of("iris"))) for _ in range(2))
    await shelf.started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    shelf.gate.set()
    assert await second == "iris:v1.0"
    assert shelf.opened == ["iris:v1.0"]
    await models.aclose()


async def test_the_load_goes_on_for_those_who_come_next_when_nobody_waits_any_more(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    with pytest.raises(OverloadedError, match=r"iris v1\.0 is being loaded"), deadline(0.01):
        await use(models, manifest_of("iris"))
    shelf.gate.set()
    assert await use(models, manifest_of("iris")) == "iris:v1.0"
    assert shelf.opened == ["iris:v1.0"]
    await models.aclose()


async def test_the_deadline_of_the_first_is_not_that_of_the_load(shelf: Shelf) -> None:
    models = LoadedModels(_told_time(seen := []), lambda _: FOLDER, memory_bytes=1000, load_seconds=500)
    async with deadline(5):
        await use(models, manifest_of("iris"))
    assert seen[0] > 400
    await models.aclose()


def _told_time(seen: list[float]) -> Any:
    from bulletproof.resilience import remaining

    async def open_it(_: Path, manifest: Manifest) -> ShelfRunner:
        seen.append(remaining() or 0)
        return ShelfRunner(Shelf(), manifest.name)

    return open_it


async def test_different_models_load_beside_each_other(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    tasks = [asyncio.create_task(use(models, manifest_of(name))) for name in ("a", "b")]
    await settle(lambda: len(shelf.opened) == 2)
    assert shelf.opened == ["a:v1.0", "b:v1.0"]
    shelf.gate.set()
    await asyncio.gather(*tasks)
    await models.aclose()


# Memory.


async def test_the_least_recently_used_goes_when_there_is_no_room(shelf: Shelf) -> None:
    models = cache(shelf, memory_bytes=25)
    for name in ("a", "b", "a", "c"):
        await use(models, manifest_of(name))
    await settle()
    assert shelf.closed == ["b:v1.0"]
    assert models.health()["memory_bytes"] == 20
    await models.aclose()
    assert sorted(shelf.closed) == ["a:v1.0", "b:v1.0", "c:v1.0"]


async def test_one_that_a_request_has_in_hand_stays_whatever_the_memory(shelf: Shelf) -> None:
    models = cache(shelf, memory_bytes=15)
    async with models.lease(manifest_of("a")) as runner:
        await use(models, manifest_of("b"))
        await use(models, manifest_of("c"))
        await settle()
        assert shelf.closed == ["b:v1.0"]
        await runner.run(np.zeros((1, 1)), timeout=1)
    await settle()
    assert shelf.closed == ["b:v1.0", "a:v1.0"]
    await models.aclose()


async def test_a_model_larger_than_allowed_is_kept_while_it_is_the_one_used_last(shelf: Shelf) -> None:
    models = cache(shelf, memory_bytes=5)
    for _ in range(3):
        await use(models, manifest_of("a"))
    assert shelf.opened == ["a:v1.0"]
    await models.aclose()


# Change.


async def test_a_changed_manifest_gets_a_new_runner_and_requests_under_way_keep_the_old(shelf: Shelf) -> None:
    models = cache(shelf)
    old, new = manifest_of("iris", description="old"), manifest_of("iris", description="new")
    async with models.lease(old) as runner:
        assert await use(models, new) == "iris:v1.0:new"
        assert models.health()["versions"]["iris:v1.0"]["state"] == "loaded"
        await settle()
        assert shelf.closed == []
        await runner.run(np.zeros((1, 1)), timeout=1)
    await settle()
    assert shelf.closed == ["iris:v1.0:old"]
    assert await use(models, new) == "iris:v1.0:new"
    assert shelf.opened == ["iris:v1.0:old", "iris:v1.0:new"]
    await models.aclose()


async def test_a_request_that_began_before_the_change_does_not_bring_the_old_one_back(shelf: Shelf) -> None:
    models = cache(shelf)
    old, new = manifest_of("iris", description="old"), manifest_of("iris", description="new")
    await use(models, old)
    await use(models, new)
    assert await use(models, old) == "iris:v1.0:new"
    again = manifest_of("iris", description="old")  # read anew: it was changed back
    assert await use(models, again) == "iris:v1.0:old"
    await models.aclose()


async def test_a_manifest_that_says_the_same_is_not_loaded_again(shelf: Shelf) -> None:
    models = cache(shelf)
    for _ in range(2):
        await use(models, manifest_of("iris"))
    assert shelf.opened == ["iris:v1.0"]
    await models.aclose()


async def test_one_replaced_while_it_was_loaded_is_closed_when_its_waiters_are_done(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    waiter = asyncio.create_task(use(models, manifest_of("iris", description="old")))
    await shelf.started.wait()
    newer = asyncio.create_task(use(models, manifest_of("iris", description="new")))
    await settle()
    shelf.gate.set()
    assert (await waiter, await newer) == ("iris:v1.0:old", "iris:v1.0:new")
    await settle()
    assert shelf.closed == ["iris:v1.0:old"]
    await models.aclose()
    assert sorted(shelf.closed) == ["iris:v1.0:new", "iris:v1.0:old"]


async def test_one_replaced_and_given_up_while_it_was_loaded_is_closed(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    waiter = asyncio.create_task(use(models, manifest_of("iris", description="old")))
    await shelf.started.wait()
    waiter.cancel()
    newer = asyncio.create_task(use(models, manifest_of("iris", description="new")))
    await settle()
    shelf.gate.set()
    await newer
    await settle()
    assert shelf.closed == ["iris:v1.0:old"]
    assert models.health()["memory_bytes"] == 10
    await models.aclose()


# Failure.


async def test_a_version_that_fails_opens_its_own_breaker_and_others_go_on(shelf: Shelf) -> None:
    now = 0.0
    models = cache(shelf, breakers=BreakerRegistry(LOADING, clock=lambda: now))
    shelf.failures["iris:v1.1"] = ModelLoadError("the file is torn", code="model_tampered", hint="Restore it.")
    for _ in range(3):
        with pytest.raises(ModelLoadError, match="the file is torn") as caught:
            await use(models, manifest_of("iris", "v1.1"))
        assert (caught.value.code, caught.value.hint) == ("model_tampered", "Restore it.")
    assert caught.value.retry_after == 5
    assert shelf.opened == ["iris:v1.1"]
    assert await use(models, manifest_of("iris")) == "iris:v1.0"
    assert models.breakers["model:iris:v1.1"].state is CircuitState.OPEN

    health = models.health()
    assert health["status"] == "degraded"
    assert health["details"] == "iris v1.1 cannot be loaded: the file is torn"
    assert health["versions"]["iris:v1.0"] == {"state": "loaded", "memory_bytes": 10, "leases": 0}
    assert health["versions"]["iris:v1.1"] == {
        "state": "failed", "code": "model_tampered", "details": "the file is torn", "hint": "Restore it.",
        "retry_after": 5,
    }  # fmt: skip

    shelf.failures.clear()
    now = 6.0
    assert await use(models, manifest_of("iris", "v1.1")) == "iris:v1.1"
    assert models.health()["status"] == "healthy"
    await models.aclose()


async def test_a_changed_manifest_is_tried_at_once(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.failures["iris:v1.0"] = ModelLoadError("torn")
    with pytest.raises(ModelLoadError):
        await use(models, manifest_of("iris"))
    assert await use(models, manifest_of("iris", description="mended")) == "iris:v1.0:mended"
    await models.aclose()


@pytest.mark.parametrize("error", [ValueError("no such layer"), MemoryError(), OSError("disk"), TimeoutError()])
async def test_whatever_goes_wrong_in_loading_is_a_model_load_error(shelf: Shelf, error: Exception) -> None:
    models = cache(shelf)
    shelf.failures["iris:v1.0"] = error
    results = await asyncio.gather(*(use(models, manifest_of("iris")) for _ in range(3)), return_exceptions=True)
    assert {type(result) for result in results} == {ModelLoadError}
    assert len({id(result) for result in results}) == 3
    assert "iris v1.0 cannot be loaded" in str(results[0])
    assert shelf.opened == ["iris:v1.0"]
    await models.aclose()


async def test_what_callers_are_told_does_not_say_where_our_files_are(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.failures["iris:v1.0"] = ModelLoadError(f"{FOLDER / 'm.onnx'} is torn", path="/srv/models/iris/v1.0/m.onnx")
    with pytest.raises(ModelLoadError) as caught:
        await use(models, manifest_of("iris"))
    assert str(caught.value) == "m.onnx is torn"
    await models.aclose()


async def test_a_load_that_takes_too_long_is_given_up(shelf: Shelf) -> None:
    models = cache(shelf, load_seconds=0.01)
    shelf.gate.clear()
    with pytest.raises(ModelLoadError, match=r"iris v1\.0 was not loaded within 0\.01 s"):
        await use(models, manifest_of("iris"))
    await models.aclose()


async def test_a_load_that_fails_after_all_have_given_up_leaves_no_complaint(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    shelf.failures["iris:v1.0"] = ModelLoadError("torn")
    waiter = asyncio.create_task(use(models, manifest_of("iris")))
    await shelf.started.wait()
    waiter.cancel()
    await settle()
    shelf.gate.set()
    await settle()
    gc.collect()
    assert models.health()["versions"]["iris:v1.0"]["state"] == "failed"
    await models.aclose()


async def test_the_failure_of_a_version_that_was_removed_is_forgotten(shelf: Shelf) -> None:
    there = True

    def folder_of(_: Manifest) -> Path:
        if not there:
            raise NotFoundError("gone")
        return FOLDER

    models = LoadedModels(shelf.open, folder_of, memory_bytes=1000)
    shelf.failures["iris:v1.1"] = ModelLoadError("torn")
    with pytest.raises(ModelLoadError):
        await use(models, manifest_of("iris", "v1.1"))
    assert models.health()["status"] == "degraded"
    there = False
    assert models.health()["status"] == "healthy"
    there = True
    shelf.failures.clear()
    assert await use(models, manifest_of("iris", "v1.1", "added again")) == "iris:v1.1:added again"
    await models.aclose()


async def test_a_version_that_is_removed_while_it_is_loaded_is_one_that_is_not_there(shelf: Shelf) -> None:
    there = True

    def folder_of(_: Manifest) -> Path:
        if not there:
            raise NotFoundError("there is no version 'v1.0' of iris", code="unknown_model_version")
        return FOLDER

    models = LoadedModels(shelf.open, folder_of, memory_bytes=1000)
    shelf.gate.clear()
    shelf.failures["iris:v1.0"] = ModelLoadError("no such file")
    waiter = asyncio.create_task(use(models, manifest_of("iris")))
    await shelf.started.wait()
    there = False
    shelf.gate.set()
    with pytest.raises(NotFoundError):
        await waiter
    assert models.breakers["model:iris:v1.0"].state is CircuitState.CLOSED
    assert models.health()["status"] == "healthy"
    await models.aclose()


async def test_a_replaced_version_that_fails_afterwards_does_not_speak_for_the_new_one(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    shelf.failures["iris:v1.0:old"] = ModelLoadError("torn")
    old = asyncio.create_task(use(models, manifest_of("iris", description="old")))
    await shelf.started.wait()
    new = asyncio.create_task(use(models, manifest_of("iris", description="new")))
    await settle()
    shelf.gate.set()
    assert [str(result) for result in await asyncio.gather(old, new, return_exceptions=True)] == [
        "torn", "iris:v1.0:new",
    ]  # fmt: skip
    assert models.health()["status"] == "healthy"
    assert models.breakers["model:iris:v1.0"].state is CircuitState.CLOSED
    await models.aclose()
