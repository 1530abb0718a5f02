"""API keys: who may do what. Kept as digests in a file; whole keys exist only where they are shown once."""

import fcntl
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bulletproof.errors import AccessDeniedError, ConfigurationError, InputValidationError
from bulletproof.models.files import problems_of
from bulletproof.settings import Settings

logger = logging.getLogger("bulletproof.service")

Scope = Literal["process", "predict", "batches", "read", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""What a key may be for: send files, ask models, run batches, read what there is, steer."""

WORK = ("process", "predict", "batches")
"""Those that cost something; what callers may use up is counted for these."""

LONG = 16
"""Characters of a key that nobody guesses."""

_SCOPE_OF = {"process": "process", "results": "process", "predict": "predict", "v2": "predict", "batches": "batches"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
_PREFIX = "bp_"
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without the key itself.

    Args:
        name: For people.
        digest: SHA-256 of the key, in hexadecimal digits. Keys are random and long, so no slow hash is needed.
        scopes: What it may be used for.
        created: When, in ISO 8601.
        expires: Until when it may be used, in ISO 8601; None for ever.
        revoked: Whether it was taken back.
    """

    name: str
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...] = SCOPES
    created: str = ""
    expires: str | None = None
    revoked: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    @property
    def owner(self) -> str:
        """What the results made with this key are kept under."""
        return self.digest[:16]

    def expired(self, now: datetime) -> bool:
        """Tell whether its time is over."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= now


class _File(BaseModel):
    model_config = ConfigDict(strict=True)

    keys: list[Key]


class KeyRing:
    """The keys of the settings and of the key file; changes of the file are seen within a second.

    A file that breaks or vanishes later locks nobody out and lets nobody in: the keys that were read last still hold,
    and ``problem`` says so until the file can be read again.

    Args:
        configured: Keys, or their digests as ``sha256:HEX``; they may be used for everything.
        path: The key file; None for none.
        clock: Monotonic seconds.
        now: The present, aware.

    Raises:
        ConfigurationError: A digest or the file cannot be read.

    Example:
        >>> ring = KeyRing(["a secret"])
        >>> ring.find("a secret").name, ring.find("another")
        ('configured', None)
    """

    def __init__(
        self,
        configured: Sequence[str] = (),
        path: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._configured = [Key("configured", _digest_of(given)) for given in configured]
        self.path = path
        self._clock, self._now = clock, now
        self._seen: tuple[int, int, int] | None = None
        self._looked = float("-inf")
        self._filed: list[Key] = []
        self._were_wanted = False
        self.problem: ConfigurationError | None = None
        if path is not None:
            self._looked = clock()
            self._read(path)

    @property
    def wanted(self) -> bool:
        """Whether a key is needed: there is one, or was one; the last one's end does not open the door."""
        self._look()
        self._were_wanted = self._were_wanted or bool(self._configured or self._filed)
        return self._were_wanted

    def find(self, given: str) -> Key | None:
        """Return the key that was given, None when there is none such.

        Raises:
            AccessDeniedError: It was taken back, or its time is over.
        """
        self._look()
        digest = sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
        # Every key is compared, and each in constant time: the time taken tells nothing.
        found = [key for key in (*self._configured, *self._filed) if hmac.compare_digest(key.digest, digest)]
        if not found:
            return None
        key = found[0]
        if key.revoked or key.expired(self._now()):
            what = "was revoked" if key.revoked else f"expired at {key.expires}"
            raise AccessDeniedError(f"the API key {key.name!r} {what}")
        return key

    def _look(self) -> None:
        if self.path is None or self._clock() - self._looked < _LOOK_SECONDS:
            return
        self._looked = self._clock()
        try:
            self._read(self.path)
        except ConfigurationError as error:
            if self.problem is None:
                logger.error("%s", error, extra={"code": error.code, "hint": error.hint})
            self.problem = error
        else:
            if self.problem is not None:
                logger.warning("the key file %s can be read again", self.path)
            self.problem = None

    def _read(self, path: Path) -> None:
        try:
            facts = path.stat()
        except FileNotFoundError as error:
            if self._seen is None:
                return
            raise _unreadable(path, "it is gone", self._filed) from error
        except OSError as error:
            raise _unreadable(path, type(error).__name__, self._filed) from error
        seen = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        if seen == self._seen and self.problem is None:
            return
        try:
            self._filed, self._seen = read_keys(path), seen
        except ConfigurationError as error:
            if self._seen is None:
                raise
            raise _unreadable(path, error.message.partition("cannot be read: ")[2], self._filed) from error


