from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulletproof.service import create_app
from bulletproof.settings import Settings
from support.wire import say, wire  # noqa: F401 -- fixtures

KEY = "a-key-of-the-tests"


@pytest.fixture
def key() -> str:
    return KEY


@pytest.fixture
async def app_with(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start the service with these settings."""
    started = []

    async def start(**settings: Any) -> Any:
        app = create_app(Settings(data_dir=tmp_path / "data", analysis_workers=0, **settings))
        lifespan = app.router.lifespan_context(app)
        await lifespan.__aenter__()
        started.append(lifespan)
        return app

    yield start
    for lifespan in started:
        await lifespan.__aexit__(None, None, None)


@pytest.fixture
def browser_of() -> Callable[..., httpx.AsyncClient]:
    """Make a client that keeps cookies like a browser on the given peer."""

    def make(
        app: Any, *, peer: str = "127.0.0.1", url: str = "http://127.0.0.1:8000", **more: Any
    ) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(peer, 50000))
        return httpx.AsyncClient(transport=transport, base_url=url, timeout=60, **more)

    return make


@pytest.fixture
async def free(app_with: Any, browser_of: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A visitor of a service without API keys."""
    async with browser_of(await app_with()) as browser:
        yield browser


@pytest.fixture
async def locked(app_with: Any, browser_of: Any, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A visitor of a service with API keys, not logged in."""
    async with browser_of(await app_with(api_keys=(key,))) as browser:
        yield browser


@pytest.fixture
def open_socket() -> Callable[..., Any]:
    """Try to open a websocket; returns the first message of the app."""

    async def attempt(app: Any, *, peer: str = "127.0.0.1", path: str | None = None, **headers: str) -> str:
        path = path or "/dashboard/_nicegui_ws/socket.io/"
        sent: list[Any] = []
        incoming = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

        async def receive() -> Any:
            return next(incoming)

        async def send(message: Any) -> None:
            sent.append(message)

        fields = {"host": "127.0.0.1:8000", "upgrade": "websocket", "connection": "upgrade"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"EIO=4&transport=websocket",
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            "client": (peer, 50000),
            "server": ("127.0.0.1", 8000),
            "scheme": "ws",
            "subprotocols": [],
            "asgi": {"version": "3.0"},
        }
        await app(scope, receive, send)
        return str(sent[0]["type"])

    return attempt
