"""The client against a server that misbehaves on the wire."""

import asyncio
import json
from typing import Any

import pytest

from bulletproof.errors import (
    AIError,
    BadResponseError,
    CircuitOpenError,
    ConfigurationError,
    ErrorType,
    InputValidationError,
    RateLimitedError,
    ServiceAuthError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    classify,
)
from bulletproof.llm import LLMClient, Price
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, RetryPolicy

ASK = [{"role": "user", "content": "hello?"}]
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def client_for(wire: Any, **options: Any) -> LLMClient:
    return LLMClient(wire.base_url, model="test-model", **{"timeout": 5.0, **options})


async def failure(wire: Any, *replies: Any, **options: Any) -> Exception:
    wire.script[:] = replies
    async with client_for(wire, **options) as client:
        with pytest.raises(Exception) as caught:
            await client.complete(ASK)
    return caught.value


async def test_an_answer_comes_with_its_tokens_and_cost(wire: Any, say: Any) -> None:
    wire.default = say.chat("fine", usage=(1000, 500), model="gpt-4o-mini-2024-07-18")
    async with client_for(wire) as client:
        answer = await client.complete(ASK)
    assert (answer.text, answer.model) == ("fine", "gpt-4o-mini-2024-07-18")
    assert (answer.spending.prompt_tokens, answer.spending.completion_tokens) == (1000, 500)
    assert answer.spending.cost == pytest.approx(0.00045)
    assert wire.asked[0].body == {"model": "test-model", "messages": ASK, "temperature": 0}


async def test_a_model_without_a_price_has_an_unknown_cost_and_prices_can_be_set(wire: Any) -> None:
    async with client_for(wire) as client:
        assert (await client.complete(ASK)).spending.cost is None
    async with client_for(wire, prices={"test-model": Price(1.0, 2.0)}) as client:
        assert (await client.complete(ASK)).spending.cost == pytest.approx(40e-6)


async def test_missing_token_counts_are_no_error(wire: Any, say: Any) -> None:
    wire.default = say.chat("fine", usage=None)
    async with client_for(wire) as client:
        spending = (await client.complete(ASK)).spending
    assert (spending.prompt_tokens, spending.completion_tokens, spending.cost) == (0, 0, None)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(lambda say: say.http("<html>welcome</html>", kind="text/html"), id="web page with status 200"),
        pytest.param(lambda say: say.http("all well", kind="text/plain"), id="plain text"),
        pytest.param(lambda say: say.http("{not json"), id="not JSON"),
        pytest.param(lambda say: say.http(""), id="empty body"),
        pytest.param(lambda say: say.http(b'{"choices": "\xff\xfe"}'), id="not UTF-8"),
        pytest.param(lambda say: say.http("null"), id="null"),
        pytest.param(lambda say: say.http("[]"), id="list"),
        pytest.param(lambda say: say.http("[" * 100_000), id="nested too deep"),
        pytest.param(lambda say: say.http('{"choices": []}'), id="no choices"),
        pytest.param(lambda say: say.http('{"choices": [5]}'), id="choice is a number"),
        pytest.param(
            lambda say: say.http('{"choices": [{"message": {"content": {"a": 1}}}]}'), id="content is an object"
        ),
        pytest.param(lambda say: say.chat(None), id="no content"),
        pytest.param(lambda say: say.chat("  \n"), id="blank content"),
        pytest.param(lambda say: say.chat("half an ans", finish="length"), id="cut off at the token limit"),
        pytest.param(lambda say: say.http('{"error": {"message": "boom"}}'), id="an error under status 200"),
    ],
)
async def test_rubbish_is_a_bad_response(wire: Any, say: Any, reply: Any) -> None:
    error = await failure(wire, reply(say))
    assert isinstance(error, BadResponseError)
    assert classify(error).error_type is ErrorType.EXTERNAL_SERVICE
    assert classify(error).code == "bad_response"
    assert wire.host in str(error)


