"""Shared state over Redis (5 or newer), Valkey or whatever else speaks to the ``redis`` package."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from bulletproof.errors import ConfigurationError
from bulletproof.resilience.shared import Notice

_KEPT = timedelta(hours=1)
_TIMES = ("at", "until", "expires")


class RedisStateStore:
    """A ``StateStore`` in two hashes: what operators decided stands apart, so that no call can undo it.

    Args:
        client: A ``redis.asyncio.Redis``.
        prefix: What the names of the two hashes begin with.

    Example:
        >>> import redis.asyncio                                                    # doctest: +SKIP
        >>> store = RedisStateStore(redis.asyncio.from_url("redis://localhost"))    # doctest: +SKIP
    """

    def __init__(self, client: Any, *, prefix: str = "bulletproof") -> None:
        self._client = client
        self._calls = f"{prefix}:state:calls"
        self._operators = f"{prefix}:state:operators"

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "bulletproof") -> "RedisStateStore":
        """Connect to a URL such as ``rediss://user:password@host:6379/0``.

        Raises:
            ConfigurationError: The ``redis`` package is not installed.
        """
        try:
            redis = import_module("redis.asyncio")
        except ImportError as error:
            raise ConfigurationError("the package 'redis' is needed: pip install redis") from error
        return cls(redis.from_url(url), prefix=prefix)

    async def publish(self, notices: Sequence[Notice]) -> None:
        """Keep each notice, in place of the one with the same topic and name."""
        for key, operators in ((self._operators, True), (self._calls, False)):
            fields = {_field(notice): _dump(notice) for notice in notices if notice.by_operator is operators}
            if fields:
                await self._client.hset(key, mapping=fields)

    async def fetch(self) -> Sequence[Notice]:
        """Return all notices that have not expired, those that operators hold before all others."""
        now = datetime.now(UTC)
        found: dict[str, Notice] = {}
        for key in (self._calls, self._operators):
            old = []
            for field, text in (await self._client.hgetall(key)).items():
                notice = _load(text)
                name = _field(notice)
                if notice.expires is not None and notice.expires <= now:
                    if notice.expires + _KEPT <= now:
                        old.append(field)
                elif name not in found or notice.held or notice.at >= found[name].at:
                    found[name] = notice
            if old:
                await self._client.hdel(key, *old)
        return list(found.values())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _field(notice: Notice) -> str:
    return f"{notice.topic}:{notice.name}"


def _dump(notice: Notice) -> str:
    values = asdict(notice)
    values.update({name: values[name].isoformat() for name in _TIMES if values[name] is not None})
    return json.dumps(values)


def _load(text: str | bytes) -> Notice:
    values = json.loads(text)
    values.update({name: datetime.fromisoformat(values[name]) for name in _TIMES if values[name] is not None})
    return Notice(**values)
