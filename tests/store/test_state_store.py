"""Notices about circuits in the database, as the resilience core shares them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitState
from bulletproof.resilience.shared import Notice, SharedState, StateStore
from bulletproof.store import ResultStore, SqlStateStore


def notice(wall: Any, name: str = "openai", state: str = "open", **more: Any) -> Notice:
    values: dict[str, Any] = {
        "topic": "breaker", "name": name, "state": state, "by_operator": False, "at": wall(),
        "until": wall() + timedelta(seconds=60), "expires": wall() + timedelta(seconds=60), "source": "p1",
    }  # fmt: skip
    return Notice(**(values | more))


async def test_one_notice_is_kept_for_each_topic_and_name(store: ResultStore, wall: Any) -> None:
    states: StateStore = SqlStateStore(store.access, now=wall)
    assert await states.fetch() == []
    hold = notice(wall, topic="gate", state="hold")
    await states.publish([notice(wall, "b"), notice(wall, "a"), hold])
    closed = notice(wall, "a", "closed", until=None, source="p2")
    await states.publish([closed])
    await states.publish([])
    found = await states.fetch()
    assert sorted(found, key=lambda one: (one.topic, one.name)) == [closed, notice(wall, "b"), hold]


async def test_expired_notices_are_gone(store: ResultStore, wall: Any) -> None:
    states = SqlStateStore(store.access, now=wall)
    await states.publish([notice(wall, "a"), notice(wall, "b", expires=None, until=None)])
    wall.forward(seconds=60)
    assert [one.name for one in await states.fetch()] == ["b"]
    await states.publish([notice(wall, "c")])
    assert sorted(one.name for one in await states.fetch()) == ["b", "c"]


async def test_only_an_operator_replaces_what_an_operator_holds(store: ResultStore, wall: Any) -> None:
    states = SqlStateStore(store.access, now=wall)
    held = notice(wall, state="forced_open", by_operator=True, until=None, expires=None)
    await states.publish([held])
    await states.publish([notice(wall, state="closed")])
    assert await states.fetch() == [held]
    freed = notice(wall, state="closed", by_operator=True)
    await states.publish([freed])
    assert await states.fetch() == [freed]
    again = notice(wall, state="open", source="p3")
    await states.publish([again])
    assert await states.fetch() == [again]


async def test_breakers_of_one_name_learn_of_each_other(
    store: ResultStore, place: Any, new_store: Callable[..., ResultStore]
) -> None:
    stores = [store, new_store(**place.arguments())]
    breakers = [AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=1)) for _ in stores]
    shared = [SharedState(SqlStateStore(one.access), patience=20) for one in stores]
    for state, breaker in zip(shared, breakers, strict=True):
        state.add(breaker)
    breakers[0]._record_failure(ConnectionError("down"))
    for state in shared:
        await state.exchange()
    assert breakers[1].state is CircuitState.OPEN
    breakers[1].force_open()
    for state in reversed(shared):
        await state.exchange()
    assert breakers[0].state is CircuitState.FORCED_OPEN
    assert shared[0].status()["reachable"] is True
