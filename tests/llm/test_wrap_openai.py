"""``wrap`` around clients of the real openai SDK, against a server that fails."""

import asyncio
import gc
import io
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from bulletproof.errors import BadResponseError, CircuitOpenError, ServiceTimeoutError
from bulletproof.llm import wrap
from bulletproof.monitor import AIErrorMonitor
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, CircuitState, Policy, RetryPolicy, no_waits

ASK: Any = {"model": "big", "messages": [{"role": "user", "content": "hello?"}]}
QUICK = RetryPolicy(max_attempts=3, base_delay=0)


@pytest.fixture
def client_for(wire: Any) -> Any:
    made: list[openai.OpenAI] = []

    def make(**options: Any) -> openai.OpenAI:
        made.append(openai.OpenAI(base_url=wire.base_url, api_key="sk-test", timeout=5, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
async def async_client(wire: Any) -> Any:
    async with openai.AsyncOpenAI(base_url=wire.base_url, api_key="sk-test", timeout=5) as client:
        yield client


def whole(say: Any) -> bytes:
    return say.events(say.chunk("hel"), say.chunk("lo"), say.chunk(None, "stop"), "[DONE]")


def text_of(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def test_the_client_keeps_its_type_and_shares_its_connections(client_for: Any) -> None:
    client = client_for(max_retries=4)
    wrapped = wrap(client)
    assert type(wrapped) is openai.OpenAI
    assert wrapped is not client
    assert wrapped._client is client._client
    assert (wrapped.max_retries, client.max_retries) == (0, 4)
    assert "request" not in vars(client)


def test_an_answer_comes_as_the_sdk_gives_it(wire: Any, client_for: Any) -> None:
    answer = wrap(client_for()).chat.completions.create(**ASK)
    assert isinstance(answer, openai.types.chat.ChatCompletion)
    assert answer.choices[0].message.content == "hello"


def test_our_policy_retries_and_the_sdk_does_not(wire: Any, say: Any, client_for: Any) -> None:
    wire.default = say.problem(503)
    with pytest.raises(openai.InternalServerError):
        wrap(client_for(max_retries=7), QUICK).chat.completions.create(**ASK)
    assert len(wire.asked) == 3


def test_the_error_stays_that_of_the_sdk(wire: Any, say: Any, client_for: Any) -> None:
    wire.default = say.problem(429, retry_after="600")
    with pytest.raises(openai.RateLimitError):
        wrap(client_for()).chat.completions.create(**ASK)
    wire.default = say.problem(401)
    with pytest.raises(openai.AuthenticationError):
        wrap(client_for()).chat.completions.create(**ASK)
    assert len(wire.asked) == 2, "neither is worth another try"


def test_by_default_it_retries_waits_together_and_breaks_the_circuit(wire: Any, say: Any, client_for: Any) -> None:
    client = wrap(client_for())
    wire.default = say.problem(500)
    with no_waits() as waits:
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**ASK)
        with pytest.raises(CircuitOpenError) as caught:
            client.chat.completions.create(**ASK)
    assert isinstance(caught.value.__cause__, openai.InternalServerError)
    assert len(wire.asked) == 5, "three tries, two more, and the circuit is open"
    assert len(waits) == 4
    with pytest.raises(CircuitOpenError, match=wire.host):
        client.chat.completions.create(**ASK)


def test_all_parts_of_the_client_are_protected(wire: Any, say: Any, client_for: Any) -> None:
    client = wrap(client_for(), QUICK)
    answer = say.http(json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}))
    for call in (client.models.list, lambda: client.with_raw_response.models.list().parse()):
        wire.script[:] = [say.problem(503), answer]
        assert [model.id for model in call()] == ["m"]
    wire.script[:] = [say.problem(500), say.http(json.dumps({"data": [{"embedding": [0.5], "index": 0}]}))]
    assert client.embeddings.create(model="e", input="x", encoding_format="float").data[0].embedding == [0.5]
    assert len(wire.asked) == 6