@pytest.mark.parametrize(
    ("reply", "kind", "code", "retryable"),
    [
        (lambda say: say.reset, ServiceUnavailableError, "service_unavailable", True),
        (lambda say: say.http('{"choices": [', length=500), ServiceUnavailableError, "service_unavailable", True),
        (lambda say: b"\x00\x01garbage\r\n\r\n", ServiceUnavailableError, "service_unavailable", True),
        (lambda say: say.http("xx", content_encoding="gzip"), ServiceUnavailableError, "service_unavailable", True),
        (lambda say: say.http("<h1>Bad gateway</h1>", status=502, kind="text/html"), ServiceUnavailableError,
         "service_unavailable", True),
        (lambda say: say.problem(503), ServiceUnavailableError, "service_unavailable", True),
        (lambda say: say.problem(504), ServiceTimeoutError, "service_timeout", True),
        (lambda say: say.problem(401, "Incorrect API key provided: sk-abcdefghijklmnop"), ServiceAuthError,
         "auth_failed", False),
        (lambda say: say.problem(404, "no such model"), AIError, "request_rejected", False),
        (lambda say: say.problem(429, "slow down", retry_after="7"), RateLimitedError, "rate_limited", True),
        (lambda say: say.problem(429, "You exceeded your current quota", "insufficient_quota"), AIError,
         "quota_exhausted", False),
        (lambda say: say.problem(400, "maximum context length is 8192 tokens", "context_length_exceeded"),
         InputValidationError, "context_length_exceeded", False),
        (lambda say: say.problem(400, "blocked", "content_filter"), InputValidationError, "content_filtered", False),
        (lambda say: say.chat(None, refusal="I cannot help."), InputValidationError, "content_filtered", False),
        (lambda say: say.chat("", finish="content_filter"), InputValidationError, "content_filtered", False),
    ],
)  # fmt: skip
async def test_each_failure_has_its_type_and_code(
    wire: Any, say: Any, reply: Any, kind: type, code: str, retryable: bool
) -> None:
    error = await failure(wire, reply(say))
    assert isinstance(error, kind)
    found = classify(error)
    assert (found.code, found.retryable) == (code, retryable)
    assert wire.host in str(error)
    assert "sk-abcdefghijklmnop" not in found.details
    assert len(wire.asked) == 1, "the SDK's own retries are off"


async def test_the_wish_of_the_service_is_carried_over(wire: Any, say: Any) -> None:
    error = await failure(wire, say.problem(429, retry_after="7"))
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == 7


async def test_nobody_listening_is_a_connection_error_that_says_why(wire: Any) -> None:
    wire.stop()
    error = await failure(wire)
    assert isinstance(error, ConnectionError)
    assert wire.host in str(error)
    assert "All connection attempts failed" in str(error) or "refused" in str(error)


@pytest.mark.parametrize("reply", ["silence", "dripping"])
async def test_a_call_ends_in_time_whatever_the_server_does(wire: Any, say: Any, reply: str) -> None:
    error = await asyncio.wait_for(failure(wire, getattr(say, reply), timeout=0.3), 5)
    assert isinstance(error, ServiceTimeoutError)
    assert isinstance(error, TimeoutError)
    assert wire.host in str(error)


async def test_cancellation_goes_through_untouched(wire: Any, say: Any) -> None:
    wire.script[:] = [say.silence]
    async with client_for(wire) as client:
        task = asyncio.create_task(client.complete(ASK))
        while not wire.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_half_a_surrogate_pair_is_the_callers_fault(wire: Any) -> None:
    async with client_for(wire) as client:
        with pytest.raises(InputValidationError) as caught:
            await client.complete([{"role": "user", "content": "broken \ud83d"}])
    assert caught.value.code == "invalid_encoding"
    assert wire.asked == []


async def test_the_key_of_somebody_else_is_not_sent_to_a_server_of_ones_own(
    wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai-only")
    async with client_for(wire) as client:
        await client.complete(ASK)
    assert "sk-for-openai-only" not in json.dumps(wire.asked[0].headers)


# What the server understands.


async def test_a_schema_is_sent_as_such(wire: Any) -> None:
    async with client_for(wire) as client:
        await client.complete(ASK, schema=SCHEMA, schema_name="nothing")
    sent = wire.asked[0].body["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": "nothing", "strict": True, "schema": SCHEMA}}


async def test_a_server_that_knows_no_schemas_is_asked_less_of_and_that_is_remembered(wire: Any, say: Any) -> None:
    wire.script[:] = [say.problem(400, "response_format: json_schema is not supported"), say.problem(422, "no json")]
    async with client_for(wire) as client:
        await client.complete(ASK, schema=SCHEMA)
        await client.complete(ASK, schema=SCHEMA)
    formats = [asked.body.get("response_format", {}).get("type") for asked in wire.asked]
    assert formats == ["json_schema", "json_object", None, None]


async def test_an_option_that_is_refused_by_name_is_left_out_from_then_on(wire: Any, say: Any) -> None:
    wire.script[:] = [say.problem(400, "Unsupported value: 'temperature' does not support 0 with this model")]
    async with client_for(wire) as client:
        await client.complete(ASK, schema=SCHEMA)
        await client.complete(ASK, schema=SCHEMA)
    assert ["temperature" in asked.body for asked in wire.asked] == [True, False, False]
    assert all(asked.body["response_format"]["type"] == "json_schema" for asked in wire.asked)


