"""Ask a site for a page and read its answer, within limits; aiohttp does the talking."""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulletproof.errors import FileTooLargeError, ServiceTimeoutError
from bulletproof.errors.installing import not_installed
from bulletproof.fetch.address import Address
from bulletproof.fetch.failures import translating
from bulletproof.fetch.guard import Attempt, Guard, attempt
from bulletproof.fetch.limits import MIB, FetchLimits
from bulletproof.fetch.unpacking import ACCEPTED, Unpacker

if TYPE_CHECKING:
    import aiohttp

_ACCEPT = "text/html, application/xhtml+xml, text/*;q=0.9, application/json;q=0.9, application/pdf;q=0.9, */*;q=0.1"


@dataclass(kw_only=True, slots=True, eq=False)
class Client:
    """Asks sites, through sockets that the guard makes: no proxy, no cookies, no redirects; see ``Fetcher``."""

    guard: Guard
    limits: FetchLimits
    user_agent: str
    per_host: int
    tls: ssl.SSLContext | None
    resolver: Any
    clock: Callable[[], float]
    _session: "aiohttp.ClientSession | None" = None

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def ask(self, address: Address, headers: Mapping[str, str]) -> AsyncIterator["aiohttp.ClientResponse"]:
        """Send a request; inside of the block, its answer can be read. What goes wrong in it is an error of ours."""
        session = self._connected()
        from yarl import URL

        this = Attempt(self.guard.check(address))
        token = attempt.set(this)
        try:
            with translating(address, this):
                url = URL(str(address), encoded=True)
                async with session.get(url, headers=headers, allow_redirects=False) as answer:
                    yield answer
        finally:
            attempt.reset(token)

    async def read(self, answer: "aiohttp.ClientResponse", cut: int | None = None) -> bytes:
        """Return the body, unpacked; only about its first ``cut`` bytes when that is given."""
        limits, clock = self.limits, self.clock
        if cut is None and (answer.content_length or 0) > limits.max_bytes:
            raise _too_large(f"the page has {answer.content_length:,} bytes", limits.max_bytes)
        unpacker = Unpacker(answer.headers.get("Content-Encoding"))
        pieces: list[bytes] = []
        packed = unpacked = in_window = 0
        window_ends = clock() + limits.rate_window
        async for chunk in answer.content.iter_any():
            packed += len(chunk)
            in_window += len(chunk)
            if packed > limits.max_bytes:
                raise _too_large("the page is larger", limits.max_bytes)
            for piece in unpacker.feed(chunk):
                unpacked += len(piece)
                pieces.append(piece)
                if cut is not None and unpacked >= cut:
                    return b"".join(pieces)
                if unpacked > limits.max_decompressed_bytes:
                    raise _too_large("the page is larger once unpacked", limits.max_decompressed_bytes)
                if unpacked > MIB and unpacked > packed * limits.max_compression_ratio:
                    raise _too_large("the page is packed too tightly for a page: unpacked it is larger", unpacked - 1)
            if (now := clock()) >= window_ends:
                if in_window < limits.min_rate * (now - window_ends + limits.rate_window):
                    raise ServiceTimeoutError(f"the site sends less than {limits.min_rate:g} bytes per second")
                in_window, window_ends = 0, now + limits.rate_window
        unpacker.finish()
        return b"".join(pieces)

    def _connected(self) -> "aiohttp.ClientSession":
        if self._session is None:
            try:
                import aiohttp
            except ImportError as error:
                raise not_installed("aiohttp, which gets pages, is not installed", "pipeline") from error
            limits = self.limits
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    socket_factory=self.guard.socket,
                    limit=0,
                    limit_per_host=self.per_host,
                    ssl=self.tls if self.tls is not None else True,
                    resolver=self.resolver,
                    use_dns_cache=self.resolver is None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": self.user_agent, "Accept": _ACCEPT, "Accept-Encoding": ACCEPTED},
                timeout=aiohttp.ClientTimeout(sock_connect=limits.connect_timeout, sock_read=limits.read_timeout),
                auto_decompress=False,
                trust_env=False,
                max_line_size=limits.max_header_bytes,
                max_field_size=limits.max_header_bytes,
            )
        return self._session


def _too_large(why: str, limit: int) -> FileTooLargeError:
    return FileTooLargeError(
        f"{why}, more than the {limit:,} bytes allowed",
        hint="Leave it out, or raise BULLETPROOF_FETCH_MAX_BYTES.",
    )
