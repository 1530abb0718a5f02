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
class Other:
    """Another way to an answer.

    Args:
        client: A client to ask instead; None for the same one.
        model: A model to ask instead; None for the same one.
        service: Names it in figures and errors.
        policy: Stands around its calls; None when its client is protected already.
        told: Whether its client tells a monitor already.
    """

    client: Any
    model: str | None
    service: str
    policy: Protection | None
    told: bool = False


@dataclass(frozen=True)
class Shield:
    """What stands around the calls of one client.

    Args:
        service: Names it in figures and errors.
        policy: Stands around each call.
        monitor: Told of what becomes of each call.
        others: The other ways, in order.
    """

    service: str
    policy: Protection
    monitor: ErrorListener | None = None
    others: tuple[Other, ...] = ()

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

        Args:
            service: Name of the client's own service.
            policy: The policy, or None for the usual one.
            monitor: The monitor, if any.
            fallbacks: Models, clients, or pairs of both.
            host_of: Returns the host of a client, or raises ``TypeError`` when it cannot stand in.
        """
        policy = policy if policy is not None else default_policy(service)
        others = []
        for fallback in fallbacks:
            client, model = fallback if isinstance(fallback, tuple) else (fallback, None)
            if isinstance(client, str):
                client, model = None, client
            host = service if client is None and model else host_of(client)
            name = f"{host} {model}" if model else host
            shield = None if client is None else vars(client).get(PROTECTED)
            if shield is None:
                others.append(Other(client, model, name, fresh(policy, name)))
            else:
                others.append(Other(client, model, name, None, shield.monitor is not None))
        return cls(service, policy, monitor, tuple(others))

    @property
    def once(self) -> "Shield":
        """The same for requests whose body cannot be sent a second time: no retry, no other way."""
        return replace(self, policy=without_retry(self.policy), others=())

    @property
    def same(self) -> "Shield":
        """The same for requests that name no model: another model is no other way."""
        return replace(self, others=tuple(other for other in self.others if other.client is not None))

    def around(self, call_of: Callable[[Other | None], Callable[..., Any]]) -> Callable[..., Any]:
        """Protect a call.

        Args:
            call_of: Returns the function that makes the call, of any kind: the client's own for None, and that for
                each of the other ways.

        Returns:
            A function of the same kind and signature.
        """
        own = self._watched(self.service, self.policy(call_of(None)))
        ways = []
        for other in self.others:
            call = call_of(other) if other.policy is None else other.policy(call_of(other))
            ways.append(call if other.told else self._watched(other.service, call))
        return Fallback(*ways, when=_leads_on)(own) if ways else own

    def _watched(self, service: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return call if self.monitor is None else _Watch(self.monitor, service)(call)


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


def default_policy(service: str) -> Policy:
    """Return retry, shared wait and breaker for a service."""
    return Policy(
        retry=RetryPolicy(), gate=Gate(service), breaker=AIServiceCircuitBreaker(service), name=f"calls of {service}"
    )


def fresh(policy: Protection, service: str) -> Protection:
    """Return the same policy for another service: what one service did must not be held against the other."""
    if isinstance(policy, Policy):
        breaker, gate, retry = policy.breaker, policy.gate, policy.retry
        return policy.replace(
            breaker=None if breaker is None else _like(breaker, service),
            gate=None if gate is None else Gate(service, max_wait=gate.max_wait, interval=gate.interval),
            retry=None if retry is None else replace(retry, gate=None),
        )
    if isinstance(policy, RetryPolicy):
        return replace(policy, gate=None)
    return _like(policy, service) if isinstance(policy, AIServiceCircuitBreaker) else policy


def without_retry(policy: Protection) -> Protection:
    """Return a policy that calls once: for requests whose body cannot be sent a second time."""
    if isinstance(policy, Policy):
        return policy.replace(retry=None)
    return (lambda fn: fn) if isinstance(policy, RetryPolicy) else policy


def _like(breaker: AIServiceCircuitBreaker, service: str) -> AIServiceCircuitBreaker:
    return AIServiceCircuitBreaker(service, breaker.config)


def _leads_on(error: Exception) -> bool:
    # Another model may take a longer text, but not what is wrong with the request.
    found = classify(error)
    return found.error_type is not ErrorType.VALIDATION or found.code == "context_length_exceeded"