async def test_a_refusal_for_another_reason_changes_nothing_for_later(wire: Any, say: Any) -> None:
    wire.script[:] = [say.problem(400, "messages must not be empty")] * 3
    async with client_for(wire) as client:
        with pytest.raises(AIError, match="messages must not be empty"):
            await client.complete(ASK, schema=SCHEMA)
        await client.complete(ASK, schema=SCHEMA)
    assert wire.asked[-1].body["response_format"]["type"] == "json_schema"


# With something around it.


async def test_a_policy_retries_and_judges_the_errors_of_the_sdk(wire: Any, say: Any) -> None:
    waits: list[float] = []
    wire.script[:] = [say.problem(429, retry_after="3"), say.problem(503), say.chat("at last")]
    async with client_for(wire, policy=RetryPolicy(max_attempts=3, jitter="none", sleep=waits.append)) as client:
        assert (await client.complete(ASK)).text == "at last"
    assert waits == [3.0, 1.0]


async def test_a_refused_key_does_not_open_the_circuit_but_an_outage_does(wire: Any, say: Any) -> None:
    breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=2))
    wire.script[:] = [say.problem(401)] * 3 + [say.problem(500)] * 2
    async with client_for(wire, policy=breaker) as client:
        for _ in range(5):
            with pytest.raises(AIError):
                await client.complete(ASK)
        with pytest.raises(CircuitOpenError):
            await client.complete(ASK)
    assert breaker.get_metrics()["failures"] == 2
    assert len(wire.asked) == 5


# Streams.


async def collect(client: LLMClient) -> list[str]:
    return [piece async for piece in client.stream(ASK)]


async def test_a_stream_yields_its_pieces(wire: Any, say: Any) -> None:
    wire.default = say.events(say.chunk("hel"), say.chunk("lo"), say.chunk(None, "stop"), "[DONE]")
    async with client_for(wire) as client:
        assert await collect(client) == ["hel", "lo"]


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (lambda say: say.events(say.chunk("hel")), BadResponseError, "bad_response"),
        (lambda say: say.events(say.chunk("hel"), "[DONE]"), BadResponseError, "bad_response"),
        (lambda say: say.events(say.chunk("hel"), '{"id": "1", "cho'), BadResponseError, "bad_response"),
        (lambda say: say.events("null"), BadResponseError, "bad_response"),
        (lambda say: say.http("{}"), BadResponseError, "bad_response"),
        (lambda say: say.events(say.chunk("hel"), length=9999), ServiceUnavailableError, "service_unavailable"),
        (lambda say: say.events('{"error": {"message": "The server is overloaded"}}'), ServiceUnavailableError,
         "service_unavailable"),
        (lambda say: say.events(say.chunk("hel"), say.chunk(None, "length")), BadResponseError, "bad_response"),
        (lambda say: say.events(say.chunk("hel"), say.chunk(None, "content_filter")), InputValidationError,
         "content_filtered"),
    ],
)  # fmt: skip
async def test_a_stream_that_is_not_whole_is_a_typed_error(
    wire: Any, say: Any, reply: Any, kind: type, code: str
) -> None:
    wire.default = reply(say)
    async with client_for(wire) as client:
        with pytest.raises(kind) as caught:
            await collect(client)
    assert classify(caught.value).code == code


async def test_a_stream_is_tried_again_before_its_first_piece_only(wire: Any, say: Any) -> None:
    whole = say.events(say.chunk("hi"), say.chunk(None, "stop"))
    wire.script[:] = [say.problem(503), say.events(), whole, say.events(say.chunk("hi"))]
    async with client_for(wire, policy=RetryPolicy(max_attempts=3, base_delay=0)) as client:
        assert await collect(client) == ["hi"]
        assert len(wire.asked) == 3
        with pytest.raises(BadResponseError):
            await collect(client)
    assert len(wire.asked) == 4


def test_one_client_serves_several_event_loops(wire: Any) -> None:
    client = client_for(wire)
    for _ in range(2):
        assert asyncio.run(client.complete(ASK)).text == "hello"


@pytest.mark.parametrize("url", ["localhost:11434", "ftp://host/v1", "http://", "nonsense"])
def test_an_address_that_is_none_says_which_variable_to_set(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LLMClient(url)
    assert "BULLETPROOF_LLM_BASE_URL" in caught.value.hint


def test_a_key_with_a_line_break_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        LLMClient(None, "sk-secret\n")
    assert "sk-secret" not in str(caught.value)
    assert "sk-secret" not in repr(LLMClient(None, "sk-secret"))
