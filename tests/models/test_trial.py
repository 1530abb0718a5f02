"""The report about a candidate says how often it agrees, fails and how long it takes."""

import pytest

from bulletproof.models.checking import Answer
from bulletproof.models.rollout import Candidate
from bulletproof.models.trial import Trial

RULE = Candidate(version="v1.1", share=0.5, mode="shadow")


def test_classes_agree_when_they_are_the_same_whatever_the_confidence() -> None:
    trial = Trial("iris", "v1.0", RULE)
    trial.compare([Answer(0, 0.9, "a"), Answer(1, 0.6, "b")], [Answer(0, 0.5, "a"), Answer(0, 0.6, "a")])
    report = trial.report()
    assert (report["agreement"], report["rows_compared"]) == (0.5, 2)
    assert report["mean_difference"] == pytest.approx(0.2)


def test_values_agree_up_to_a_thousandth() -> None:
    trial = Trial("price", "v1.0", RULE)
    trial.compare(
        [Answer(1000.0, 0, None), Answer(1000.0, 0, None), Answer(0.0, 0, None)],
        [Answer(1000.9, 0, None), Answer(1002.0, 0, None), Answer(0.0, 0, None)],
    )
    assert trial.report()["agreement"] == pytest.approx(2 / 3)


def test_nothing_seen_is_no_agreement() -> None:
    report = Trial("iris", "v1.0", RULE).report()
    assert (report["agreement"], report["mean_difference"], report["active"]["p50_ms"]) == (None, None, None)


def test_times_and_errors_are_told_for_each_side() -> None:
    trial = Trial("iris", "v1.0", RULE)
    for milliseconds in range(1, 101):
        trial.candidate.seconds.append(milliseconds / 1000)
    trial.candidate.errors["prediction_failed"] += 2
    side = trial.report()["candidate"]
    assert (side["p50_ms"], side["p95_ms"]) == (50.0, 95.0)
    assert (side["errors"], side["errors_by_code"]) == (2, {"prediction_failed": 2})
