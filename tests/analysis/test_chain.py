"""The chain: an LLM that fails, dies and comes back; labels; who is told."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bulletproof.analysis import Analyzer, AnalyzerChain, LLMAnalyzer, LocalAnalyzer
from bulletproof.errors import (
    AIError,
    CircuitOpenError,
    InputValidationError,
    InvalidModelOutputError,
    RateLimitedError,
    ServiceTimeoutError,
    ServiceUnavailableError,
)
from bulletproof.llm import LLMClient
from bulletproof.monitor import AIErrorMonitor
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitState, RetryPolicy
from bulletproof.settings import Settings

TEXTS = ["I love it, it is really good!", "It broke after a day, bad and useless", "The box is blue"]
QUICK = RetryPolicy(max_attempts=2, base_delay=0)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Told:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str, str, str, dict[str, Any]]] = []
        self.successes = 0

    def record_error(self, error_type: str, service: str, severity: str, message: str, **context: Any) -> None:
        self.errors.append((error_type, service, severity, message, context))

    def record_success(self, service: str, duration: float | None = None) -> None:
        self.successes += 1


class Topics:
    """A text classifier of the caller's own."""

    name = "topics/1"
    classes = ("praise", "bug", "question")

    def predict(self, texts: Sequence[str]) -> list[list[float]]:
        return [[0.6, 0.1, 0.3] if "love" in text else [0.05, 0.9, 0.05] for text in texts]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def obliging(judge: Any, fine: Any) -> Any:
    return judge(
        lambda texts: {name: {**fine(text), "label": "bug", "label_confidence": 1} for name, text in texts.items()}
    )


@pytest.fixture
def chain_for(wire: Any, told: Told) -> Callable[..., AnalyzerChain]:
    def make(batch_size: int = 16, seconds: float = 5.0, concurrency: int = 4, **options: Any) -> AnalyzerChain:
        client = LLMClient(wire.base_url, model="m", timeout=seconds)
        primary = LLMAnalyzer(client, batch_size=batch_size, concurrency=concurrency)
        return AnalyzerChain(primary, LocalAnalyzer(), **{"retry": QUICK, "monitor": told, **options})

    return make


def test_it_is_an_analyzer() -> None:
    chain: Analyzer = AnalyzerChain(None, LocalAnalyzer())
    assert chain.name == LocalAnalyzer().name


async def test_without_an_llm_the_local_model_answers_and_nothing_is_degraded() -> None:
    batch = await AnalyzerChain(None, LocalAnalyzer()).analyze(TEXTS)
    assert [result.sentiment for result in batch.results][:2] == ["positive", "negative"]
    assert not batch.degraded


async def test_with_an_llm_the_llm_answers(wire: Any, obliging: Any, chain_for: Any, told: Told) -> None:
    wire.default = obliging
    batch = await chain_for().analyze(TEXTS)
    assert {result.analyzer for result in batch.results} == {"llm/m"}
    assert (batch.degraded, batch.reason) == (False, None)
    assert (told.errors, told.successes) == ([], 1)


async def test_no_texts_are_no_call(wire: Any, chain_for: Any) -> None:
    assert (await chain_for().analyze([])).results == []
    assert (await chain_for().analyze([], labels=["praise", "bug"])).results == []
    assert wire.asked == []


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (lambda say: say.problem(503), "service_unavailable"),
        (lambda say: say.problem(401), "auth_failed"),
        (lambda say: say.problem(404), "request_rejected"),
        (lambda say: say.problem(429, "no money", "insufficient_quota"), "quota_exhausted"),
        (lambda say: say.reset, "service_unavailable"),
        (lambda say: say.silence, "service_timeout"),
        (lambda say: say.dripping, "service_timeout"),
        (lambda say: say.http("<html>"), "bad_response"),
        (lambda say: say.chat("Roses are red"), "bad_response"),
        (lambda say: say.chat(None, refusal="no"), "content_filtered"),
    ],
)
async def test_whatever_the_llm_does_the_local_model_stands_in_and_the_answer_says_why(
    wire: Any, say: Any, chain_for: Any, told: Told, reply: Any, code: str
) -> None:
    wire.default = reply(say)
    batch = await asyncio.wait_for(chain_for(seconds=0.2).analyze(TEXTS), 10)
    assert [result.sentiment for result in batch.results][:2] == ["positive", "negative"]
    assert {result.analyzer for result in batch.results} == {LocalAnalyzer().name}
    assert batch.degraded
    assert code in (batch.reason or "")
    assert "llm/m" in (batch.reason or "")
    assert {context["code"] for *_, context in told.errors} == {code}
    assert {error[1] for error in told.errors} == {"llm"}
    assert told.successes == 0


