"""Calls that failed on the way out: kept, run again in order and at their pace, never two at the same time."""

import asyncio
import inspect
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
    AIServiceCircuitBreaker,
    Backoff,
    CircuitConfig,
    CircuitState,
    check_deadline,
    deadline,
)
from bulletproof.store import KeptStore
from bulletproof.store.access import StoreAccess
from bulletproof.store.address import Address, parse_address
from support import kept_process


class Wall:
    """A wall clock that moves only when somebody sleeps or moves it."""

    def __init__(self) -> None:
        self.moment = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Service:
    """What is called: down or up; remembers what it did."""

    def __init__(self, wall: Wall) -> None:
        self.error: Exception | None = ConnectionError("down")
        self.done: list[Any] = []
        self.times: list[datetime] = []
        self._wall = wall

    def __call__(self, value: Any) -> str:
        self.times.append(self._wall())
        if self.error is not None:
            raise self.error
        self.done.append(value)
        return f"did {value}"


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def service(wall: Wall) -> Service:
    return Service(wall)


@pytest.fixture
async def kept_of(place: Address, wall: Wall) -> AsyncIterator[Callable[..., KeptCalls]]:
    """Make what keeps calls in the place, as another process would."""
    made: list[KeptCalls] = []

    def make(**options: Any) -> KeptCalls:
        given = {"now": wall, "sleep": wall.forward, "rng": lambda: 0.0} | options
        made.append(KeptCalls(StoreAccess(place), **given))
        return made[-1]

    yield make
    for kept in made:
        await kept.aclose()
        await kept.store.access.aclose()


@pytest.fixture
def kept(kept_of: Callable[..., KeptCalls]) -> KeptCalls:
    return kept_of()


@pytest.fixture
async def alone(tmp_path: Path, wall: Wall) -> AsyncIterator[KeptCalls]:
    """For what has nothing to do with the kind of database."""
    kept = KeptCalls(StoreAccess(parse_address(None, tmp_path)), now=wall, sleep=wall.forward, rng=lambda: 0.0)
    yield kept
    await kept.aclose()
    await kept.store.access.aclose()


def protected(kept: KeptCalls, service: Service, **options: Any) -> Callable[..., Any]:
    @kept.keep(**({"name": "work"} | options))
    async def work(value: Any) -> str:
        """Do it."""
        return service(value)

    return work


