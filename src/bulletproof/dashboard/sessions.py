"""Who is logged in: opaque tokens, and what they stand for kept in this process."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_urlsafe


@dataclass(slots=True, eq=False)
class Session:
    """Somebody's way in, with the API key it was opened with, if the service wants one, until it is over."""

    key: str | None = field(default=None, repr=False)
    alive: bool = True


class Sessions:
    """Open sessions by token. Only digests of the tokens are kept, and no key leaves the process.

    One ends after ``lifetime`` seconds, and the oldest when there would be more than ``most``.

    Example:
        >>> sessions = Sessions()
        >>> token = sessions.open("secret")
        >>> sessions.find(token).key
        'secret'
        >>> sessions.close(token)
        >>> sessions.find(token) is None
        True
    """

    def __init__(
        self, *, lifetime: float = 12 * 3600, most: int = 1000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lifetime = lifetime
        self._most = most
        self._clock = clock
        self._open: dict[bytes, tuple[Session, float]] = {}

    def open(self, key: str) -> str:
        while len(self._open) >= self._most:
            self._end(next(iter(self._open)))
        token = token_urlsafe(32)
        self._open[_digest(token)] = (Session(key), self._clock() + self.lifetime)
        return token

    def find(self, token: str | None) -> Session | None:
        """Return the session of a token, if it is open."""
        if not token:
            return None
        digest = _digest(token)
        session, end = self._open.get(digest, (None, 0.0))
        if session is not None and self._clock() >= end:
            self._end(digest)
            return None
        return session

    def close(self, token: str | None) -> None:
        """End a session; its open pages notice."""
        if token:
            self._end(_digest(token))

    def close_all(self) -> None:
        for digest in list(self._open):
            self._end(digest)

    def _end(self, digest: bytes) -> None:
        session, _ = self._open.pop(digest, (None, 0.0))
        if session is not None:
            session.alive = False
            session.key = None


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
