"""Health, metrics, the API description and its page."""

import re
from typing import Any

import httpx
import pytest

from bulletproof.errors import ConfigurationError, StoreError
from bulletproof.service import create_app


async def test_health_names_its_components_and_breakers(client: httpx.AsyncClient) -> None:
    body = (await client.get("/health")).json()
    assert body["status"] == "healthy"
    assert body["components"]["store"] == {"status": "healthy"}
    assert body["components"]["analyzer"]["name"].startswith("local/")
    assert isinstance(body["breakers"], dict)


async def test_health_is_degraded_when_the_store_is_down(app: Any, client: httpx.AsyncClient) -> None:
    async def down() -> None:
        raise StoreError("the database does not answer")

    app.state.services.processor.store.ping = down
    response = await client.get("/health")
    assert response.status_code == 200
    assert response.json()["status"] == "degraded"
    assert response.json()["components"]["store"]["code"] == "database_unavailable"


def test_a_wrong_list_of_hosts_is_told_when_the_app_is_made(settings: Any) -> None:
    settings.fetch_allow_hosts = ("10.0.0.0/99",)
    with pytest.raises(ConfigurationError, match=r"allow_hosts: '10\.0\.0\.0/99' is none of host, host:port"):
        create_app(settings)


async def test_critical_health_is_503(app: Any, client: httpx.AsyncClient) -> None:
    monitor = app.state.services.processor.monitor
    for number in range(5):
        monitor.record_error("resource_error", "service", "critical", f"disk full {number}")
    response = await client.get("/health")
    assert response.status_code == 503
    assert response.json()["status"] == "critical"


async def test_readiness_ends_with_the_app(settings: Any, client_of: Any) -> None:
    app = create_app(settings)
    async with client_of(app) as client:
        assert (await client.get("/health/ready")).status_code == 503
        async with app.router.lifespan_context(app):
            assert (await client.get("/health/ready")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503


async def test_metrics_hold_the_error_summary_breakers_and_latencies(client: httpx.AsyncClient) -> None:
    await client.post("/process", files={"file": ("t.json", b'["good", "bad"]')})
    await client.post("/process", files={"file": ("t.json", b"[broken")})
    body = (await client.get("/metrics")).json()
    assert set(body) >= {
        "total_errors", "by_service", "by_severity", "by_type", "error_rate", "trending_errors", "breakers", "requests",
    }  # fmt: skip
    assert body["total_errors"] >= 1
    assert body["by_type"]["validation_error"] >= 1
    assert body["records"] == {"analyzed": 2, "rejected": 0}
    assert body["files"] == {"success": 1, "invalid_json": 1}
    process = next(item for item in body["requests"] if item["route"] == "/process")
    assert process["count"] == 2
    assert process["statuses"] == {"200": 1, "422": 1}
    assert process["p99_ms"] > 0


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0", "text/plain;q=0.5"])
async def test_metrics_come_as_prometheus_exposition_when_asked(client: httpx.AsyncClient, accept: str) -> None:
    await client.get("/health/live")
    response = await client.get("/metrics", headers={"Accept": accept})
    assert "bulletproof_request_seconds_bucket" in response.text
    assert response.headers["Vary"] == "Accept"
    assert accept.split(";")[0] in response.headers["content-type"]


async def test_paths_that_do_not_exist_share_one_series(client: httpx.AsyncClient) -> None:
    for number in range(20):
        await client.get(f"/made-up-{number}")
    text = (await client.get("/metrics", headers={"Accept": "text/plain"})).text
    assert "made-up" not in text
    assert 'route="unmatched"' in text


async def test_the_description_covers_every_route_and_the_form_of_errors(client: httpx.AsyncClient) -> None:
    description = (await client.get("/openapi.json")).json()
    assert description["info"]["title"] == "Bulletproof AI Processor"
    assert set(description["paths"]) >= {"/process", "/results/{processing_id}", "/health", "/metrics"}
    errors = description["paths"]["/process"]["post"]["responses"]
    assert errors["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")
    assert set(errors) >= {"200", "400", "401", "413", "415", "422", "500", "503"}


async def test_the_page_of_the_description_needs_no_other_host(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sources
    for source in sources:
        assert source.startswith("/docs/")
        assert (await client.get(source)).status_code == 200
