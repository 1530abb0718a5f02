"""A web server that misbehaves on request: real sockets, no framework, no pytest.

In tests it is the fixture ``web`` (and ``new_web`` for more of them, also with TLS). In benchmarks and by hand::

    from tests.support.web import Site          # with the root of the repository as working directory
    with Site() as site: ...                    # serves from a thread of its own
    python -m tests.support.web --port 8099     # as a process; prints its address

What a path answers (``?name=value`` after it; every path also takes ``delay``, seconds to wait first):

========================  ============================================================================================
``/page/N``               page N of as many as wanted, always the same: HTML with title, author, date and a mood that
                          follows from N: 0 positive, 1 negative, 2 neutral (``N % 3``)
``/html/LANG``            an article in en, de, fr, es, ru, ja, zh, ar or el
``/charset/NAME/LANG``    the same in a charset; ``declare`` is header (default), meta, bom, none or wrong
``/text /json /pdf /xhtml /empty``   valid pages of other types
``/png /lie /untyped /untyped-png``  an image, one that says text/html, HTML and an image without a type
``/encoded/NAME``         a page in gzip, deflate, raw-deflate, br, zstd or twice (in gzip); ``cut`` leaves out bytes
``/bomb/NAME``            ``mib`` (default 64) of zeros in gzip, deflate, br, zstd or twice
``/not-gzip``             says gzip and is not
``/status/N``             that status; ``retry_after``, ``location``
``/burst/NAME``           ``fail`` (default 2) times ``status`` (default 503, with ``retry_after``), fine from then on
``/to``                   redirects to ``url`` with ``status`` (default 302); ``/redirect/N`` N times, then a page;
``/loop``                 redirects to itself; ``/spiral/N`` for ever to new addresses
``/drip``                 a byte every ``pause`` (default 0.05) seconds; ``bytes`` (default endless)
``/reset /short /long /cut-chunks``  breaks off by RST; sends less, more than announced; ends inside a chunk
``/endless``              a body without an end
``/close /never /stall``  closes at once, never answers, stops after the headers
``/huge-header /many-headers /garbage``  a header of ``kib`` (default 64), ``count`` (default 1000) headers, no HTTP
``/bad-charset``          declares a charset that does not exist
``/validated``            ``ETag`` and ``Last-Modified``, 304 when they are sent back
``/cookie /echo``         sets a cookie; answers with the request's headers as JSON
========================  ============================================================================================

``site.put(path, body, ...)`` adds pages of a test's own, ``site.robots(text)`` the ``/robots.txt`` (404 without).
``site.hits`` counts requests by path, ``site.requests`` keeps the last ones, ``site.peak`` the most at one time.
"""

import argparse
import asyncio
import gzip
import json
import ssl
import struct
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .web_raw import RAW  # noqa: TID252 - found as support.web and as tests.support.web

TEXTS = {
    "en": "The new library opened on Monday. It is bright, quiet and open every day, and everybody loves it.",
    "de": "Die neue Bücherei öffnete am Montag. Sie ist hell, ruhig und täglich geöffnet, und alle mögen sie sehr.",
    "fr": "La nouvelle bibliothèque a ouvert lundi. Elle est claire, calme et ouverte chaque jour, et tous l'adorent.",
    "es": "La nueva biblioteca abrió el lunes. Es luminosa, tranquila y abre cada día; todos están contentos.",
    "ru": "Новая библиотека открылась в понедельник. Она светлая, тихая и открыта каждый день, и всем она нравится.",
    "ja": "新しい図書館が月曜日に開館しました。明るくて静かで、毎日開いているので、みんなとても気に入っています。",
    "zh": "新图书馆星期一开放了。它明亮、安静，每天开放，大家都非常喜欢这个地方，孩子们也经常来这里看书。",
    "ar": "افتتحت المكتبة الجديدة يوم الاثنين. إنها مشرقة وهادئة ومفتوحة كل يوم، والجميع يحبها كثيرا.",
    "el": "Η νέα βιβλιοθήκη άνοιξε τη Δευτέρα. Είναι φωτεινή, ήσυχη και ανοιχτή κάθε μέρα, και όλοι την αγαπούν πολύ.",
}
_MOODS = (
    "I love this product: it is excellent, works perfectly and makes me happy every day.",
    "I hate this product: it is terrible, broke at once and made me very angry.",
    "The product was delivered on Tuesday and has the size that the description gives.",
)
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00" + bytes(64)
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_ETAG, _MODIFIED = '"v1"', "Wed, 21 Oct 2015 07:28:00 GMT"