async def test_each_failure_is_told_once_however_many_tries_and_texts_it_took(
    wire: Any, say: Any, chain_for: Any, told: Told
) -> None:
    wire.default = say.problem(500)
    await chain_for().analyze(TEXTS)
    assert len(wire.asked) == 2
    assert len(told.errors) == 1
    assert told.errors[0][4]["texts"] == 3


async def test_the_real_monitor_takes_it_in(wire: Any, say: Any, chain_for: Any) -> None:
    monitor = AIErrorMonitor()
    wire.default = say.problem(500)
    await chain_for(monitor=monitor).analyze(TEXTS)
    summary = monitor.get_error_summary()
    assert summary["by_service"] == {"llm": 1}
    assert summary["by_type"] == {"external_service_error": 1}


async def test_only_the_texts_that_the_llm_failed_on_are_analysed_locally(
    wire: Any, say: Any, judge: Any, fine: Any, chain_for: Any, told: Told
) -> None:
    wire.default = judge(
        lambda texts: (
            say.chat(None, refusal="no")
            if any("blue" in text for text in texts.values())
            else {name: fine(text) for name, text in texts.items()}
        )
    )
    batch = await chain_for().analyze(TEXTS)
    assert [result.analyzer for result in batch.results] == ["llm/m", "llm/m", LocalAnalyzer().name]
    assert batch.degraded
    assert "1 of 3 texts" in (batch.reason or "")
    assert batch.usage.prompt_tokens > 0
    assert len(told.errors) == 1


async def test_falling_back_can_be_forbidden(wire: Any, say: Any, chain_for: Any, told: Told) -> None:
    wire.default = say.problem(503)
    with pytest.raises(ServiceUnavailableError):
        await chain_for(allow_fallback=False).analyze(TEXTS)
    chain = chain_for()
    with pytest.raises(ServiceUnavailableError):
        await chain.analyze(TEXTS, allow_fallback=False)
    strict = chain.with_fallback(False)
    with pytest.raises(ServiceUnavailableError):
        await strict.analyze(TEXTS)
    assert strict.breaker is chain.breaker
    assert (await chain.analyze(TEXTS)).degraded
    assert len(told.errors) == 4


async def test_killing_the_server_in_the_middle_degrades_and_its_return_recovers(
    wire: Any, obliging: Any, chain_for: Any, told: Told
) -> None:
    clock = Clock()
    config = CircuitConfig(failure_threshold=3, success_threshold=1, timeout=30)
    breaker = AIServiceCircuitBreaker("llm", config, clock=clock)
    chain = chain_for(breaker=breaker)
    wire.default = obliging
    assert not (await chain.analyze(TEXTS)).degraded

    wire.stop()
    for _ in range(4):
        batch = await chain.analyze(TEXTS)
        assert batch.degraded
        assert len(batch.results) == 3
    assert breaker.state is CircuitState.OPEN
    assert "circuit_open" in (batch.reason or "")

    wire.start()
    asked = len(wire.asked)
    assert (await chain.analyze(TEXTS)).degraded, "the circuit is still open"
    assert len(wire.asked) == asked

    clock.time += 31
    batch = await chain.analyze(TEXTS)
    assert not batch.degraded
    assert {result.analyzer for result in batch.results} == {"llm/m"}
    assert breaker.state is CircuitState.CLOSED
    await chain.aclose()


async def test_a_server_that_dies_between_two_calls_of_one_batch_costs_only_the_second(
    wire: Any, obliging: Any, chain_for: Any
) -> None:
    def last_words(connection: Any, asked: Any) -> bytes:
        wire._socket.close()
        wire.script[:] = [lambda *_: None] * 10
        return obliging(connection, asked)

    wire.script[:] = [last_words]
    chain = chain_for(batch_size=2, concurrency=1)
    batch = await chain.analyze(TEXTS)
    assert sorted({result.analyzer for result in batch.results}) == ["llm/m", LocalAnalyzer().name]
    assert batch.degraded


