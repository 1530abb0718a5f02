import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from bulletproof.service import create_app
from bulletproof.settings import Settings

CSV = b"text\nI love it\nIt broke after a day. Awful!\n"


async def later(client: httpx.AsyncClient, name: str, data: bytes, prefer: str = "respond-async", **fields: str) -> Any:
    return await client.post("/process", files={"file": (name, data)}, data=fields, headers={"Prefer": prefer})


async def outcome(client: httpx.AsyncClient, location: str) -> httpx.Response:
    async with asyncio.timeout(30):
        while (response := await client.get(location)).status_code == 202:
            assert response.json()["status"] in ("accepted", "running")
            await asyncio.sleep(0.05)
    return response


@pytest.mark.parametrize("prefer", ["respond-async", "wait=10, Respond-Async;foo=bar"])
async def test_a_client_that_need_not_wait_gets_a_place_to_look(client: httpx.AsyncClient, prefer: str) -> None:
    response = await later(client, "reviews.csv", CSV, prefer)
    assert response.status_code == 202
    body = response.json()
    assert body["status"] == "accepted"
    assert body["location"] == response.headers["location"] == f"/results/{body['processing_id']}"
    assert response.headers["preference-applied"] == "respond-async"
    found = await outcome(client, body["location"])
    assert found.status_code == 200
    assert found.json()["status"] == "success"
    assert [result["sentiment"] for result in found.json()["results"]] == ["positive", "negative"]


async def test_what_is_wrong_with_the_file_is_told_at_that_place(client: httpx.AsyncClient) -> None:
    response = await later(client, "broken.json", b'["a", ')
    found = await outcome(client, response.json()["location"])
    assert found.status_code == 422
    assert found.json()["code"] == "invalid_json"
    assert found.json()["processing_id"] == response.json()["processing_id"]


async def test_what_is_to_be_processed_later_can_be_withdrawn(client: httpx.AsyncClient) -> None:
    location = (await later(client, "reviews.csv", CSV * 50)).json()["location"]
    response = await client.delete(location)
    assert response.status_code == 200
    assert location.endswith(response.json()["processing_id"])
    assert (await outcome(client, location)).status_code == 404
    assert (await client.delete(location)).status_code == 404
    bad = (await later(client, "broken.json", b'["a", ')).json()["location"]
    assert (await outcome(client, bad)).status_code == 422
    assert (await client.delete(bad)).status_code == 200
    assert (await client.get(bad)).status_code == 404


async def test_what_is_processed_later_counts_on_the_quota(
    settings: Settings, client_of: Callable[..., httpx.AsyncClient]
) -> None:
    settings = settings.model_copy(update={"records_per_day": 3})
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        for _ in range(2):
            assert (await later(client, "reviews.csv", CSV)).status_code == 202
        async with asyncio.timeout(30):
            while (response := await later(client, "reviews.csv", CSV)).status_code == 202:
                await asyncio.sleep(0.2)
        assert response.status_code == 429
        assert "records" in response.json()["details"]


async def test_without_the_header_the_answer_is_waited_for(client: httpx.AsyncClient) -> None:
    response = await later(client, "reviews.csv", CSV, prefer="return=minimal")
    assert response.status_code == 200
    assert len(response.json()["results"]) == 2


async def test_options_go_with_the_file(client: httpx.AsyncClient) -> None:
    response = await later(client, "two.csv", b"a,b\nI love it,I hate it\n", text_field="b")
    found = await outcome(client, response.json()["location"])
    assert found.json()["text_field"] == "b"
    assert found.json()["results"][0]["sentiment"] == "negative"
