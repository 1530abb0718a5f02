"""Get pages from the web: guarded, bounded, polite."""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin

from bulletproof._version import __version__
from bulletproof.errors import (
    AIError,
    BadResponseError,
    ConfigurationError,
    DeadlineExceededError,
    FileTooLargeError,
    InputValidationError,
    ServiceTimeoutError,
)
from bulletproof.fetch.address import Address, parse, shown
from bulletproof.fetch.charset import declared, guess
from bulletproof.fetch.content import PDF, check_type, parse_content_type, settle_type
from bulletproof.fetch.failures import check_status, translating
from bulletproof.fetch.guard import Attempt, Guard, attempt
from bulletproof.fetch.limits import FetchLimits
from bulletproof.fetch.page import Page, Validators
from bulletproof.fetch.robots import MAX_BYTES, Robots
from bulletproof.fetch.unpacking import ACCEPTED, Unpacker
from bulletproof.resilience import deadline, remaining, timeout
from bulletproof.settings import Settings

if TYPE_CHECKING:
    import aiohttp

USER_AGENT = f"bulletproof-ai/{__version__}"
_ACCEPT = "text/html, application/xhtml+xml, text/*;q=0.9, application/json;q=0.9, application/pdf;q=0.9, */*;q=0.1"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Fetcher:
    """Gets pages, and refuses what a crawler must not touch.

    Only http and https, only public addresses (looked at when a socket is about to be connected, for each redirect
    anew), only some ports; bounded in time, bytes and redirects; no proxy of the environment, no cookies, no
    credentials; a redirect from https to http is not followed. ``robots.txt`` is respected. One fetcher serves one
    event loop and keeps connections open; close it at the end.

    Args:
        allow_hosts: Hosts that may be private, use any port and need no ``robots.txt``: ``host``, ``host:port``,
            ``*.domain`` or a network such as ``10.0.0.0/8``.
        allow_ports: Ports that every other host may use.
        respect_robots: Whether to keep to each site's ``robots.txt``.
        user_agent: Value of the ``User-Agent`` header; what stands before its first ``/`` is looked for in
            ``robots.txt``.
        limits: How much a page may cost.
        per_host: Connections to one host at a time; 0 for as many as wanted.
        tls: Certificates trusted; those of the machine by default.
        resolver: How aiohttp looks up names, in place of the machine's way; asked for each connection.
        clock: Gives monotonic seconds.
        now: Gives the present moment, for HTTP dates.

    Raises:
        ConfigurationError: An entry of the allowed hosts or ports cannot be read.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     async with Fetcher() as fetcher:
        ...         await fetcher.get("http://localhost/admin")
        >>> asyncio.run(main())
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.InputValidationError: localhost must not be fetched: ...
    """

    def __init__(
        self,
        *,
        allow_hosts: Iterable[str] = (),
        allow_ports: Iterable[int] = (80, 443),
        respect_robots: bool = True,
        user_agent: str = USER_AGENT,
        limits: FetchLimits = FetchLimits(),  # noqa: B008 - a frozen value
        per_host: int = 8,
        tls: ssl.SSLContext | None = None,
        resolver: Any = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not re.fullmatch(r"[\x21-\x7e][\x20-\x7e]*", user_agent):
            raise ConfigurationError("user_agent must be printable ASCII, such as 'my-crawler/1.0 (+https://...)'")
        self.limits = limits
        self._guard = Guard(allow_hosts, allow_ports)
        self._robots = Robots(self._load_robots, user_agent.partition("/")[0].strip(), clock)
        self._respect_robots = respect_robots
        self._headers = {"User-Agent": user_agent, "Accept": _ACCEPT, "Accept-Encoding": ACCEPTED}
        self._per_host, self._tls, self._resolver = per_host, tls, resolver
        self._clock, self._now = clock, now
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_settings(cls, settings: Settings, **more: Any) -> Self:
        """Make a fetcher as the settings say; ``more`` wins over them."""
        limits = FetchLimits(
            max_bytes=settings.fetch_max_bytes,
            max_decompressed_bytes=2 * settings.fetch_max_bytes,
            total_timeout=settings.fetch_timeout,
        )
        options: dict[str, Any] = {
            "allow_hosts": settings.fetch_allow_hosts,
            "allow_ports": settings.fetch_allow_ports,
            "respect_robots": settings.fetch_respect_robots,
            "user_agent": settings.fetch_user_agent or USER_AGENT,
            "limits": limits,
        }
        return cls(**(options | more))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, url: str, *, validators: Validators | None = None) -> Page:
        """Get a page.

        Args:
            url: Its address.
            validators: Of the version known already (``Page.validators``): the answer may be that it is the newest.

        Returns:
            The page; without a body when ``not_modified``.

        Raises:
            InputValidationError: The address cannot be used (``blocked_url``: it must not be), or the site refuses it;
                ``NotFoundError``, ``AccessDeniedError``, ``UnsupportedFormatError`` and ``FileTooLargeError`` are such.
            RateLimitedError: The site asks to wait; ``retry_after`` says how long.
            ServiceUnavailableError: The site, or its ``robots.txt``, cannot be had now.
            ServiceTimeoutError: It is too slow.
            BadResponseError: It answers rubbish.
            DeadlineExceededError: The caller's own deadline is over.
            ConfigurationError: aiohttp is not installed.
        """
        address = parse(url)
        left = remaining()
        if left == 0:
            raise DeadlineExceededError("the time allowed is over before the page was asked for", url=shown(address))
        total = self.limits.total_timeout
        started = self._clock()
        try:
            async with timeout(total) if left is None or left > total else deadline(left):
                return await self._follow(address, validators, started)
        except AIError as error:
            error.where.setdefault("url", shown(address))
            raise

    async def crawl_delay(self, url: str) -> float | None:
        """Return the seconds between two requests that the site of an address asks for in its ``robots.txt``.

        Returns:
            Seconds; None when it says nothing, or is not asked.

        Raises:
            AIError: As for ``get``.
        """
        address = parse(url)
        if self._guard.check(address) or not self._respect_robots:
            return None
        async with timeout(self.limits.total_timeout):
            return (await self._robots.rules(address)).delay

    async def _follow(self, start: Address, validators: Validators | None, started: float) -> Page:
        address, seen = start, {start}
        for redirects in range(self.limits.max_redirects + 1):
            if not self._guard.check(address) and self._respect_robots:
                await self._robots.check(address)
            async with self._ask(address, validators) as answer:
                if answer.status not in _REDIRECTS:
                    page = await self._page(answer, address)
                    return replace(page, url=str(start), redirects=redirects, seconds=self._clock() - started)
                address = self._next(address, answer.headers.get("Location"))
            if address in seen:
                raise BadResponseError(f"the site redirects in a circle, to {shown(address)}", retryable=False)
            seen.add(address)
        most = self.limits.max_redirects
        raise BadResponseError(
            f"the site redirects more than {most} times, at last to {shown(address)}", retryable=False
        )

    def _next(self, address: Address, location: str | None) -> Address:
        if not location:
            raise BadResponseError("the site redirects without saying where to", retryable=False)
        try:
            # Bytes that are not UTF-8 come as halves of surrogate pairs.
            raw = re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", location)
            found = parse(urljoin(str(address), raw))
        except ValueError as error:
            raise BadResponseError(f"the site redirects to no address: {shown(location)}", retryable=False) from error
        except InputValidationError as error:
            error.at(url=shown(address), redirect=shown(location))
            raise
        if address.scheme == "https" and found.scheme == "http":
            raise Guard.error(found, f"{address.site} redirects from https to it, which is not secure")
        return found

    @asynccontextmanager
    async def _ask(
        self, address: Address, validators: Validators | None = None
    ) -> AsyncIterator["aiohttp.ClientResponse"]:
        session = self._connected()
        headers = {}
        if validators is not None:
            known = {"If-None-Match": validators.etag, "If-Modified-Since": validators.last_modified}
            headers = {name: value for name, value in known.items() if value}
        this = Attempt(self._guard.exempt(address))
        token = attempt.set(this)
        try:
            with translating(address, this):
                from yarl import URL

                url = URL(str(address), encoded=True)
                async with session.get(url, headers=headers, allow_redirects=False) as answer:
                    yield answer
        finally:
            attempt.reset(token)

    async def _page(self, answer: "aiohttp.ClientResponse", address: Address) -> Page:
        headers = answer.headers
        check_status(answer.status, headers, address, now=self._now)
        media_type, label = parse_content_type(headers.get("Content-Type"))
        same = answer.status == 304
        charset, body = None, b""
        if not same:
            check_type(media_type, address)
            body = await self._body(answer)
            media_type = settle_type(media_type, label, body, address)
            if media_type != PDF:
                charset = declared(body, label) or await asyncio.to_thread(guess, body)
        return Page(
            url=str(address),
            final_url=str(address),
            status=answer.status,
            media_type=media_type,
            charset=charset,
            body=body,
            etag=headers.get("ETag"),
            last_modified=headers.get("Last-Modified"),
            not_modified=same,
        )

    async def _body(self, answer: "aiohttp.ClientResponse", cut: int | None = None) -> bytes:
        limits, clock = self.limits, self._clock
        if cut is None and (answer.content_length or 0) > limits.max_bytes:
            raise _too_large(f"the page has {answer.content_length:,} bytes", limits.max_bytes)
        unpacker = Unpacker(answer.headers.get("Content-Encoding"))
        pieces: list[bytes] = []
        packed = unpacked = in_window = 0
        window_ends = clock() + limits.rate_window
        async for chunk in answer.content.iter_any():
            packed += len(chunk)
            in_window += len(chunk)
            if packed > limits.max_bytes and cut is None:
                raise _too_large("the page is larger", limits.max_bytes)
            for piece in unpacker.feed(chunk):
                unpacked += len(piece)
                pieces.append(piece)
                if cut is not None and unpacked >= cut:
                    return b"".join(pieces)
                if unpacked > limits.max_decompressed_bytes:
                    raise _too_large("the page is larger once unpacked", limits.max_decompressed_bytes)
                if unpacked > 2**20 and unpacked > packed * limits.max_compression_ratio:
                    raise _too_large("the page is packed too tightly for a page: unpacked it is larger", unpacked - 1)
            if (now := clock()) >= window_ends:
                if in_window < limits.min_rate * (now - window_ends + limits.rate_window):
                    raise ServiceTimeoutError(f"the site sends less than {limits.min_rate:g} bytes per second")
                in_window, window_ends = 0, now + limits.rate_window
        unpacker.finish()
        return b"".join(pieces)

    async def _load_robots(self, address: Address) -> bytes | None:
        """Get a ``robots.txt``: None for none."""
        for _ in range(self.limits.max_redirects + 1):
            self._guard.check(address)
            async with self._ask(address) as answer:
                if answer.status in _REDIRECTS:
                    address = self._next(address, answer.headers.get("Location"))
                    continue
                if 400 <= answer.status < 500 and answer.status != 429:
                    return None
                check_status(answer.status, answer.headers, address, now=self._now)
                return await self._body(answer, cut=MAX_BYTES)
        return None  # RFC 9309 §2.3.1.2: as if there were none

    def _connected(self) -> "aiohttp.ClientSession":
        if self._session is None:
            try:
                import aiohttp
            except ImportError as error:
                raise ConfigurationError(
                    "aiohttp, which gets pages, is not installed",
                    code="missing_dependency",
                    hint="pip install 'bulletproof-ai[pipeline]'",
                ) from error
            limits = self.limits
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    socket_factory=self._guard.socket,
                    limit=0,
                    limit_per_host=self._per_host,
                    ssl=self._tls if self._tls is not None else True,
                    resolver=self._resolver,
                    use_dns_cache=self._resolver is None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
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