async def test_a_large_batch_is_not_degraded_by_the_probes_of_a_circuit_that_closes(
    wire: Any, obliging: Any, chain_for: Any
) -> None:
    clock = Clock()
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=1, success_threshold=3), clock=clock)
    chain = chain_for(batch_size=1, breaker=breaker)
    wire.stop()
    await chain.analyze(TEXTS)
    wire.start()
    wire.default = obliging
    clock.time += 60
    assert not (await chain.analyze(["good"] * 12)).degraded
    assert breaker.state is CircuitState.CLOSED


async def test_the_open_circuit_spares_the_server_and_time(wire: Any, say: Any, chain_for: Any, told: Told) -> None:
    wire.default = say.problem(500)
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=2))
    chain = chain_for(batch_size=1, breaker=breaker)
    batch = await chain.analyze(["good"] * 200)
    assert len(batch.results) == 200
    assert len(wire.asked) < 12
    refused = [error for error in told.errors if error[4]["code"] == "circuit_open"]
    assert len(refused) == 1, "refusals are one event for the batch"


async def test_a_forced_open_circuit_degrades_and_says_so(wire: Any, chain_for: Any) -> None:
    chain = chain_for()
    chain.breaker.force_open()
    batch = await chain.analyze(TEXTS)
    assert "circuit_open" in (batch.reason or "")
    with pytest.raises(CircuitOpenError):
        await chain.analyze(TEXTS, allow_fallback=False)


async def test_a_short_wait_that_the_service_asks_for_is_waited_and_a_long_one_is_not(
    wire: Any, say: Any, obliging: Any, chain_for: Any
) -> None:
    waits: list[float] = []
    retry = RetryPolicy(max_attempts=3, base_delay=0, max_retry_after=20, sleep=waits.append)
    wire.script[:] = [say.problem(429, retry_after="5")]
    wire.default = obliging
    assert not (await chain_for(retry=retry).analyze(TEXTS)).degraded
    assert sum(waits) >= 4.9
    wire.script[:] = [say.problem(429, retry_after="90")]
    assert "rate_limited" in ((await chain_for(retry=retry).analyze(TEXTS)).reason or "")


async def test_while_everybody_has_to_wait_nobody_asks(wire: Any, say: Any, chain_for: Any) -> None:
    wire.default = say.problem(429, retry_after="90")
    chain = chain_for(retry=RetryPolicy(max_attempts=1))
    with pytest.raises(RateLimitedError):
        await chain.analyze(TEXTS, allow_fallback=False)
    assert (await chain.analyze(TEXTS)).degraded
    assert len(wire.asked) == 1


async def test_a_time_limit_for_each_try(wire: Any, say: Any, chain_for: Any) -> None:
    wire.default = say.silence
    with pytest.raises(ServiceTimeoutError):
        await asyncio.wait_for(chain_for(timeout=0.1).analyze(TEXTS, allow_fallback=False), 4)


async def test_cancellation_is_no_failure(wire: Any, say: Any, chain_for: Any, told: Told) -> None:
    wire.default = say.silence
    chain = chain_for()
    task = asyncio.create_task(chain.analyze(TEXTS))
    while not wire.asked:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told.errors == []
    assert chain.breaker.get_metrics()["failures"] == 0
    assert chain.primary.places.in_use == 0


# Labels.


async def test_labels_without_llm_and_classifier_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputValidationError) as caught:
        await AnalyzerChain(None, LocalAnalyzer()).analyze(TEXTS, labels=["praise", "bug"])
    assert caught.value.code == "labels_unavailable"
    assert "BULLETPROOF_LLM_BASE_URL" in caught.value.hint
    assert "models/NAME.skops" in caught.value.hint


async def test_labels_by_a_classifier_of_the_callers_own() -> None:
    chain = AnalyzerChain(None, LocalAnalyzer(), classifiers=[Topics()])
    batch = await chain.analyze(TEXTS, labels=["bug", "praise"])
    assert [result.label for result in batch.results] == ["praise", "bug", "bug"]
    assert batch.results[0].label_confidence == pytest.approx(0.6 / 0.7)
    assert batch.results[0].analyzer.endswith("+topics/1")
    assert batch.results[0].sentiment == "positive"
    with pytest.raises(InputValidationError, match="knows them all"):
        await chain.analyze(TEXTS, labels=["praise", "delivery"])


