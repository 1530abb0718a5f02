"""The items of a batch: all counted, so many kept."""

from datetime import datetime
from itertools import count
from typing import Any

from bulletproof.pipeline.figures import Figures
from bulletproof.pipeline.items import ProcessingItem, ProcessingStatus
from bulletproof.pipeline.report import StatusReport

KEPT = 10_000
"""Items that are kept whatever becomes of them, and failed ones that are kept besides."""
_SHOWN_FAILURES = 1000


class Batch:
    """What is known of a batch while it runs and afterwards; ``batch_id`` is its name in the store, if it has one."""

    def __init__(self, figures: Figures, batch_id: str | None = None) -> None:
        self.figures = figures
        self.batch_id = batch_id
        self.own = False  # whether it was made in the store as its items came
        self.finished: int | None = None  # how many items it had when it was finished there
        self.items: list[ProcessingItem] = []
        self.failures: list[ProcessingItem] = []
        self.positions = count(2**40)  # for items that stand in no list
        self._known: set[int] | None = None

    def add(self, item: ProcessingItem) -> None:
        """Count a new item; the first ones are kept."""
        self.figures.enter(item)
        if self.figures.total <= KEPT:
            self.items.append(item)

    def move(self, item: ProcessingItem, status: ProcessingStatus, at: datetime) -> None:
        """Change the status of an item, unless it has it already."""
        before = item.status
        if before is not status:
            item.move(status, at)
            self.figures.moved(before, status)

    def keep_failure(self, item: ProcessingItem) -> None:
        """Keep an item that failed, though it came when there were so many already."""
        if len(self.failures) >= KEPT:
            return
        self.failures.append(item)
        if self.figures.total > KEPT:
            if self._known is None:
                self._known = set(map(id, self.items))
            if id(item) not in self._known:
                self.items.append(item)

    def report(self, **more: Any) -> StatusReport:
        """Return how it stands, with figures that others count."""
        figures = self.figures.as_dict()
        failed = [
            {"url": item.url, "stage": item.stage, "code": item.code, "error_type": item.error_type,
             "error": item.error, "hint": item.hint, "retry_count": item.retry_count}
            for item in self.failures[:_SHOWN_FAILURES]
        ]  # fmt: skip
        left = figures["failed"] - len(failed)
        return StatusReport(
            figures | more | {"failed_items": failed, "failed_items_left_out": left, "batch_id": self.batch_id},
            self.items,
        )
