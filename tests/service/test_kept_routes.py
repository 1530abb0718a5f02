"""``/kept`` and ``bulletproof kept``: what operators see of kept calls, and do with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from bulletproof.cli.main import app as command
from bulletproof.errors import NotFoundError
from bulletproof.jobs import KeptCalls
from bulletproof.service import create_app
from bulletproof.settings import Settings
from bulletproof.store import ResultStore

ASKED = {"X-Requested-With": "test"}


@pytest.fixture
async def ids(settings: Settings) -> list[str]:
    """Keep three calls in the database of the service, as a process of its users would."""
    store = ResultStore(data_dir=settings.data_dir)
    kept = KeptCalls(store)
    found = []

    @kept.keep(name="ask")
    async def ask(prompt: str) -> None:
        raise ConnectionError("nobody is there")

    @kept.keep(name="tell")
    async def tell(prompt: str) -> None:
        await ask.__wrapped__(prompt)  # type: ignore[attr-defined]

    for call in (ask, ask, tell):
        with pytest.raises(ConnectionError) as caught:
            await call("the secret words")
        found.append(caught.value.kept_id)  # type: ignore[attr-defined]
    await store.aclose()
    return found


async def test_kept_calls_are_listed_without_their_arguments(client: httpx.AsyncClient, ids: list[str]) -> None:
    response = await client.get("/kept")
    body = response.json()
    assert [call["id"] for call in body["calls"]] == ids
    first = body["calls"][0]
    assert (first["function"], first["state"], first["code"]) == ("ask", "waiting", "service_unavailable")
    assert first["attempts"] == 0
    assert body["calls"][0]["digest"] == body["calls"][1]["digest"]
    assert body["functions"]["ask"] == {"kept": 2, "done": 0, "expired": 0, "dropped": 0, "left": 2}
    assert "secret" not in response.text
    assert "arguments" not in first


async def test_calls_of_one_function_are_listed(client: httpx.AsyncClient, ids: list[str]) -> None:
    found = (await client.get("/kept", params={"function": "tell", "limit": 5})).json()["calls"]
    assert [call["id"] for call in found] == ids[2:]


async def test_without_kept_calls_the_list_is_empty(client: httpx.AsyncClient) -> None:
    assert (await client.get("/kept")).json() == {"status": "success", "calls": [], "functions": {}}


async def test_a_call_is_run_next_or_dropped(client: httpx.AsyncClient, ids: list[str]) -> None:
    response = await client.post(f"/kept/{ids[1]}/retry", headers=ASKED)
    assert (response.status_code, response.json()["changed"]) == (200, "retry")
    response = await client.delete(f"/kept/{ids[0]}", headers=ASKED)
    assert (response.status_code, response.json()["changed"]) == (200, "dropped")
    left = (await client.get("/kept")).json()["calls"]
    assert [(call["id"], call["due"] is None) for call in left] == [(ids[1], True), (ids[2], False)]


@pytest.mark.parametrize(("method", "path"), [("POST", "/kept/{}/retry"), ("DELETE", "/kept/{}")])
async def test_an_unknown_call_is_not_found(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path.format("nothing"), headers=ASKED)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert "bulletproof kept list" in response.json()["hint"]


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {**ASKED, "Sec-Fetch-Site": "cross-site"}])
@pytest.mark.parametrize(("method", "path"), [("POST", "/kept/{}/retry"), ("DELETE", "/kept/{}")])
async def test_what_a_page_of_another_site_can_send_changes_nothing(
    client: httpx.AsyncClient, ids: list[str], method: str, path: str, headers: dict[str, str]
) -> None:
    response = await client.request(method, path.format(ids[0]), headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert len((await client.get("/kept")).json()["calls"]) == 3


async def test_a_key_needs_the_scope_operate_to_change_anything(
    settings: Settings, ids: list[str], client_of: Callable[..., httpx.AsyncClient]
) -> None:
    from bulletproof.service.keys import create_key

    _, reader = create_key(settings.keys_path, "reader", ("read",))
    _, operator = create_key(settings.keys_path, "operator", ("operate",))
    app = create_app(settings.model_copy(update={"api_keys": (SecretStr("first-key"),)}))
    async with app.router.lifespan_context(app), client_of(app) as client:
        assert (await client.get("/kept", headers={"X-API-Key": reader})).status_code == 200
        for key, status in ((reader, 403), (operator, 200)):
            response = await client.delete(f"/kept/{ids[0]}", headers={**ASKED, "X-API-Key": key})
            assert response.status_code == status


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run ``bulletproof kept ...`` on the database of the service."""
    monkeypatch.setenv("BULLETPROOF_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(command, ["kept", *arguments], catch_exceptions=True)

    return run


@pytest.fixture
def made(settings: Settings) -> list[str]:
    """The ids of calls that a plain program kept."""
    kept = KeptCalls(ResultStore(data_dir=settings.data_dir))
    found = []

    @kept.keep(name="ask")
    def ask(prompt: str) -> None:
        raise ConnectionError("nobody is there")

    for number in range(3):
        with pytest.raises(ConnectionError) as caught:
            ask(f"words {number}")
        found.append(caught.value.kept_id)  # type: ignore[attr-defined]
    kept.stop_thread()
    return found


def test_the_command_lists_calls_and_shows_arguments_only_when_asked(run: Any, made: list[str]) -> None:
    shown = run("list").stdout
    for word in (*made, "ask", "waiting", "service_unavailable", "3 kept, 0 done, 0 expired, 0 dropped, 3 left"):
        assert word in shown
    assert "words 0" not in shown
    assert '{"args": ["words 0"], "kwargs": {}}' in run("list", "--show-arguments").stdout
    rows = json.loads(run("list", "--json", "--limit", "2").stdout)
    assert [(row["id"], row["arguments"]) for row in rows] == [(made[0], None), (made[1], None)]


def test_the_command_retries_and_drops(run: Any, made: list[str]) -> None:
    assert "1 call run next" in run("retry", made[2]).stderr
    assert "1 call dropped." in run("drop", made[0]).stderr
    rows = json.loads(run("list", "--json").stdout)
    assert [(row["id"], row["due"] is None) for row in rows] == [(made[1], False), (made[2], True)]
    assert "2 calls dropped." in run("drop", "--all").stderr
    assert "No calls are kept." in run("list").stdout


def test_the_command_says_what_it_needs(run: Any, made: list[str]) -> None:
    assert "say which calls" in str(run("drop").exception)
    assert isinstance(run("retry", "nothing").exception, NotFoundError)


async def test_a_service_with_a_store_of_its_own_says_so(tmp_path: Path, client_of: Any) -> None:
    from bulletproof.processor import AIDataProcessor

    class Elsewhere:
        async def open(self) -> None: ...

    settings = Settings(data_dir=tmp_path)
    processor = AIDataProcessor(settings=settings)
    processor.store = Elsewhere()  # type: ignore[assignment]
    app = create_app(settings, processor)
    async with client_of(app) as client:
        response = await client.get("/kept")
    assert (response.status_code, response.json()["code"]) == (503, "misconfigured")
