"""Batches and their items, as they go into the store and come out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from bulletproof.errors import InputValidationError
from bulletproof.store.values import clean

TERMINAL = ("success", "failed")
"""Statuses of an item with which nothing more happens."""
OPEN = ("pending", "in_progress", "retrying")
"""Statuses of an item that is not done."""
STATUSES = (*OPEN, *TERMINAL)
"""Every status of an item."""
FINISHED = ("cancelled", "complete")
"""Statuses of a batch that is not worked on any more."""
NEXT: Mapping[str, tuple[str, ...]] = {
    "queued": ("running", "paused", "cancelled", "complete"),
    "running": ("queued", "paused", "cancelled", "complete"),
    "paused": ("queued", "running", "cancelled"),
    "cancelled": (),
    "complete": (),
}
"""What can become of a batch of each status; only ``retry_failed`` opens a complete one again."""
FIRST_STAGE = "download"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A list of URLs that are processed together.

    Args:
        id: Its id.
        status: ``queued``, ``running``, ``paused``, ``cancelled`` or ``complete``.
        owner: Whose it is; None for everybody's.
        key: The idempotency key that it was made with.
        options: What its maker wants.
        schema_version: Version of the workflow that it was made for.
        chunk_size: So many positions make a chunk.
        given: How many URLs were given.
        total: How many items it has: each distinct URL once.
        created_at: When it was made (UTC).
        updated_at: When its status changed last (UTC).
        finished_at: When it was complete or cancelled (UTC).
    """

    id: str
    status: str
    owner: str | None
    key: str | None
    options: dict[str, Any]
    schema_version: int
    chunk_size: int
    given: int
    total: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @property
    def chunks(self) -> int:
        """How many chunks it has, numbered from 0."""
        return -(-self.given // self.chunk_size)

    @property
    def duplicates(self) -> int:
        """How many URLs were given before in the same list."""
        return self.given - self.total


@dataclass(slots=True, kw_only=True)
class ItemRow:
    """An item of a batch: one URL.

    Args:
        position: Its place in the list, from 0.
        url: As it was given.
        host: Its host, if it has one.
        status: One of ``STATUSES``.
        stage: Where it stands or failed.
        round: How often ``retry_failed`` made it pending again; whoever saves it leaves this as it was.
        attempts: Tries by stage, all rounds together.
        retry_count: How often a stage was tried again in this round.
        priority: Those with a higher one go first.
        code: Code of the last error.
        error: What went wrong last.
        hint: What to do about it.
        result: What came of it.
        seconds: Time spent by stage.
        updated_at: When it was saved (UTC); set by the store.
        not_before: When its next try is due (UTC).
        retries: How often each stage was tried again in this round.
        _made: ``made``.
        _key: ``key``, where it is not that of the URL as it was given; orjson leaves out what has such a name.
    """

    position: int
    url: str
    host: str = ""
    status: str = STATUSES[0]
    stage: str = FIRST_STAGE
    round: int = 0
    attempts: dict[str, int] = field(default_factory=dict)
    retry_count: int = 0
    priority: int = 0
    code: str | None = None
    error: str | None = None
    hint: str | None = None
    result: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    updated_at: datetime | None = None
    not_before: datetime | None = None
    retries: dict[str, int] = field(default_factory=dict)
    _made: dict[str, Any] | None = field(default=None, repr=False, compare=False)
    _key: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> bytes:
        """What stands for the page, of which a batch has one item."""
        return self._key or url_key(clean(self.url))

    @property
    def made(self) -> dict[str, Any] | None:
        """What the stages before ``stage`` made, to be kept until the item succeeds; empty to have that removed."""
        return self._made

    @made.setter
    def made(self, made: dict[str, Any] | None) -> None:
        self._made = made


class Counts(NamedTuple):
    """How many items stand where.

    Args:
        by_status: For each of ``STATUSES``.
        by_stage: For each stage, those that are not successful: where they wait, or where they failed.
        by_code: For each code, those that failed with it.
        retrying_by_code: For each code, those that wait for another try because of it.
    """

    by_status: dict[str, int]
    by_stage: dict[str, int]
    by_code: dict[str, int]
    retrying_by_code: dict[str, int]

    @property
    def done(self) -> int:
        """How many are terminal."""
        return sum(self.by_status[status] for status in TERMINAL)


def url_key(url: str, owner: str | None = None) -> bytes:
    """Return 16 bytes that stand for a URL, however long it is."""
    return blake2b(f"{owner or ''}\0{url}".encode(), digest_size=16).digest()


def host_of(url: str) -> str:
    """Return the host in a URL, empty when there is none.

    Example:
        >>> host_of("https://user@Example.com:8080/a"), host_of("no url"), host_of("http://[::1")
        ('example.com', '', '')
    """
    try:
        return (urlsplit(url).hostname or "")[:255]
    except ValueError:
        return ""


def to_row(batch: int, item: ItemRow, now: float) -> tuple[Any, ...]:
    """Return the values of an item in the order of the table's columns."""
    if item.status not in STATUSES:
        raise InputValidationError(f"an item cannot have the status {item.status!r:.40}", url=item.url)
    url = clean(item.url)
    return (
        batch, item.position, item.key, url, clean(item.host), item.status, clean(item.stage),
        item.round, sum(item.attempts.values()), _dump(item.attempts), item.retry_count, item.priority,
        clean(item.code), clean(item.error), clean(item.hint), _dump(item.result), _dump(item.seconds), now,
        item.not_before.timestamp() if item.not_before is not None else None, _dump(item.retries),
    )  # fmt: skip


def from_row(row: Mapping[Any, Any]) -> ItemRow:
    values = dict(row)
    return ItemRow(
        _key=bytes(values.pop("url_key")),
        **values
        | {name: _load(values[name]) or {} for name in ("attempts", "seconds", "retries")}
        | {"result": _load(values["result"])}
        | {name: _moment(values[name]) for name in ("updated_at", "not_before")},
    )


def _dump(value: Any) -> str | None:
    return orjson.dumps(clean(value), default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode() if value else None


def _load(value: str | None) -> Any:
    return orjson.loads(value) if value is not None else None


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
