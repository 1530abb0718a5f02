"""Thirty per cent of all calls fail: every item ends as the plan of the faults implies."""

import pytest

from benchmarks.faults import FaultPlan, expected_outcome, run


@pytest.mark.parametrize("seed", range(3))
async def test_every_item_ends_as_the_plan_implies(seed: int) -> None:
    plan = FaultPlan(seed=seed, share=0.3)
    pipeline, wrong = await run(500, plan, max_concurrent=20)
    assert wrong == []
    report = pipeline.get_status_report()
    assert report["success"] + report["failed"] == report["total"] == 500
    assert 0.2 < report["success"] / 500 < 0.9


def test_the_plan_knows_what_is_to_come() -> None:
    plan = FaultPlan(seed=7, share=0.3)
    outcomes = {expected_outcome(plan, f"https://host.example/{number}")[:2] for number in range(2000)}
    assert ("success", "done") in outcomes
    assert {stage for status, stage in outcomes if status == "failed"} == {"download", "extract", "analyze", "store"}
