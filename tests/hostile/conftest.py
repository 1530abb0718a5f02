"""One app in this process, and a sender that holds every answer to what any answer must be."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bulletproof.errors import CODES
from bulletproof.service import create_app
from bulletproof.settings import Settings
from support.wire import fine, judge, say, wire

__all__ = ["fine", "judge", "say", "wire"]

SLOWEST = 2.0  # seconds of CPU, so that a busy machine is no failure
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


class Sender:
    """Sends what strangers send; no answer may be a 5xx, slow or without its type."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.sent = 0

    async def send(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        begun = time.process_time()
        response = await self.client.request(method, path, **options)
        took = time.process_time() - begun
        body: dict[str, Any] = response.json()
        self.sent += 1
        shown = str(options)[:300]
        assert response.status_code < 500, (shown, body)
        assert took < SLOWEST, f"{took:.1f} s for {shown}"
        if response.status_code >= 400:
            spec = CODES[body["code"]]
            assert (body["status"], body["error_type"]) == ("error", "validation_error"), (shown, body)
            assert response.status_code == spec.http_status, (shown, body)
            assert body["details"], (shown, body)
            assert body["hint"], (shown, body)
            assert body["request_id"] == response.headers["X-Request-ID"]
        return response.status_code, body

    async def file(self, name: str, content: bytes | str, **fields: str) -> tuple[int, dict[str, Any]]:
        data = content.encode() if isinstance(content, str) else content
        return await self.send("POST", "/process", files={"file": (name, data)}, data=fields)

    async def texts(self, name: str, content: bytes | str, **fields: str) -> list[str]:
        """Send a file that has to be read; return the texts that were read."""
        status, body = await self.file(name, content, **fields)
        assert status == 200, (name, content[:300], body)
        assert body["records"]["rejected"] == 0, (name, content[:300], body["rejections"])
        return [result["text"] for result in body["results"]]

    async def refusal(self, name: str, content: bytes | str, **fields: str) -> dict[str, Any]:
        """Send a file that has to be refused; return why it was."""
        status, body = await self.file(name, content, **fields)
        assert status >= 400, (name, content[:300], body)
        return body


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Any]:
    settings = Settings(data_dir=tmp_path / "data", analysis_workers=0, inline_results=10_000)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def sender(app: Any) -> AsyncIterator[Sender]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=("127.0.0.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as client:
        sender = Sender(client)
        await sender.texts("warm.json", '["It is good."]')
        before = resident()
        yield sender
        # Arenas grow once; a file kept, or a case that leaks, would be more than that over hundreds of requests.
        assert resident() - before < 150 * 2**20, f"{(resident() - before) / 2**20:.0f} MiB more"
