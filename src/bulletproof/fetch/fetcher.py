"""Get pages from the web: guarded, bounded, polite."""

import asyncio
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urljoin

from bulletproof._version import __version__
from bulletproof.errors import (
    AIError,
    BadResponseError,
    ConfigurationError,
    DeadlineExceededError,
    InputValidationError,
)
from bulletproof.fetch.address import Address, parse, shown
from bulletproof.fetch.charset import declared, guess
from bulletproof.fetch.client import Client
from bulletproof.fetch.content import PDF, check_type, parse_content_type, settle_type
from bulletproof.fetch.failures import LOOK, check_status
from bulletproof.fetch.guard import Guard
from bulletproof.fetch.limits import FetchLimits
from bulletproof.fetch.page import Page, Validators
from bulletproof.fetch.robots import MAX_BYTES, Robots
from bulletproof.resilience import deadline, remaining, timeout
from bulletproof.settings import Settings

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

USER_AGENT = f"bulletproof-ai/{__version__}"
_CONDITIONS = ("If-None-Match", "If-Modified-Since")
_CIRCLE = f"{LOOK} Some sites send in circles whoever takes no cookies, and none are taken here."
_lost = partial(BadResponseError, hint=LOOK, retryable=False)
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
        user_agent: Value of the ``User-Agent`` header; its first word is looked for in ``robots.txt``.
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
        self._robots = Robots(self._load_robots, user_agent, clock)
        self._respect_robots = respect_robots
        self._clock, self._now = clock, now
        self._client = Client(
            guard=self._guard,
            limits=limits,
            user_agent=user_agent,
            per_host=per_host,
            tls=tls,
            resolver=resolver,
            clock=clock,
        )

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
        await self._client.aclose()

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
            RateLimitedError: The site asks to wait; ``retry_after`` says how long. It is a ``TooSoonError`` when the
                site was not asked, because its ``robots.txt`` wants more time between two visits (``Crawl-delay``).
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
        known = validators or Validators()
        headers = {name: kept for name, value in zip(_CONDITIONS, known, strict=True) if (kept := _sound(value))}
        started = self._clock()
        try:
            async with timeout(total) if left is None or left > total else deadline(left):
                await self._admit(address, visit=True)
                return await self._walk(address, self._admit, partial(self._read_page, str(address), started), headers)
        except AIError as error:
            error.where.setdefault("url", shown(address))
            raise

    async def crawl_delay(self, url: str) -> float | None:
        """Return the seconds between two visits that the site of an address asks for in its ``robots.txt``.

        Returns:
            Seconds, at most 30; None when it says nothing, or is not asked.

        Raises:
            AIError: As for ``get``.
        """
        address = parse(url)
        if self._guard.check(address) or not self._respect_robots:
            return None
        async with timeout(self.limits.total_timeout):
            return (await self._robots.rules(address)).delay

    async def _walk(
        self,
        start: Address,
        admit: Callable[[Address], Awaitable[object]],
        read: Callable[["aiohttp.ClientResponse", Address, int], Awaitable[T]],
        headers: Mapping[str, str],
    ) -> T:
        """Follow redirects: each address but the first must be admitted here, the answer at the end is read."""
        address, seen = start, {start}
        for redirects in range(self.limits.max_redirects + 1):
            if redirects:
                await admit(address)
            async with self._client.ask(address, headers) as answer:
                if answer.status not in _REDIRECTS:
                    return await read(answer, address, redirects)
                address = _next(address, answer.headers.get("Location"))
            if address in seen:
                raise _lost(f"the site redirects in a circle, to {shown(address)}", hint=_CIRCLE)
            seen.add(address)
        most = self.limits.max_redirects
        raise _lost(f"the site redirects more than {most} times, now to {shown(address)}")

    async def _admit(self, address: Address, *, visit: bool = False) -> None:
        if not self._guard.check(address) and self._respect_robots:
            await self._robots.check(address, visit=visit)

    async def _read_page(
        self, url: str, started: float, answer: "aiohttp.ClientResponse", address: Address, redirects: int
    ) -> Page:
        headers = answer.headers
        check_status(answer.status, headers, address, now=self._now)
        media_type, label = parse_content_type(headers.get("Content-Type"))
        same = answer.status == 304
        if same and not any(name in answer.request_info.headers for name in _CONDITIONS):
            raise BadResponseError("the site says that nothing has changed (HTTP 304), which was not asked")
        charset, body = None, b""
        if not same:
            check_type(media_type, address)
            body = await self._client.read(answer)
            media_type = settle_type(media_type, label, body, address)
            if media_type != PDF:
                charset = declared(body, label) or await asyncio.to_thread(guess, body)
        said = (_sound(headers.get("ETag")), _sound(headers.get("Last-Modified")))
        seconds = self._clock() - started
        return Page(url, str(address), answer.status, media_type, charset, body, *said, same, redirects, seconds)

    async def _load_robots(self, address: Address) -> bytes | None:
        """Get a ``robots.txt``: None for none."""

        async def admit(address: Address) -> None:
            self._guard.check(address)

        async def read(answer: "aiohttp.ClientResponse", address: Address, _: int) -> bytes | None:
            if 400 <= answer.status < 500 and answer.status != 429:
                return None
            check_status(answer.status, answer.headers, address, now=self._now)
            return await self._client.read(answer, cut=MAX_BYTES)

        await admit(address)
        return await self._walk(address, admit, read, {})


def _sound(value: str | None) -> str | None:
    """A validator that can be kept and sent back; what is none is left out."""
    return value if value and value.isascii() and value.isprintable() else None


def _next(address: Address, location: str | None) -> Address:
    """Where a redirect leads."""
    if not location:
        raise _lost("the site redirects without saying where to")
    try:
        # Bytes that are not UTF-8 come as halves of surrogate pairs.
        raw = re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", location)
        found = parse(urljoin(str(address), raw))
    except ValueError as error:
        raise _lost(f"the site redirects to no address: {shown(location)}") from error
    except InputValidationError as error:
        error.at(url=shown(address), redirect=shown(location))
        raise
    if address.scheme == "https" and found.scheme == "http":
        raise Guard.error(found, f"{address.site} redirects from https to it, which is not secure")
    return found
