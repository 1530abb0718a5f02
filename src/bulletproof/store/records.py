"""What goes into the store and comes out of it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple


class ResultRow(NamedTuple):
    """The result for one record of a file.

    Args:
        row: Number of the record in the file, from 1.
        text: The text that was analysed.
        sentiment: ``negative``, ``neutral`` or ``positive``.
        score: From -1 (most negative) to 1 (most positive).
        confidence: Probability in [0, 1] that the sentiment is right.
        language: ISO 639-1 code, ``und`` when it cannot be told.
        analyzer: Name and version of what produced it.
        label: The caller's label, when labels were asked for.
        label_confidence: Probability in [0, 1] that the label is right.
    """

    row: int
    text: str
    sentiment: str
    score: float
    confidence: float
    language: str
    analyzer: str
    label: str | None = None
    label_confidence: float | None = None


class RejectionRow(NamedTuple):
    """A record of a file that was not analysed.

    Args:
        row: Number of the record in the file, from 1.
        code: A key of ``bulletproof.errors.CODES``.
        details: What is wrong with it.
    """

    row: int
    code: str
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run: one file that was processed, and what is known of its results as a whole.

    Args:
        processing_id: Its id.
        filename: Name of the file, as given by its sender.
        format: Format of the file, such as ``csv``.
        text_field: Field or column that held the text.
        owner: Who may read the results; None for everybody who may use the service.
        records: How many records were ``received``, ``analyzed`` and ``rejected``.
        summary: Totals over the results.
        analyzer: Name and version of the analyzer.
        degraded: Whether a fallback answered for at least a part.
        reason: Why it was degraded.
        warnings: What the sender of the file should know.
        usage: What it consumed at paid services, if anything.
        duration_ms: Milliseconds that processing took.
        started_at: When it began (UTC).
        completed_at: When it became visible (UTC).
    """

    processing_id: str
    filename: str | None
    format: str | None
    text_field: str | None
    owner: str | None
    records: dict[str, Any]
    summary: dict[str, Any]
    analyzer: str
    degraded: bool
    reason: str | None
    warnings: list[str] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    duration_ms: float
    started_at: datetime
    completed_at: datetime
