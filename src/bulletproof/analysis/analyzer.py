"""What every analyzer takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Sentiment = Literal["negative", "neutral", "positive"]


@dataclass(frozen=True, slots=True)
class Analysis:
    """The result for one text.

    Args:
        sentiment: The class.
        score: From -1 (most negative) to 1 (most positive).
        confidence: Probability in [0, 1] that the class is right.
        language: ISO 639-1 code, ``und`` when it cannot be told.
        analyzer: Name and version of what produced it, such as ``local/1.0`` or ``llm/gpt-4o-mini``.
        label: The caller's label, when labels were asked for.
        label_confidence: Probability in [0, 1] that the label is right.
    """

    sentiment: Sentiment
    score: float
    confidence: float
    language: str
    analyzer: str
    label: str | None = None
    label_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a batch consumed at a paid service.

    Args:
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens received.
        cost: In US dollars; None when the price of the model is not known.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class BatchAnalysis:
    """The results for a batch, in the order of its texts.

    Args:
        results: One ``Analysis`` for each text.
        degraded: True when a fallback answered instead of the analyzer that was asked.
        reason: Why it was degraded, for people.
        usage: What it consumed, when a paid service was asked.
        code: Code of the failure for which it was degraded.
    """

    results: list[Analysis]
    degraded: bool = False
    reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    code: str | None = None


class Analyzer(Protocol):
    """Analyses batches of cleaned, non-empty texts."""

    @property
    def name(self) -> str:
        """Name and version, such as ``local/1.0``."""
        ...

    async def analyze(self, texts: Sequence[str], *, labels: Sequence[str] | None = None) -> BatchAnalysis:
        """Analyse a batch; results are in the order of the texts."""
        ...

    async def aclose(self) -> None:
        """Release connections and workers."""
        ...
