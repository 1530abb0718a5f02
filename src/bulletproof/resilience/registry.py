"""One circuit breaker for each name or key, so that one bad tenant, model or host does not stop the others."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

from bulletproof.resilience.breaker import AIServiceCircuitBreaker
from bulletproof.resilience.circuit_config import CircuitConfig
from bulletproof.resilience.state_machine import CircuitState

_STEPS = 8


class BreakerRegistry:
    """Gives the breaker of a name, making it when it is first asked for.

    Bounded: a breaker that was not asked for during ``idle`` seconds is let go, and so is the one asked for least
    recently when there are more than ``max_size``. Only closed ones are: a circuit that is open, half-open or in an
    operator's hands is kept, even beyond ``max_size``. One that somebody still holds is found again under its name.

    Args:
        config: The rules for all, or a function that gives those for a name, or a whole breaker.
        max_size: Closed breakers that are kept.
        idle: Seconds after which one that is not asked for is let go.
        on_create: Called with each new breaker, such as ``SharedState.add``.
        clock: Gives monotonic seconds, to the breakers too.

    Raises:
        ValueError: ``max_size`` is below 1, or ``idle`` is not above 0.

    Example:
        >>> breakers = BreakerRegistry(CircuitConfig(failure_threshold=2), max_size=1000)
        >>> breakers.get("tenant-1") is breakers["tenant-1"], len(breakers)
        (True, 1)
    """

    def __init__(
        self,
        config: CircuitConfig | Callable[[str], CircuitConfig | AIServiceCircuitBreaker] | None = None,
        *,
        max_size: int = 10_000,
        idle: float = 3600.0,
        on_create: Callable[[AIServiceCircuitBreaker], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_size < 1:
            raise ValueError(f"max_size must be at least 1, not {max_size!r}")
        if not idle > 0:
            raise ValueError(f"idle must be more than 0 seconds, not {idle!r}")
        self._config = config if config is not None else CircuitConfig()
        self._max_size = max_size
        self._idle = idle
        self._on_create = on_create
        self._clock = clock
        self._lock = RLock()
        # The least recently asked for first. The weak ones are those that were let go but live on elsewhere.
        self._kept: OrderedDict[str, tuple[AIServiceCircuitBreaker, float]] = OrderedDict()
        self._known: WeakValueDictionary[str, AIServiceCircuitBreaker] = WeakValueDictionary()

    def get(self, name: str) -> AIServiceCircuitBreaker:
        """Return the breaker of this name, a new one if there is none."""
        with self._lock:
            now = self._clock()
            kept = self._kept.get(name)
            breaker = kept[0] if kept is not None else self._known.get(name)
            created = breaker is None
            if breaker is None:
                breaker = self._make(name)
                self._known[name] = breaker
            self._kept[name] = (breaker, now)
            self._kept.move_to_end(name)
            self._let_go(name, now)
        if created and self._on_create is not None:
            self._on_create(breaker)
        return breaker

    def __getitem__(self, name: str) -> AIServiceCircuitBreaker:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[AIServiceCircuitBreaker]:
        """Go through the breakers that are kept."""
        with self._lock:
            return iter([breaker for breaker, _ in self._kept.values()])

    def get_metrics(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of every breaker that is kept, by name."""
        return {breaker.service_name: breaker.get_metrics() for breaker in self}

    def _make(self, name: str) -> AIServiceCircuitBreaker:
        made = self._config(name) if callable(self._config) else self._config
        if isinstance(made, AIServiceCircuitBreaker):
            return made
        return AIServiceCircuitBreaker(name, made, clock=self._clock)

    def _let_go(self, wanted: str, now: float) -> None:
        """Drop a few that are idle or too many; those that have to stay move to the end of the line."""
        for _ in range(_STEPS):
            name, (breaker, asked) = next(iter(self._kept.items()))
            if name == wanted or (len(self._kept) <= self._max_size and now - asked < self._idle):
                return
            if breaker.state is CircuitState.CLOSED:
                del self._kept[name]
            else:
                self._kept[name] = (breaker, now)
                self._kept.move_to_end(name)
