"""Loaded models until they are closed, with a real registry, and in any order of events."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bulletproof.errors import (
    OverloadedError,
)
from bulletproof.models import LoadedModels, ModelRegistry, open_runner
from support.model_shelf import Shelf, ShelfRunner, cache, manifest_of, settle, use

# The end.


async def test_closing_waits_for_the_requests_under_way_and_refuses_others(shelf: Shelf) -> None:
    models = cache(shelf)
    async with models.lease(manifest_of("iris")) as runner:
        closing = asyncio.create_task(models.aclose())
        await settle()
        assert not closing.done()
        with pytest.raises(OverloadedError, match="the service is stopping"):
            await use(models, manifest_of("iris"))
        await runner.run(np.zeros((1, 1)), timeout=1)
    await closing
    assert shelf.closed == ["iris:v1.0"]


async def test_closing_breaks_off_what_is_being_loaded(shelf: Shelf) -> None:
    models = cache(shelf)
    shelf.gate.clear()
    waiter = asyncio.create_task(use(models, manifest_of("iris")))
    await shelf.started.wait()
    await models.aclose()
    with pytest.raises(OverloadedError, match="the service is stopping"):
        await waiter


async def test_closing_that_is_cancelled_closes_all_the_same(shelf: Shelf) -> None:
    models = cache(shelf)
    async with models.lease(manifest_of("iris")):
        closing = asyncio.create_task(models.aclose())
        await settle()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    assert shelf.closed == ["iris:v1.0"]


async def test_a_runner_that_cannot_be_closed_does_not_disturb(
    shelf: Shelf, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: ShelfRunner) -> None:
        raise RuntimeError("stuck")

    monkeypatch.setattr(ShelfRunner, "aclose", fail)
    models = cache(shelf)
    await use(models, manifest_of("iris"))
    await models.aclose()
    assert "a model could not be closed cleanly" in caplog.text


# With a real registry.


async def test_a_manifest_changed_on_disk_is_loaded_anew_under_traffic(tmp_path: Path) -> None:
    bundled = ModelRegistry(tmp_path / "none")
    default = bundled.manifest()
    registry = ModelRegistry(tmp_path / "models")
    registry.add(
        "flower", "v1.0", bundled.folder_of(default) / "model.onnx", type="onnx", input=default.input,
        output=default.output,
    )  # fmt: skip
    models = LoadedModels(open_runner, registry.folder_of, memory_bytes=2**30)
    answered = 0
    stop = False

    async def ask() -> None:
        nonlocal answered
        while not stop:
            async with models.lease(registry.manifest("flower")) as runner:
                await runner.run(np.array([[5.1, 3.5, 1.4, 0.2]]), timeout=10)
                answered += 1
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    path = tmp_path / "models/flower/v1.0/manifest.json"
    for number in range(5):
        goal = answered + 20
        while answered < goal:
            await asyncio.sleep(0.001)
        part = path.with_name("part")
        part.write_text(json.dumps(json.loads(path.read_text()) | {"description": str(number)}))
        part.replace(path)
    stop = True
    await asyncio.gather(*tasks)
    assert registry.manifest("flower").description == "4"
    await models.aclose()


class Cache(RuleBasedStateMachine):
    """Any order of taking, giving back and changing: no runner in hand is closed, none is left open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.shelf = Shelf()
        self.models = cache(self.shelf, memory_bytes=25)
        self.leases: list[tuple[Any, Any]] = []
        self.changes = dict.fromkeys("abcd", 0)

    @rule(name=st.sampled_from("abcd"))
    def take(self, name: str) -> None:
        lease = self.models.lease(manifest_of(name, description=str(self.changes[name])))
        self.leases.append((lease, self.loop.run_until_complete(lease.__aenter__())))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        lease, _ = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        self.loop.run_until_complete(lease.__aexit__(None, None, None))

    @rule(name=st.sampled_from("abcd"))
    def change(self, name: str) -> None:
        self.changes[name] += 1

    @invariant()
    def in_hand_is_open(self) -> None:
        self.loop.run_until_complete(settle())
        alive = len(self.shelf.opened) - len(self.shelf.closed)
        assert self.models.health()["memory_bytes"] == 10 * alive
        in_hand = {id(runner) for _, runner in self.leases}
        assert 10 * alive <= max(25, 10 * (len(in_hand) + 1))
        for _, runner in self.leases:
            self.loop.run_until_complete(runner.run(np.zeros((1, 1)), timeout=1))

    def teardown(self) -> None:
        for lease, _ in self.leases:
            self.loop.run_until_complete(lease.__aexit__(None, None, None))
        self.loop.run_until_complete(self.models.aclose())
        assert len(self.shelf.closed) == len(self.shelf.opened)
        self.loop.close()


TestCache = Cache.TestCase
TestCache.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
