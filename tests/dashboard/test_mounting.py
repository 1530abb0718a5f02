"""Where the dashboard is, and what is said where it is not."""

import importlib.util
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bulletproof.dashboard import create_dashboard_app, mount, mounting


async def get(app: Any, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://host.example:8000") as client:
        return await client.get(path, headers=headers)


async def test_without_the_extra_the_page_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(mounting, "find_spec", lambda name: None if name == "nicegui" else find(name))
    app = Starlette()
    assert mount(app) is None
    answer = await get(app, "/dashboard")
    assert answer.status_code == 501
    assert "pip install &#x27;bulletproof-ai[dashboard]&#x27;" in answer.text


async def test_beside_several_workers_the_path_leads_to_its_own_process() -> None:
    app = Starlette()
    assert mount(app, port=8001) is None
    answer = await get(app, "/dashboard")
    assert (answer.status_code, answer.headers["location"]) == (307, "http://host.example:8001/")


async def test_a_worker_among_several_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting.multiprocessing, "parent_process", lambda: object())
    app = Starlette()
    assert mount(app) is None
    assert "bulletproof dashboard --api" in (await get(app, "/dashboard/")).text


async def test_a_service_that_is_away_is_told_as_such() -> None:
    app = create_dashboard_app("http://127.0.0.1:9")
    answer = await get(app, "/")
    assert answer.status_code == 503
    assert "cannot reach the service at http://127.0.0.1:9" in answer.text
    assert 'http-equiv="refresh"' in answer.text


async def test_something_else_at_the_address_is_told_as_such(wire: Any, say: Any) -> None:
    wire.default = say.http("hello", kind="text/plain")
    answer = await get(create_dashboard_app(f"http://{wire.host}"), "/")
    assert answer.status_code == 503
    assert "is it our service?" in answer.text
