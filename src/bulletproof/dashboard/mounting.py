"""The dashboard as an ASGI app: within the service, or a process of its own."""

import asyncio
import logging
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bulletproof.dashboard.login import notice_page

logger = logging.getLogger("bulletproof.dashboard")

PATH = "/dashboard"
_NEEDED = ("nicegui", "httpx")


class Dashboard:
    """The dashboard behind its guard.

    The framework is loaded when somebody first gets past the guard: a service that nobody watches does not pay.

    Args:
        url: Address of the service, when it runs elsewhere.
        app: The service itself, when it runs in this process.
    """

    def __init__(self, url: str | None = None, *, app: ASGIApp | None = None) -> None:
        from bulletproof.dashboard.client import ApiClient
        from bulletproof.dashboard.guard import Guard
        from bulletproof.dashboard.sessions import Sessions

        self.api = ApiClient(url, app=app)
        self.sessions = Sessions()
        self._guarded = GZipMiddleware(Guard(self._behind, self.api, self.sessions), minimum_size=1000)
        self._pages: ASGIApp | None = None
        self._starting = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or websocket."""
        await self._guarded(scope, receive, send)

    async def aclose(self) -> None:
        """End all sessions, pages and connections."""
        self.sessions.close_all()
        await self._stack.aclose()
        self._pages = None
        await self.api.aclose()

    async def _behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pages is None:
            async with self._starting:
                if self._pages is None:
                    pages = await asyncio.to_thread(_pages)
                    await self._stack.enter_async_context(pages.router.lifespan_context(pages))
                    self._pages = pages
        await self._pages(scope, receive, send)


@cache
def _pages() -> Any:
    """Load the framework with our pages, once for the process."""
    from fastapi import FastAPI
    from nicegui import ui

    from bulletproof.dashboard import page

    host = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    ui.run_with(
        host,
        title="Bulletproof dashboard",
        favicon=page.FAVICON,
        dark=None,
        language="en-US",
        tailwind=False,
        gzip_middleware_factory=None,
        show_welcome_message=False,
        binding_refresh_interval=None,
    )
    return host


def missing() -> list[str]:
    """Return the packages that the dashboard needs and that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


def mount(app: Any, *, port: int | None = None) -> Dashboard | None:
    """Give a service its dashboard at ``/dashboard``.

    Args:
        app: The service, a FastAPI app.
        port: Where the dashboard is a process of its own, its port; ``/dashboard`` then leads there.

    Returns:
        The dashboard, to be closed with the service; None when this process has none, and ``/dashboard`` says why.
    """
    if port is not None:
        _route(app, _elsewhere(port))
    elif lacking := missing():
        _route(app, _told(f"{' and '.join(lacking)} missing: pip install 'bulletproof-ai[dashboard]'"))
    elif multiprocessing.parent_process() is not None:
        _route(app, _told("It cannot live in one of several workers. Run: bulletproof dashboard --api ADDRESS"))
    else:
        dashboard = Dashboard(app=app)
        app.router.routes += [Route(PATH, _into), Mount(PATH, app=dashboard)]
        return dashboard
    return None


def _route(app: Any, endpoint: Any) -> None:
    for path in (PATH, f"{PATH}/"):
        app.router.routes.append(Route(path, endpoint))


async def _into(request: Request) -> Response:
    return RedirectResponse(request.url.replace(path=f"{request.url.path}/"))


def _told(line: str) -> Any:
    async def tell(_: Request) -> Response:
        return notice_page("The dashboard is not here", [line], nonce="style", status=501)

    return tell


def _elsewhere(port: int) -> Any:
    async def lead(request: Request) -> Response:
        return RedirectResponse(str(request.url.replace(port=port, path="/", query="")))

    return lead


def create_dashboard_app(url: str) -> Starlette:
    """Make the app of a dashboard that is a process of its own, for the service at an address."""
    dashboard = Dashboard(url)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await dashboard.aclose()

    return Starlette(routes=[Mount("/", app=dashboard)], lifespan=lifespan)
