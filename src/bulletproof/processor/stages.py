"""How long the stages of one file took."""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

STAGES = ("validate", "clean", "analyze", "store")


@dataclass(slots=True)
class StageTime:
    """When a stage was at work. Stages overlap: a file flows through them in chunks.

    Args:
        stage: One of ``STAGES``.
        started: When it began, in seconds of the processor's clock.
        ended: When it was last at work.
        busy: Seconds of work; between chunks it waits for the stages beside it.
    """

    stage: str
    started: float
    ended: float
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class FileReport:
    """What one file took.

    Args:
        processing_id: The run.
        code: ``success``, ``cancelled``, or the code of the failure.
        stages: The stages it came to, in their order.
        model_calls: Batches by the name of the analyzer that gave results for them.
        ended: The present, in seconds of the processor's clock.
    """

    processing_id: str
    code: str
    stages: list[StageTime]
    model_calls: Counter[str]
    ended: float


@dataclass(slots=True)
class Stages:
    """Measures the stages of one file.

    Example:
        >>> stages = Stages(iter([1.0, 3.0]).__next__)
        >>> with stages.measure("validate"):
        ...     pass
        >>> stages.times["validate"].busy
        2.0
    """

    clock: Callable[[], float] = time.monotonic
    times: dict[str, StageTime] = field(default_factory=dict)
    model_calls: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count the time of a block to a stage."""
        started = self.clock()
        try:
            yield
        finally:
            ended = self.clock()
            found = self.times.setdefault(stage, StageTime(stage, started, ended))
            found.ended = ended
            found.busy += ended - started

    async def timed(self, stage: str, source: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Count the time that a source takes to make its items, not that of whoever uses them."""
        async with aclosing(source):
            while True:
                with self.measure(stage):
                    try:
                        item = await anext(source)
                    except StopAsyncIteration:
                        return
                yield item

    def report(self, processing_id: str, code: str) -> FileReport:
        times = [self.times[stage] for stage in STAGES if stage in self.times]
        return FileReport(processing_id, code, times, self.model_calls, self.clock())
