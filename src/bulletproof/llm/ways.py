"""The ways that a call of a wrapped client can take: its own, and those to other models and clients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bulletproof.errors import ErrorType, classify
from bulletproof.llm.client import Protection
from bulletproof.llm.listener import ErrorListener, tell, tell_success
from bulletproof.resilience import AIServiceCircuitBreaker, Fallback, Gate, Policy, RetryPolicy
from bulletproof.resilience.guarding import Guard

PROTECTED = "_bulletproof_shield"
"""Attribute of a client that is protected already."""


@dataclass(frozen=True)
class Way:
    """A way to an answer: the client's own, or another one."""

    service: str  # names it in figures and errors
    policy: Protection | None  # None when its client is protected already
    client: Any = None  # to ask instead; None for the same one
    model: str | None = None  # to ask instead; None for the one that the caller names
    told: bool = False  # whether its client tells a monitor already


@dataclass(frozen=True)
class Shield:
    """What stands around the calls of one client: its own way first, then the others; and who is told of the end."""

    ways: tuple[Way, ...]
    monitor: ErrorListener | None = None

    @classmethod
    def of(
        cls,
        service: str,
        policy: Protection | None,
        monitor: ErrorListener | None,
        fallbacks: Sequence[Any],
        host_of: Callable[[Any], str],
    ) -> "Shield":
        """Return the shield for the arguments of ``wrap``.

        ``host_of`` returns the host of a client, or raises ``TypeError`` when it cannot stand in.
        """
        if policy is None:
            policy = Policy(
                retry=RetryPolicy(),
                gate=Gate(service),
                breaker=AIServiceCircuitBreaker(service),
                name=f"calls of {service}",
            )
        ways = [Way(service, policy)]
        for fallback in fallbacks:
            client, model = fallback if isinstance(fallback, tuple) else (fallback, None)
            if isinstance(client, str):
                client, model = None, client
            host = service if client is None and model else host_of(client)
            name = f"{host} {model}" if model else host
            shield = None if client is None else vars(client).get(PROTECTED)
            if shield is None:
                ways.append(Way(name, _fresh(policy, name), client, model))
            else:
                ways.append(Way(name, None, client, model, told=shield.monitor is not None))
        return cls(tuple(ways), monitor)

    @property
    def once(self) -> "Shield":
        """The same for requests whose body cannot be sent a second time: no retry, no other way."""
        policy: Any = self.ways[0].policy
        if isinstance(policy, Policy):
            policy = policy.replace(retry=None)
        elif isinstance(policy, RetryPolicy):
            policy = None
        return replace(self, ways=(replace(self.ways[0], policy=policy),))

    @property
    def same(self) -> "Shield":
        """The same for requests that name no model: another model is no other way."""
        return replace(self, ways=tuple(way for way in self.ways if way.client is not None or way.model is None))

    def around(self, call_of: Callable[[Way], Callable[..., Any]]) -> Callable[..., Any]:
        """Protect a call; ``call_of`` gives the function that makes it, of any kind, for each way."""
        calls = []
        for way in self.ways:
            call = call_of(way)
            call.__qualname__ = way.service  # what retry, fallback and time limit call it
            if way.policy is not None:
                call = way.policy(call)
            if self.monitor is not None and not way.told:
                call = _Watch(self.monitor, way.service)(call)
            calls.append(call)
        own, *others = calls
        return Fallback(*others, when=_leads_on)(own) if others else own


class _Watch(Guard):
    """Tells a monitor how calls end, streams at their end."""

    __slots__ = ("_monitor", "_service")

    def __init__(self, monitor: ErrorListener, service: str) -> None:
        self._monitor = monitor
        self._service = service

    def enter(self) -> None:
        """Nothing to wait for."""

    async def enter_async(self) -> None:
        """Nothing to wait for."""

    def leave(self, entry: Any, error: BaseException | None) -> None:  # noqa: ARG002
        """Tell of the end; that a caller wants no more is none of the service's doing."""
        if error is None:
            tell_success(self._monitor, self._service)
        elif isinstance(error, Exception):
            tell(self._monitor, error, self._service)


def _fresh(policy: Protection, service: str) -> Protection:
    """Return the same policy for another service: what one service did must not be held against the other."""
    if isinstance(policy, AIServiceCircuitBreaker):
        return AIServiceCircuitBreaker(service, policy.config)
    if isinstance(policy, RetryPolicy):
        return replace(policy, gate=None)
    if not isinstance(policy, Policy):
        return policy
    breaker, gate, retry = policy.breaker, policy.gate, policy.retry
    return policy.replace(
        breaker=breaker and AIServiceCircuitBreaker(service, breaker.config),
        gate=gate and Gate(service, max_wait=gate.max_wait, interval=gate.interval),
        retry=retry and replace(retry, gate=None),
    )


def _leads_on(error: Exception) -> bool:
    # Another model may take a longer text, but not what is wrong with the request.
    found = classify(error)
    return found.error_type is not ErrorType.VALIDATION or found.code == "context_length_exceeded"
