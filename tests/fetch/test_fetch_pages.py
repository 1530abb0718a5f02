"""Pages of all kinds come whole, in their language, within their limits."""

import asyncio
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import AIError, BadResponseError, FileTooLargeError, UnsupportedFormatError
from bulletproof.fetch import Fetcher, FetchLimits, Validators
from bulletproof.fetch.address import parse
from bulletproof.fetch.charset import declared, guess, known
from bulletproof.fetch.content import parse_content_type, settle_type
from bulletproof.fetch.unpacking import ACCEPTED, PIECE, Unpacker
from support.web import TEXTS, Answer, Site, page

BOM_CASES = [("utf-8", "en"), ("utf-16-le", "ru"), ("utf-16-be", "ja")]


async def test_a_page_says_all_there_is_to_know(web: Site, fetcher: Fetcher) -> None:
    found = await fetcher.get(web.url("/redirect/2") + "#part")
    assert found.url == web.url("/redirect/2")
    assert found.final_url == web.url("/redirect/0")
    assert (found.status, found.media_type, found.charset, found.redirects) == (200, "text/html", "utf-8", 2)
    assert found.body == page(0)
    assert found.text() == page(0).decode()
    assert 0 < found.seconds < 3
    assert not found.not_modified


@pytest.mark.parametrize("lang", TEXTS)
async def test_pages_in_many_languages(web: Site, fetcher: Fetcher, lang: str) -> None:
    assert TEXTS[lang] in (await fetcher.get(web.url(f"/html/{lang}"))).text()


@pytest.mark.parametrize("declare", ["header", "meta", "none", "wrong"])
@pytest.mark.parametrize(
    ("name", "lang"),
    [
        ("shift_jis", "ja"), ("euc_jp", "ja"), ("gb18030", "zh"), ("windows-1251", "ru"), ("koi8-r", "ru"),
        ("iso-8859-1", "de"), ("windows-1252", "fr"), ("windows-1256", "ar"), ("iso-8859-7", "el"),
    ],
)  # fmt: skip
async def test_a_charset_is_found(web: Site, fetcher: Fetcher, name: str, lang: str, declare: str) -> None:
    found = await fetcher.get(web.url(f"/charset/{name}/{lang}?declare={declare}"))
    if declare in ("none", "wrong") and name in ("koi8-r", "iso-8859-7", "windows-1256"):
        assert found.charset  # a short text in a rare encoding is anybody's guess
    else:
        assert TEXTS[lang] in found.text()


@pytest.mark.parametrize(("name", "lang"), BOM_CASES)
async def test_a_byte_order_mark_goes_before_all(web: Site, fetcher: Fetcher, name: str, lang: str) -> None:
    found = await fetcher.get(web.url(f"/charset/{name}/{lang}?declare=bom"))
    assert found.text().startswith("<!doctype")
    assert TEXTS[lang] in found.text()


async def test_an_unknown_charset_does_not_lose_the_page(web: Site, fetcher: Fetcher) -> None:
    assert TEXTS["de"] in (await fetcher.get(web.url("/bad-charset"))).text()


def test_a_page_in_ascii_that_claims_utf_16_is_read_as_ascii() -> None:
    assert declared(b"plain words", "utf-16") == "utf-8"
    assert declared("plain words".encode("utf-16-le"), "utf-16") == "utf-16-le"


async def test_one_broken_byte_does_not_turn_a_page_into_another_encoding(web: Site, fetcher: Fetcher) -> None:
    url = web.put("/slip", (TEXTS["ru"] * 3).encode() + b"\xff", type="text/plain; charset=utf-8")
    assert (await fetcher.get(url)).text() == TEXTS["ru"] * 3 + "\ufffd"


@given(
    st.binary(max_size=300), st.none() | st.sampled_from(["utf-8", "cp1252", "utf-16", "zip", "rot13", "punycode", "x"])
)
def test_any_bytes_are_text_in_some_encoding(body: bytes, label: str | None) -> None:
    name = declared(body, label) or guess(body)
    assert isinstance(body.decode(name, "replace"), str)


