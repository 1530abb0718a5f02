"""What operators look at and do: breakers, errors, recent runs."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from bulletproof.service import create_app
from bulletproof.settings import Settings

ASKED = {"X-Requested-With": "test"}


async def send(client: httpx.AsyncClient, content: bytes = b'["good"]', **options: Any) -> dict[str, Any]:
    response = await client.post("/process", files={"file": ("t.json", content)}, **options)
    body: dict[str, Any] = response.json()
    return body


async def state_of(client: httpx.AsyncClient, name: str = "database") -> str:
    return str((await client.get("/breakers")).json()["breakers"][name]["state"])


async def test_breakers_are_listed_with_their_figures(client: httpx.AsyncClient) -> None:
    body = (await client.get("/breakers")).json()
    assert body["status"] == "success"
    assert set(body["breakers"]["database"]) >= {"state", "total_calls", "failures", "rejected", "retry_after"}


async def test_the_analyzer_is_degraded_while_the_circuit_of_the_llm_is_open(
    settings: Settings, client_of: Callable[..., httpx.AsyncClient]
) -> None:
    app = create_app(settings.model_copy(update={"llm_base_url": "http://127.0.0.1:9/v1"}))
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/health")).json()["components"]["analyzer"]["status"] == "healthy"
        await client.post("/breakers/llm/force-open", headers=ASKED)
        assert (await client.get("/health")).json()["components"]["analyzer"]["status"] == "degraded"


@pytest.mark.parametrize(
    ("action", "state"),
    [
        ("force-open", "forced_open"),
        ("disable", "disabled"),
        ("shadow", "shadow"),
        ("enable", "closed"),
        ("reset", "closed"),
    ],
)
async def test_an_operator_steers_a_breaker(client: httpx.AsyncClient, action: str, state: str) -> None:
    await client.post("/breakers/database/force-open", headers=ASKED)
    response = await client.post(f"/breakers/database/{action}", headers=ASKED)
    assert response.status_code == 200
    assert response.json()["breaker"]["state"] == state
    assert await state_of(client) == state


async def test_a_breaker_forced_open_refuses_and_shows_in_health(client: httpx.AsyncClient) -> None:
    await client.post("/breakers/database/force-open", headers=ASKED)
    answer = await send(client)
    assert (answer["stored"], answer["store_error"]["code"]) == (False, "database_unavailable")
    health = (await client.get("/health")).json()
    assert health["status"] == "degraded"
    assert "the circuit database is forced open" in health["reasons"]
    await client.post("/breakers/database/enable", headers=ASKED)
    assert (await send(client))["stored"] is True


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {**ASKED, "Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "application/json", "Sec-Fetch-Site": "same-site"},
    ],
)
async def test_what_a_page_of_another_site_can_send_steers_nothing(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    response = await client.post("/breakers/database/force-open", headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert "X-Requested-With" in response.json()["hint"]
    assert await state_of(client) == "closed"


@pytest.mark.parametrize("headers", [ASKED, {"Content-Type": "application/json; charset=utf-8"}])
@pytest.mark.parametrize("site", [{}, {"Sec-Fetch-Site": "same-origin"}])
async def test_what_only_our_own_pages_and_programs_can_send_steers(
    client: httpx.AsyncClient, headers: dict[str, str], site: dict[str, str]
) -> None:
    response = await client.post("/breakers/database/shadow", headers={**headers, **site}, content=b"{}")
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000", 200),
        ("localhost:8000", "http://localhost:8000", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("localhost:8000", "http://localhost:9000", 403),
        ("localhost:8000", "null", 403),
        ("localhost:8000", "http://[broken", 403),
        ("evil.example:8000", "http://evil.example:8000", 403),
    ],
)
async def test_a_page_whose_name_was_made_to_lead_here_steers_nothing(
    client: httpx.AsyncClient, host: str, origin: str, status: int
) -> None:
    headers = {**ASKED, "Sec-Fetch-Site": "same-origin", "Host": host, "Origin": origin}
    assert (await client.post("/breakers/database/shadow", headers=headers)).status_code == status


async def test_with_a_key_the_service_may_have_any_name(keyed: Any, client_of: Any) -> None:
    headers = {**ASKED, "X-API-Key": "first-key", "Host": "ai.example", "Origin": "https://ai.example"}
    async with client_of(keyed) as client:
        assert (await client.post("/breakers/database/shadow", headers=headers)).status_code == 200


async def test_a_preflight_from_another_site_is_given_no_permission(client: httpx.AsyncClient) -> None:
    response = await client.options(
        "/breakers/database/reset",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Headers": "x-requested-with"},
    )
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


async def test_an_unknown_breaker_is_404_and_an_unknown_action_422(client: httpx.AsyncClient) -> None:
    unknown = await client.post("/breakers/nothing/reset", headers=ASKED)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    wrong = await client.post("/breakers/database/explode", headers=ASKED)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")
    assert (await client.get("/breakers/database/reset")).status_code == 405


async def test_errors_are_listed_the_newest_first_and_can_be_narrowed(app: Any, client: httpx.AsyncClient) -> None:
    monitor = app.state.services.processor.monitor
    await send(client, b"[broken")
    monitor.record_error(
        "model_error", "ml", "high", "weights of bob@example.com", code="prediction_failed", password="x"
    )
    body = (await client.get("/errors")).json()
    assert [event["error_type"] for event in body["errors"]] == ["model_error", "validation_error"]
    newest = body["errors"][0]
    assert newest["message"] == "weights of ***"
    assert newest["context"]["password"] == "***"
    assert newest["timestamp"].endswith("+00:00")
    for query, count in (("service=ml", 1), ("error_type=validation_error", 1), ("limit=1", 1), ("service=none", 0)):
        assert len((await client.get(f"/errors?{query}")).json()["errors"]) == count
    assert (await client.get("/errors?error_type=nonsense")).status_code == 422


async def test_one_kind_of_error_is_told_with_counts_times_and_samples(app: Any, client: httpx.AsyncClient) -> None:
    monitor = app.state.services.processor.monitor
    for number in range(30):
        monitor.record_error("model_error", "ml", "high", f"tensor {number} is empty", code="prediction_failed")
    fingerprint = (await client.get("/errors?limit=1")).json()["errors"][0]["fingerprint"]
    body = (await client.get(f"/errors/{fingerprint}?samples=5")).json()
    assert (body["count"], body["code"], body["service"]) == (30, "prediction_failed", "ml")
    assert body["first_seen"] <= body["last_seen"]
    assert [event["message"] for event in body["samples"]] == [f"tensor {n} is empty" for n in range(29, 24, -1)]
    assert sum(body["timeline"]) == 30
    assert len(body["timeline"]) == 60
    assert (await client.get("/errors/ffffffffffff")).status_code == 404


@pytest.fixture
async def keyed(settings: Settings) -> AsyncIterator[Any]:
    settings.api_keys = (SecretStr("first-key"), SecretStr("second-key"))
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


async def test_runs_are_those_of_the_key_that_asks(keyed: Any, client_of: Any) -> None:
    async with client_of(keyed) as client:
        first, second = {"X-API-Key": "first-key"}, {"X-API-Key": "second-key"}
        made = [(await send(client, headers=first))["processing_id"] for _ in range(3)]
        runs = (await client.get("/runs?limit=2", headers=first)).json()["runs"]
        assert [run["processing_id"] for run in runs] == [made[2], made[1]]
        assert runs[0]["records"] == {"received": 1, "analyzed": 1, "rejected": 0}
        assert "owner" not in runs[0]
        assert (await client.get(runs[0]["results"], headers=first)).status_code == 200
        assert (await client.get("/runs", headers=second)).json()["runs"] == []


@pytest.mark.parametrize("path", ["/breakers", "/errors", "/errors/abc", "/runs", "/metrics"])
async def test_strangers_see_none_of_it(keyed: Any, client_of: Any, path: str) -> None:
    async with client_of(keyed) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.post("/breakers/database/reset", headers=ASKED)).status_code == 401


async def test_health_gives_its_reasons_and_metrics_a_timeline(app: Any, client: httpx.AsyncClient) -> None:
    for number in range(2):
        app.state.services.processor.monitor.record_error("resource_error", "gpu", "critical", f"lost {number}")
    health = (await client.get("/health")).json()
    assert health["status"] == "degraded"
    assert any("gpu: 2 critical errors" in reason for reason in health["reasons"])
    metrics = (await client.get("/metrics")).json()
    assert metrics["health"]["status"] == "degraded"
    assert metrics["health"]["reasons"]
    assert len(metrics["timeline"]) == 60
    assert metrics["timeline"][-1]["by_type"] == {"resource_error": 2}
    day = (await client.get("/metrics?hours=24")).json()["timeline"]
    assert sum(step["total"] for step in day) == 2


async def test_breakers_and_queues_can_be_watched_while_work_is_under_way(app: Any, client: httpx.AsyncClient) -> None:
    async with app.state.services.doors.uploads.turns.place("one"):
        queues = (await client.get("/metrics")).json()["queues"]
    assert queues == {"uploads": {"running": 1, "waiting": 0}}
