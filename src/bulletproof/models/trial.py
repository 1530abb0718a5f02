"""A candidate version in place of the active one, or beside it, and how it does."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import classify
from bulletproof.models.checking import Answer
from bulletproof.models.lane import Lane
from bulletproof.models.rollout import Candidate
from bulletproof.resilience import deadline, remaining

Rows = NDArray[np.float64]

_BESIDE = 8  # comparisons under way at the same time
_CANARY_TIME = 0.5  # share of its time after which a canary request goes to the active version
_LATEST = 1000
_LEAST_SECONDS = 1e-6
_RELATIVE = 1e-3  # difference of two values of a regression up to which they agree


@dataclass(slots=True)
class Side:
    """What one of the two versions did."""

    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_LATEST))

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


@dataclass(slots=True)
class Trial:
    """Counts what the active version and its candidate say to the same rows.

    Args:
        model: Name of the model.
        active_version: The active version.
        rule: Which version is tried out, and how.

    Example:
        >>> trial = Trial("iris", "v1.0", Candidate(version="v1.1", share=0.5, mode="shadow"))
        >>> trial.compare([Answer(1, 0.9, "versicolor")], [Answer(2, 0.6, "virginica")])
        >>> trial.report()["agreement"], trial.report()["rows_compared"]
        (0.0, 1)
    """

    model: str
    active_version: str
    rule: Candidate
    active: Side = field(default_factory=Side)
    candidate: Side = field(default_factory=Side)
    rescued: int = 0
    skipped: int = 0
    _rows: int = 0
    _agreed: int = 0
    _difference: float = 0.0

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


@dataclass(eq=False)
class Trials:
    """Asks candidates in place of the active version, or beside it.

    A comparison is made after the answer and in its own time, so that it delays nobody; a few at a time, and the rest
    are left out.

    Args:
        lane_of: Gives the way to a version of a model.
        on_failure: Told of what a candidate failed with and no caller noticed.
        draw: Gives numbers in [0, 1).
        clock: Gives monotonic seconds.
    """

    lane_of: Callable[[str, str], Lane]
    _: KW_ONLY
    on_failure: Callable[[Trial, Exception], None]
    draw: Callable[[], float]
    clock: Callable[[], float]
    known: dict[str, Trial] = field(default_factory=dict, init=False)
    _beside: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def predict(self, active: Lane, rule: Candidate, rows: Rows, data: object) -> tuple[str, list[Answer]]:
        """Predict within the deadline of the context, with the candidate taking part in its share of the requests.

        Returns:
            The version that answered, and its answers.
        """
        name, version = active.manifest.name, active.manifest.version
        trial = self.known.get(name)
        if trial is None or trial.rule != rule or trial.active_version != version:
            trial = self.known[name] = Trial(name, version, rule)
        if self.draw() >= rule.share:
            return version, await active.predict(rows)
        if rule.mode == "canary":
            try:
                candidate = self.lane_of(name, rule.version)
                left, allowed = remaining(), active.manifest.limits.timeout_seconds
                seconds = allowed if left is None else min(left, allowed)
                with deadline(max(seconds * _CANARY_TIME, _LEAST_SECONDS), clock=self.clock):
                    answers = await self._timed(trial.candidate, candidate, candidate.read(data)[0])
            except Exception as error:  # noqa: BLE001 -- whatever it is, there is another version to ask
                trial.rescued += 1
                self.on_failure(trial, error)
            else:
                self._compare(trial, lambda: active, trial.active, data, answers)
                return rule.version, answers
        answers = await self._timed(trial.active, active, rows)
        if rule.mode == "shadow":
            self._compare(trial, lambda: self.lane_of(name, rule.version), trial.candidate, data, answers)
        return version, answers

    async def aclose(self) -> None:
        """Break off the comparisons."""
        beside = list(self._beside)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)

    async def _timed(self, side: Side, lane: Lane, rows: Rows) -> list[Answer]:
        began = self.clock()
        try:
            answers = await lane.predict(rows)
        except Exception as error:
            side.errors[classify(error).code] += 1
            raise
        side.answered += 1
        side.seconds.append(self.clock() - began)
        return answers

    def _compare(
        self, trial: Trial, lane_of: Callable[[], Lane], side: Side, data: object, answers: list[Answer]
    ) -> None:
        if len(self._beside) >= _BESIDE:
            trial.skipped += 1
            return
        # In a context of its own: the deadline of the request is not that of the comparison.
        task = asyncio.create_task(self._ask_other(trial, lane_of, side, data, answers), context=Context())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _ask_other(
        self, trial: Trial, lane_of: Callable[[], Lane], side: Side, data: object, answers: list[Answer]
    ) -> None:
        try:
            lane = lane_of()
            with deadline(lane.manifest.limits.timeout_seconds, clock=self.clock):
                other = await self._timed(side, lane, lane.read(data)[0])
            trial.compare(*((other, answers) if side is trial.active else (answers, other)))
        except Exception as error:  # noqa: BLE001 -- the caller has long been answered
            self.on_failure(trial, error)


def _quantile(times: Sequence[float], share: float) -> float | None:
    return round(times[int(share * (len(times) - 1))] * 1000, 3) if times else None