@given(st.text(max_size=40))
def test_a_charset_is_one_of_texts_or_none(label: str) -> None:
    name = known(label)
    assert name is None or isinstance(bytes(range(256)).decode(name, "replace"), str)


@pytest.mark.parametrize("label", ["zip", "base64", "rot13", "hex", "utf-7", "idna", "unicode_escape", "undefined", ""])
def test_what_is_no_encoding_of_pages_is_not_taken(label: str) -> None:
    assert known(label) is None


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/page/1", "text/html"), ("/xhtml", "application/xhtml+xml"), ("/text", "text/plain"), ("/empty", "text/html"),
        ("/json", "application/json"), ("/pdf", "application/pdf"), ("/untyped", "text/html"),
    ],
)  # fmt: skip
async def test_kinds_that_are_taken(web: Site, fetcher: Fetcher, path: str, media_type: str) -> None:
    assert (await fetcher.get(web.url(path))).media_type == media_type


async def test_a_pdf_is_no_text(web: Site, fetcher: Fetcher) -> None:
    with pytest.raises(UnsupportedFormatError, match="application/pdf is not text"):
        (await fetcher.get(web.url("/pdf"))).text()


@pytest.mark.parametrize(
    ("said", "body", "is_really"),
    [
        ("", b"<!-- a --><!DOCTYPE html>", "text/html"),
        ("", b"\xef\xbb\xbf<html>", "text/html"),
        ("", b'{"a": 1}', "application/json"),
        ("", b"[not json", "text/plain"),
        ("application/octet-stream", b"just words", "text/plain"),
        ("application/octet-stream", b"%PDF-1.7", "application/pdf"),
        ("text/html", b"\n%PDF-1.7", "application/pdf"),
        ("application/pdf", b"<html>please log in", "text/html"),
        ("text/plain", b"<html>", "text/plain"),
        ("application/ld+json", b"{}", "application/ld+json"),
        ("text/html", b"\xff\xfea\x00b\x00", "text/html"),
    ],
)
def test_what_a_page_is_follows_from_its_bytes_where_its_header_is_not_true(
    said: str, body: bytes, is_really: str
) -> None:
    assert settle_type(said, None, body, parse("http://a/")) == is_really


@pytest.mark.parametrize(
    "body",
    [
        b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
        b"\x7fELF\x02\x01\x01\x00\x00\x00",
        b"GIF89a\x01\x00\x01\x00\x80\x00\x00",
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01",
        bytes(100),
    ],
)
def test_binary_files_are_refused_whatever_they_say(body: bytes) -> None:
    for said in ("text/html", "", "application/json", "application/pdf"):
        with pytest.raises(UnsupportedFormatError):
            settle_type(said, None, body, parse("http://a/"))


@pytest.mark.parametrize(
    "body",
    [
        b"<!---->" * 146 + b"<",
        b"<" * 60_000,
        b"<meta charset=" + b" " * 4000,
        b"<meta " * 700,
        b"<?xml " * 700,
        b"\xe4<a" * 9000,
    ],
)  # fmt: skip
def test_no_bytes_take_long_to_judge(body: bytes) -> None:
    started = time.process_time()
    settle_type("", None, body, parse("http://a/"))
    assert declared(body, "utf-16") or guess(body)
    assert time.process_time() - started < 2


@given(st.text(max_size=60))
def test_any_content_type_is_read(header: str) -> None:
    media_type, _ = parse_content_type(header)
    assert media_type == "" or "/" in media_type


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw-deflate", "br"])
async def test_packed_pages_are_unpacked(web: Site, fetcher: Fetcher, encoding: str) -> None:
    assert (await fetcher.get(web.url(f"/encoded/{encoding}"))).body == page(1)


