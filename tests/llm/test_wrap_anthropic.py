"""``wrap`` around clients of the real anthropic SDK, against servers that fail."""

import json
from typing import Any

import pytest

from bulletproof.errors import BadResponseError
from bulletproof.llm import wrap
from bulletproof.monitor import AIErrorMonitor
from bulletproof.resilience import RetryPolicy

anthropic = pytest.importorskip("anthropic")

ASK: Any = {"model": "big", "max_tokens": 50, "messages": [{"role": "user", "content": "hello?"}]}
QUICK = RetryPolicy(max_attempts=3, base_delay=0)
START = {"type": "message_start", "message": {
    "id": "m", "type": "message", "role": "assistant", "content": [], "model": "big", "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}}  # fmt: skip
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}
END = {"type": "content_block_stop", "index": 0}
STOPPED = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 2},
}
STOP = {"type": "message_stop"}
WHOLE = (START, BLOCK, DELTA, END, STOPPED, STOP)


def stream_of(say: Any, *events: dict[str, Any] | str) -> bytes:
    """A stream of events; a text is sent as the data of one as it is."""
    parts = []
    for one in events:
        kind, data = ("content_block_delta", one) if isinstance(one, str) else (one["type"], json.dumps(one))
        parts.append(f"event: {kind}\ndata: {data}\n\n")
    return say.http("".join(parts), kind="text/event-stream")


def message(say: Any, text: str = "hello") -> bytes:
    return say.http(json.dumps({
        "id": "m", "type": "message", "role": "assistant", "model": "big", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 3, "output_tokens": 4}}))  # fmt: skip


def overloaded(say: Any) -> bytes:
    body = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    return say.http(body, status=503)


@pytest.fixture
def client(wire: Any) -> Any:
    with anthropic.Anthropic(base_url=wire.base_url.removesuffix("/v1"), api_key="k", max_retries=6, timeout=5) as one:
        yield one


@pytest.fixture
async def async_client(wire: Any) -> Any:
    url = wire.base_url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=6, timeout=5) as one:
        yield one


def test_the_client_keeps_its_type_and_our_policy_replaces_its_retries(wire: Any, say: Any, client: Any) -> None:
    monitor = AIErrorMonitor()
    wrapped = wrap(client, QUICK, monitor=monitor)
    assert type(wrapped) is anthropic.Anthropic
    wire.script[:] = [overloaded(say), message(say)]
    assert wrapped.messages.create(**ASK).content[0].text == "hello"
    wire.default = overloaded(say)
    with pytest.raises(anthropic.InternalServerError):
        wrapped.with_options(max_retries=8).messages.create(**ASK)
    assert len(wire.asked) == 5
    assert monitor.get_error_summary()["by_code"] == {"service_unavailable": 1}


def test_all_tries_carry_the_same_idempotency_key_if_any(wire: Any, say: Any, client: Any) -> None:
    wire.script[:] = [overloaded(say), overloaded(say)]
    wire.default = message(say)
    wrap(client, QUICK).messages.create(**ASK)
    assert len({asked.headers.get("idempotency-key") for asked in wire.asked}) == 1


def test_another_model_takes_over(wire: Any, say: Any, client: Any) -> None:
    wire.default = lambda connection, asked: overloaded(say) if asked.body["model"] == "big" else message(say, "less")
    assert wrap(client, QUICK, fallbacks=["small"]).messages.create(**ASK).content[0].text == "less"
    other = wrap(client, QUICK, fallbacks=[(client, "small")])
    assert other.messages.create(**ASK).content[0].text == "less"
    assert [asked.body["model"] for asked in wire.asked] == (["big"] * 3 + ["small"]) * 2


def test_a_stream_is_tried_again_before_its_first_event_only(wire: Any, say: Any, client: Any) -> None:
    wrapped = wrap(client, QUICK)
    wire.script[:] = [overloaded(say), stream_of(say), stream_of(say, *WHOLE)]
    stream = wrapped.messages.create(**ASK, stream=True)
    assert type(stream) is anthropic.Stream
    assert [event.type for event in stream] == [event["type"] for event in WHOLE]
    assert len(wire.asked) == 3
    wire.script[:] = [stream_of(say, START, BLOCK, DELTA)]
    with pytest.raises(BadResponseError, match="broke off after 3 pieces"):
        list(wrapped.messages.create(**ASK, stream=True))
    assert len(wire.asked) == 4


def test_a_corrupt_event_is_a_bad_response(wire: Any, say: Any, client: Any) -> None:
    wire.default = stream_of(say, START, '{"type": "content_bl')
    with pytest.raises(BadResponseError):
        list(wrap(client, QUICK).messages.create(**ASK, stream=True))


def test_the_helper_for_streams_is_protected_too(wire: Any, say: Any, client: Any) -> None:
    wire.script[:] = [overloaded(say), stream_of(say, *WHOLE)]
    with wrap(client, QUICK).messages.stream(**ASK) as stream:
        assert stream.get_final_text() == "hello"


async def test_an_asynchronous_client_is_protected(wire: Any, say: Any, async_client: Any) -> None:
    wrapped = wrap(async_client, QUICK, fallbacks=["small"])
    assert type(wrapped) is anthropic.AsyncAnthropic
    wire.script[:] = [overloaded(say)] * 3 + [message(say, "less")]
    assert (await wrapped.messages.create(**ASK)).content[0].text == "less"
    wire.script[:] = [overloaded(say), stream_of(say, *WHOLE)]
    kinds = [event.type async for event in await wrapped.messages.create(**ASK, stream=True)]
    assert kinds[-1] == "message_stop"
    wire.script[:] = [overloaded(say), stream_of(say, *WHOLE)]
    async with wrapped.messages.stream(**ASK) as stream:
        assert await stream.get_final_text() == "hello"
    wire.script[:] = [stream_of(say, START)]
    with pytest.raises(BadResponseError):
        async for _ in await wrapped.messages.create(**ASK, stream=True):
            pass


def test_clients_of_different_sdks_cannot_take_over_from_each_other(client: Any) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key="k") as other, pytest.raises(TypeError, match="plain client of anthropic"):
        wrap(client, fallbacks=[other])


def test_a_mock_server_grades_a_wrapped_client_as_resilient(llmock: Any) -> None:
    with anthropic.Anthropic() as plain:
        wrapped = wrap(plain, RetryPolicy(max_attempts=4, base_delay=0.05, jitter="none"))
        llmock.rate_limit(retry_after=0.1).fail(529)
        assert wrapped.messages.create(**ASK).content[0].text
        llmock.truncate(after_chunks=3)
        with pytest.raises(BadResponseError):
            list(wrapped.messages.create(**ASK, stream=True))
    assert [record.status for record in llmock.requests] == [429, 529, 200, 200]
