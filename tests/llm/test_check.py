"""Asking whether the LLM is there."""

import json
from typing import Any

import pytest

from bulletproof.errors import AIError, ConfigurationError
from bulletproof.llm import check_connection
from bulletproof.settings import Settings


def settings_for(wire: Any, model: str = "llama3.2") -> Settings:
    return Settings(llm_base_url=wire.base_url, llm_model=model)


def listed(say: Any, *names: str) -> bytes:
    return say.http(json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}))


async def test_a_server_with_the_model_is_fine(wire: Any, say: Any) -> None:
    wire.default = listed(say, "mistral", "llama3.2")
    assert await check_connection(settings_for(wire)) == f"{wire.host}: reachable, has llama3.2"


async def test_a_server_without_the_model_says_which_it_has(wire: Any, say: Any) -> None:
    wire.default = listed(say, "mistral", "qwen3")
    with pytest.raises(ConfigurationError) as caught:
        await check_connection(settings_for(wire))
    assert "mistral, qwen3" in caught.value.hint


async def test_a_server_that_lists_no_models_is_asked_something(wire: Any, say: Any) -> None:
    wire.script[:] = [say.problem(404), say.chat("yes")]
    assert await check_connection(settings_for(wire)) == f"{wire.host}: llama3.2 answers"


@pytest.mark.parametrize("reply", ["reset", "silence"])
async def test_a_server_that_is_not_there_is_an_error(wire: Any, say: Any, reply: str) -> None:
    wire.default = getattr(say, reply)
    with pytest.raises(AIError, match=wire.host):
        await check_connection(settings_for(wire), timeout=0.3)


async def test_nothing_configured_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no API key"):
        await check_connection(Settings(llm_base_url=None, llm_api_key=None))
