"""Who gets to see the dashboard, and what its answers allow a browser."""

import re
from typing import Any

import httpx
import pytest
from starlette.responses import Response

from bulletproof.dashboard.client import Reply
from bulletproof.dashboard.guard import Guard
from bulletproof.dashboard.sessions import Sessions

COOKIE = "bulletproof_dashboard"
LOGIN = "/dashboard/login"
PAGE = "/dashboard/"


async def log_in(browser: httpx.AsyncClient, key: str, **headers: str) -> httpx.Response:
    return await browser.post(LOGIN, data={"key": key}, headers=headers)


def cookie_of(browser: httpx.AsyncClient) -> dict[str, str]:
    return {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}


class TestWithoutKeys:
    async def test_this_machine_sees_the_page_at_once(self, free: httpx.AsyncClient) -> None:
        answer = await free.get(PAGE)
        assert answer.status_code == 200
        assert "Bulletproof" in answer.text

    async def test_the_path_without_slash_leads_to_the_page(self, free: httpx.AsyncClient) -> None:
        answer = await free.get("/dashboard")
        assert answer.status_code == 307
        assert answer.headers["location"].endswith("/dashboard/")

    async def test_logging_in_is_not_asked_for(self, free: httpx.AsyncClient) -> None:
        answer = await free.get(LOGIN)
        assert (answer.status_code, answer.headers["location"]) == (303, PAGE)

    async def test_another_machine_is_refused(self, app_with: Any, browser_of: Any) -> None:
        async with browser_of(await app_with(), peer="203.0.113.9") as browser:
            assert (await browser.get(PAGE)).status_code == 403

    async def test_what_came_through_a_proxy_is_refused(self, free: httpx.AsyncClient) -> None:
        assert (await free.get(PAGE, headers={"X-Forwarded-For": "203.0.113.9"})).status_code == 403

    @pytest.mark.parametrize("host", ["attacker.example", "attacker.example:8000", "127.0.0.1.attacker.example"])
    async def test_a_name_that_was_rebound_to_this_machine_is_refused(self, free: httpx.AsyncClient, host: str) -> None:
        assert (await free.get(PAGE, headers={"Host": host})).status_code == 403

    @pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
    async def test_every_name_of_this_machine_is_taken(self, free: httpx.AsyncClient, host: str) -> None:
        assert (await free.get(PAGE, headers={"Host": host})).status_code == 200


class TestLogin:
    async def test_without_a_session_the_page_leads_to_the_form(self, locked: httpx.AsyncClient) -> None:
        answer = await locked.get(PAGE)
        assert (answer.status_code, answer.headers["location"]) == (303, LOGIN)
        form = await locked.get(LOGIN)
        assert form.status_code == 200
        assert '<label for="key">API key</label>' in form.text

    async def test_a_key_of_the_service_opens_the_page(self, locked: httpx.AsyncClient, key: str) -> None:
        answer = await log_in(locked, key)
        assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
        assert (await locked.get(PAGE)).status_code == 200

    async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
        self, locked: httpx.AsyncClient, key: str
    ) -> None:
        cookie = (await log_in(locked, key)).headers["set-cookie"]
        assert key not in cookie
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/dashboard/"} <= parts
        assert "secure" not in parts

    async def test_over_tls_the_cookie_is_secure(self, app_with: Any, browser_of: Any, key: str) -> None:
        async with browser_of(await app_with(api_keys=(key,)), url="https://service.example") as browser:
            assert "Secure" in (await log_in(browser, key)).headers["set-cookie"]

    @pytest.mark.parametrize("wrong", ["no-such-key", "", "key with\nnewline", "schlüssel", "x" * 100_000])
    async def test_anything_else_is_refused(self, locked: httpx.AsyncClient, wrong: str) -> None:
        answer = await log_in(locked, wrong)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text

    async def test_a_made_up_cookie_opens_nothing(self, locked: httpx.AsyncClient, key: str) -> None:
        for value in (key, "x" * 43, '"; evil', ""):
            answer = await locked.get(PAGE, headers={"Cookie": f"{COOKIE}={value}"})
            assert answer.status_code == 303

    async def test_guessing_is_slowed_down(self, locked: httpx.AsyncClient, key: str) -> None:
        statuses = [(await log_in(locked, f"guess-{n}")).status_code for n in range(25)]
        assert statuses[0] == 401
        assert statuses[-1] == 429

    async def test_logging_out_ends_the_session(self, locked: httpx.AsyncClient, key: str) -> None:
        await log_in(locked, key)
        kept = cookie_of(locked)
        answer = await locked.post("/dashboard/logout")
        assert (answer.status_code, answer.headers["location"]) == (303, LOGIN)
        assert (await locked.get(PAGE, headers=kept)).status_code == 303

    async def test_a_link_cannot_log_anybody_out(self, locked: httpx.AsyncClient, key: str) -> None:
        await log_in(locked, key)
        await locked.get("/dashboard/logout")
        assert (await locked.get(PAGE)).status_code == 200

    async def test_logging_in_again_ends_the_old_session(self, locked: httpx.AsyncClient, key: str) -> None:
        await log_in(locked, key)
        old = cookie_of(locked)
        await log_in(locked, key)
        locked.cookies.clear()
        assert (await locked.get(PAGE, headers=old)).status_code == 303

    @pytest.mark.parametrize(
        "path", ["_nicegui_ws/socket.io/?EIO=4&transport=polling", "_nicegui/x/static/nicegui.js", "anything"]
    )
    async def test_polling_and_assets_need_the_session_too(self, locked: httpx.AsyncClient, path: str) -> None:
        assert (await locked.get(PAGE + path)).status_code == 401

    async def test_uploads_need_the_session_too(self, locked: httpx.AsyncClient) -> None:
        answer = await locked.post(f"{PAGE}_nicegui/client/x/upload/1", files={"file": b"x"})
        assert answer.status_code == 401

    async def test_other_routes_of_the_service_take_no_session(self, locked: httpx.AsyncClient, key: str) -> None:
        await log_in(locked, key)
        locked.cookies.set(COOKIE, next(iter(locked.cookies.values())), domain="127.0.0.1", path="/")
        assert (await locked.get("/metrics")).status_code == 401


