"""``call_openai_api`` against real servers."""

import inspect
from typing import Any

import openai
import pytest

from bulletproof.errors import BadResponseError, ConfigurationError, InputValidationError, RateLimitedError
from bulletproof.llm import call_openai_api


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "API_KEY", "MODEL", "MAX_ATTEMPTS"):
        monkeypatch.delenv(f"BULLETPROOF_LLM_{name}", raising=False)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(wire: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("BULLETPROOF_LLM_BASE_URL", wire.base_url)
    return wire


def test_the_signature_is_the_promised_one() -> None:
    signature = inspect.signature(call_openai_api)
    assert list(signature.parameters)[:2] == ["prompt", "model"]
    assert signature.parameters["model"].default == "gpt-3.5-turbo"


def test_it_asks_the_server_of_the_settings_and_needs_no_key_for_it(server: Any) -> None:
    assert call_openai_api("hello?") == "hello"
    assert server.asked[0].path == "/v1/chat/completions"
    assert server.asked[0].body["model"] == "gpt-3.5-turbo"
    assert server.asked[0].body["messages"] == [{"role": "user", "content": "hello?"}]


def test_it_sends_the_key_of_the_settings(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULLETPROOF_LLM_API_KEY", "sk-ours")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    call_openai_api("hello?")
    assert server.asked[0].headers["authorization"] == "Bearer sk-ours"


def test_the_variables_of_the_sdk_serve_when_there_are_no_settings(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", wire.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert call_openai_api("hello?") == "hello"
    assert wire.asked[0].headers["authorization"] == "Bearer sk-other"


def test_without_a_key_it_says_which_variables_to_set_and_does_not_retry() -> None:
    with pytest.raises(ConfigurationError) as caught:
        call_openai_api("hello?", sleep=lambda seconds: pytest.fail("there is nothing to wait for"))
    assert caught.value.code == "misconfigured"
    assert "BULLETPROOF_LLM_API_KEY" in caught.value.hint
    assert "OPENAI_API_KEY" in caught.value.hint


def test_a_model_of_the_settings_replaces_the_default_only(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULLETPROOF_LLM_MODEL", "llama3.2")
    call_openai_api("hello?")
    call_openai_api("hello?", "gpt-3.5-turbo")
    call_openai_api("hello?", model="mistral")
    assert [asked.body["model"] for asked in server.asked] == ["llama3.2", "gpt-3.5-turbo", "mistral"]


def test_it_retries_three_times_in_all_and_raises_a_connection_error(server: Any, say: Any) -> None:
    waits: list[float] = []
    server.default = say.reset
    with pytest.raises(ConnectionError):
        call_openai_api("hello?", sleep=waits.append, rng=lambda: 0.5)
    assert len(server.asked) == 3
    assert waits == [1.5, 2.5]


def test_it_waits_as_long_as_the_service_says(server: Any, say: Any) -> None:
    waits: list[float] = []
    server.script[:] = [say.problem(429, retry_after="4"), say.chat("thanks for waiting")]
    assert call_openai_api("hello?", sleep=waits.append) == "thanks for waiting"
    assert waits == [4.0]


def test_a_rate_limit_that_lasts_is_a_typed_error(server: Any, say: Any) -> None:
    server.default = say.problem(429)
    with pytest.raises(RateLimitedError):
        call_openai_api("hello?", sleep=lambda seconds: None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_not_get_better_is_not_retried(server: Any, say: Any, status: int) -> None:
    server.default = say.problem(status)
    with pytest.raises(Exception):  # noqa: B017
        call_openai_api("hello?", sleep=lambda seconds: pytest.fail("it will not get better"))
    assert len(server.asked) == 1


def test_silence_is_a_timeout_error(server: Any, say: Any) -> None:
    server.default = say.silence
    with pytest.raises(TimeoutError):
        call_openai_api("hello?", timeout=0.1, sleep=lambda seconds: None)
    assert len(server.asked) == 3


def test_rubbish_is_tried_again_and_then_told(server: Any, say: Any) -> None:
    server.default = say.http("<html>")
    with pytest.raises(BadResponseError):
        call_openai_api("hello?", sleep=lambda seconds: None)
    assert len(server.asked) == 3


def test_a_refusal_is_told_as_such(server: Any, say: Any) -> None:
    server.default = say.chat(None, refusal="no")
    with pytest.raises(InputValidationError) as caught:
        call_openai_api("hello?")
    assert caught.value.code == "content_filtered"


def test_the_prompt_must_be_a_text() -> None:
    with pytest.raises(InputValidationError):
        call_openai_api(None)  # type: ignore[arg-type]


def test_a_client_of_ones_own_is_used_with_its_retries_off(wire: Any, say: Any) -> None:
    wire.default = say.problem(500)
    with openai.OpenAI(base_url=wire.base_url, api_key="k", max_retries=5) as client:
        with pytest.raises(ConnectionError):
            call_openai_api("hello?", client=client, sleep=lambda seconds: None)
        assert len(wire.asked) == 3
        wire.default = say.chat("open still")
        assert call_openai_api("hello?", client=client) == "open still"


def test_a_mock_server_grades_its_behaviour_as_resilient(llmock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULLETPROOF_LLM_BASE_URL", llmock.base_url())
    llmock.rate_limit(times=2, retry_after=0.05)
    assert call_openai_api("hello?")
    assert [record.status for record in llmock.requests] == [429, 429, 200]
    llmock.assert_resilient()
