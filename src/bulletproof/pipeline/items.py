"""What goes through the pipeline: one URL each, with all that is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

STAGES = ("download", "extract", "analyze", "store")
"""The stages in their order; an item that came through all of them is at ``DONE``."""
DONE = "done"
_HISTORY = 64  # an item that waits for a database that is down for days must not grow


class ProcessingStatus(Enum):
    """Where an item stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    FAILED = "failed"
    RETRYING = "retrying"

    __hash__ = object.__hash__  # statuses are counted all the time, and Enum's own is slow


TERMINAL = frozenset({ProcessingStatus.SUCCESS, ProcessingStatus.FAILED})


@dataclass(slots=True)
class ProcessingItem:
    """One URL on its way through the pipeline.

    Args:
        url: As it was given.
        status: Where it stands.
        result: After success: ``url``, ``final_url``, ``title``, ``language``, ``text_chars``, ``sentiment``, ``score``
            (in [-1, 1]) and more, ``truncated`` and ``left_out_chars`` among it where only
            the beginning of a text was read; ``{"url", "duplicate_of"}`` for a URL that came before in the same batch.
        error: What went wrong at last, while it waits for another try and when it failed.
        retry_count: How often a stage was tried again.
        max_retries: How often at most, over all stages.
        stage_retries: How often at most by stage, each counted by itself; ``max_retries`` for those that are not named.
        code: Code of the error (see ``bulletproof.errors.CODES``), or ``duplicate``.
        hint: What to do about it.
        error_type: One of the four types of ``bulletproof.errors.ErrorType``.
        stage: The stage that it is at or failed in: one of ``STAGES``, or ``done``.
        priority: Those with a higher one go first.
        history: Each change of status with its moment (aware UTC).
        attempts: Tries by stage.
        retries: How often each stage was tried again.
        seconds: Time spent by stage, all tries together.
        not_before: When the next try is due, while it waits for one (aware UTC).
        key: Whatever the caller knows it by, such as the number of its row.
        carry: What the stages before handed on; for the pipeline alone.

    Example:
        >>> item = ProcessingItem("https://example.com/article1")
        >>> item.status.value, item.max_retries, item.is_done
        ('pending', 3, False)
    """

    url: str
    status: ProcessingStatus = ProcessingStatus.PENDING
    result: dict[str, Any] | None = None
    error: str | None = None
    retry_count: int = 0
    max_retries: int = 3
    stage_retries: Mapping[str, int] | None = field(default=None, repr=False, kw_only=True)
    code: str | None = None
    hint: str | None = None
    error_type: str | None = None
    stage: str = STAGES[0]
    priority: int = 0
    history: list[tuple[ProcessingStatus, datetime]] = field(default_factory=list, repr=False)
    attempts: dict[str, int] = field(default_factory=dict, repr=False)
    retries: dict[str, int] = field(default_factory=dict, repr=False, kw_only=True)
    seconds: dict[str, float] = field(default_factory=dict, repr=False)
    not_before: datetime | None = None
    key: Any = field(default=None, repr=False)
    carry: Any = field(default=None, repr=False, compare=False)

    @property
    def is_done(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in TERMINAL

    def retries_of(self, stage: str) -> tuple[int, int]:
        """Return how many retries are used of those that a stage may have, and how many these are.

        Example:
            >>> item = ProcessingItem("https://example.com/", retry_count=2, stage_retries={"analyze": 5})
            >>> item.retries_of("analyze"), ProcessingItem("https://example.com/", retry_count=2).retries_of("analyze")
            ((0, 5), (2, 3))
        """
        if self.stage_retries is None:
            return self.retry_count, self.max_retries
        return self.retries.get(stage, 0), self.stage_retries.get(stage, self.max_retries)

    def move(self, status: ProcessingStatus, at: datetime) -> None:
        """Change the status and note when."""
        self.status = status
        if len(self.history) < _HISTORY or status in TERMINAL:
            self.history.append((status, at))

    def as_dict(self) -> dict[str, Any]:
        """Return what is known of it as JSON-ready values.

        Example:
            >>> ProcessingItem("https://example.com/").as_dict()["status"]
            'pending'
        """
        return {
            "url": self.url, "status": self.status.value, "stage": self.stage, "result": self.result,
            "error": self.error, "code": self.code, "error_type": self.error_type, "hint": self.hint,
            "retry_count": self.retry_count, "attempts": dict(self.attempts),
            "seconds": {stage: round(seconds, 6) for stage, seconds in self.seconds.items()},
            "history": [(status.value, at.isoformat()) for status, at in self.history],
        }  # fmt: skip
