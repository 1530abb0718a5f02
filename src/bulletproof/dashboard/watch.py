"""What a page knows about the service, asked for anew every two seconds."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bulletproof.dashboard.client import ApiClient, Reply
from bulletproof.dashboard.sessions import Session
from bulletproof.errors import AIError, Diagnosis, classify

INTERVAL = 2.0
_LONGEST = 30.0
_RUNS = 20
_KEPT = 50


@dataclass(frozen=True, slots=True)
class Picture:
    """What the API answered last to ``GET /health``, ``/metrics``, ``/runs`` and ``/kept``."""

    health: Reply
    metrics: Reply
    runs: Reply
    kept: Reply
    at: datetime

    @property
    def denied(self) -> bool:
        """Whether the key is no longer taken."""
        return self.metrics.status in (401, 403)


@dataclass(slots=True)
class Watch:
    """Looks at the service now and then, less often while it cannot be reached."""

    api: ApiClient
    session: Session
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    hours: int = 1
    picture: Picture | None = None
    trouble: Diagnosis | None = None
    failures: int = 0
    next_at: float = 0.0

    @property
    def wait(self) -> float:
        """Seconds until the next try."""
        return max(self.next_at - self.clock(), 0.0)

    async def look(self, *, at_once: bool = False) -> None:
        """Ask the API, if it is time to or it has to be ``at_once``."""
        if self.wait > 0 and not at_once:
            return
        self.next_at = self.clock() + INTERVAL / 2
        try:
            self.picture = await self._ask()
        except AIError as error:
            self.failures += 1
            self.trouble = classify(error)
            self.next_at = self.clock() + min(INTERVAL * 2**self.failures, _LONGEST)
        else:
            self.failures = 0
            self.trouble = None

    async def _ask(self) -> Picture:
        async def get(path: str, **params: Any) -> Reply:
            return await self.api.get(path, key=self.session.key, params=params)

        health, metrics, runs, kept = await asyncio.gather(
            get("/health"), get("/metrics", hours=self.hours), get("/runs", limit=_RUNS), get("/kept", limit=_KEPT)
        )
        return Picture(health, metrics, runs, kept, self.now())
