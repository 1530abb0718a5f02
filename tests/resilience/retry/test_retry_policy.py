# ruff: noqa: N802  # cases are named after their ids
"""RetryPolicy: the rules of trying again. Cases named E come from the table of behaviour cases."""

import asyncio
import functools
import gc
import random
import weakref
from contextlib import suppress
from datetime import timedelta
from email.utils import format_datetime

import pytest

from bulletproof.errors import (
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    classify,
)
from bulletproof.resilience import Gate, RetryEvent, RetryPolicy, deadline, no_waits, remaining


class Answer(Exception):  # noqa: N818
    """An SDK's error with response headers."""

    def __init__(self, status=429, **headers):
        super().__init__(f"status {status}")
        self.status_code = status
        self.response = type("Response", (), {"status_code": status, "headers": {}})()
        self.response.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def policy(fake, **settings):
    return RetryPolicy(**{"jitter": "none", **fake.handles, **settings})


def reachable(error):
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_E2_the_original_third_error_ends_three_failures(fake, script, kind):
    errors = [ConnectionError("first"), TimeoutError("second"), ConnectionError("third")]
    ask = script(*errors)
    with pytest.raises(ConnectionError) as caught:
        result = policy(fake, max_attempts=3).call(getattr(ask, kind))
        await result
    assert caught.value is errors[2]
    assert reachable(caught.value) == errors[::-1]
    assert any("first" in note for note in caught.value.__notes__)
    assert ask.runs == 3
    assert fake.waits == [0.5, 1.0]


async def test_E4_cancelling_while_waiting_ends_at_once(script):
    ask = script(ConnectionError("down"))
    waiting = asyncio.Event()

    async def sleep(_):
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(RetryPolicy(sleep=sleep)(ask.coroutine)())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ask.runs == 1


def test_E6_at_the_cap_a_thousand_clients_still_wait_differently(fake, script):
    for seed in range(1000):
        with pytest.raises(ConnectionError):
            RetryPolicy(max_attempts=6, rng=random.Random(seed), sleep=fake.sleep).call(script(ConnectionError()).plain)
    at_the_cap = fake.waits[4::5]
    assert len(at_the_cap) == 1000
    assert len(set(at_the_cap)) >= 990
    assert all(0 <= wait <= 8 for wait in fake.waits)


@pytest.mark.parametrize(
    "value",
    ["0", "-10", "nan", "inf", "", "1" + "0" * 34, "Foo, 99 Bar 2025", "Wed, 21 Oct 2015 07:28:00 GMT", None, "soon"],
)
def test_E8_a_retry_after_that_is_nonsense_falls_back_to_the_computed_wait(fake, script, value):
    error = Answer(retry_after=value)
    with pytest.raises(Answer) as caught:
        policy(fake, max_attempts=2).call(script(error).plain)
    assert caught.value is error
    assert fake.waits == [0.5]


def test_E11_a_wait_that_would_end_after_the_deadline_is_not_begun(fake, script):
    told = []

    def ask():
        told.append(remaining())
        fake.at += 9.5
        raise ConnectionError("down")

    with pytest.raises(ConnectionError) as caught:
        policy(fake, deadline=10, base_delay=1, attempt_timeout=60).call(ask)
    assert fake.waits == []
    assert told == [10]
    assert "does not fit" in caught.value.__notes__[0]


def test_E11_each_attempt_is_told_the_shorter_of_its_own_time_and_the_time_left(fake):
    told = []

    def ask():
        told.append(remaining())
        fake.at += 3
        raise ConnectionError("down")

    with pytest.raises(ConnectionError):
        policy(fake, max_attempts=9, deadline=10, attempt_timeout=4, base_delay=1, backoff="constant").call(ask)
    assert told == [4, 4, 2]
    assert remaining() is None


async def test_E11_each_coroutine_is_interrupted_after_the_shorter_of_both(script):
    @RetryPolicy(max_attempts=2, attempt_timeout=0.01, base_delay=0)
    async def ask():
        await asyncio.sleep(60)

    with pytest.raises(ServiceTimeoutError, match="ask did not answer within"):
        await ask()

    with pytest.raises(DeadlineExceededError):
        await RetryPolicy(max_attempts=5, deadline=0.02, attempt_timeout=50, base_delay=0).call(asyncio.sleep, 60)


