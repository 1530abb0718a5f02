"""Calls that failed on the way out: kept, and run again in order and at their pace."""

import asyncio
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bulletproof.errors import (
    BadResponseError,
    CircuitOpenError,
    DeadlineExceededError,
    InputValidationError,
    NotFoundError,
    RateLimitedError,
    ServiceAuthError,
    StoreError,
    classify,
)
from bulletproof.jobs import KeptCalls
from bulletproof.jobs.reruns import worth_keeping
from bulletproof.monitor import AIErrorMonitor
from bulletproof.resilience import (
    Backoff,
    CircuitState,
    check_deadline,
    deadline,
)
from bulletproof.store.access import StoreAccess
from bulletproof.store.address import parse_address
from support.kept_calls import Service, Wall, fails, protected


async def test_a_failed_call_is_kept_and_its_caller_gets_the_error(kept: KeptCalls, service: Service) -> None:
    work = protected(kept, service)
    error = await fails(
        work,
        "Zoë \0 \ud800",
    )
    assert error is service.error
    [call] = await kept.store.calls(arguments=True)
    assert call.id == error.kept_id
    assert call.id in error.__notes__[0]
    assert (call.function, call.state, call.code, call.attempts) == ("work", "waiting", "service_unavailable", 0)
    service.error = None
    kept._now.forward(5)  # type: ignore[attr-defined]
    assert await kept.run_due() == 1
    assert service.done == ["Zoë \0 \ud800"]
    assert await kept.store.calls() == []
    assert await kept.store.counts() == {"work": {"kept": 1, "done": 1, "expired": 0, "dropped": 0, "left": 0}}


async def test_a_call_that_succeeds_is_not_kept_and_the_signature_stays(alone: KeptCalls, service: Service) -> None:
    service.error = None
    work = protected(alone, service)
    assert await work("x") == "did x"
    assert inspect.iscoroutinefunction(work)
    assert (str(inspect.signature(work)), work.__doc__) == ("(value: Any) -> str", "Do it.")
    assert await alone.store.counts() == {}


@pytest.mark.parametrize(
    ("error", "keeps"),
    [
        (CircuitOpenError("llm", CircuitState.OPEN, 3), True),
        (DeadlineExceededError("late"), True),
        (RateLimitedError("slow down", retry_after=7), True),
        (TimeoutError(), True),
        (StoreError("away"), True),
        (BadResponseError("rubbish"), True),
        (InputValidationError("no"), False),
        (InputValidationError("your own limit", code="too_many_requests"), False),
        (ServiceAuthError("who?"), False),
        (ValueError("a bug"), False),
        (KeyError("a bug"), False),
    ],
)
def test_what_another_time_may_mend_is_kept_and_nothing_else(error: Exception, keeps: bool) -> None:
    assert worth_keeping(classify(error)) is keeps


async def test_a_mistake_of_the_caller_is_not_kept(alone: KeptCalls, service: Service) -> None:
    service.error = InputValidationError("no")
    assert not hasattr(await fails(protected(alone, service), 1), "kept_id")
    assert await alone.store.calls() == []


async def test_cancellation_is_not_kept(alone: KeptCalls) -> None:
    @alone.keep(name="long")
    async def long() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(long())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await alone.store.calls() == []


async def test_a_call_whose_deadline_is_over_is_kept_all_the_same(alone: KeptCalls) -> None:
    @alone.keep(name="late")
    async def late() -> None:
        await asyncio.sleep(0.02)
        check_deadline()

    with deadline(0.01):
        assert (await fails(late)).code == "deadline_exceeded"
    assert len(await alone.store.calls()) == 1


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"),
        ((1, 2), "tuple"),
        ({1: "x"}, "a key of type int"),
        ([{"a": b""}], "bytes"),
        (float("nan"), "the number nan"),
        (datetime(2030, 1, 1, tzinfo=UTC), "datetime"),
    ],
)
async def test_what_would_not_come_back_as_it_was_is_refused_before_the_call(
    alone: KeptCalls, service: Service, value: Any, named: str
) -> None:
    error = await fails(protected(alone, service), value=value)
    assert isinstance(error, InputValidationError)
    assert f"argument value of work cannot be kept: it is or holds {named}" in str(error)
    assert service.times == []


