"""The dashboard's way to the service: its HTTP API, in this process or over the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from bulletproof.errors import BadResponseError, ServiceTimeoutError, ServiceUnavailableError

_SECONDS = 10.0
_UPLOAD_SECONDS = 600.0
_IN_PROCESS = "http://127.0.0.1"
# The API takes changes only with this header, which no page of another site can send.
_HEADERS = {"Accept": "application/json", "X-Requested-With": "bulletproof-dashboard"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the API: its status and the JSON object."""

    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether the request did what it should."""
        return self.status < 400


class ApiClient:
    """Talks to the HTTP API.

    Args:
        url: Address of the service, when it runs elsewhere.
        app: The service itself, when it runs in this process.

    Raises:
        ServiceUnavailableError: From a request: nothing answers at the address.
        ServiceTimeoutError: From a request: no answer in time.
        BadResponseError: From a request: something answers, but not our API.
    """

    def __init__(self, url: str | None = None, *, app: ASGIApp | None = None) -> None:
        self.url = url or _IN_PROCESS
        transport = None
        if app is not None:
            transport = httpx.ASGITransport(_quietly(app), raise_app_exceptions=False, client=("127.0.0.1", 0))
        # Proxies of the environment are for the internet; the service is a neighbour.
        self._client = httpx.AsyncClient(
            base_url=self.url, transport=transport, timeout=_SECONDS, headers=_HEADERS, trust_env=False
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get(self, path: str, *, key: str | None = None, params: Mapping[str, Any] | None = None) -> Reply:
        return await self._send("GET", path, key, params=params)

    async def post(self, path: str, *, key: str | None = None) -> Reply:
        return await self._send("POST", path, key)

    async def delete(self, path: str, *, key: str | None = None) -> Reply:
        return await self._send("DELETE", path, key)

    async def process(
        self, name: str, file: BinaryIO, *, fields: Mapping[str, str] | None = None, key: str | None = None
    ) -> Reply:
        """Have a file processed; its name tells the format, and ``fields`` go with it in the form."""
        # As octets: the service judges by name and content, not by what a browser believes.
        parts = {"file": (name or "file", file, "application/octet-stream")}
        return await self._send("POST", "/process", key, files=parts, data=dict(fields or {}), timeout=_UPLOAD_SECONDS)

    async def _send(self, method: str, path: str, key: str | None, **options: Any) -> Reply:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = await self._client.request(method, path, headers=headers, **options)
        except httpx.TimeoutException as error:
            raise ServiceTimeoutError(f"no answer from {self.url}{path} in time", url=self.url) from error
        except httpx.HTTPError as error:
            raise ServiceUnavailableError(f"cannot reach the service at {self.url}", url=self.url) from error
        try:
            body = response.json()
        except ValueError as error:
            raise BadResponseError(
                f"{self.url}{path} answers {response.status_code} without JSON: is it our service?", url=self.url
            ) from error
        return Reply(response.status_code, body if isinstance(body, dict) else {"items": body})


def _quietly(app: ASGIApp) -> ASGIApp:
    """Mark requests as ours: a look every two seconds is nothing for the access log."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "bulletproof.quiet": True}, receive, send)

    return call