async def test_a_timeout_of_one_attempt_is_worth_another():
    calls = []

    @RetryPolicy(attempt_timeout=0.02, base_delay=0)
    async def ask():
        calls.append(remaining())
        if len(calls) == 1:
            await asyncio.sleep(60)
        return "answer"

    assert await ask() == "answer"
    assert all(0 < left <= 0.02 for left in calls)


async def test_a_cancellation_from_outside_is_never_retried_or_turned_into_a_timeout():
    started = asyncio.Event()
    calls = []

    @RetryPolicy(attempt_timeout=60, deadline=60)
    async def ask():
        calls.append(1)
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(ask())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == [1]


async def test_a_timeout_of_the_callers_own_stays_what_it_is():
    @RetryPolicy(max_attempts=1, attempt_timeout=60)
    async def ask():
        await asyncio.sleep(0)
        raise TimeoutError("the SDK's own")

    with pytest.raises(TimeoutError, match="the SDK's own") as caught:
        await ask()
    assert not isinstance(caught.value, ServiceTimeoutError)


async def test_a_coroutine_that_catches_its_cancellation_may_clean_up():
    cleaned = []

    @RetryPolicy(max_attempts=1, attempt_timeout=0.01)
    async def ask():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(ServiceTimeoutError):
        await ask()
    assert cleaned == [True]


async def test_nothing_is_called_when_the_callers_deadline_is_over(fake, script):
    ask = script("answer")
    with deadline(5, clock=fake.clock):
        fake.at = 6
        with pytest.raises(DeadlineExceededError):
            policy(fake, deadline=10).call(ask.plain)
        with pytest.raises(DeadlineExceededError):
            await policy(fake, attempt_timeout=10).call(ask.coroutine)
    assert ask.runs == 0


def test_a_policy_without_deadline_keeps_to_that_of_its_caller(fake, script):
    ask = script(ConnectionError("down"))
    with deadline(1.2, clock=fake.clock), pytest.raises(ConnectionError):
        policy(fake, max_attempts=9).call(ask.plain)
    assert fake.waits == [0.5]


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "3"}, 3),
        ({"Retry_After": "2.5"}, 2.5),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
        ({"retry_after": "120"}, 120),
    ],
)
def test_a_retry_after_is_honoured_beyond_the_cap(fake, script, headers, wait):
    ask = script(Answer(**headers), "answer")
    assert policy(fake).call(ask.plain) == "answer"
    assert fake.waits == [wait]


def test_a_retry_after_that_is_a_date_is_measured_by_the_given_wall_clock(fake, script):
    date = format_datetime(fake.now() + timedelta(seconds=30), usegmt=True)
    ask = script(Answer(503, retry_after=date), "answer")
    assert policy(fake).call(ask.plain) == "answer"
    assert fake.waits == [30]


def test_a_retry_after_longer_than_the_maximum_means_no_retry(fake, script):
    ask = script(Answer(retry_after="121"))
    with pytest.raises(Answer) as caught:
        policy(fake).call(ask.plain)
    assert (ask.runs, fake.waits) == (1, [])
    assert "asked to wait 121 s" in caught.value.__notes__[0]


@pytest.mark.parametrize("retry_on", [None, Answer, lambda error: True])
def test_a_service_that_says_not_to_retry_is_obeyed(fake, script, retry_on):
    ask = script(Answer(503, x_should_retry="false"))
    with pytest.raises(Answer):
        policy(fake, retry_on=retry_on).call(ask.plain)
    assert ask.runs == 1


def test_a_service_that_says_to_retry_is_obeyed(fake, script):
    ask = script(Answer(400, x_should_retry="true"), "answer")
    assert policy(fake).call(ask.plain) == "answer"


def test_an_open_circuit_ends_it_at_once(fake, script):
    refusal = CircuitOpenError("llm", "open", 5)
    ask = script(ConnectionError("down"), refusal, "answer")
    with pytest.raises(CircuitOpenError) as caught:
        policy(fake, max_attempts=5, retry_on=Exception).call(ask.plain)
    assert caught.value is refusal
    assert ask.runs == 2


