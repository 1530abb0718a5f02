"""What a site's ``robots.txt`` allows (RFC 9309), read once and kept for a while."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from weakref import WeakValueDictionary

from bulletproof.errors import AIError, InputValidationError, RateLimitedError, ServiceUnavailableError
from bulletproof.fetch.address import Address, encode, shown

MAX_BYTES = 500 * 1024
MAX_DELAY = 30.0
"""Seconds between two visits that a site can ask for at most; more is taken for so much."""
_FRESH_SECONDS = 24 * 3600.0
_FAILED_SECONDS = 60.0
_SITES = 2000
_TOKEN = re.compile(r"[A-Za-z_-]+|\*")


class TooSoonError(RateLimitedError):
    """The site's ``robots.txt`` wants more time between two visits; ``retry_after`` says how much is left."""


class Rules(NamedTuple):
    """What one crawler may fetch from one site: patterns and whether they allow, and seconds between two visits.

    The longest pattern that matches wins, allowing before forbidding.
    """

    rules: tuple[tuple[str, bool], ...] = ()
    delay: float | None = None

    def allows(self, target: str) -> bool:
        """Whether a path, with its query, may be fetched.

        Example:
            >>> rules = parse_robots("User-agent: *\\nDisallow: /private\\nAllow: /private/*.html$", "any")
            >>> rules.allows("/private/a.html"), rules.allows("/private/a.html?b"), rules.allows("/")
            (True, False, True)
        """
        found = max(((len(p), allow) for p, allow in self.rules if _matches(p, target)), default=(0, True))
        return found[1] or target == "/robots.txt"


def parse_robots(text: str, agent: str) -> Rules:
    """Read what a ``robots.txt`` says to the crawler with this product token; what is no line of it is left out."""
    mine = (agent.lower(), "*")  # a file may name thousands of others, each with thousands of rules
    groups: dict[str, list[tuple[str, bool]]] = {}
    delays: dict[str, float] = {}
    names: set[str] = set()
    naming = False
    for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")):
        key, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        key = key.lower()
        if key == "user-agent":
            token = _TOKEN.match(value)
            names = (names if naming else set()) | ({token[0].lower()} & set(mine) if token else set())
            naming = True
            for name in names:
                groups.setdefault(name, [])
        elif key in ("allow", "disallow", "crawl-delay"):
            naming = False
            for name in names:
                if key != "crawl-delay":
                    if value:
                        groups[name].append((encode(value, more="?"), key == "allow"))
                elif re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value, re.ASCII):
                    delays[name] = min(float(value), MAX_DELAY)
    chosen = next((name for name in mine if name in groups), "*")
    return Rules(tuple(dict.fromkeys(groups.get(chosen, ()))), delays.get(chosen))


def _matches(pattern: str, target: str) -> bool:
    anchored = pattern.endswith("$")
    first, *parts = (pattern[:-1] if anchored else pattern).split("*")
    if not target.startswith(first):
        return False
    if not parts:
        return not anchored or len(target) == len(first)
    *middle, last = parts
    at = len(first)
    for part in middle:
        found = target.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return target.endswith(last, at) if anchored else target.find(last, at) >= 0


class Robots:
    """Asks a site's ``robots.txt`` before its pages; each site's is read once a day.

    Without one (any 4xx but 429) all is allowed. While it cannot be read (5xx, 429, no connection) nothing is, and it
    is asked for again after a minute (RFC 9309 §2.3.1).
    """

    def __init__(
        self, load: Callable[[Address], Awaitable[bytes | None]], user_agent: str, clock: Callable[[], float]
    ) -> None:
        token = _TOKEN.match(user_agent)
        self._load, self._clock = load, clock
        self._agent = token[0] if token else "*"
        self._known: OrderedDict[str, tuple[float, Rules | AIError]] = OrderedDict()
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._next: dict[str, float] = {}

    async def check(self, address: Address, *, visit: bool = False) -> None:
        """Let pass what the site allows, now if ``visit``; a redirect on the way of one is no visit of its own.

        Raises:
            InputValidationError: ``blocked_url``: the site does not want this page fetched.
            TooSoonError: It does, but later.
            ServiceUnavailableError: Its wishes cannot be read now.
        """
        rules = await self.rules(address)
        if not rules.allows(address.target):
            raise InputValidationError(
                f"the robots.txt of {address.site} forbids this page",
                code="blocked_url",
                hint="Leave the page out, or ask the site's owner to allow it.",
                url=shown(address),
            )
        if visit and rules.delay:
            self._take_turn(address, rules.delay)

    def _take_turn(self, address: Address, delay: float) -> None:
        now, site = self._clock(), address.site
        left = self._next.get(site, now) - now
        if left > 0:
            raise TooSoonError(
                f"the robots.txt of {site} asks for {delay:g} s between two visits",
                retry_after=left,
                url=shown(address),
            )
        if len(self._next) >= _SITES:
            self._next = {known: when for known, when in self._next.items() if when > now}
        self._next[site] = now + delay

    async def rules(self, address: Address) -> Rules:
        """Return what the site says."""
        origin = address.origin
        found = self._fresh(origin)
        if found is None:
            # One request for all who wait; when its task is cancelled, the next in line makes it.
            async with self._loading.setdefault(origin, asyncio.Lock()):
                found = self._fresh(origin) or await self._read(address)
        if isinstance(found, AIError):
            left = max(self._known[origin][0] - self._clock(), 0.0) if origin in self._known else _FAILED_SECONDS
            raise ServiceUnavailableError(
                f"the robots.txt of {address.site} cannot be read, and until it can nothing is fetched from there "
                f"({found.message})",
                retry_after=max(found.retry_after or 0.0, left),
                url=shown(address),
            ) from found
        return found

    def _fresh(self, origin: str) -> Rules | AIError | None:
        known = self._known.get(origin)
        return known[1] if known is not None and self._clock() < known[0] else None

    async def _read(self, address: Address) -> Rules | AIError:
        found: Rules | AIError
        try:
            body = await self._load(address._replace(target="/robots.txt"))
        except AIError as error:
            # What will not get better is no file: then the page itself says what is wrong with the site.
            seconds = _FAILED_SECONDS
            # Kept without its traceback, which holds on to all it passed through.
            found = AIError(error.message, retry_after=error.retry_after) if error.retryable else Rules()
        else:
            seconds = _FRESH_SECONDS
            text = (body or b"")[:MAX_BYTES].decode("utf-8", "replace")
            found = await asyncio.to_thread(parse_robots, text, self._agent)  # it may be long
        self._known[origin := address.origin] = (self._clock() + seconds, found)
        self._known.move_to_end(origin)
        if len(self._known) > _SITES:
            self._known.popitem(last=False)
        return found