async def test_an_async_classifier_is_awaited_and_a_broken_one_is_a_model_error() -> None:
    class Slow(Topics):
        async def predict(self, texts: Sequence[str]) -> list[list[float]]:  # type: ignore[override]
            return [[0.0, 0.0, 0.0] for _ in texts]

    class Broken(Topics):
        def predict(self, texts: Sequence[str]) -> list[list[float]]:
            return [[0.5, 0.5] for _ in texts]

    class NotANumber(Topics):
        def predict(self, texts: Sequence[str]) -> list[list[float]]:
            return [[float("nan")] * 3 for _ in texts]

    batch = await AnalyzerChain(None, LocalAnalyzer(), classifiers=[Slow()]).analyze(TEXTS, labels=["bug", "praise"])
    assert batch.results[0].label_confidence == 0.5
    for wrong in (Broken(), NotANumber()):
        with pytest.raises(InvalidModelOutputError, match="topics/1"):
            await AnalyzerChain(None, LocalAnalyzer(), classifiers=[wrong]).analyze(TEXTS, labels=["bug", "praise"])


async def test_labels_by_the_llm(wire: Any, obliging: Any, chain_for: Any) -> None:
    wire.default = obliging
    batch = await chain_for(classifiers=[Topics()]).analyze(TEXTS, labels=["praise", "bug"])
    assert [result.label for result in batch.results] == ["bug"] * 3
    assert not batch.degraded


async def test_when_the_llm_fails_labels_come_from_the_classifier(wire: Any, say: Any, chain_for: Any) -> None:
    wire.default = say.problem(503)
    batch = await chain_for(classifiers=[Topics()]).analyze(TEXTS, labels=["praise", "bug"])
    assert [result.label for result in batch.results] == ["praise", "bug", "bug"]
    assert batch.degraded


async def test_when_the_llm_fails_and_nothing_else_knows_the_labels_its_error_is_raised(
    wire: Any, say: Any, chain_for: Any, told: Told
) -> None:
    wire.default = say.problem(503)
    with pytest.raises(ServiceUnavailableError):
        await chain_for().analyze(TEXTS, labels=["praise", "bug"])
    assert len(told.errors) == 1


async def test_one_text_the_llm_cannot_cope_with_goes_without_a_label(
    wire: Any, say: Any, judge: Any, fine: Any, chain_for: Any
) -> None:
    wire.default = judge(
        lambda texts: (
            say.chat(None, refusal="no")
            if any("blue" in text for text in texts.values())
            else {name: {**fine(text), "label": "bug", "label_confidence": 1} for name, text in texts.items()}
        )
    )
    batch = await chain_for().analyze(TEXTS, labels=["praise", "bug"])
    assert [result.label for result in batch.results] == ["bug", "bug", None]
    assert batch.degraded


# From the settings.


async def test_the_settings_make_the_chain(wire: Any, obliging: Any) -> None:
    wire.default = obliging
    settings = Settings(llm_base_url=wire.base_url, llm_model="m", llm_batch_size=2, llm_max_attempts=1)
    chain = AnalyzerChain.from_settings(settings)
    batch = await chain.analyze(TEXTS)
    assert {result.analyzer for result in batch.results} == {"llm/m"}
    assert len(wire.asked) == 2
    await chain.aclose()


async def test_settings_without_an_llm_make_a_chain_without_one() -> None:
    chain = AnalyzerChain.from_settings(Settings(llm_base_url=None, llm_api_key=None, llm_fallback=False))
    assert chain.primary is None
    assert not (await chain.analyze(TEXTS)).degraded


def test_wrong_settings_of_the_llm_are_told_at_once() -> None:
    with pytest.raises(AIError, match="no http or https address"):
        AnalyzerChain.from_settings(Settings(llm_base_url="localhost:11434"))


async def test_a_mock_server_grades_the_chain_as_resilient(llmock: Any) -> None:
    chain = AnalyzerChain.from_settings(Settings(llm_base_url=llmock.base_url()))
    llmock.rate_limit(times=1, retry_after=0.1).fail(503)
    batch = await chain.analyze(TEXTS)
    await chain.aclose()
    assert [record.status for record in llmock.requests] == [429, 503, 200]
    assert not batch.degraded
    llmock.assert_resilient()