def test_copies_with_other_options_stay_protected_and_never_retry_themselves(
    wire: Any, say: Any, client_for: Any
) -> None:
    client = wrap(client_for(), QUICK)
    wire.default = say.problem(503)
    for copy in (client.with_options(timeout=3, max_retries=9), client.copy().with_options(timeout=2)):
        wire.asked.clear()
        with pytest.raises(openai.InternalServerError):
            copy.chat.completions.create(**ASK)
        assert len(wire.asked) == 3
        assert type(copy) is openai.OpenAI


def test_copies_share_the_breaker(wire: Any, say: Any, client_for: Any) -> None:
    breaker = AIServiceCircuitBreaker("openai", CircuitConfig(failure_threshold=1))
    client = wrap(client_for(), breaker)
    wire.default = say.problem(503)
    with pytest.raises(openai.InternalServerError):
        client.with_options(timeout=3).chat.completions.create(**ASK)
    with pytest.raises(CircuitOpenError):
        client.with_options(timeout=4).chat.completions.create(**ASK)


@pytest.mark.parametrize("body", ["{not json", "", b'{"a": "\xff"}'])
def test_an_answer_that_is_no_json_is_a_bad_response_and_tried_again(
    wire: Any, say: Any, client_for: Any, body: Any
) -> None:
    wire.script[:] = [say.http(body)]
    assert wrap(client_for(), QUICK).chat.completions.create(**ASK).choices[0].message.content == "hello"
    wire.default = say.http(body)
    with pytest.raises(BadResponseError):
        wrap(client_for(), QUICK).chat.completions.create(**ASK)


def test_an_upload_is_not_sent_twice_because_the_file_is_at_its_end_by_then(
    wire: Any, say: Any, client_for: Any
) -> None:
    monitor = AIErrorMonitor()
    client = wrap(client_for(), QUICK, monitor=monitor)
    wire.default = say.problem(503)
    wire._read = lambda source: _read_raw(source)
    with pytest.raises(openai.InternalServerError):
        client.files.create(file=io.BytesIO(b"{}"), purpose="batch")
    assert len(wire.asked) == 1
    assert monitor.get_error_summary()["total_errors"] == 1


def _read_raw(source: Any) -> Any:
    source.readline()
    length = 0
    while line := source.readline().strip():
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return source.read(length)


# Monitor.


def test_the_monitor_is_told_of_the_end_of_each_call_once(wire: Any, say: Any, client_for: Any) -> None:
    monitor = AIErrorMonitor()
    client = wrap(client_for(), QUICK, monitor=monitor, service="chat")
    client.chat.completions.create(**ASK)
    wire.default = say.problem(503)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**ASK)
    summary = monitor.get_error_summary()
    assert summary["by_service"] == {"chat": 1}
    assert summary["by_code"] == {"service_unavailable": 1}
    assert summary["failure_ratio"] == 0.5


# Fallbacks.


def test_another_model_takes_over(wire: Any, say: Any, client_for: Any) -> None:
    wire.default = lambda connection, asked: say.problem(503) if asked.body["model"] == "big" else say.chat("smaller")
    client = wrap(client_for(), QUICK, fallbacks=["small"])
    assert client.chat.completions.create(**ASK).choices[0].message.content == "smaller"
    assert [asked.body["model"] for asked in wire.asked] == ["big"] * 3 + ["small"]
    assert wire.asked[-1].body["messages"] == ASK["messages"]


def test_another_client_takes_over_with_its_retries_off(wire: Any, say: Any, client_for: Any) -> None:
    other = openai.OpenAI(base_url=f"{wire.base_url}/other", api_key="sk-other", max_retries=9)
    wire.default = say.problem(503)
    client = wrap(client_for(), QUICK, fallbacks=[(other, "small")])
    with other, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**ASK)
    assert [asked.path for asked in wire.asked] == ["/v1/chat/completions"] * 3 + ["/v1/other/chat/completions"] * 3
    assert wire.asked[-1].headers["authorization"] == "Bearer sk-other"
    assert wire.asked[-1].body["model"] == "small"
    assert other.max_retries == 9, "it stays as it was"