async def test_methods_and_generators_are_refused_at_once(alone: KeptCalls) -> None:
    def method(self: Any) -> None: ...

    def items() -> Iterator[int]:
        yield 1

    for fn in (method, items):
        with pytest.raises(TypeError, match="cannot be kept"):
            alone.keep()(fn)


async def test_nonsense_is_refused(alone: KeptCalls, service: Service) -> None:
    protected(alone, service)
    for options in ({"rate": 0}, {"expires": -1}, {"order": "lifo"}, {"name": "work"}):
        with pytest.raises(ValueError):
            protected(alone, service, **options)


async def test_calls_are_run_in_the_order_in_which_they_were_kept_and_at_their_rate(
    kept: KeptCalls, service: Service, wall: Wall
) -> None:
    work = protected(kept, service, rate=2)
    for number in range(6):
        await fails(work, number)
    wall.forward(5)
    service.error, service.times = None, []
    assert await kept.run_due() == 6
    assert service.done == list(range(6))
    gaps = [(later - earlier).total_seconds() for earlier, later in zip(service.times, service.times[1:], strict=False)]
    assert gaps == pytest.approx([0.5] * 5)


async def test_the_rate_holds_for_all_processes_together(kept_of: Any, service: Service, wall: Wall) -> None:
    one, other = kept_of(), kept_of()
    work = protected(one, service, rate=0.5, order="any")
    protected(other, service, rate=0.5, order="any")
    for number in range(4):
        await fails(work, number)
    wall.forward(10)
    assert (await one.store.claim("work", "a", until=wall().timestamp() + 9, spacing=2, ordered=False))[0] is not None
    call, wait = await other.store.claim("work", "b", until=wall().timestamp() + 9, spacing=2, ordered=False)
    assert (call, wait) == (None, pytest.approx(2.0))
    wall.forward(2)
    assert (await other.store.claim("work", "b", until=wall().timestamp() + 9, spacing=2, ordered=False))[0] is not None


async def test_in_order_nothing_overtakes_a_call_that_goes_on_failing(
    alone: KeptCalls, service: Service, wall: Wall
) -> None:
    work = protected(alone, service)
    await fails(work, 1)
    await fails(work, 2)
    wall.forward(3)
    assert await alone.run_due() == 1
    service.error = None
    assert await alone.run_due() == 0  # the second one is due, the first is not
    wall.forward(10)
    assert await alone.run_due() == 2
    assert service.done == [1, 2]


async def test_in_any_order_the_others_go_on(kept: KeptCalls, wall: Wall) -> None:
    done = []

    @kept.keep(name="work", order="any", rate=1000)
    async def work(number: int) -> None:
        if number == 1 or not up:
            raise ConnectionError("down")
        done.append(number)

    up = False
    await fails(work, 1)
    await fails(work, 2)
    up = True
    wall.forward(3)
    await kept.run_due()
    await kept.run_due()
    assert done == [2]
    assert [(call.attempts, call.state) for call in await kept.store.calls()] == [(1, "waiting")]


async def test_each_failure_makes_the_wait_longer_and_a_wait_asked_for_is_respected(
    kept_of: Any, service: Service, wall: Wall
) -> None:
    kept = kept_of(backoff=Backoff(base=4, cap=30, jitter="none"))
    await fails(protected(kept, service), 1)
    waits = []
    for _ in range(5):
        [call] = await kept.store.calls()
        waits.append((call.due - wall()).total_seconds())
        wall.moment = call.due
        assert await kept.run_due() == 1
    assert waits == [4, 8, 16, 30, 30]
    service.error = RateLimitedError("slow down", retry_after=90)
    [call] = await kept.store.calls()
    wall.moment = call.due
    await kept.run_due()
    [call] = await kept.store.calls()
    assert ((call.due - wall()).total_seconds(), call.code, call.attempts) == (90, "rate_limited", 6)


