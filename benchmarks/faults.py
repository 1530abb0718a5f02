"""Faults at every stage: whether each of 10,000 items ends as the plan of the faults implies.

Every call of a stage fails with a chance of 30 %, by a plan that follows from a seed: which calls fail, and how (an
error that may pass, one that will not, a rate limit). From the same plan the outcome of every item is worked out
without a pipeline, and compared: status, stage, code, tries of each stage and retries.

    python -m benchmarks faults
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import RESULTS, machine
from bulletproof import (
    AIErrorMonitor,
    AIProcessingPipeline,
    CircuitConfig,
    NotFoundError,
    ProcessingItem,
    RateLimitedError,
    RetryPolicy,
    ServiceUnavailableError,
    classify,
)
from bulletproof.pipeline import STAGES

_PASSING = 0.85  # share of the faults that may pass
_RETRIES = 3
_HOSTS = 50


class FaultPlan:
    """Says of each call what goes wrong with it.

    Args:
        seed: Decides everything.
        share: Share of calls that fail.
    """

    def __init__(self, seed: int, share: float) -> None:
        self._seed = seed
        self._share = share

    def fault(self, url: str, stage: str, attempt: int) -> Exception | None:
        """Return what the call raises, None when it works."""
        rng = random.Random(f"{self._seed} {url} {stage} {attempt}")
        if rng.random() >= self._share:
            return None
        if rng.random() >= _PASSING:
            return rng.choice([NotFoundError("gone"), ValueError("a bug")])
        return rng.choice(
            [
                ConnectionError("reset"),
                TimeoutError("slow"),
                ServiceUnavailableError("down"),
                RateLimitedError("slow down", retry_after=0.01),
            ]
        )


def expected_outcome(plan: FaultPlan, url: str) -> tuple[str, str, str | None, int, dict[str, int]]:
    """Return status, stage, code, retries and tries by stage that a URL must end with."""
    retries = 0
    attempts: dict[str, int] = {}
    for stage in STAGES:
        while True:
            attempts[stage] = attempts.get(stage, 0) + 1
            fault = plan.fault(url, stage, attempts[stage])
            if fault is None:
                break
            found = classify(fault)
            if not found.retryable or retries == _RETRIES:
                return "failed", stage, found.code, retries, attempts
            retries += 1
    return "success", "done", None, retries, attempts


class Faulty(AIProcessingPipeline):
    """A pipeline in which every stage may fail."""

    def __init__(self, plan: FaultPlan, **options: Any) -> None:
        super().__init__(**options)
        self._plan = plan
        self._tries: dict[tuple[str, str], int] = {}

    async def _maybe(self, url: str, stage: str) -> None:
        await asyncio.sleep(0)
        attempt = self._tries[url, stage] = self._tries.get((url, stage), 0) + 1
        fault = self._plan.fault(url, stage, attempt)
        if fault is not None:
            raise fault

    async def download_content(self, url: str) -> str:
        await self._maybe(url, "download")
        return url

    async def extract_text(self, content: str) -> str:
        await self._maybe(content, "extract")
        return content

    async def analyze_sentiment(self, text: str) -> float:
        await self._maybe(text, "analyze")
        return 0.0

    async def store_result(self, item: ProcessingItem) -> bool:
        await self._maybe(item.url, "store")
        return True


async def run(count: int, plan: FaultPlan, *, max_concurrent: int = 50) -> tuple[AIProcessingPipeline, list[str]]:
    """Process so many items and return the pipeline, and in words what is not as the plan implies."""
    quick = dict.fromkeys(STAGES, RetryPolicy(max_attempts=_RETRIES + 1, base_delay=0.002, max_delay=0.01))
    never = CircuitConfig(mode="consecutive", failure_threshold=1000)  # what fails here fails by chance
    pipeline = Faulty(
        plan, max_concurrent=max_concurrent, retry_policies=quick, circuits=never, monitor=AIErrorMonitor()
    )
    wrong: list[str] = []
    ended = 0

    def items() -> Iterator[ProcessingItem]:
        for number in range(count):
            yield ProcessingItem(f"https://host{number % _HOSTS}.example/{number}")

    async def check(item: ProcessingItem) -> None:
        nonlocal ended
        ended += 1
        got = (item.status.value, item.stage, item.code, item.retry_count, item.attempts)
        due = expected_outcome(plan, item.url)
        if got != due:
            wrong.append(f"{item.url}: {got}, where {due} was due")

    await pipeline.process_items(items(), on_done=check)
    if ended != count:
        wrong.append(f"{ended} items of {count} ended")
    return pipeline, wrong


def main() -> None:
    """Run the campaign, print the report, write the result."""
    import logging

    logging.getLogger("bulletproof").setLevel(logging.ERROR)
    count = 10_000
    started = time.perf_counter()
    pipeline, wrong = asyncio.run(run(count, FaultPlan(seed=2026, share=0.3)))
    seconds = time.perf_counter() - started
    report = pipeline.get_status_report()
    print(str(report).partition("\n\nfailed items")[0])
    print(f"\n{count:,} items, {report['attempts']:,} calls, 30 % of them failed: {len(wrong)} not as the plan implies")
    print("\n".join(wrong[:20]))
    figures = {
        "benchmark": "faults",
        **machine(),
        "items": count,
        "share_of_calls_that_fail": 0.3,
        "not_as_the_plan_implies": len(wrong),
        "seconds": round(seconds, 2),
        **{name: report[name] for name in ("success", "failed", "attempts", "retries", "by_code", "retried_by_code")},
    }
    (RESULTS / "faults.json").write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
