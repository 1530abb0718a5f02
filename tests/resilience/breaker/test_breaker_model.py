"""Random sequences of calls, late results, clock moves and operators, beside a plain and slow model of the rules."""

from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bulletproof.errors import CircuitOpenError, InputValidationError, RateLimitedError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig

CONFIGS = (
    CircuitConfig(failure_threshold=3, success_threshold=2, timeout=10, monitor_window=20),
    CircuitConfig(failure_threshold=2, mode="consecutive", timeout=5, half_open_max_calls=2, half_open_timeout=7),
    CircuitConfig(
        mode="rate", failure_rate_threshold=0.5, minimum_calls=4, monitor_window=12, timeout=6, success_threshold=1,
        slow_call_duration=3, slow_call_rate_threshold=0.75, timeout_factor=2, max_timeout=20,
    ),
    CircuitConfig(
        mode="rate", failure_rate_threshold=0.4, minimum_calls=3, window_type="count", window_size=6, timeout=8,
        half_open_max_calls=3,
    ),
    CircuitConfig(failure_threshold=3, timeout=9, monitor_window=15, slow_call_duration=2, minimum_calls=3,
                  slow_call_rate_threshold=0.5, window_type="count", window_size=5),
)  # fmt: skip


ENDS = ["success", "failure", "success", "failure", "neutral", "rate_limited"]
RARE = ["nothing"] * 8 + ["success", "failure"] * 2 + ["forced_open", "disabled", "shadow", "shadow", "enable", "reset"]
LASTS = st.sampled_from([0, 0, 0, 1, 2, 3, 5])


class Call(NamedTuple):
    """A call under way, as the model sees it."""

    era: int
    started: int
    probe: bool
    number: int


class Model:
    """The rules, as simply as they can be said: every result is kept, and everything is worked out from the list."""

    def __init__(self, config: CircuitConfig) -> None:
        self.config = config
        self.now = 0
        self.state = "closed"
        self.era = 0
        self.results: list[tuple[int, bool, bool]] = []
        self.probes: list[Call] = []
        self.probe_successes = self.streak = self.number = self.transitions = 0
        self.until = 0.0
        self.open_time = float(config.timeout)
        self.totals = dict.fromkeys(("successes", "failures", "neutral", "rejected", "slow"), 0)
        self.warned = False
        self.warnings = 0

    def to(self, state: str) -> None:
        self.transitions += state != self.state
        self.state = state
        self.era += 1
        self.probes = []
        self.probe_successes = 0
        self.warned = False
        if state in ("closed", "disabled", "shadow"):
            self.results = []
            self.streak = 0
            self.open_time = float(self.config.timeout)

    def open(self, wait: float | None) -> None:
        if self.state == "half_open":
            self.open_time = min(self.open_time * self.config.timeout_factor, self.config.max_timeout or 86_400.0)
        self.until = self.now + max(self.open_time, min(wait or 0.0, self.config.max_timeout or 86_400.0))
        self.to("open")

    def place(self) -> bool:
        if len(self.probes) < self.config.half_open_max_calls:
            return True
        limit = self.config.half_open_timeout or max(self.config.timeout, self.config.monitor_window)
        return self.now - self.probes[0].started >= limit

    def admits(self) -> bool:
        if self.state == "open":
            return self.now >= self.until
        return self.place() if self.state == "half_open" else self.state != "forced_open"

    def admit(self) -> Call | None:
        if not self.admits():
            self.totals["rejected"] += 1
            return None
        if self.state == "open":
            self.to("half_open")
        self.number += 1
        call = Call(self.era, self.now, self.state == "half_open", self.number)
        if call.probe:
            self.probes = self.probes[1:] if len(self.probes) >= self.config.half_open_max_calls else self.probes
            self.probes.append(call)
        return call

    def end(self, call: Call, outcome: str, wait: float | None = None) -> None:
        if call.era != self.era or (call.probe and call not in self.probes):
            return
        if call.probe:
            self.probes.remove(call)
        if outcome == "neutral":
            self.totals["neutral"] += 1
            return
        limit = self.config.slow_call_duration
        self.count(outcome == "failure", limit is not None and self.now - call.started >= limit, wait)

    def count(self, failed: bool, slow: bool, wait: float | None = None) -> None:
        self.totals["failures" if failed else "successes"] += 1
        self.totals["slow"] += slow
        self.streak = self.streak + 1 if failed else 0
        if self.state == "disabled":
            return
        self.results.append((self.now, failed, slow))
        if self.state == "half_open":
            self.probe_successes += 1
            if failed or slow:
                self.open(wait)
            elif self.probe_successes >= self.config.success_threshold:
                self.to("closed")
        elif not self.tripped(failed):
            self.warned = self.warned and not (failed or self.config.rated)
        elif self.state == "closed":
            self.open(wait)
        elif not self.warned:
            self.warned = True
            self.warnings += 1

    def window(self) -> list[tuple[int, bool, bool]]:
        if self.config.window_type == "count":
            return self.results[-self.config.window_size :]
        return [result for result in self.results if result[0] > self.now - self.config.monitor_window]

    def failures_in_window(self) -> int:
        if self.config.mode == "rate":
            return sum(failed for _, failed, _ in self.window())
        times = [time for time, failed, _ in self.results if failed and time > self.now - self.config.monitor_window]
        return min(len(times), self.config.failure_threshold)

    def rate(self, which: int) -> float | None:
        window = self.window()
        if not self.config.rated or len(window) < self.config.least_calls:
            return None
        return sum(result[which] for result in window) / len(window)

    def tripped(self, failed: bool) -> bool:
        config = self.config
        if config.mode == "window" and failed and self.failures_in_window() >= config.failure_threshold:
            return True
        if config.mode == "consecutive" and self.streak >= config.failure_threshold:
            return True
        failure_rate, slow_rate = self.rate(1), self.rate(2)
        if config.mode == "rate" and failure_rate is not None and failure_rate >= config.failure_rate_threshold:
            return True
        return (
            config.slow_call_duration is not None
            and slow_rate is not None
            and slow_rate >= config.slow_call_rate_threshold
        )


