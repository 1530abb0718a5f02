"""Which names the service goes by: a ``Host`` header that is none of them is refused."""

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from bulletproof.errors import InputValidationError

_PROBES = ("/health/live", "/health/ready")


class TrustedHosts:
    """The names by which the service may be addressed.

    Args:
        names: Host names, ``*.example.com`` for all below one, with or without a port; any when empty.

    Example:
        >>> TrustedHosts(["ai.example.com", "*.example.org"]).check("/predict", {"host": "AI.example.com:8000"})
        >>> TrustedHosts(["ai.example.com"]).check("/predict", {"host": "evil.example"})
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.InputValidationError: the host 'evil.example' is not one of this service
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(map(_spelt, names))

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Let a request pass that was made for one of the names; probes, which know addresses only, in any case.

        Raises:
            InputValidationError: ``invalid_request``: it was made for another, or for none.
        """
        if not self._names or path in _PROBES:
            return
        given = headers.get("host", "")
        host = _host_of(given)
        parts = host.split(".")
        above = ("*." + ".".join(parts[index:]) for index in range(1, len(parts)))
        if not host or self._names.isdisjoint((host, f"[{host}]", _spelt(given), "*", *above)):
            what = f"the host {given!r:.80} is not one of this service" if given else "the request names no host"
            raise InputValidationError(
                what, code="invalid_request", hint="Use its own name; operators list them in BULLETPROOF_TRUSTED_HOSTS."
            )


def _spelt(name: str) -> str:
    return name.strip().lower().removesuffix(".")


def _host_of(name: str) -> str:
    """Return the host without its port; empty for what is no host."""
    try:
        parts = urlsplit(f"//{name}")
        if parts.port == 0 or parts.netloc != name or "@" in name:
            return ""
    except ValueError:
        return ""
    return _spelt(parts.hostname or "")
