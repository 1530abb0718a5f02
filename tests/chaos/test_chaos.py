"""Faults by a plan: the same ones for the same seed, nothing when nothing is asked for."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.chaos import Chaos, Plan, Rule
from bulletproof.errors import (
    CODES,
    AIError,
    ConfigurationError,
    InvalidFileError,
    RateLimitedError,
    ServiceTimeoutError,
    classify,
)


def struck(chaos: Chaos, calls: int, stage: str = "llm") -> list[bool]:
    """Which of so many calls failed."""

    @chaos.wrap(stage=stage)
    def call() -> None:
        pass

    failed = []
    for _ in range(calls):
        try:
            call()
        except Exception:
            failed.append(True)
        else:
            failed.append(False)
    return failed


@given(seed=st.integers(), share=st.floats(0.05, 0.95))
def test_the_same_seed_strikes_the_same_calls(seed: int, share: float) -> None:
    plan = Plan([Rule("llm", error=ConnectionError, probability=share)], seed)
    first, second = Chaos(plan), Chaos(plan)
    assert struck(first, 50) == struck(second, 50)
    assert first.report() == second.report()


def test_chance_keeps_to_its_probability_and_a_stage_of_another_name_has_its_own() -> None:
    chaos = Chaos(Plan([Rule("*", error=ConnectionError, probability=0.3)], 7))
    llm, store = struck(chaos, 2000), struck(chaos, 2000, "store")
    assert 0.26 < sum(llm) / 2000 < 0.34
    assert llm != store


async def test_the_order_of_tasks_changes_nothing() -> None:
    plan = Plan([Rule("llm", latency=(0.0, 0.002)), Rule("llm", error=ConnectionError, probability=0.5)], 3)

    async def run(tasks: int) -> Counter[str]:
        chaos = Chaos(plan)

        @chaos.wrap(stage="llm")
        async def call() -> None:
            await asyncio.sleep(0)

        await asyncio.gather(*(call() for _ in range(tasks)), return_exceptions=True)
        return Counter(chaos.report()["faults"]["llm"])

    assert await run(40) == await run(40)


def test_a_rule_for_some_calls_strikes_those() -> None:
    chaos = Chaos(Plan([Rule("llm", error="service_timeout", calls=(3, 7))]))
    assert [number for number, failed in enumerate(struck(chaos, 10), 1) if failed] == [3, 4, 5, 6, 7]


def test_a_rule_for_some_seconds_strikes_in_those() -> None:
    now = [100.0]
    chaos = Chaos(Plan([Rule("llm", error=OSError, seconds=(10, 20))]), clock=lambda: now[0])
    seen = []
    for moment in (100, 109.9, 110, 119.9, 120):
        now[0] = moment
        seen += struck(chaos, 1)
    assert seen == [False, False, True, True, False]


async def test_latency_and_hangs_wait_on_the_clock_that_was_given() -> None:
    waits: list[float] = []
    plan = Plan([Rule("slow", latency=(1, 2)), Rule("dead", hang=60)])
    chaos = Chaos(plan, sleep=waits.append)
    with chaos.point("slow"):
        pass
    async with chaos.point("slow"):
        pass
    with pytest.raises(ServiceTimeoutError, match="dead hung for 60 s"):
        async with chaos.point("dead"):
            raise AssertionError("never reached")
    assert 1 <= waits[0] <= 2
    assert 1 <= waits[1] <= 2
    assert waits[2] == 60


async def test_a_hang_ends_with_a_cancellation() -> None:
    chaos = Chaos(Plan([Rule("dead", hang=3600)]))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), chaos.point("dead"):
            pass


async def test_garbage_takes_the_place_of_the_result_or_is_made_of_it() -> None:
    async def ask() -> str:
        return "fine"

    assert await Chaos(Plan([Rule("llm", garbage=None)])).wrap(ask, stage="llm")() is None
    assert await Chaos(Plan([Rule("llm", garbage=str.upper)])).wrap(ask, stage="llm")() == "FINE"


def test_memory_is_held_during_the_call_and_given_back() -> None:
    chaos = Chaos(Plan([Rule("clean", memory=50 * 2**20)]))
    with chaos.point("clean") as point:
        assert [len(held) for held in point._held] == [50 * 2**20]
    assert point._held == []


@pytest.mark.parametrize("code", sorted(CODES.keys() - {"circuit_open"}))
def test_every_code_can_be_raised_and_keeps_its_meaning(code: str) -> None:
    with pytest.raises(AIError) as caught:
        Chaos(Plan([Rule("x", error=code)])).wrap(lambda: None, stage="x")()
    assert classify(caught.value).code == code
    assert "chaos plan" in str(caught.value)


def test_a_code_is_raised_as_the_class_of_its_own() -> None:
    assert type(Rule("x", error="rate_limited").make_error("x")) is RateLimitedError
    assert type(Rule("x", error=InvalidFileError).make_error("x")) is InvalidFileError
    own = OSError(28, "No space left on device")
    assert Rule("x", error=own).make_error("x") is own


def test_without_a_plan_a_function_is_returned_as_it_is() -> None:
    chaos = Chaos(Plan())
    assert chaos.wrap(len, stage="llm") is len
    assert Chaos(Plan([Rule("store", hang=1)])).wrap(len, stage="llm") is len
    assert chaos.point("llm") is chaos.point("store")
    assert chaos.report() == {"seed": 0, "active": False, "calls": {}, "faults": {}}
    started = time.perf_counter()
    for _ in range(10_000):
        with chaos.point("llm"):
            pass
    assert time.perf_counter() - started < 1  # 100 us each, on the busiest machine


def test_it_can_be_stopped_and_go_on() -> None:
    chaos = Chaos(Plan([Rule("llm", error=OSError)]))
    call = chaos.wrap(lambda: "fine", stage="llm")
    chaos.active = False
    assert call() == "fine"
    chaos.active = True
    with pytest.raises(OSError, match="chaos plan"):
        call()
    assert chaos.report()["calls"] == {"llm": 1}


def test_generators_are_struck_inside() -> None:
    async def stream() -> Any:
        yield 1

    with pytest.raises(TypeError, match="point"):
        Chaos(Plan([Rule("llm", hang=1)])).wrap(stream, stage="llm")


def test_a_wrapped_function_keeps_its_name_and_its_own_errors() -> None:
    @Chaos(Plan([Rule("llm", latency=0)])).wrap(stage="llm")
    def ask() -> None:
        """Ask."""
        raise KeyError("mine")

    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")
    with pytest.raises(KeyError, match="mine"):
        ask()


@pytest.mark.parametrize(
    "wrong",
    [
        {"stage": "x"}, {"stage": "x", "hang": 1, "memory": 1}, {"stage": "", "hang": 1}, {"stage": "x", "hang": -1},
        {"stage": "x", "hang": True}, {"stage": "x", "memory": float("nan")}, {"stage": "x", "latency": (2, 1)},
        {"stage": "x", "latency": -1}, {"stage": "x", "hang": 1, "probability": 0},
        {"stage": "x", "hang": 1, "probability": 1.1}, {"stage": "x", "hang": 1, "calls": (0, 3)},
        {"stage": "x", "hang": 1, "seconds": (5,)}, {"stage": "x", "error": "no_such_code"},
        {"stage": "x", "error": "circuit_open"}, {"stage": "x", "error": 5}, {"stage": "x", "error": KeyboardInterrupt},
    ],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Rule(**wrong)


def test_a_plan_is_read_from_json() -> None:
    plan = Plan.from_json(
        '{"seed": 7, "rules": [{"stage": "store", "latency": [0.1, 0.5], "probability": 0.2},'
        ' {"stage": "llm", "garbage": null, "seconds": [10, 20]}]}'
    )
    assert plan == Plan(
        [Rule("store", latency=(0.1, 0.5), probability=0.2), Rule("llm", garbage=None, seconds=(10, 20))], 7
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"), ("[]", "JSON object"), ('{"rule": []}', "JSON object"), ('{"rules": {}}', "must be a list"),
        ('{"seed": "x"}', "whole number"), ('{"rules": [{"stage": "x", "hang": 1}, {"stage": "x"}]}', "rule 2"),
        ('{"rules": [{"stage": "x", "hang": 1, "often": true}]}', "members among"), ('{"rules": [1]}', "rule 1"),
        ('{"rules": [{"hang": 1}]}', "name its stage"), ('{"rules": [{"stage": "x", "hang": "1"}]}', "above 0"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_a_configuration_error_that_says_where(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Plan.from_json(text)


_NAMES = st.sampled_from(["stage", "hang", "rules", "seed", "error", "latency", "calls"])
_PLAIN = st.none() | st.booleans() | st.floats() | st.integers() | st.text()


@given(st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner)))
def test_any_json_is_a_plan_or_refused(value: Any) -> None:
    try:
        Plan.from_json(json.dumps({"rules": [value]}))
        Plan.from_json(json.dumps(value))
    except ConfigurationError:
        pass
