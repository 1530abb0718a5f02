"""Who sends a request, whether it may do so, and under what is counted what it uses."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import Scope

from bulletproof.errors import AccessDeniedError
from bulletproof.service.hosts import TrustedHosts
from bulletproof.service.keys import LONG, SCOPES, WORK, KeyRing, scope_of
from bulletproof.service.peers import is_foreign, is_here
from bulletproof.service.quota import Meter

_FORWARDING = frozenset(("forwarded", "x-forwarded-for", "x-real-ip", "via"))
_OPEN_PATHS = ("/health/live", "/health/ready", "/v2/health/", "/docs", "/openapi.json", "/redoc", "/dashboard")
_EASING = ("/pause", "/cancel")  # what makes less work of a batch
LOCAL = "local"
"""Name of whoever is on this machine, where there are no keys."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Args:
        name: A digest of the key, ``local`` for this machine without keys, or ``anonymous``.
        known: Whether the caller has shown that it may use the service.
        scopes: What it may do.
    """

    name: str
    known: bool
    scopes: tuple[str, ...] = ()


class Callers:
    """Tells callers apart and keeps strangers out.

    Args:
        keys: Keys that may use the service; without any, only this machine may.
        meter: How much each has used.
        hosts: Names by which the service may be addressed.
    """

    def __init__(self, keys: KeyRing, meter: Meter, hosts: TrustedHosts = TrustedHosts(())) -> None:  # noqa: B008
        self._keys = keys
        self._hosts = hosts
        self.meter = meter

    def caller(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """Say who sends the request.

        Raises:
            InputValidationError: The request was made for another host.
            AccessDeniedError: It may not use the service.
        """
        self._hosts.check(scope["path"], headers)
        if self._keys.wanted:
            return self._caller_by_key(scope, headers)
        reason = None
        if not _FORWARDING.isdisjoint(headers):
            reason = "this request came through a proxy"
        elif not is_here(scope.get("client")):
            reason = "this request came from another one"
        elif is_foreign(headers.get("host", "")) or is_foreign(headers.get("origin", "")):
            # A page of somebody else's, in a browser on this machine: cross-site, or by DNS rebinding.
            reason = "this request was made for another host or by its pages"
        if reason is not None:
            raise AccessDeniedError(
                f"without API keys the service answers this machine only, and {reason}",
                code="forbidden",
                hint="Set BULLETPROOF_API_KEYS and send one of the keys.",
            )
        return Caller(LOCAL, known=True, scopes=SCOPES)

    def _caller_by_key(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        path = str(scope["path"])
        given = _key_of(headers)
        if given:
            address = _address_of(scope)
            key = self._keys.find(given)
            # Behind a proxy everybody has one address: a stranger's wrong keys must not lock out whoever has a right
            # one. Only where a key is short enough to be guessed is the answer to be kept from who has guessed often.
            if key is None or len(given) < LONG:
                self.meter.check_refused(address)
            if key is None:
                self.meter.refuse(address)
                raise AccessDeniedError("the API key is not valid")
            needed = scope_of(scope.get("method", "GET"), path)
            if needed not in key.scopes and not path.startswith(_OPEN_PATHS):
                raise AccessDeniedError(
                    f"the API key {key.name!r} may {', '.join(key.scopes)}; this needs {needed}", code="forbidden"
                )
            return Caller(key.owner, known=True, scopes=key.scopes)
        if path == "/health" or path.startswith(_OPEN_PATHS):
            return Caller("anonymous", known=False)
        raise AccessDeniedError("an API key is needed")

    def known_caller(self, scope: Scope, headers: Mapping[str, str]) -> Caller | None:
        """Return who sends a request if it may do what it asks for, and None otherwise; nothing is counted.

        Raises:
            AccessDeniedError: It may not.
            TooManyRequestsError: Its address has shown too many wrong keys, and its key can be guessed.
        """
        if not self._keys.wanted:
            return self.caller(scope, headers)
        self._hosts.check(scope["path"], headers)
        given = _key_of(headers) or ""
        key = self._keys.find(given)
        if key is None or scope_of(scope["method"], scope["path"]) not in key.scopes:
            return None
        if len(given) < LONG:
            self.meter.check_refused(_address_of(scope))
        return Caller(key.owner, known=True, scopes=key.scopes)

    def bounds(self, scope: Scope) -> bool:
        """Tell whether it is bounded how many requests such as this one a caller may send."""
        method, path = scope["method"], scope["path"]
        asks_for_work = method != "DELETE" and not path.endswith(_EASING)
        return bool(self.meter.limits) and asks_for_work and scope_of(method, path) in WORK

    def standing(self, subject: str, *, size: int = 0) -> list[tuple[bytes, bytes]]:
        """Return the headers that tell a caller what it may still send, or when what it was refused."""
        found = self.meter.headers(subject, size=size)
        return [(name.lower().encode(), value.encode()) for name, value in found.items()]


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers of a request by name, of several the first."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def declared_size(headers: Mapping[str, str]) -> int:
    """Return how many bytes of body a request says it has; 0 when it does not say."""
    given = headers.get("content-length")
    return int(given[:20]) if given is not None and given.isascii() and given.isdigit() else 0


def subject_of(scope: Scope, caller: Caller) -> str:
    """Return under what is counted what a caller uses: its key, or its address where it has none."""
    return caller.name if caller.known and caller.name != LOCAL else _address_of(scope)


def _key_of(headers: Mapping[str, str]) -> str | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key")


def _address_of(scope: Scope) -> str:
    client = scope.get("client")
    return f"address:{client[0] if client else 'unknown'}"
