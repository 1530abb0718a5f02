"""The decorator of the seed."""

import asyncio
import inspect
import random

import pytest

from bulletproof.errors import (
    BadResponseError,
    CircuitOpenError,
    DeadlineExceededError,
    InputValidationError,
    RateLimitedError,
    ServiceAuthError,
    ServiceUnavailableError,
)
from bulletproof.resilience import ai_api_retry


@pytest.mark.parametrize(("draw", "waits"), [(0.0, [1, 2, 4]), (0.5, [1.5, 2.5, 4.5])])
def test_waits_double_from_the_base_delay_plus_up_to_a_second(fake, script, draw, waits):
    ask = script(ConnectionError("down"))
    with pytest.raises(ConnectionError):
        ai_api_retry(max_retries=4, sleep=fake.sleep, rng=lambda: draw)(ask.plain)()
    assert fake.waits == waits
    assert ask.runs == 4


def test_defaults_are_three_attempts_from_one_second(fake, script):
    ask = script(TimeoutError("late"))
    with pytest.raises(TimeoutError):
        ai_api_retry(sleep=fake.sleep)(ask.plain)()
    assert ask.runs == 3
    assert 1 <= fake.waits[0] <= 2 <= fake.waits[1] <= 3


def test_no_cap_on_the_waits(fake, script):
    with pytest.raises(ConnectionError):
        ai_api_retry(max_retries=12, sleep=fake.sleep, rng=lambda: 0.0)(script(ConnectionError()).plain)()
    assert fake.waits[-1] == 2.0**10


def test_nothing_is_added_to_a_base_delay_of_zero(fake, script):
    with pytest.raises(ConnectionError):
        ai_api_retry(max_retries=3, base_delay=0, sleep=fake.sleep)(script(ConnectionError()).plain)()
    assert fake.waits == [0, 0]


async def test_coroutine_functions_stay_coroutine_functions(fake, script):
    ask = script(ConnectionError("down"), "answer")
    wrapped = ai_api_retry(sleep=fake.sleep_async)(ask.coroutine)
    assert inspect.iscoroutinefunction(wrapped)
    assert await wrapped("prompt", model="m") == "answer"
    assert ask.calls == [(("prompt",), {"model": "m"})] * 2


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("x"),
        ConnectionResetError("x"),
        TimeoutError("x"),
        ServiceUnavailableError("x"),
        RateLimitedError("x"),
        BadResponseError("x"),
    ],
)
def test_retries_connection_errors_timeouts_and_what_classify_calls_retryable(fake, script, error):
    ask = script(error, "answer")
    assert ai_api_retry(base_delay=0, sleep=fake.sleep)(ask.plain)() == "answer"
    assert ask.runs == 2


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        KeyError("a bug"),
        Exception("bare"),
        InputValidationError("x"),
        ServiceAuthError("x"),
        ServiceUnavailableError("x", retryable=False),
        DeadlineExceededError("x"),
        CircuitOpenError("llm", "open", 5),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
    ],
)
def test_retries_nothing_else(fake, script, error):
    ask = script(error)
    with pytest.raises(type(error)) as caught:
        ai_api_retry(base_delay=0, sleep=fake.sleep)(ask.plain)()
    assert caught.value is error
    assert ask.runs == 1
    assert fake.waits == []


@pytest.mark.parametrize("attempts", [0, -1])
def test_fewer_than_one_attempt_is_refused_at_once(attempts):
    with pytest.raises(ValueError, match="max_retries"):
        ai_api_retry(max_retries=attempts)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
def test_a_delay_that_makes_no_sense_is_refused_at_once(delay):
    with pytest.raises(ValueError, match="base_delay"):
        ai_api_retry(base_delay=delay)


def test_forgotten_brackets_are_explained():
    with pytest.raises(TypeError, match="brackets"):

        @ai_api_retry
        def ask():
            pass


def test_one_attempt_raises_the_error_untouched(script):
    error = ConnectionError("down")
    with pytest.raises(ConnectionError) as caught:
        ai_api_retry(max_retries=1)(script(error).plain)()
    assert caught.value is error
    assert not hasattr(error, "__notes__")


def test_signature_name_and_docstring_are_kept():
    @ai_api_retry()
    def ask(prompt: str, model: str = "m") -> str:
        """Ask."""
        return prompt + model

    assert str(inspect.signature(ask)) == "(prompt: str, model: str = 'm') -> str"
    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")


def test_methods_get_their_self(fake):
    class Client:
        tries = 0

        @ai_api_retry(base_delay=0, sleep=fake.sleep)
        def ask(self):
            self.tries += 1
            if self.tries < 3:
                raise ConnectionError("down")
            return self

    client = Client()
    assert client.ask() is client


def test_a_seeded_random_source_makes_the_waits_repeatable(fake, script):
    for _ in range(2):
        with pytest.raises(ConnectionError):
            ai_api_retry(sleep=fake.sleep, rng=random.Random(7))(script(ConnectionError()).plain)()
    assert fake.waits[:2] == fake.waits[2:]


def test_a_retry_after_of_the_service_wins_over_the_computed_wait(fake, script):
    ask = script(RateLimitedError("slow down", retry_after=7), "answer")
    assert ai_api_retry(sleep=fake.sleep)(ask.plain)() == "answer"
    assert fake.waits == [7]