class TestOtherSites:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://attacker.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:9999"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    async def test_a_form_of_another_site_is_refused(
        self, locked: httpx.AsyncClient, key: str, headers: dict[str, str]
    ) -> None:
        answer = await log_in(locked, key, **headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers

    async def test_the_form_of_the_dashboard_itself_is_taken(self, locked: httpx.AsyncClient, key: str) -> None:
        same = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
        assert (await log_in(locked, key, **same)).status_code == 303

    async def test_a_link_on_another_site_may_lead_here(self, free: httpx.AsyncClient) -> None:
        followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert (await free.get(PAGE, headers=followed)).status_code == 200

    async def test_a_script_of_another_site_reads_nothing(self, free: httpx.AsyncClient) -> None:
        for headers in ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, {"Origin": "https://a.example"}):
            assert (await free.get(PAGE, headers=headers)).status_code == 403


class TestWebsocket:
    async def test_it_opens_for_a_page_of_the_dashboard(self, app_with: Any, open_socket: Any) -> None:
        app = await app_with()
        assert await open_socket(app, origin="http://127.0.0.1:8000") == "websocket.accept"

    async def test_it_does_not_open_for_another_site(self, app_with: Any, open_socket: Any) -> None:
        app = await app_with()
        assert await open_socket(app, origin="https://attacker.example") == "websocket.close"

    async def test_it_does_not_open_for_another_machine(self, app_with: Any, open_socket: Any) -> None:
        assert await open_socket(await app_with(), peer="203.0.113.9") == "websocket.close"

    async def test_it_does_not_open_under_a_rebound_name(self, app_with: Any, open_socket: Any) -> None:
        told = {"host": "attacker.example", "origin": "http://attacker.example"}
        assert await open_socket(await app_with(), **told) == "websocket.close"

    async def test_it_needs_the_session(self, app_with: Any, browser_of: Any, open_socket: Any, key: str) -> None:
        app = await app_with(api_keys=(key,))
        assert await open_socket(app) == "websocket.close"
        async with browser_of(app) as browser:
            await log_in(browser, key)
            session = cookie_of(browser)
        assert await open_socket(app, **session) == "websocket.accept"

    async def test_nothing_else_of_the_service_has_websockets(self, app_with: Any, open_socket: Any) -> None:
        app = await app_with()
        for path in ("/", "/process", "/dashboards/x"):
            assert await open_socket(app, path=path) == "websocket.close"


class TestContentSecurityPolicy:
    async def test_scripts_come_from_here_or_carry_the_nonce(self, free: httpx.AsyncClient) -> None:
        answer = await free.get(PAGE)
        policy = answer.headers["content-security-policy"]
        scripts = re.search(r"script-src ([^;]*)", policy)
        assert scripts is not None
        assert "'unsafe-inline'" not in scripts[1]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        nonce = re.search(r"'nonce-([^']+)'", policy)
        assert nonce is not None
        tags = re.findall(r"<script[^>]*>", answer.text)
        assert tags
        assert all(f'nonce="{nonce[1]}"' in tag for tag in tags)

    async def test_each_page_has_a_nonce_of_its_own(self, free: httpx.AsyncClient) -> None:
        policies = {(await free.get(PAGE)).headers["content-security-policy"] for _ in range(2)}
        assert len(policies) == 2

    async def test_the_form_runs_no_script_at_all(self, locked: httpx.AsyncClient) -> None:
        answer = await locked.get(LOGIN)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'nonce-")
        assert "script" not in answer.text
        assert answer.headers["cache-control"] == "no-store"

    async def test_nothing_is_loaded_from_elsewhere(self, free: httpx.AsyncClient) -> None:
        page = (await free.get(PAGE)).text
        assert not re.findall(r"""(?:src|href|url\()\s*=?\s*["']?(?:https?:)?//""", page)


class TestOnItsOwn:
    """A dashboard that is a process of its own has no gate of the service before it."""

    @pytest.fixture
    def alone(self, browser_of: Any) -> Any:
        class Api:
            async def get(self, path: str, **_: Any) -> Reply:
                return Reply(200, {"status": "healthy", "components": {}})

        async def page(scope: Any, receive: Any, send: Any) -> None:
            await Response("the page")(scope, receive, send)

        guard = Guard(page, Api(), Sessions())  # type: ignore[arg-type]
        return lambda **options: browser_of(guard, **options)

    async def test_this_machine_sees_the_page(self, alone: Any) -> None:
        async with alone() as browser:
            assert (await browser.get("/")).text == "the page"

    @pytest.mark.parametrize("host", ["attacker.example", "localhost.attacker.example:8001", "[", ""])
    async def test_a_rebound_name_is_refused(self, alone: Any, host: str) -> None:
        async with alone() as browser:
            answer = await browser.get("/", headers={"Host": host})
            assert answer.status_code == 403
            assert "localhost" in answer.text

    async def test_other_machines_and_proxies_are_refused(self, alone: Any) -> None:
        async with alone(peer="203.0.113.9") as browser:
            assert (await browser.get("/")).status_code == 403
        async with alone() as browser:
            assert (await browser.get("/", headers={"Forwarded": "for=203.0.113.9"})).status_code == 403