def test_a_wrapped_client_takes_over_with_its_own_policy(wire: Any, say: Any, client_for: Any) -> None:
    monitor = AIErrorMonitor()
    other = wrap(client_for(), RetryPolicy(max_attempts=2, base_delay=0), monitor=monitor, service="other")
    client = wrap(client_for(), RetryPolicy(max_attempts=1), fallbacks=[other], monitor=monitor, service="own")
    wire.default = say.problem(503)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**ASK)
    assert len(wire.asked) == 3
    assert monitor.get_error_summary()["by_service"] == {"own": 1, "other": 1}


def test_an_open_circuit_leads_on_and_each_way_has_a_circuit_of_its_own(wire: Any, say: Any, client_for: Any) -> None:
    wire.default = lambda connection, asked: say.problem(503) if asked.body["model"] == "big" else say.chat("smaller")
    breaker = AIServiceCircuitBreaker("big", CircuitConfig(failure_threshold=1))
    client = wrap(client_for(), Policy(breaker=breaker), fallbacks=["small"])
    for _ in range(3):
        assert client.chat.completions.create(**ASK).choices[0].message.content == "smaller"
    assert breaker.state is CircuitState.OPEN
    assert [asked.body["model"] for asked in wire.asked] == ["big", "small", "small", "small"]


def test_what_is_wrong_with_the_request_leads_nowhere_but_a_longer_context_may(
    wire: Any, say: Any, client_for: Any
) -> None:
    client = wrap(client_for(), QUICK, fallbacks=["small"])
    wire.script[:] = [say.problem(400, "blocked", "content_filter")]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**ASK)
    wire.script[:] = [say.problem(400, "maximum context length is 8 tokens", "context_length_exceeded")]
    assert client.chat.completions.create(**ASK).choices[0].message.content == "hello"


@pytest.mark.parametrize("other", [object(), 5, openai.OpenAI, None])
def test_what_cannot_take_over_is_refused_at_once(client_for: Any, other: Any) -> None:
    with pytest.raises(TypeError):
        wrap(client_for(), fallbacks=[other])


async def test_a_plain_client_cannot_take_over_from_an_asynchronous_one(client_for: Any, async_client: Any) -> None:
    with pytest.raises(TypeError, match="asynchronous client of openai"):
        wrap(async_client, fallbacks=[client_for()])
    with pytest.raises(TypeError, match="plain client of openai"):
        wrap(client_for(), fallbacks=[async_client])


@pytest.mark.parametrize("thing", [object(), "gpt-4o", openai, openai.OpenAI])
def test_what_is_no_client_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="openai, anthropic or google-genai"):
        wrap(thing)


# Streams.


def test_a_stream_keeps_its_type_and_gives_its_pieces(wire: Any, say: Any, client_for: Any) -> None:
    wire.default = whole(say)
    stream = wrap(client_for()).chat.completions.create(**ASK, stream=True)
    assert type(stream) is openai.Stream
    assert text_of(stream) == "hello"
    assert stream.response.status_code == 200