async def test_zstd_is_unpacked_where_python_can(web: Site, fetcher: Fetcher) -> None:
    if "zstd" in ACCEPTED:
        assert (await fetcher.get(web.url("/encoded/zstd"))).body == page(1)
    else:
        with pytest.raises(UnsupportedFormatError, match="asked for in one of gzip"):
            await fetcher.get(web.url("/encoded/zstd"))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_a_bomb_is_found_out_while_it_is_small(web: Site, fetcher: Fetcher, encoding: str) -> None:
    url = web.url(f"/bomb/{encoding}?mib=200")
    async with asyncio.timeout(30):
        await asyncio.to_thread(lambda: __import__("urllib.request").request.urlopen(url).read(1))  # made once, kept
    tracemalloc.start()
    try:
        with pytest.raises(FileTooLargeError):
            await fetcher.get(url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 45 * 2**20


async def test_limits_hold_for_bytes_as_sent_and_unpacked(web: Site, new_fetcher: Any, quick: FetchLimits) -> None:
    web.put("/plain", b"x" * 1001, type="text/plain")
    web.put("/packed", gzip.compress(b"x" * 1001), type="text/plain", headers={"Content-Encoding": "gzip"})
    small = new_fetcher(limits=replace(quick, max_bytes=1000))
    with pytest.raises(FileTooLargeError, match="1,001 bytes, more than the 1,000"):
        await small.get(web.url("/plain"))
    assert len((await small.get(web.url("/packed"))).body) == 1001
    with pytest.raises(FileTooLargeError, match="once unpacked"):
        await new_fetcher(limits=replace(quick, max_decompressed_bytes=1000)).get(web.url("/packed"))


def unpacked(header: str, data: bytes, size: int) -> bytes:
    unpacker = Unpacker(header)
    pieces = [piece for start in range(0, len(data), size) for piece in unpacker.feed(data[start : start + size])]
    unpacker.finish()
    assert all(len(piece) <= 2 * PIECE for piece in pieces)
    return b"".join(pieces)


@given(st.binary(max_size=2000), st.integers(1, 50), st.integers(1, 40), st.integers(1, 3))
def test_unpacking_does_not_depend_on_how_the_bytes_arrive(data: bytes, times: int, size: int, members: int) -> None:
    import brotli

    whole = data * times
    assert unpacked("gzip", gzip.compress(whole) * members, size) == whole * members
    assert unpacked("deflate", zlib.compress(whole), size) == whole
    assert unpacked("br", brotli.compress(whole, quality=3), size) == whole
    assert unpacked("X-GZIP", gzip.compress(whole) + bytes(members), size) == whole
    assert unpacked("", whole, size) == whole


def test_large_bodies_come_in_small_pieces() -> None:
    import brotli

    data = bytes(range(256)) * 20000
    for header, packed in (
        ("gzip", gzip.compress(data)),
        ("br", brotli.compress(data)),
        ("deflate", zlib.compress(data)),
    ):
        assert unpacked(header, packed, len(packed)) == data


@given(st.sampled_from(["gzip", "deflate", "br"]), st.binary(max_size=200))
def test_rubbish_is_an_error_of_the_site(header: str, data: bytes) -> None:
    try:
        unpacked(header, data, 7)
    except AIError as error:
        caught: AIError | None = error
    else:
        caught = None
    assert caught is None or isinstance(caught, BadResponseError)


def test_very_many_parts_are_refused() -> None:
    with pytest.raises(BadResponseError, match="more than 1000 parts"):
        unpacked("gzip", gzip.compress(b"x") * 1001, 1 << 20)


@pytest.mark.parametrize("header", ["compress", "gzip, gzip", "gzip, klingon"])
def test_an_encoding_that_was_not_asked_for_is_named(header: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=header):
        Unpacker(header)


async def test_a_page_that_has_not_changed_is_not_sent_again(web: Site, fetcher: Fetcher) -> None:
    first = await fetcher.get(web.url("/validated"))
    assert first.etag
    again = await fetcher.get(web.url("/validated"), validators=first.validators)
    assert again.not_modified
    assert (again.status, again.body) == (304, b"")
    web.put("/moved", lambda _: Answer(b"", 302, None, {"Location": "/validated"}))
    assert (await fetcher.get(web.url("/moved"), validators=first.validators)).not_modified
    assert not (await fetcher.get(web.url("/validated"))).not_modified


@pytest.mark.parametrize("etag", ['"v\u00e4"', '"a\tb"', ""])
async def test_a_validator_that_cannot_be_sent_back_is_left_out(web: Site, fetcher: Fetcher, etag: str) -> None:
    web.put("/odd", page(1), headers={"ETag": etag})
    found = await fetcher.get(web.url("/odd"))
    assert found.etag is None
    assert not (await fetcher.get(web.url("/odd"), validators=Validators(etag + "\r\nX: y", "\udcff"))).not_modified
    assert "x" not in web.requests[-1].headers


async def test_neither_cookies_nor_credentials_are_sent(web: Site, fetcher: Fetcher) -> None:
    await fetcher.get(web.url("/cookie"))
    sent = json.loads((await fetcher.get(web.url("/echo"))).text())
    assert set(sent) == {"host", "user-agent", "accept", "accept-encoding"}
    assert sent["user-agent"].startswith("bulletproof-ai/")


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/page/1", "/page/1"), ("../page/1", "/page/1"), ("//127.0.0.1:{port}/page/1", "/page/1"),
        ("?q=1", "/start/x"), ("/page/1#part", "/page/1"), ("/p\u00c3\u00a4ge", "/päge"), ("/p\u00e4ge", "/p\ufffdge"),
        ("", None), ("http://", None), ("http://[", None),
    ],
)  # fmt: skip
async def test_a_redirect_is_read_as_a_browser_reads_it(
    web: Site, fetcher: Fetcher, location: str, path: str | None
) -> None:
    target = location.format(port=web.port)
    web.put("/start/x", lambda asked: Answer(page(1)) if asked.query else Answer(b"", 302, None, {"Location": target}))
    web.put("/päge", page(1))
    web.put("/p\ufffdge", page(1))
    if path is None:
        with pytest.raises(AIError):
            await fetcher.get(web.url("/start/x"))
    else:
        await fetcher.get(web.url("/start/x"))
        assert web.hits[path] >= 1


