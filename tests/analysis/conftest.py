"""The server on the wire of the tests of the LLM client serves here too."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("llm_wire", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_llm = _load(Path(__file__).parent.parent / "llm" / "conftest.py")
wire = _llm.wire
say = _llm.say


@pytest.fixture
def judge() -> Callable[..., Any]:
    """Make a server that reads the texts it is asked about and judges them as told.

    ``judge(fn)`` is a reply for a ``wire`` server: ``fn`` gets the texts by id and returns the answer, an object or the
    text itself; or bytes, which are sent as they are.
    """

    def reply_of(fn: Callable[[dict[str, str]], Any]) -> Callable[..., bytes]:
        def reply(connection: Any, asked: Any) -> bytes:
            answer = fn(texts_of(asked))
            return answer if isinstance(answer, bytes) else _llm.chat(answer)

        return reply

    return reply_of


def texts_of(asked: Any) -> dict[str, str]:
    """The texts that a request asks about: those of the schema, which shrinks when an answer is mended."""
    texts = json.loads(asked.body["messages"][1]["content"])["texts"]
    schema = asked.body.get("response_format", {}).get("json_schema", {}).get("schema")
    return texts if schema is None else {name: texts[name] for name in schema["required"]}


@pytest.fixture
def fine() -> Callable[[str], dict[str, Any]]:
    """A judgement by a simple rule, so that tests can tell whose text it is."""

    def judgement(text: str) -> dict[str, Any]:
        sentiment = "positive" if "good" in text else "negative" if "bad" in text else "neutral"
        return {
            "sentiment": sentiment,
            "score": {"positive": 0.9, "neutral": 0.0, "negative": -0.8}[sentiment],
            "confidence": 0.7,
        }

    return judgement