class Comparison(RuleBasedStateMachine):
    """Does the same to a breaker and to the model, and compares all that can be seen after each step."""

    @initialize(config=st.sampled_from(CONFIGS))
    def begin(self, config: CircuitConfig) -> None:
        self.model = Model(config)
        self.breaker = AIServiceCircuitBreaker("llm", config, clock=lambda: float(self.model.now))
        self.under_way: list[tuple[Any, Call]] = []
        self.warnings = 0
        self.transitions = 0
        self.breaker.add_listener(self.hear)

    def hear(self, event: Any) -> None:
        self.warnings += event.kind == "would_open"
        self.transitions += event.kind != "would_open"

    @rule(
        ends=st.sampled_from(["stays", "stays", *ENDS]),
        lasts=LASTS,
    )
    def call(self, ends: str, lasts: int) -> None:
        retry_after = max(self.model.until - self.model.now, 0.0)
        call = self.model.admit()
        if call is None:
            with pytest.raises(CircuitOpenError) as refusal:
                self.breaker.admit()
            assert refusal.value.state == self.model.state
            if self.model.state == "open":
                assert refusal.value.retry_after == retry_after
            return
        if ends == "stays":
            self.under_way.append((self.breaker.admit(), call))
            return
        error = self.error(ends)

        def work() -> None:
            self.model.now += lasts
            self.model.end(call, *self.outcome(ends))
            if error is not None:
                raise error

        with nullcontext() if error is None else pytest.raises(type(error)):
            self.breaker.call_sync(work)

    @staticmethod
    def error(ends: str) -> Exception | None:
        return {
            "failure": ConnectionError("boom"),
            "rate_limited": RateLimitedError("too many", retry_after=15.0),
            "neutral": InputValidationError("the caller's mistake"),
        }.get(ends)

    @staticmethod
    def outcome(ends: str) -> tuple[str, float | None]:
        return ("failure", 15.0) if ends == "rate_limited" else (ends, None)

    @rule(ends=st.sampled_from([*ENDS, "cancelled"]), data=st.data())
    @precondition(lambda self: self.under_way)
    def end(self, ends: str, data: Any) -> None:
        ticket, call = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if ends == "success":
            self.breaker.succeeded(ticket)
        elif ends == "cancelled":
            self.breaker.failed(ticket, KeyboardInterrupt())
        else:
            self.breaker.failed(ticket, self.error(ends))
        self.model.end(call, *self.outcome("neutral" if ends == "cancelled" else ends))

    @rule(seconds=st.sampled_from([1, 2, 5, 8, 12]))
    def wait(self, seconds: int) -> None:
        self.model.now += seconds

    @rule(what=st.sampled_from(RARE))
    def intervene(self, what: str) -> None:
        if what in ("success", "failure"):
            self.record(what == "failure")
        else:
            self.operate(what)

    def record(self, failed: bool) -> None:
        if failed:
            self.breaker._record_failure(ConnectionError("boom"))
        else:
            self.breaker._record_success()
        if self.model.state == "open" and self.model.now >= self.model.until:
            self.model.to("half_open")
        if self.model.state not in ("open", "forced_open"):
            self.model.count(failed, False)

    def operate(self, what: str) -> None:
        if self.model.state in ("forced_open", "disabled"):
            what = "enable"  # little happens there
        by_name = {
            "forced_open": self.breaker.force_open,
            "disabled": self.breaker.disable,
            "shadow": self.breaker.shadow,
            "enable": self.breaker.enable,
            "reset": self.breaker.reset,
        }
        if what == "nothing":
            return
        by_name[what]()
        if what == "reset" or (what == "enable" and self.model.state in ("forced_open", "disabled", "shadow")):
            self.model.to("closed")
        elif what not in ("enable", self.model.state):
            self.model.to(what)

    @invariant()
    def same(self) -> None:
        model, metrics = self.model, self.breaker.get_metrics()
        assert self.breaker.state == metrics["state"] == model.state
        assert {name: metrics[name] for name in model.totals} == model.totals
        totals = model.totals
        assert metrics["total_calls"] == sum(totals.values()) - totals["slow"]
        assert metrics["consecutive_failures"] == model.streak
        assert metrics["failures_in_window"] == model.failures_in_window()
        assert metrics["failure_rate"] == model.rate(1)
        assert metrics["slow_rate"] == (model.rate(2) if model.config.slow_call_duration else None)
        assert metrics["transitions"] == model.transitions == self.transitions
        assert self.warnings == model.warnings
        assert self.breaker._should_attempt_call() == model.admits()
        if model.state == "open":
            assert metrics["retry_after"] == max(0.0, model.until - model.now)
        elif model.state != "half_open":
            assert metrics["retry_after"] is None


class TestComparison(Comparison.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(max_examples=200, stateful_step_count=80, deadline=None)