def article(text: str, *, title: str = "An article", lang: str = "en", meta: str = "") -> str:
    """A page around a text, with navigation that is no part of the article."""
    return (
        f'<!doctype html><html lang="{lang}"><head>{meta}<title>{title}</title><meta name="author" content="Ada Byron">'
        '<meta property="article:published_time" content="2024-05-06"></head><body><nav><a href="/">Home</a> '
        f"<a href=/about>About</a></nav><article><h1>{title}</h1><p>{text}</p><p>{text}</p></article>"
        "<footer>Imprint</footer></body></html>"
    )


def page(number: int) -> bytes:
    """Generated page ``number``, about 1 KB."""
    text = f"This is report {number}. {_MOODS[number % 3]} It was written after {number % 50 + 2} weeks of daily use."
    return article(text, title=f"Report {number}").encode()


def pdf(text: str) -> bytes:
    """A PDF of one page with a line of ASCII text."""
    stream = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET".encode()
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )  # fmt: skip
    data, places = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj%s\nendobj\n" % (number, content)
    start = len(data)
    data += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(data) + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % start


@dataclass
class Request:
    """One request as it came, its headers' names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)


@dataclass
class Answer:
    """What is sent: a whole body, or pieces without a given end."""

    body: bytes = b""
    status: int = 200
    type: str | None = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: AsyncIterator[bytes] | None = None


class Site:
    """The server; serves from a thread of its own between ``start`` and ``stop``.

    Args:
        host: Address to listen on.
        port: Port, 0 for a free one.
        tls: ``good`` (a certificate for localhost and 127.0.0.1 by ``site.authority``), ``expired``, ``wrong_host`` or
            ``untrusted``; None for plain HTTP.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, tls: str | None = None) -> None:
        self.host, self.port, self.tls = host, port, tls
        self.hits: Counter[str] = Counter()
        self.requests: deque[Request] = deque(maxlen=1000)
        self.peak = self.active = 0
        self.sent = 0
        self.authority: Any = None
        self._pages: dict[str, Callable[[Request], Answer]] = {}
        self._context = self._tls_context(tls) if tls else None
        self._open: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # What tests say and ask.

    def url(self, path: str = "/", host: str | None = None) -> str:
        """The address of a path."""
        return f"{'https' if self.tls else 'http'}://{host or self.name}:{self.port}{path}"

    @property
    def name(self) -> str:
        """The host as it stands in an address."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def put(self, path: str, body: bytes | str | Callable[[Request], Answer], **more: Any) -> str:
        """Answer a path with this body (``status``, ``type``, ``headers``), or with what a function returns."""
        if callable(body):
            self._pages[path] = body
        else:
            data = body.encode() if isinstance(body, str) else body
            self._pages[path] = lambda _: Answer(data, **more)
        return self.url(path)

    def robots(self, text: str | bytes, **more: Any) -> None:
        """Set ``/robots.txt``."""
        self.put("/robots.txt", text, **({"type": "text/plain"} | more))

    def reset(self) -> None:
        """Forget what was counted and put."""
        self.hits.clear()
        self.requests.clear()
        self._pages.clear()
        self.peak = self.sent = 0

    # Its life.

    def start(self) -> "Site":
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop, ready), daemon=True, name="site")
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError(f"no server at {self.host}:{self.port}")
        return self

    def stop(self) -> None:
        """Die: no farewell to whoever is connected. The port is kept for another ``start``."""
        loop, thread, self._thread = self._loop, self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)

    def __enter__(self) -> "Site":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(lambda *_: None)  # whoever goes away in the middle is expected here
        try:
            server = loop.run_until_complete(
                asyncio.start_server(self._serve, self.host, self.port, ssl=self._context, backlog=1024)
            )
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            loop.run_forever()
            server.close()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            for writer in list(self._open):
                writer.transport.abort()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(asyncio.sleep(0.01))  # the transports close their sockets in the next rounds
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while (asked := await self._read(reader)) is not None:
                self.hits[asked.path] += 1
                self.requests.append(asked)
                self.active += 1
                self.peak = max(self.peak, self.active)
                try:
                    if not await self._answer(asked, writer, reader):
                        break
                finally:
                    self.active -= 1
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError):
            pass
        finally:
            self._open.discard(writer)
            # At once: a farewell could wait for ever for a client that does not read.
            writer.transport.abort() if writer.transport.get_write_buffer_size() > 65536 else writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            first = await reader.readexactly(1)
            if first == b"\x16":
                return None  # a client that wants TLS
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError:
            return None
        method, target, _ = head[0].split(" ", 2)
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        parts = urlsplit(target)
        return Request(method, unquote(parts.path), dict(parse_qsl(parts.query)), headers)

    async def _answer(self, asked: Request, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> bool:
        """Send the answer; whether the connection lives on."""
        if "delay" in asked.query:
            await asyncio.sleep(float(asked.query["delay"]))
        put = self._pages.get(asked.path)
        first, _, rest = asked.path[1:].partition("/")
        raw = RAW.get(first) if put is None else None
        if raw is not None:
            await raw(asked, writer, reader)
            return False
        answer = put(asked) if put else _VALID.get(first, _missing)(self, rest, asked)
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Other')}"]
        if answer.type is not None:
            lines.append(f"Content-Type: {answer.type}")
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        if answer.pieces is None:
            if answer.status not in (204, 304):
                lines.append(f"Content-Length: {len(answer.body)}")
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)
            await writer.drain()
            return asked.headers.get("connection", "").lower() != "close"
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        async for piece in answer.pieces:
            writer.write(piece)
            self.sent += len(piece)
            await writer.drain()
        return False

    def _tls_context(self, kind: str) -> ssl.SSLContext:
        from datetime import UTC, datetime

        import trustme

        self.authority = trustme.CA()
        signer = trustme.CA() if kind == "untrusted" else self.authority
        expiry = datetime(2020, 1, 1, tzinfo=UTC) if kind == "expired" else None
        names = ["elsewhere.example"] if kind == "wrong_host" else ["localhost", "127.0.0.1", "::1"]
        certificate = signer.issue_cert(*names, not_after=expiry)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts the authority of this site, as a machine trusts those of its own."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


# Answers that are valid HTTP.


def _missing(_site: Site, _rest: str, asked: Request) -> Answer:
    return Answer(f"nothing at {asked.path}".encode(), 404, "text/plain")


def _in_charset(_site: Site, rest: str, asked: Request) -> Answer:
    name, _, lang = rest.partition("/")
    declare = asked.query.get("declare", "header")
    meta = f'<meta charset="{name}">' if declare == "meta" else ""
    data = article(TEXTS[lang], lang=lang, meta=meta).encode("utf-8" if name == "utf-8-sig" else name)
    if declare == "bom":
        data = {"utf-8": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}[name] + data
    kind = {"header": f"text/html; charset={name}", "wrong": "text/html; charset=utf-8"}.get(declare, "text/html")
    return Answer(data, type=kind)


def _typed(kind: str, body: bytes) -> Callable[..., Answer]:
    return lambda *_: Answer(body, type=kind)


@cache
def _zeros(name: str, mib: int) -> tuple[str, bytes]:
    return _compressed(name, bytes(mib * 2**20))


def _compressed(name: str, data: bytes) -> tuple[str, bytes]:
    if name == "gzip":
        return "gzip", gzip.compress(data, 9)
    if name == "twice":
        return "gzip, gzip", gzip.compress(gzip.compress(data))
    if name == "deflate":
        return "deflate", zlib.compress(data, 9)
    if name == "raw-deflate":
        packer = zlib.compressobj(9, wbits=-15)
        return "deflate", packer.compress(data) + packer.flush()
    if name == "br":
        import brotli

        return "br", brotli.compress(data, quality=5)
    if name == "zstd":
        # Zeros and texts alike as blocks of their own, uncompressed or run-length: no library needed (RFC 8878).
        return "zstd", _zstd(data)
    raise ValueError(f"no such encoding: {name}")


def _zstd(data: bytes) -> bytes:
    size, blocks = 128 * 1024, []
    for start in range(0, max(len(data), 1), size):
        part = data[start : start + size]
        same = len(part) > 1 and part.count(part[:1]) == len(part)
        head = int(start + size >= len(data)) | (1 if same else 0) << 1 | len(part) << 3
        blocks.append(head.to_bytes(3, "little") + (part[:1] if same else part))
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + b"".join(blocks)


def _packed(_site: Site, rest: str, asked: Request) -> Answer:
    bomb = asked.path.startswith("/bomb/")
    encoding, data = _zeros(rest, int(asked.query.get("mib", 64))) if bomb else _compressed(rest, page(1))
    return Answer(data[: len(data) - int(asked.query.get("cut", 0))], headers={"Content-Encoding": encoding})


def _status(_site: Site, rest: str, asked: Request) -> Answer:
    names = {"retry_after": "Retry-After", "location": "Location"}
    headers = {name: asked.query[key] for key, name in names.items() if key in asked.query}
    return Answer(f"status {rest}".encode(), int(rest), "text/plain", headers)


def _burst(site: Site, rest: str, asked: Request) -> Answer:
    if site.hits[asked.path] > int(asked.query.get("fail", 2)):
        return Answer(page(0))
    return _status(site, asked.query.get("status", "503"), asked)


def _to(url: str, status: int = 302) -> Answer:
    return Answer(b"", status, None, {"Location": url})


def _validated(_site: Site, _rest: str, asked: Request) -> Answer:
    headers = {"ETag": _ETAG, "Last-Modified": _MODIFIED}
    same = asked.headers.get("if-none-match", asked.headers.get("if-modified-since")) in (_ETAG, _MODIFIED)
    return Answer(b"", 304, None, headers) if same else Answer(page(1), headers=headers)


async def _endless_pieces() -> AsyncIterator[bytes]:
    while True:
        yield b"<p>and so on</p>" * 4096


async def _dripping(query: Mapping[str, str]) -> AsyncIterator[bytes]:
    left, pause = int(query.get("bytes", 10**9)), float(query.get("pause", 0.05))
    while left > 0:
        yield b"x"
        left -= 1
        await asyncio.sleep(pause)


_VALID: dict[str, Callable[..., Answer]] = {
    "": _typed("text/html; charset=utf-8", article(TEXTS["en"], title="Home").encode()),
    "page": lambda _site, rest, _asked: Answer(page(int(rest))),
    "html": lambda _site, rest, _asked: Answer(article(TEXTS[rest], lang=rest).encode()),
    "charset": _in_charset,
    "text": _typed("text/plain; charset=utf-8", TEXTS["en"].encode()),
    "json": _typed("application/json", json.dumps({"title": "A library", "text": TEXTS["en"]}).encode()),
    "pdf": _typed("application/pdf", pdf(TEXTS["en"])),
    "xhtml": _typed("application/xhtml+xml", article(TEXTS["en"]).encode()),
    "empty": _typed("text/html", b""),
    "png": _typed("image/png", _PNG),
    "lie": _typed("text/html", _PNG),
    "untyped": lambda *_: Answer(page(1), type=None),
    "untyped-png": lambda *_: Answer(_PNG, type=None),
    "encoded": _packed,
    "bomb": _packed,
    "not-gzip": lambda *_: Answer(page(1), headers={"Content-Encoding": "gzip"}),
    "status": _status,
    "burst": _burst,
    "to": lambda _site, _rest, asked: _to(asked.query["url"], int(asked.query.get("status", 302))),
    "redirect": lambda _site, rest, _asked: _to(f"/redirect/{int(rest) - 1}") if int(rest) > 0 else Answer(page(0)),
    "loop": lambda *_: _to("/loop"),
    "spiral": lambda _site, rest, _asked: _to(f"/spiral/{int(rest or 0) + 1}"),
    "bad-charset": _typed("text/html; charset=klingon", article(TEXTS["de"]).encode()),
    "validated": _validated,
    "cookie": lambda *_: Answer(page(1), headers={"Set-Cookie": "seen=yes; Path=/"}),
    "echo": lambda _site, _rest, asked: Answer(json.dumps(asked.headers).encode(), type="application/json"),
    "endless": lambda *_: Answer(pieces=_endless_pieces()),
    "drip": lambda _site, _rest, asked: Answer(type="text/plain", pieces=_dripping(asked.query)),
}


def main() -> None:
    """Serve until interrupted."""
    options = argparse.ArgumentParser(description="A web server that misbehaves on request.")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=0)
    chosen = options.parse_args()
    with Site(chosen.host, chosen.port) as site:
        print(site.url(), flush=True)  # noqa: T201
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
