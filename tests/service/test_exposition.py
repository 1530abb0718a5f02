"""The Prometheus and OpenMetrics forms, read by the official parsers."""

import asyncio
from typing import Any

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from bulletproof.llm import LLMCall, Spending
from bulletproof.service.measures import Measures

TEXT, OPENMETRICS = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"
HOSTILE = 'a"b\\c\nd{e="f"} # EOF'
EVERYTHING = {
    "bulletproof_request_seconds": {"method", "route", "status"},
    "bulletproof_stage_seconds": {"stage"},
    "bulletproof_files": {"outcome"},
    "bulletproof_records": {"outcome"},
    "bulletproof_model_calls": {"model"},
    "bulletproof_llm_calls": {"model", "outcome"},
    "bulletproof_llm_call_seconds": {"model"},
    "bulletproof_llm_tokens": {"model", "kind"},
    "bulletproof_llm_cost_dollars": {"model"},
    "bulletproof_errors": {"error_type", "service", "severity", "code"},
    "bulletproof_breaker_calls": {"breaker", "outcome"},
    "bulletproof_breaker_slow_calls": {"breaker"},
    "bulletproof_breaker_transitions": {"breaker"},
    "bulletproof_breaker_state": {"breaker", "state"},
    "bulletproof_queue_running": {"queue"},
    "bulletproof_queue_waiting": {"queue"},
    "bulletproof_build": {"version", "python"},
    "bulletproof_health": {"status"},
    "bulletproof_error_rate": set(),
    "bulletproof_failure_ratio": set(),
    "bulletproof_trending_errors": set(),
}


async def scrape(client: httpx.AsyncClient, accept: str = OPENMETRICS) -> dict[str, Metric]:
    response = await client.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    read = read_openmetrics if "openmetrics" in accept else read_text
    families = list(read(response.text))
    assert len({family.name for family in families}) == len(families)
    return {family.name.removesuffix("_info"): family for family in families}


def values(family: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    samples = [sample for sample in family.samples if not sample.name.endswith(("_created", "_bucket", "_sum"))]
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in samples}


async def work(app: Any, client: httpx.AsyncClient) -> None:
    await client.post("/process", files={"file": ("t.json", b'["good", "bad"]')})
    await client.post("/process", files={"file": ("t.json", b"[broken")})
    app.state.services.measures.observe_llm(LLMCall("gpt-4o-mini", "success", 0.5, Spending(100, 20, 0.01)))
    app.state.services.measures.observe_llm(LLMCall("gpt-4o-mini", "rate_limited", 0.1))


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
async def test_everything_there_is_to_watch_is_exposed(app: Any, client: httpx.AsyncClient, accept: str) -> None:
    await work(app, client)
    families = await scrape(client, accept)
    missing = set(EVERYTHING) - set(families)
    assert not missing
    for name, labels in EVERYTHING.items():
        assert families[name].documentation
        for sample in families[name].samples:
            assert set(sample.labels) - {"le"} == labels, sample


async def test_the_figures_are_those_of_the_json_form(app: Any, client: httpx.AsyncClient) -> None:
    await work(app, client)
    families = await scrape(client)
    figures = (await client.get("/metrics")).json()
    assert values(families["bulletproof_files"], "outcome") == {("success",): 1, ("invalid_json",): 1}
    assert figures["files"] == {"success": 1, "invalid_json": 1}
    assert values(families["bulletproof_stage_seconds"], "stage") == {
        ("validate",): 2, ("clean",): 1, ("analyze",): 1, ("store",): 1,
    }  # fmt: skip
    assert {row["stage"]: row["count"] for row in figures["stages"]}["analyze"] == 1
    tokens = values(families["bulletproof_llm_tokens"], "kind")
    assert tokens == {("prompt",): 100, ("completion",): 20}
    assert figures["llm"]["tokens"] == {"prompt": 100, "completion": 20}
    assert figures["llm"]["calls"] == {"success": 1, "rate_limited": 1}
    assert figures["llm"]["cost_dollars"] == 0.01
    errors = values(families["bulletproof_errors"], "error_type", "service", "severity", "code")
    assert errors == {("validation_error", "processor", "low", "invalid_json"): 1}