@pytest.mark.parametrize(
    ("retry_on", "error", "retried"),
    [
        (KeyError, KeyError(), True),
        (KeyError, IndexError(), False),
        (LookupError, IndexError(), True),
        ((KeyError, ValueError), ValueError(), True),
        (KeyError, ConnectionError(), False),
        (lambda error: "again" in str(error), ValueError("again"), True),
        (lambda error: "again" in str(error), ValueError("no"), False),
        (None, ConnectionError(), True),
        (None, ValueError(), False),
        (None, ServiceUnavailableError("x", retryable=False), False),
    ],
)
def test_retry_on_says_what_is_retried(fake, script, retry_on, error, retried):
    ask = script(error)
    with pytest.raises(type(error)):
        policy(fake, retry_on=retry_on).call(ask.plain)
    assert ask.runs == (3 if retried else 1)


def test_a_predicate_that_fails_never_hides_the_real_error(fake, script, caplog):
    with pytest.raises(ConnectionError, match="real"):
        policy(fake, retry_on=lambda error: error.missing).call(script(ConnectionError("real")).plain)
    assert "a predicate failed" in caplog.text


def test_an_unwanted_result_is_tried_again_and_returned_at_last(fake, script):
    ask = script(None, None, None)
    assert policy(fake, retry_on_result=lambda result: result is None).call(ask.plain) is None
    assert ask.runs == 3
    assert policy(fake, retry_on_result=lambda result: result is None).call(script(None, 5).plain) == 5


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_hooks_hear_of_every_wait_and_of_the_end(fake, script, kind):
    events = []
    error = ConnectionError("down")
    rules = policy(fake, max_attempts=2, on_retry=events.append, on_giveup=events.append)
    with pytest.raises(ConnectionError):
        await rules.call(getattr(script(error), kind))
    assert [(one.attempt, one.wait, one.error, one.reason) for one in events] == [
        (1, 0.5, error, ""),
        (2, None, error, "no tries left"),
    ]
    assert isinstance(events[0], RetryEvent)
    assert events[0].name.endswith(kind)


def test_a_hook_that_fails_never_reaches_the_call(fake, script, caplog):
    def broken(event):
        raise RuntimeError("bug in the hook")

    ask = script(ConnectionError("down"), "answer")
    assert policy(fake, on_retry=broken).call(ask.plain) == "answer"
    assert "bug in the hook" in caplog.text


def test_log_records_name_the_function_and_class_but_never_the_message(fake, script, caplog):
    caplog.set_level("INFO", "bulletproof.resilience")
    policy(fake).call(script(ConnectionError("secret"), 1).plain)
    assert "try 1 of 3 failed with ConnectionError" in caplog.text
    assert "secret" not in caplog.text


async def test_sleep_may_be_plain_or_async_for_both_kinds(fake, script):
    async def never_waits(seconds):
        fake.sleep(seconds)

    for sleep in (fake.sleep, never_waits):
        assert policy(fake, sleep=sleep).call(script(ConnectionError(), 1).plain) == 1
        assert await policy(fake, sleep=sleep).call(script(ConnectionError(), 1).coroutine) == 1
    assert fake.waits == [0.5] * 4


def test_a_sleep_that_needs_an_event_loop_is_refused_in_plain_code(fake, script):
    with pytest.raises(TypeError, match="event loop"):
        policy(fake, sleep=fake.sleep_async).call(script(ConnectionError()).plain)


async def test_no_waits_leaves_out_the_waits_and_tells_them(script):
    slow = RetryPolicy(base_delay=1000, max_delay=None, jitter="none")
    with no_waits() as waits:
        assert slow.call(script(ConnectionError(), 1).plain) == 1
        assert await slow.call(script(ConnectionError(), ConnectionError(), 1).coroutine) == 1
    assert waits == [1000, 1000, 2000]


async def test_a_plain_function_that_gives_a_coroutine_is_retried_as_one(fake, script):
    ask = script(ConnectionError(), "answer")
    assert await policy(fake).call(lambda: ask.coroutine()) == "answer"
    assert ask.runs == 2