async def test_of_calls_with_the_same_key_one_is_kept(kept: KeptCalls, service: Service, wall: Wall) -> None:
    work = protected(kept, service, key=lambda value: f"order-{value}", expires=60)
    first = (await fails(work, 7)).kept_id
    service.error = ConnectionError("still down")
    wall.forward(61)  # its time is over, but it is wanted again
    assert (await fails(work, 7)).kept_id == first
    assert (await fails(work, 8)).kept_id != first
    service.error = None
    wall.forward(5)
    await kept.run_due()
    assert service.done == [7, 8]


async def test_the_same_key_may_be_kept_for_two_functions(kept: KeptCalls, service: Service) -> None:
    for name in ("one", "other"):
        await fails(protected(kept, service, name=name, key=str), 1)
    assert len(await kept.store.calls()) == 2


async def test_what_expires_is_dropped_and_reported(kept_of: Any, service: Service, wall: Wall, caplog: Any) -> None:
    monitor = AIErrorMonitor()
    kept = kept_of(monitor=monitor)
    error = await fails(protected(kept, service, expires=60), "secret-argument")
    wall.forward(61)
    assert [call.state for call in await kept.store.calls()] == ["expired"]
    assert await kept.run_due() == 0
    assert await kept.store.calls() == []
    assert (await kept.store.counts())["work"]["expired"] == 1
    [event] = monitor.recent(5)
    assert (event.service, event.context["kept_id"]) == ("work", error.kept_id)
    assert "expired after 0 attempts" in event.message
    assert "expired" in caplog.text
    assert "secret-argument" not in caplog.text


async def test_an_error_that_another_run_does_not_mend_stops_the_runs_but_loses_nothing(
    kept_of: Any, service: Service, wall: Wall
) -> None:
    monitor = AIErrorMonitor()
    kept = kept_of(monitor=monitor)
    work = protected(kept, service)
    await fails(work, 1)
    service.error = ValueError("a bug that knows secret things")
    wall.forward(3)
    assert await kept.run_due() == 1
    [call] = await kept.store.calls()
    assert (call.state, call.code, call.attempts) == ("failed", "internal_error", 1)
    assert "secret" not in call.error + monitor.recent(1)[0].message
    wall.forward(1000)
    assert await kept.run_due() == 0
    service.error = None
    await kept.store.retry(call.id)
    assert await kept.run_due() == 1
    assert service.done == [1]


async def test_by_hand_a_call_is_run_next_and_dropped(kept: KeptCalls, service: Service) -> None:
    work = protected(kept, service)
    ids = [(await fails(work, number)).kept_id for number in range(3)]
    service.error = None
    await kept.store.retry(ids[2])
    await kept.store.drop(ids[0])
    assert await kept.run_due() == 1
    assert service.done == [2]
    assert (await kept.store.counts())["work"] == {"kept": 3, "done": 1, "expired": 0, "dropped": 1, "left": 1}
    for act in (kept.store.retry, kept.store.drop):
        for missing in (ids[0], "", "x\0", "x" * 500):
            with pytest.raises(NotFoundError, match="no call is kept as"):
                await act(missing)


async def test_results_are_handed_over_and_a_failing_receiver_gets_them_again(
    alone: KeptCalls, service: Service, wall: Wall
) -> None:
    got: list[tuple[int, Any]] = []

    async def receive(call: Any, result: Any) -> None:
        got.append((call.attempts, result))
        if len(got) == 1:
            raise StoreError("away")

    await fails(protected(alone, service, on_result=receive), 1)
    service.error = None
    for _ in range(2):
        wall.forward(20)
        await alone.run_due()
    assert got == [(1, "did 1"), (2, "did 1")]
    assert await alone.store.calls() == []


async def test_too_many_are_not_kept_and_the_caller_is_told(kept_of: Any, service: Service) -> None:
    work = protected(kept_of(max_kept=2), service)
    errors = []
    for _ in range(3):
        service.error = ConnectionError("down")
        errors.append(await fails(work, 1))
    assert [hasattr(error, "kept_id") for error in errors] == [True, True, False]
    assert "could not be kept: 2 calls of work are kept already" in errors[2].__notes__[0]


async def test_a_database_that_is_away_changes_nothing_about_the_error(service: Service, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = KeptCalls(StoreAccess(parse_address(None, tmp_path / "file")))
    error = await fails(protected(kept, service), 1)
    assert error is service.error
    assert "could not be kept" in error.__notes__[0]
