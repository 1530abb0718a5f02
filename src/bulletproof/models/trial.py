"""How a candidate version does beside the active one."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bulletproof.models.checking import Answer
from bulletproof.models.rollout import Candidate

_LATEST = 1000
_RELATIVE = 1e-3  # difference of two values of a regression up to which they agree


@dataclass(slots=True)
class Side:
    """What one of the two versions did."""

    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def succeed(self, seconds: float) -> None:
        """Count an answer."""
        self.answered += 1
        self.seconds.append(seconds)

    def report(self) -> dict[str, Any]:
        """Return the counts, and the times of the latest answers in milliseconds."""
        times = sorted(self.seconds)
        return {
            "answered": self.answered,
            "errors": sum(self.errors.values()),
            "errors_by_code": dict(self.errors),
            "p50_ms": _quantile(times, 0.5),
            "p95_ms": _quantile(times, 0.95),
        }


class Trial:
    """Counts what the active version and its candidate say to the same rows.

    Args:
        model: Name of the model.
        active: The active version.
        candidate: The version that is tried out.

    Example:
        >>> trial = Trial("iris", "v1.0", Candidate(version="v1.1", share=0.5, mode="shadow"))
        >>> trial.compare([Answer(1, 0.9, "versicolor")], [Answer(2, 0.6, "virginica")])
        >>> trial.report()["agreement"], trial.report()["rows_compared"]
        (0.0, 1)
    """

    def __init__(self, model: str, active: str, candidate: Candidate) -> None:
        self.model = model
        self.active_version = active
        self.rule = candidate
        self.active = Side()
        self.candidate = Side()
        self.rescued = 0
        self.skipped = 0
        self._rows = 0
        self._agreed = 0
        self._difference = 0.0

    def compare(self, active: Sequence[Answer], candidate: Sequence[Answer]) -> None:
        """Count where two answers to the same rows agree: the same class, or values up to a thousandth apart."""
        for ours, theirs in zip(active, candidate, strict=True):
            self._rows += 1
            gap = abs(ours.prediction - theirs.prediction)
            if ours.label is None:
                self._difference += gap
                self._agreed += gap <= _RELATIVE * max(abs(ours.prediction), abs(theirs.prediction))
            else:
                self._difference += abs(ours.confidence - theirs.confidence)
                self._agreed += gap == 0

    def report(self) -> dict[str, Any]:
        """Return what was seen so far.

        Returns:
            ``agreement``: share of the rows compared on which both agree; None before the first. ``mean_difference``:
            of the values of a regression, of the confidences of a classification. ``rescued``: canary requests that
            the active version answered because the candidate failed. ``skipped``: comparisons left out for want of
            room.
        """
        return {
            "model": self.model,
            "mode": self.rule.mode,
            "share": self.rule.share,
            "active_version": self.active_version,
            "candidate_version": self.rule.version,
            "rows_compared": self._rows,
            "agreement": self._agreed / self._rows if self._rows else None,
            "mean_difference": self._difference / self._rows if self._rows else None,
            "rescued": self.rescued,
            "skipped": self.skipped,
            "active": self.active.report(),
            "candidate": self.candidate.report(),
        }


def _quantile(times: Sequence[float], share: float) -> float | None:
    return round(times[int(share * (len(times) - 1))] * 1000, 3) if times else None