async def test_a_coroutine_function_hidden_in_a_plain_decorator_is_retried_as_one(fake, script):
    ask = script(ConnectionError(), "answer")

    async def create(**kwargs):
        return await ask.coroutine(**kwargs)

    @functools.wraps(create)
    def required_args(**kwargs):
        return create(**kwargs)

    assert await policy(fake)(required_args)(model="m") == "answer"
    assert ask.calls[1] == ((), {"model": "m"})


def test_earlier_errors_do_not_change_what_the_last_one_means(fake, script):
    bug = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        policy(fake).call(script(RateLimitedError("slow down", retry_after=3), bug).plain)
    assert classify(bug).code == "internal_error"
    assert not classify(bug).retryable


def test_the_same_exception_object_raised_again_and_again_does_not_grow(fake, script):
    error, other = ConnectionError("one"), ConnectionError("two")
    ask = script(*[error, other] * 50)
    for _ in range(20):
        with pytest.raises(ConnectionError):
            policy(fake).call(ask.plain)
    assert len(error.__notes__) <= 3
    assert len(reachable(error)) <= 2


def test_many_attempts_keep_only_the_latest_errors(fake, script):
    with pytest.raises(ConnectionError) as caught:
        policy(fake, max_attempts=500).call(script(lambda: ConnectionError("down")).plain)
    assert len(reachable(caught.value)) == 11
    assert len(caught.value.__notes__) == 11


def test_an_exception_that_forbids_attributes_is_raised_as_it_is(fake, script):
    class Frozen(ConnectionError):  # noqa: N818
        def __setattr__(self, name, value):
            raise AttributeError(name)

    error = Frozen("down")
    with pytest.raises(Frozen) as caught:
        policy(fake).call(script(ConnectionError("first"), error).plain)
    assert caught.value is error


@pytest.mark.parametrize("settings", [{}, {"deadline": 50}, {"attempt_timeout": 50}, {"retry_on_result": bool}])
@pytest.mark.parametrize("good", [1, 99])
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_errors_go_with_their_last_reference_not_with_the_garbage_collector(kind, good, settings):
    class Marked(ConnectionError):  # noqa: N818
        pass

    made, dead = [], []

    def ask():
        made.append(1)
        if len(made) > good:
            return 0
        error = Marked("down")
        weakref.finalize(error, dead.append, 1)
        try:
            raise error
        finally:
            del error

    async def ask_async():
        return ask()

    rules = RetryPolicy(max_attempts=3, base_delay=0, sleep=lambda _: None, **settings)
    gc.collect()
    gc.disable()
    try:
        with suppress(Marked, StopIteration):
            rules(ask)() if kind == "plain" else rules(ask_async)().send(None)
        assert len(dead) == min(good, 3)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"base_delay": -1},
        {"base_delay": float("nan")},
        {"max_delay": -1},
        {"factor": 0.5},
        {"jitter": "some"},
        {"backoff": "linear"},
        {"deadline": 0},
        {"deadline": float("inf")},
        {"attempt_timeout": -1},
        {"max_retry_after": -1},
        {"retry_on": BaseException},
        {"retry_on": (ValueError, KeyboardInterrupt)},
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(wrong):
    with pytest.raises(ValueError):
        RetryPolicy(**wrong)


@pytest.mark.parametrize("wrong", [{"retry_on": 5}, {"max_attempts": 2.5}, {"base_delay": "1"}, {"rng": 5}])
def test_settings_of_the_wrong_type_are_refused_at_once(wrong):
    with pytest.raises(TypeError):
        RetryPolicy(**wrong)


def test_only_functions_can_be_protected():
    with pytest.raises(TypeError, match="a function is needed"):
        RetryPolicy()("no function")


def test_it_says_what_differs_from_the_defaults():
    assert repr(RetryPolicy(max_attempts=5, deadline=30)) == "RetryPolicy(max_attempts=5, deadline=30)"
    assert RetryPolicy().replace(max_attempts=7).max_attempts == 7


def test_a_gate_holds_the_other_callers(fake, script):
    gate = Gate("llm", interval=0, **fake.handles)
    ask = script(RateLimitedError("slow down", retry_after=5), "answer")
    rules = policy(fake, gate=gate)
    assert rules.call(ask.plain) == "answer"
    assert fake.waits == [5]
    gate.hold(3)
    assert rules.call(script("other").plain) == "other"
    assert fake.waits == [5, 3]
