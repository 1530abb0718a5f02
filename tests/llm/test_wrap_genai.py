"""``wrap`` around clients of the real google-genai SDK, against servers that fail."""

import json
from typing import Any

import pytest

from bulletproof.errors import BadResponseError, CircuitOpenError
from bulletproof.llm import wrap
from bulletproof.monitor import AIErrorMonitor
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, Policy, RetryPolicy

genai = pytest.importorskip("google.genai")

ASK: Any = {"model": "big", "contents": "hello?"}
QUICK = RetryPolicy(max_attempts=3, base_delay=0)


def piece(text: str, reason: str | None = None) -> str:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
    return json.dumps({"candidates": [candidate | ({"finishReason": reason} if reason else {})]})


def answer(say: Any, text: str = "hello") -> bytes:
    return say.http(piece(text, "STOP"))


def down(say: Any) -> bytes:
    return say.http(json.dumps({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}), status=503)


def whole(say: Any) -> bytes:
    return say.events(piece("hel"), piece("lo", "STOP"))


@pytest.fixture
def make(wire: Any) -> Any:
    made: list[Any] = []

    def client(**options: Any) -> Any:
        made.append(genai.Client(api_key="k", http_options={"base_url": f"http://{wire.host}", **options}))
        return made[-1]

    yield client
    for one in made:
        one.close()


def test_the_client_keeps_its_type_and_our_policy_replaces_its_retries(wire: Any, say: Any, make: Any) -> None:
    monitor = AIErrorMonitor()
    client = make(retry_options={"attempts": 9, "initial_delay": 0.01})
    wrapped = wrap(client, QUICK, monitor=monitor)
    assert type(wrapped) is genai.Client
    wire.script[:] = [down(say), answer(say)]
    assert wrapped.models.generate_content(**ASK).text == "hello"
    wire.default = down(say)
    with pytest.raises(genai.errors.ServerError):
        wrapped.models.generate_content(**ASK)
    assert len(wire.asked) == 5
    assert monitor.get_error_summary()["by_code"] == {"service_unavailable": 1}
    config = {"http_options": {"retry_options": {"attempts": 5}, "headers": {"x-mine": "yes"}, "timeout": 4000}}
    with pytest.raises(genai.errors.ServerError):
        wrapped.models.generate_content(**ASK, config=config)
    assert len(wire.asked) == 8
    assert wire.asked[-1].headers["x-mine"] == "yes"


def test_another_model_takes_over(wire: Any, say: Any, make: Any) -> None:
    wire.default = lambda connection, asked: down(say) if "/big:" in asked.path else answer(say, "less")
    assert wrap(make(), QUICK, fallbacks=["small"]).models.generate_content(**ASK).text == "less"
    models = [asked.path.partition("/models/")[2] for asked in wire.asked]
    assert models == ["big:generateContent"] * 3 + ["small:generateContent"]


def test_another_client_takes_over_and_each_has_a_circuit_of_its_own(wire: Any, say: Any, make: Any) -> None:
    wire.default = lambda connection, asked: down(say) if "/big:" in asked.path else answer(say, "less")
    breaker = AIServiceCircuitBreaker("big", CircuitConfig(failure_threshold=1))
    other = make(retry_options={"attempts": 9, "initial_delay": 0.01})
    wrapped = wrap(make(), Policy(breaker=breaker), fallbacks=[(other, "small")])
    for _ in range(2):
        assert wrapped.models.generate_content(**ASK).text == "less"
    assert [asked.path.split("/")[-1].split(":")[0] for asked in wire.asked] == ["big", "small", "small"]
    wire.default = down(say)
    wire.asked.clear()
    with pytest.raises(genai.errors.ServerError):
        wrapped.models.generate_content(**ASK)
    assert len(wire.asked) == 1, "the retries of the other client are off too"


def test_wrapping_again_replaces_the_policy(wire: Any, say: Any, make: Any) -> None:
    client = make()
    wrap(client, RetryPolicy(max_attempts=2, base_delay=0))
    wrap(client, QUICK)
    wire.default = down(say)
    with pytest.raises(genai.errors.ServerError):
        client.models.generate_content(**ASK)
    assert len(wire.asked) == 3


def test_an_answer_that_is_no_json_is_a_bad_response(wire: Any, say: Any, make: Any) -> None:
    wire.default = say.http("<html>", kind="text/html")
    with pytest.raises(BadResponseError):
        wrap(make(), QUICK).models.generate_content(**ASK)
    assert len(wire.asked) == 3


def test_a_stream_is_tried_again_before_its_first_piece_only(wire: Any, say: Any, make: Any) -> None:
    wrapped = wrap(make(), QUICK)
    wire.script[:] = [down(say), say.events(), whole(say)]
    assert "".join(part.text for part in wrapped.models.generate_content_stream(**ASK)) == "hello"
    assert len(wire.asked) == 3
    for broken in (say.events(piece("hel")), say.events(piece("hel"), '{"candidates": [')):
        wire.script[:] = [broken]
        wire.asked.clear()
        with pytest.raises(BadResponseError):
            list(wrapped.models.generate_content_stream(**ASK))
        assert len(wire.asked) == 1


async def test_the_asynchronous_side_is_protected_too(wire: Any, say: Any, make: Any) -> None:
    monitor = AIErrorMonitor()
    client = wrap(make(), QUICK, fallbacks=["small"], monitor=monitor, service="gemini")
    async with client.aio as aio:
        wire.script[:] = [down(say)] * 3 + [answer(say, "less")]
        assert (await aio.models.generate_content(**ASK)).text == "less"
        assert monitor.get_error_summary()["by_service"] == {"gemini": 1}
        wire.script[:] = [down(say), whole(say)]
        stream = await aio.models.generate_content_stream(**ASK)
        assert "".join([part.text async for part in stream]) == "hello"
        wire.script[:] = [say.events(piece("hel"))]
        with pytest.raises(BadResponseError):
            async for _ in await aio.models.generate_content_stream(**ASK):
                pass


def test_chats_are_protected_too(wire: Any, say: Any, make: Any) -> None:
    wire.script[:] = [down(say), answer(say)]
    assert wrap(make(), QUICK).chats.create(model="big").send_message("hello?").text == "hello"


def test_the_open_circuit_refuses(wire: Any, say: Any, make: Any) -> None:
    breaker = AIServiceCircuitBreaker("gemini", CircuitConfig(failure_threshold=1))
    client = wrap(make(), breaker)
    wire.default = down(say)
    with pytest.raises(genai.errors.ServerError):
        client.models.generate_content(**ASK)
    with pytest.raises(CircuitOpenError):
        client.models.generate_content(**ASK)
    with pytest.raises(CircuitOpenError):
        list(client.models.generate_content_stream(**ASK))


def test_only_clients_of_the_same_sdk_can_take_over(make: Any) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key="k") as other, pytest.raises(TypeError, match=r"google\.genai"):
        wrap(make(), fallbacks=[other])


def test_a_mock_server_grades_a_wrapped_client_as_resilient(llmock: Any) -> None:
    client = wrap(
        genai.Client(http_options={"api_version": "v1beta"}),
        RetryPolicy(max_attempts=4, base_delay=0.05, jitter="none"),
    )
    llmock.rate_limit(retry_after=0.1).fail(503)
    assert client.models.generate_content(model="gemini-2.5-flash", contents="hello?").text
    llmock.truncate(after_chunks=2)
    with pytest.raises(BadResponseError):
        list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="hello?"))
    client.close()
    assert [record.status for record in llmock.requests] == [429, 503, 200, 200]
