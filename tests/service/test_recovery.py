"""What users see while a database or an LLM is down, and after: real servers that are really killed."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest


def process(address: str, *texts: str) -> dict[str, Any]:
    content = json.dumps(texts).encode()
    response = httpx.post(f"{address}/process", files={"file": ("t.json", content)}, timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def eventually(probe: Callable[[], bool], seconds: float = 45) -> None:
    limit = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < limit, "it did not recover in time"
        time.sleep(0.5)


@pytest.mark.slow
def test_results_are_answered_while_the_database_is_dead_and_stored_again_when_it_is_back(
    serve: Callable[..., str], postgres: Any
) -> None:
    address = serve(BULLETPROOF_DATABASE_URL=postgres.create_database())
    before = process(address, "lovely", "awful")
    assert before["stored"] is True

    postgres.kill()
    try:
        during = process(address, "lovely", "awful")
        assert during["status"] == "success"
        assert during["stored"] is False
        assert during["store_error"]["code"] == "database_unavailable"
        assert [item["text"] for item in during["results"]] == ["lovely", "awful"]
        health = httpx.get(f"{address}/health").json()
        assert health["status"] != "healthy"
        assert health["components"]["store"]["status"] == "degraded"
        lost = httpx.get(f"{address}/results/{before['processing_id']}", timeout=60)
        assert (lost.status_code, lost.json()["code"]) == (503, "database_unavailable")
        assert lost.headers["Retry-After"]
    finally:
        postgres.start()

    eventually(lambda: process(address, "lovely")["stored"])
    assert len(httpx.get(f"{address}/results/{before['processing_id']}").json()["results"]) == 2


def test_the_local_model_stands_in_while_the_llm_is_dead_and_the_llm_answers_when_it_is_back(
    serve: Callable[..., str], wire: Any, judge: Any, fine: Any
) -> None:
    wire.default = judge(lambda texts: {name: fine(text) for name, text in texts.items()})
    address = serve(
        BULLETPROOF_LLM_BASE_URL=wire.base_url, BULLETPROOF_LLM_MODEL="test-model", BULLETPROOF_LLM_OPEN_SECONDS="1"
    )
    before = process(address, "good thing", "bad thing")
    assert before["analyzer"] == "llm/test-model", before
    assert before["degraded"] is False
    assert before["summary"]["usage"]["prompt_tokens"] > 0

    wire.stop()
    during = process(address, "good thing", "bad thing")
    assert during["degraded"] is True
    assert during["analyzer"].startswith("local/")
    assert "service_unavailable" in during["degraded_reason"] or "circuit_open" in during["degraded_reason"]
    assert len(during["results"]) == 2
    forbidden = httpx.post(
        f"{address}/process", files={"file": ("t.json", b'["x"]')}, data={"fallback": "false"}, timeout=60
    )
    assert forbidden.status_code == 503
    assert forbidden.json()["error_type"] == "external_service_error"

    wire.start()
    eventually(lambda: not process(address, "good thing")["degraded"], seconds=90)
