"""Places by turns: bounded, fair, and none lost whatever is cancelled."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import OverloadedError
from bulletproof.service.turns import Turns


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """Callers who hold places until they are told to go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.holding: list[tuple[str, asyncio.Event]] = []

    def come(self, caller: str) -> asyncio.Task[None]:
        async def hold() -> None:
            async with self.turns.place(caller):
                self.order.append(caller)
                go = asyncio.Event()
                self.holding.append((caller, go))
                await go.wait()

        task = asyncio.create_task(hold())
        self.tasks.append(task)
        return task

    async def go(self, place: int = 0) -> None:
        self.holding.pop(place)[1].set()
        await settle()

    async def end(self) -> None:
        while self.holding:
            await self.go()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_a_newcomer_does_not_wait_behind_anothers_flood() -> None:
    crowd = Crowd(Turns("uploads", max_concurrent=1, max_queued=10))
    for caller in ("flood", "flood", "flood", "flood", "one", "other"):
        crowd.come(caller)
        await settle()
    for _ in range(6):
        await crowd.go()
    assert crowd.order == ["flood", "flood", "one", "other", "flood", "flood"]


async def test_a_quarter_of_the_places_is_kept_for_others() -> None:
    crowd = Crowd(Turns("uploads", max_concurrent=4, max_queued=10))
    for _ in range(6):
        crowd.come("flood")
    await settle()
    assert (crowd.turns.in_use, crowd.turns.queued) == (3, 3)
    crowd.come("one")
    await settle()
    assert crowd.order == ["flood"] * 3 + ["one"]
    await crowd.end()


async def test_the_only_caller_that_there_can_be_has_all_places() -> None:
    crowd = Crowd(Turns("uploads", max_concurrent=4, max_queued=0, sole=frozenset({"local"})))
    for _ in range(4):
        crowd.come("local")
    await settle()
    assert crowd.turns.in_use == 4
    await crowd.end()


async def test_a_full_queue_makes_room_for_who_has_least_in_it() -> None:
    crowd = Crowd(Turns("uploads", max_concurrent=1, max_queued=3))
    flood = [crowd.come("flood") for _ in range(5)]
    await settle()
    assert isinstance(flood[4].exception(), OverloadedError)
    one = crowd.come("one")
    await settle()
    assert isinstance(flood[3].exception(), OverloadedError)
    assert not one.done()
    await crowd.end()
    assert Counter(crowd.order) == {"flood": 3, "one": 1}


async def test_a_refused_caller_is_told_when_to_come_again() -> None:
    crowd = Crowd(Turns("uploads", max_concurrent=1, max_queued=0, retry_after=7))
    crowd.come("one")
    await settle()
    with pytest.raises(OverloadedError, match="all 1 places") as caught:
        async with crowd.turns.place("other"):
            pass
    assert caught.value.retry_after == 7
    await crowd.end()


@given(st.lists(st.tuples(st.sampled_from(["come", "go", "cancel"]), st.integers(0, 20)), max_size=60))
def test_no_place_is_lost_or_given_twice_whatever_happens(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        crowd = Crowd(Turns("uploads", max_concurrent=3, max_queued=4))
        for what, number in steps:
            if what == "come":
                crowd.come(f"caller {number % 3}")
            elif what == "go" and crowd.holding:
                await crowd.go(number % len(crowd.holding))
            elif what == "cancel" and crowd.tasks:
                crowd.tasks[number % len(crowd.tasks)].cancel()
            if number % 2:
                await settle()
            assert crowd.turns.in_use <= 3
            assert crowd.turns.queued <= 4
        for task in crowd.tasks:
            task.cancel()
        await asyncio.gather(*crowd.tasks, return_exceptions=True)
        assert (crowd.turns.in_use, crowd.turns.queued) == (0, 0)
        async with crowd.turns.place("last"):
            assert crowd.turns.in_use == 1

    asyncio.run(main())