def test_a_stream_is_tried_again_before_its_first_piece(wire: Any, say: Any, client_for: Any) -> None:
    wire.script[:] = [say.problem(503), say.events('{"id": '), say.events(), whole(say)]
    policy = RetryPolicy(max_attempts=4, base_delay=0)
    assert text_of(wrap(client_for(), policy).chat.completions.create(**ASK, stream=True)) == "hello"
    assert len(wire.asked) == 4


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (lambda say: say.events(say.chunk("hel")), BadResponseError),
        (lambda say: say.events(say.chunk("hel"), '{"id": '), BadResponseError),
        (lambda say: say.events(say.chunk("hel"), "null"), BadResponseError),
        (lambda say: say.events(say.chunk("hel"), length=5000), openai.APIConnectionError),
    ],
)
def test_a_stream_that_breaks_later_is_an_error_and_not_begun_again(
    wire: Any, say: Any, client_for: Any, broken: Callable[[Any], bytes], kind: type[Exception]
) -> None:
    monitor = AIErrorMonitor()
    wire.default = broken(say)
    stream = wrap(client_for(), QUICK, fallbacks=["small"], monitor=monitor).chat.completions.create(**ASK, stream=True)
    got = []
    with pytest.raises(kind):
        got.extend(stream)
    assert [chunk.choices[0].delta.content for chunk in got] == ["hel"]
    assert len(wire.asked) == 1
    assert monitor.get_error_summary()["total_errors"] == 1


def test_the_breaker_judges_a_stream_at_its_end(wire: Any, say: Any, client_for: Any) -> None:
    breaker = AIServiceCircuitBreaker("openai", CircuitConfig(failure_threshold=1))
    client = wrap(client_for(), Policy(retry=QUICK, breaker=breaker))
    wire.default = whole(say)
    text_of(client.chat.completions.create(**ASK, stream=True))
    assert breaker.get_metrics()["successes"] == 1
    wire.default = say.events(say.chunk("hel"))
    with pytest.raises(BadResponseError):
        list(client.chat.completions.create(**ASK, stream=True))
    assert breaker.state is CircuitState.OPEN


def test_a_stream_falls_back_before_its_first_piece(wire: Any, say: Any, client_for: Any) -> None:
    wire.default = lambda connection, asked: say.problem(503) if asked.body["model"] == "big" else whole(say)
    client = wrap(client_for(), RetryPolicy(max_attempts=1), fallbacks=["small"])
    assert text_of(client.chat.completions.create(**ASK, stream=True)) == "hello"


def test_a_stream_that_is_left_early_is_no_failure_and_gives_its_connection_back(
    wire: Any, say: Any, client_for: Any
) -> None:
    monitor = AIErrorMonitor()
    wire.default = whole(say)
    with wrap(client_for(), monitor=monitor).chat.completions.create(**ASK, stream=True) as stream:
        next(iter(stream))
    assert stream.response.is_closed
    assert monitor.get_error_summary()["total_errors"] == 0


def test_the_helper_for_streams_is_protected_too(wire: Any, say: Any, client_for: Any) -> None:
    wire.script[:] = [say.problem(503), whole(say)]
    with wrap(client_for(), QUICK).chat.completions.stream(**ASK) as stream:
        assert stream.get_final_completion().choices[0].message.content == "hello"


def test_raw_streams_are_left_to_the_caller(wire: Any, say: Any, client_for: Any) -> None:
    wire.script[:] = [say.problem(503), whole(say)]
    raw = wrap(client_for(), QUICK).chat.completions.with_raw_response.create(**ASK, stream=True)
    assert text_of(raw.parse()) == "hello"


def test_the_stream_of_the_responses_api_has_to_be_complete(wire: Any, say: Any, client_for: Any) -> None:
    created = json.dumps({"type": "response.created", "response": {"id": "r"}, "sequence_number": 0})
    done = json.dumps({"type": "response.completed", "response": {"id": "r"}, "sequence_number": 1})
    client = wrap(client_for(), QUICK)
    wire.default = say.events(created, done)
    assert len(list(client.responses.create(model="big", input="hello?", stream=True))) == 2
    wire.default = say.events(created)
    with pytest.raises(BadResponseError, match="broke off after 1 pieces"):
        list(client.responses.create(model="big", input="hello?", stream=True))


# The same, asynchronous.


