"""The next way when one fails."""

import asyncio

import pytest

from bulletproof.errors import CircuitOpenError, InputValidationError
from bulletproof.resilience import Fallback


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_the_first_way_that_works_answers(script, kind):
    first, second, third = script(ConnectionError("a")), script(ValueError("b")), script("answer")
    chain = Fallback(getattr(second, kind), getattr(third, kind))
    result = chain.call(getattr(first, kind), "prompt", n=1)
    assert (await result if kind == "coroutine" else result) == "answer"
    assert first.calls == second.calls == third.calls == [(("prompt",), {"n": 1})]


async def test_an_async_function_may_fall_back_to_a_plain_one(script):
    assert await Fallback(script("answer").plain).call(script(ConnectionError()).coroutine) == "answer"


def test_the_last_error_is_raised_with_the_earlier_ones_behind_it(script):
    errors = [ConnectionError("a"), ConnectionError("b"), ConnectionError("c")]
    first, second, third = (script(error) for error in errors)
    with pytest.raises(ConnectionError) as caught:
        Fallback(second.plain, third.plain).call(first.plain)
    assert caught.value is errors[2]
    assert caught.value.__context__ is errors[1]
    assert errors[1].__context__ is errors[0]


@pytest.mark.parametrize("error", [InputValidationError("x"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_the_callers_own_fault_and_a_cancellation_lead_nowhere_else(script, error):
    other = script("answer")
    with pytest.raises(type(error)):
        Fallback(other.plain).call(script(error).plain)
    assert other.runs == 0


def test_an_open_circuit_leads_on(script):
    assert Fallback(script("answer").plain).call(script(CircuitOpenError("llm")).plain) == "answer"


@pytest.mark.parametrize("when", [KeyError, (KeyError, OSError), lambda error: isinstance(error, KeyError)])
def test_when_says_what_leads_on(script, when):
    assert Fallback(script("answer").plain, when=when).call(script(KeyError()).plain) == "answer"
    with pytest.raises(ValueError):
        Fallback(script("answer").plain, when=when).call(script(ValueError()).plain)


def test_a_hook_hears_of_each_and_its_failure_of_none(script, caplog):
    events = []

    def hook(event):
        events.append(event)
        raise RuntimeError("bug in the hook")

    first, second = script(ConnectionError("a")), script("answer")
    assert Fallback(second.plain, on_fallback=hook).call(first.plain) == "answer"
    assert (events[0].failed, events[0].taken) == ("Script.plain", "Script.plain")
    assert "bug in the hook" in caplog.text


async def test_a_plain_function_that_gives_a_coroutine_is_awaited(script):
    assert await Fallback(script("answer").coroutine).call(lambda: script(ConnectionError()).coroutine()) == "answer"


def test_there_must_be_another_way():
    with pytest.raises(ValueError):
        Fallback()
    with pytest.raises(TypeError):
        Fallback("no function")