async def fails(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the error of a call."""
    with pytest.raises(Exception) as caught:
        await work(*args, **kwargs)
    return caught.value


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


def test_plain_functions_are_kept_and_run_without_an_event_loop(place: Address) -> None:
    kept = KeptCalls(StoreAccess(place), poll=0.02, backoff=Backoff(base=0.1))
    ran = threading.Event()
    up = False

    @kept.keep(name="plain")
    def plain(text: str, *, times: int) -> str:
        if not up:
            raise ConnectionError("down")
        if threading.current_thread() is not threading.main_thread():
            ran.set()
        return text * times

    with pytest.raises(ConnectionError) as caught:
        plain("x", times=3)
    assert caught.value.kept_id  # type: ignore[attr-defined]
    up = True
    assert plain("x", times=3) == "xxx"
    kept.start_thread()
    assert ran.wait(20)
    kept.stop_thread()


async def test_when_the_breaker_closes_everything_is_run_at_once(place: Address, until: Any) -> None:
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=1, success_threshold=1, timeout=3600))
    kept = KeptCalls(StoreAccess(place), poll=60, backoff=Backoff(base=3600, cap=None, jitter="none"))
    done = []
    up = False

    async def ask(number: int) -> None:
        if not up:
            raise ConnectionError("down")
        done.append(number)

    @kept.keep(name="ask", breaker=breaker, rate=1000)
    async def work(number: int) -> None:
        await breaker.call(ask, number)

    async with kept:
        for number in range(4):
            await fails(work, number)
        assert [call.code for call in await kept.store.calls()] == ["service_unavailable", *["circuit_open"] * 3]
        up = True
        await asyncio.sleep(0.05)
        assert done == []
        breaker.reset()
        await until(lambda: len(done) == 4)
        assert done == [0, 1, 2, 3]
    await kept.store.access.aclose()


async def test_while_the_breaker_refuses_no_attempt_is_spent(alone: KeptCalls, service: Service, wall: Wall) -> None:
    breaker = AIServiceCircuitBreaker("llm")
    await fails(protected(alone, service, breaker=breaker), 1)
    breaker.force_open()
    wall.forward(100)
    assert await alone.run_due() == 0
    breaker.reset()
    service.error = None
    assert await alone.run_due() == 1


async def test_a_fresh_process_runs_what_another_one_kept(kept_of: Any, service: Service, wall: Wall) -> None:
    before = kept_of()
    await fails(protected(before, service), 1)
    await before.store.access.aclose()
    service.error = None
    after = kept_of()
    assert await after.run_due() == 0  # it does not know the function
    protected(after, service)
    wall.forward(5)
    assert await after.run_due() == 1
    assert service.done == [1]


async def test_closing_hands_back_what_is_under_way(place: Address, until: Any) -> None:
    kept = KeptCalls(StoreAccess(place), poll=0.02, backoff=Backoff(base=0))
    begun = asyncio.Event()
    up = False

    @kept.keep(name="long")
    async def long() -> None:
        if not up:
            raise ConnectionError("down")
        begun.set()
        await asyncio.sleep(60)

    await fails(long)
    up = True
    async with kept:
        await asyncio.wait_for(begun.wait(), 20)
        assert [call.state for call in await kept.store.calls()] == ["running"]
    assert [(call.state, call.attempts) for call in await kept.store.calls()] == [("waiting", 1)]
    await kept.store.access.aclose()


async def test_a_call_that_lost_its_claim_is_stopped_before_another_process_runs_it(place: Address) -> None:
    kept = KeptCalls(StoreAccess(place), poll=0.02, lease=0.4, backoff=Backoff(base=0))
    begun, stopped = asyncio.Event(), asyncio.Event()
    up = False

    @kept.keep(name="long")
    async def long() -> None:
        if not up:
            raise ConnectionError("down")
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise

    error = await fails(long)
    up = True
    async with kept:
        await asyncio.wait_for(begun.wait(), 20)
        await kept.store.drop(error.kept_id)
        await asyncio.wait_for(stopped.wait(), 20)
    await kept.store.access.aclose()


@pytest.fixture
def runners(place: Address, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that run kept calls of ``work``; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, kept_process.__file__, str(tmp_path / "data"), str(tmp_path / "log"), str(seconds)]
        process = subprocess.Popen([*command, *([place.dsn] if place.dsn else [])], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def log_of(folder: Path) -> list[list[str]]:
    path = folder / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def keep_some(place: Address, count: int) -> KeptCalls:
    kept = KeptCalls(StoreAccess(place), backoff=Backoff(base=0))

    @kept.keep(name="work")
    async def work(number: int) -> None:
        raise ConnectionError("down")

    for number in range(count):
        await fails(work, number)
    return kept


async def test_several_processes_run_each_call_once_in_order_and_never_two_at_a_time(
    place: Address, runners: Any, tmp_path: Path, until: Any
) -> None:
    kept = await keep_some(place, 12)
    for _ in range(3):
        runners(0.02)

    async def empty() -> bool:
        return await kept.store.calls() == []

    await until(empty)
    log = log_of(tmp_path)
    assert [[what, number] for _, what, number in log] == [
        [what, str(number)] for number in range(12) for what in ("begin", "end")
    ]
    await kept.store.access.aclose()


async def test_a_process_that_is_killed_loses_its_claim_and_another_one_runs_the_call(
    place: Address, runners: Any, tmp_path: Path, until: Any
) -> None:
    kept = await keep_some(place, 1)
    first = runners(60)
    await until(lambda: log_of(tmp_path))
    second = runners(0.01)
    await asyncio.sleep(1.5)  # longer than the lease: the first one is alive and holds on
    assert log_of(tmp_path) == [[str(first.pid), "begin", "0"]]
    first.kill()
    await until(lambda: [str(second.pid), "end", "0"] in log_of(tmp_path))

    async def counts() -> Any:
        return (await kept.store.counts())["work"]["done"] == 1

    await until(counts)
    await kept.store.access.aclose()


class Queue(RuleBasedStateMachine):
    """Whatever several processes do with the calls of a function, each ends once and in order, and none is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.wall = Wall()
        self.store = KeptStore(StoreAccess(parse_address(None, self.folder.name)), now=self.wall)
        self.kept: list[str] = []  # those that are to be run, in order
        self.claims: dict[str, tuple[str, float]] = {}  # live or run out: the call, and until when it is held
        self.failed: set[str] = set()
        self.by_hand: set[str] = set()
        self.count = 0
        self.done = self.dropped = 0

    def teardown(self) -> None:
        self.run(self.store.access.aclose())
        self.loop.close()
        self.folder.cleanup()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @property
    def time(self) -> float:
        return self.wall().timestamp()

    def held(self) -> list[str]:
        return [kept_id for kept_id, until in self.claims.values() if until > self.time]

    @rule()
    def keep(self) -> None:
        self.count += 1
        options: dict[str, Any] = {"key": None, "code": "x", "error": "x", "expires": None, "limit": 100}
        self.kept.append(self.run(self.store.keep("f", str(self.count), due=self.time, **options)))

    @rule()
    def claim(self) -> None:
        name = f"claim {len(self.claims)} {self.count} {self.time}"
        call, _ = self.run(self.store.claim("f", name, until=self.time + 10, spacing=0.0, ordered=True))
        lost = {kept_id for kept_id, until in self.claims.values() if until <= self.time}
        open_ones = [kept_id for kept_id in self.kept if kept_id not in self.failed]
        if self.held() or not open_ones:
            assert call is None
            return
        first = [one for one in open_ones if one in lost] or [one for one in open_ones if one in self.by_hand]
        assert call is not None
        assert call.id == (first or open_ones)[0]
        self.by_hand.discard(call.id)
        self.claims = {held: found for held, found in self.claims.items() if found[0] != call.id}
        self.claims[name] = (call.id, self.time + 10)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), how=st.sampled_from(["finish", "again", "failed", "renew"]))
    def settle(self, data: Any, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.claims)))
        kept_id, _ = self.claims[name]
        if how == "renew":
            assert self.run(self.store.renew(name, self.time + 10))
            self.claims[name] = (kept_id, self.time + 10)
            return
        del self.claims[name]
        if how == "finish":
            self.run(self.store.finish("f", name))
            self.kept.remove(kept_id)
            self.by_hand.discard(kept_id)
            self.done += 1
        else:
            self.run(self.store.put_back(name, due=self.time, state="failed" if how == "failed" else "waiting"))
            self.by_hand.discard(kept_id)
            self.failed |= {kept_id} if how == "failed" else set()

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), drop=st.booleans())
    def act(self, data: Any, drop: bool) -> None:
        kept_id = data.draw(st.sampled_from(self.kept))
        if drop:
            self.run(self.store.drop(kept_id))
            self.kept.remove(kept_id)
            self.claims = {name: found for name, found in self.claims.items() if found[0] != kept_id}
            self.dropped += 1
        else:
            self.run(self.store.retry(kept_id))
            if kept_id not in self.held():
                self.by_hand.add(kept_id)
                self.failed.discard(kept_id)
                # Asked for by hand, it is no longer one that somebody left behind.
                self.claims = {name: found for name, found in self.claims.items() if found[0] != kept_id}

    @rule(seconds=st.sampled_from([1, 11]))
    def wait(self, seconds: int) -> None:
        self.wall.forward(seconds)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert [call.id for call in self.run(self.store.calls())] == self.kept
        counts = self.run(self.store.counts()).get("f", dict.fromkeys(("kept", "done", "dropped"), 0))
        assert (counts["kept"], counts["done"], counts["dropped"]) == (self.count, self.done, self.dropped)
        assert len(self.held()) <= 1


TestQueue = Queue.TestCase
TestQueue.settings = hypothesis.settings(max_examples=15, stateful_step_count=25, deadline=None)