async def test_an_asynchronous_client_is_protected(wire: Any, say: Any, async_client: Any) -> None:
    monitor = AIErrorMonitor()
    wire.script[:] = [say.problem(503), say.http("{not json")]
    client = wrap(async_client, QUICK, monitor=monitor)
    assert type(client) is openai.AsyncOpenAI
    assert (await client.chat.completions.create(**ASK)).choices[0].message.content == "hello"
    wire.default = lambda connection, asked: say.problem(503) if asked.body["model"] == "big" else say.chat("smaller")
    client = wrap(async_client, QUICK, fallbacks=["small"], monitor=monitor, service="chat")
    assert (await client.with_options(timeout=3).chat.completions.create(**ASK)).choices[0].message.content == "smaller"
    assert monitor.get_error_summary()["by_service"] == {"chat": 1}
    wire.default = say.problem(503)
    wire.asked.clear()
    with pytest.raises(openai.InternalServerError):
        await client.models.list()
    assert len(wire.asked) == 3, "a request without a model has no other model to go to"


async def test_an_asynchronous_stream_is_protected(wire: Any, say: Any, async_client: Any) -> None:
    monitor = AIErrorMonitor()
    client = wrap(async_client, QUICK, monitor=monitor)
    wire.script[:] = [say.problem(503), say.events(), whole(say)]
    stream = await client.chat.completions.create(**ASK, stream=True)
    assert type(stream) is openai.AsyncStream
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "hello"
    assert len(wire.asked) == 3
    wire.default = say.events(say.chunk("hel"))
    with pytest.raises(BadResponseError):
        async for _ in await client.chat.completions.create(**ASK, stream=True):
            pass
    assert monitor.get_error_summary()["total_errors"] == 1


async def test_an_asynchronous_stream_may_be_left_early(wire: Any, say: Any, async_client: Any) -> None:
    wire.default = whole(say)
    client = wrap(async_client)
    async with await client.chat.completions.create(**ASK, stream=True) as stream:
        async for _ in stream:
            break
    assert stream.response.is_closed
    abandoned = await client.chat.completions.create(**ASK, stream=True)
    await anext(abandoned)
    del abandoned
    gc.collect()
    await asyncio.sleep(0)


async def test_the_helper_for_asynchronous_streams_is_protected_too(wire: Any, say: Any, async_client: Any) -> None:
    wire.script[:] = [say.problem(503), whole(say)]
    async with wrap(async_client, QUICK).chat.completions.stream(**ASK) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == "hello"


async def test_each_try_has_its_time(wire: Any, say: Any, async_client: Any) -> None:
    wire.default = say.silence
    with pytest.raises((ServiceTimeoutError, openai.APITimeoutError)):
        await asyncio.wait_for(wrap(async_client, Policy(timeout=0.1)).chat.completions.create(**ASK), 3)


def test_a_plain_client_is_told_how_much_time_a_try_has(wire: Any, say: Any, client_for: Any) -> None:
    wire.default = say.silence
    with pytest.raises(openai.APITimeoutError):
        wrap(client_for(), Policy(timeout=0.1)).chat.completions.create(**ASK)


async def test_cancellation_goes_through(wire: Any, say: Any, async_client: Any) -> None:
    monitor = AIErrorMonitor()
    wire.default = say.silence
    task = asyncio.create_task(wrap(async_client, monitor=monitor).chat.completions.create(**ASK))
    while not wire.asked:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert monitor.get_error_summary()["total_errors"] == 0


def test_a_mock_server_grades_a_wrapped_client_as_resilient(llmock: Any) -> None:
    with openai.OpenAI() as plain:
        client = wrap(plain, RetryPolicy(max_attempts=4, base_delay=0.05, jitter="none"))
        llmock.rate_limit(retry_after=0.1).fail(503)
        assert client.chat.completions.create(**ASK).choices[0].message.content
        for break_it in (llmock.truncate, llmock.corrupt, llmock.disconnect):
            break_it(after_chunks=2)
            with pytest.raises((BadResponseError, openai.APIConnectionError)):
                list(client.chat.completions.create(**ASK, stream=True))
    assert [record.status for record in llmock.requests] == [429, 503, 200, 200, 200, 200]
    llmock.verdict()