def _unreadable(path: Path, why: str, held: Sequence[Key]) -> ConfigurationError:
    kept = f"; the {len(held)} keys that were read before still hold" if held else ""
    return ConfigurationError(
        f"the key file {path} cannot be read: {why}{kept}",
        hint="Restore the file and see 'bulletproof keys list'; with it broken the service does not start again.",
    )


def key_ring(settings: Settings) -> KeyRing:
    """Return the keys that the settings name."""
    return KeyRing([key.get_secret_value() for key in settings.api_keys], settings.keys_path)


def warning_of(settings: Settings) -> str | None:
    """Say that keys of the settings can be guessed, if some can; a digest does not tell."""
    count = len(settings.api_keys)
    short = sum(len(key.get_secret_value()) < LONG for key in settings.api_keys)
    if not short:
        return None
    return (
        f"{short} of the {count} keys in BULLETPROOF_API_KEYS can be guessed: fewer than {LONG} characters; "
        "make a good one with 'bulletproof keys create NAME'"
    )


def scope_of(method: str, path: str) -> str:
    """Return the scope that a request needs.

    Example:
        >>> scope_of("POST", "/predict"), scope_of("GET", "/results/1"), scope_of("POST", "/breakers/llm/reset")
        ('predict', 'read', 'operate')
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        return "read"
    head = path.strip("/").partition("/")[0]
    return _SCOPE_OF.get(head, "operate")


def read_keys(path: Path) -> list[Key]:
    """Return the keys of a key file; none when it is not there.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        keys = _File.model_validate_json(path.read_bytes()).keys
        for key in keys:
            key.expired(datetime.now(UTC))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        why = problems_of(error) if isinstance(error, ValidationError) else type(error).__name__
        raise ConfigurationError(
            f"the key file {path} cannot be read: {why}",
            hint="Restore it, or move it away and make new keys with 'bulletproof keys create'.",
        ) from error
    return keys


def create_key(
    path: Path, name: str, scopes: Sequence[str] = SCOPES, *, expires: datetime | None = None
) -> tuple[Key, str]:
    """Make a key and keep its digest.

    Args:
        path: The key file; made when it is not there, readable for its owner alone.
        name: For people; not yet used by another key.
        scopes: What it may be used for.
        expires: Until when; aware.

    Returns:
        The key, and what to send; it cannot be shown again.

    Raises:
        InputValidationError: The name is taken or not allowed, or a scope is unknown.
    """
    if not _NAME.fullmatch(name):
        raise InputValidationError(f"the name {name!r} is not allowed: letters, digits, '.', '_' and '-', at most 64")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise InputValidationError(f"unknown scopes {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    secret = _PREFIX + secrets.token_urlsafe(32)
    key = Key(
        name,
        sha256(secret.encode()).hexdigest(),
        tuple(scope for scope in SCOPES if scope in scopes),
        datetime.now(UTC).isoformat(timespec="seconds"),
        None if expires is None else expires.astimezone(UTC).isoformat(timespec="seconds"),
    )
    with _changing(path) as keys:
        if any(other.name == name for other in keys):
            raise InputValidationError(f"there is a key named {name!r} already", hint="Choose another name.")
        keys.append(key)
    return key, secret


def revoke_key(path: Path, name: str) -> None:
    """Take a key back; it stays listed.

    Raises:
        InputValidationError: There is no such key.
    """
    with _changing(path) as keys:
        places = [place for place, key in enumerate(keys) if key.name == name]
        if not places:
            known = ", ".join(key.name for key in keys) or "none"
            raise InputValidationError(f"there is no key named {name!r}; there are: {known}", code="not_found")
        keys[places[0]] = Key(**{**asdict(keys[places[0]]), "revoked": True})


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise ConfigurationError(
            f"the keys cannot be kept in the folder {path.parent.absolute()}: {error.strerror}",
            hint="Make it a folder that this user may write, or set BULLETPROOF_DATA_DIR (or BULLETPROOF_KEYS_FILE) to "
            "one, for the service too.",
        ) from error
    with opened as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path)
        yield keys
        body: dict[str, Any] = {"schema": 1, "keys": [asdict(key) for key in keys]}
        fresh = path.with_suffix(f".{os.getpid()}.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(body, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


def _digest_of(given: str) -> str:
    hashed = _HASHED.fullmatch(given)
    if hashed:
        return hashed[1].lower()
    if given.startswith("sha256:"):
        raise ConfigurationError(
            "an entry of BULLETPROOF_API_KEYS begins with sha256: and has no 64 hexadecimal digits behind it",
            hint="Make one with: printf %s KEY | sha256sum",
        )
    return sha256(given.encode("utf-8", "surrogatepass")).hexdigest()
