"""The web server of the tests does what its description promises."""

import asyncio
import json
import ssl
from collections.abc import Callable
from io import BytesIO

import aiohttp
import pytest

from support.web import TEXTS, Site, page


async def test_pages_are_always_the_same_and_requests_are_counted(web: Site) -> None:
    async with aiohttp.ClientSession() as session:
        for number in (0, 7, 4999):
            async with session.get(web.url(f"/page/{number}")) as answer:
                assert await answer.read() == page(number)
        async with session.get(web.url("/page/7?delay=0.01")) as answer:
            assert answer.status == 200
    assert web.hits == {"/page/0": 1, "/page/7": 2, "/page/4999": 1}
    assert web.peak == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_compressed_pages_can_be_read_by_others(web: Site, encoding: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(web.url(f"/encoded/{encoding}")) as answer:
        assert await answer.read() == page(1)


@pytest.mark.parametrize("path", ["/reset", "/short", "/cut-chunks", "/close", "/huge-header", "/garbage"])
async def test_broken_answers_are_broken(web: Site, path: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get(web.url(path)) as answer:
                await answer.read()


@pytest.mark.parametrize("path", ["/never", "/stall", "/drip", "/endless"])
async def test_endless_answers_do_not_end(web: Site, path: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), session.get(web.url(path)) as answer:
                async for _ in answer.content.iter_any():
                    pass


async def test_a_burst_of_failures_ends(web: Site) -> None:
    seen = []
    async with aiohttp.ClientSession() as session:
        for _ in range(4):
            async with session.get(web.url("/burst/one?fail=2&retry_after=3")) as answer:
                seen.append((answer.status, answer.headers.get("Retry-After")))
    assert seen == [(503, "3"), (503, "3"), (200, None), (200, None)]


async def test_pages_of_a_test_go_before_all_others(web: Site) -> None:
    web.put("/page/1", "mine", type="text/plain")
    async with aiohttp.ClientSession() as session, session.get(web.url("/page/1")) as answer:
        assert await answer.text() == "mine"


@pytest.mark.parametrize(("kind", "fine"), [("good", True), ("expired", False), ("wrong_host", False)])
async def test_tls(new_web: Callable[..., Site], kind: str, fine: bool) -> None:
    site = new_web(tls=kind)
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(site.url("/echo"), ssl=site.client_context()) as answer:
                assert "host" in json.loads(await answer.read())
                assert fine
        except (aiohttp.ClientConnectorCertificateError, ssl.SSLError):
            assert not fine


def test_the_pdf_holds_its_text(web: Site) -> None:
    from pypdf import PdfReader

    from support.web import pdf

    assert PdfReader(BytesIO(pdf(TEXTS["en"]))).pages[0].extract_text().strip() == TEXTS["en"]


def test_a_server_can_die_and_come_back_on_its_port(web: Site) -> None:
    port = web.port
    web.stop()
    web.start()
    assert web.port == port