async def test_many_pages_at_once_use_few_connections_to_a_host(web: Site, new_fetcher: Callable[..., Fetcher]) -> None:
    fetcher = new_fetcher(per_host=4)
    pages = await asyncio.gather(*(fetcher.get(web.url(f"/page/{number}")) for number in range(200)))
    assert [found.body for found in pages] == [page(number) for number in range(200)]
    assert web.peak <= 4


async def test_a_fetcher_can_be_closed_twice_and_used_again(web: Site) -> None:
    async with Fetcher(allow_hosts=["127.0.0.1"]) as fetcher:
        await fetcher.get(web.url("/page/1"))
        await fetcher.aclose()
        await fetcher.get(web.url("/page/1"))
    await fetcher.aclose()


def test_settings_make_a_fetcher(monkeypatch: pytest.MonkeyPatch) -> None:
    from bulletproof.settings import load_settings

    monkeypatch.setenv("BULLETPROOF_FETCH_ALLOW_HOSTS", "intranet, 10.0.0.0/8")
    monkeypatch.setenv("BULLETPROOF_FETCH_ALLOW_PORTS", "80,8080")
    monkeypatch.setenv("BULLETPROOF_FETCH_MAX_BYTES", "1000")
    fetcher = Fetcher.from_settings(load_settings(), user_agent="mine/1")
    assert (fetcher.limits.max_bytes, fetcher.limits.max_decompressed_bytes) == (1000, 2000)