async def test_errors_are_counters_that_follow_the_monitor(app: Any, client: httpx.AsyncClient) -> None:
    monitor = app.state.services.processor.monitor
    for expected in (3, 6, 6):
        if expected > monitor.get_error_summary()["total_errors"]:
            for number in range(3):
                monitor.record_error("model_error", "ml", "high", f"boom {number}", code="prediction_failed")
        found = values((await scrape(client))["bulletproof_errors"], "code")
        assert found == {("prediction_failed",): expected}


async def test_a_total_that_was_forgotten_and_began_anew_is_counted_on() -> None:
    measures = Measures()
    for total in (5, 7, 2, 3):
        measures.follow_errors({("model_error", "ml", "high", "x"): total})
    errors = next(family for family in measures.families() if family.name == "bulletproof_errors")
    assert values(errors, "code") == {("x",): 7 + 3}


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
async def test_hostile_names_are_escaped(app: Any, client: httpx.AsyncClient, accept: str) -> None:
    measures = app.state.services.measures
    measures.observe_llm(LLMCall(HOSTILE, "success", 0.1))
    measures.observe_llm(LLMCall("half \ud800 a pair", "success", 0.1))
    measures.follow_errors({("model_error", HOSTILE, "high", HOSTILE): 2})
    app.state.services.processor.monitor.record_error(HOSTILE, HOSTILE, "high", HOSTILE, code=HOSTILE)
    families = await scrape(client, accept)
    assert (HOSTILE, "success") in values(families["bulletproof_llm_calls"], "model", "outcome")
    assert ("half ? a pair", "success") in values(families["bulletproof_llm_calls"], "model", "outcome")
    assert sum(values(families["bulletproof_errors"], "service", "code").values()) == 3


async def test_the_number_of_series_is_bounded_whatever_comes(app: Any, client: httpx.AsyncClient) -> None:
    measures, monitor = app.state.services.measures, app.state.services.processor.monitor
    for number in range(3000):
        monitor.record_error("model_error", f"service {number}", "high", "boom", code=f"code {number}")
        measures.observe_request(f"M{number}", "unmatched", 404, 0.1)
    for start in range(0, 3000, 500):
        measures.follow_errors({("model_error", f"s{n}", "high", "x"): 1 for n in range(start, start + 500)})
    families = await scrape(client)
    assert len(families["bulletproof_errors"].samples) <= 2 * 1001 + 2
    assert len(values(families["bulletproof_request_seconds"], "method")) <= 3
    # Nothing is lost: what has no series of its own is counted with the others.
    assert sum(values(families["bulletproof_errors"], "service", "code").values()) >= 3000


async def test_breaker_states_are_one_of_all_states(app: Any, client: httpx.AsyncClient) -> None:
    app.state.services.processor.store.breaker.force_open()
    states = values((await scrape(client))["bulletproof_breaker_state"], "breaker", "state")
    assert states["database", "forced_open"] == 1
    assert sum(states.values()) == 1
    await client.post("/process", files={"file": ("t.json", b'["good"]')})
    calls = values((await scrape(client))["bulletproof_breaker_calls"], "breaker", "outcome")
    assert calls["database", "rejected"] >= 1


async def test_queue_depths_are_those_of_the_moment(app: Any, client: httpx.AsyncClient) -> None:
    slots = app.state.services.doors.uploads.turns
    async with slots.place("one"):
        assert values((await scrape(client))["bulletproof_queue_running"], "queue") == {("uploads",): 1}
    assert values((await scrape(client))["bulletproof_queue_running"], "queue") == {("uploads",): 0}


async def test_scrapes_at_the_same_time_agree(client: httpx.AsyncClient) -> None:
    found = await asyncio.gather(*(scrape(client) for _ in range(5)))
    assert {values(one["bulletproof_breaker_state"], "breaker", "state")["database", "closed"] for one in found} == {
        1.0
    }
