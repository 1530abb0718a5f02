"""Requests that come at the same time, joined into one call of the model."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import AIError, ModelError, ModelLoadError, PredictionTimeoutError, ResourceError
from bulletproof.models.predictor import Outputs
from bulletproof.models.runner import OnRunaway
from bulletproof.resilience import deadline, remaining

Rows = NDArray[np.float64]
Execute = Callable[[Rows, OnRunaway], Awaitable[Outputs]]


@dataclass(eq=False, slots=True)
class _Member:
    rows: Rows
    answer: asyncio.Future[Outputs]
    expires: float

    @property
    def waits(self) -> bool:
        return not self.answer.done()


@dataclass(eq=False, slots=True)
class _Batch:
    ended: asyncio.Future[Outputs]
    members: list[_Member] = field(default_factory=list)
    size: int = 0
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    runaways: list[asyncio.Future[Outputs]] = field(default_factory=list)


@dataclass(eq=False)
class Joiner:
    """Joins requests into batches.

    A batch starts when it is full or when its first request has waited long enough. It has half of the time that the
    most pressed of its requests has left; when it fails, each request is run alone in what remains, so that one bad
    request fails alone. A request whose caller goes away is left out; a batch that nobody waits for is cancelled.

    Args:
        execute: Runs rows, within the deadline of its context.
        name: Of the model, for errors.
        most_rows: Rows of a batch; a request with more is a batch of its own.
        wait: Seconds that a request waits for others.
    """

    execute: Execute
    _: KW_ONLY
    name: str
    most_rows: int
    wait: float
    _open: _Batch | None = field(default=None, init=False)

    async def ask(self, rows: Rows, on_runaway: OnRunaway) -> Outputs:
        """Run rows together with those of others, within the deadline of the context; see ``Runner.run``.

        Raises:
            AIError: What went wrong with these rows.
        """
        loop = asyncio.get_running_loop()
        left = remaining()
        member = _Member(rows, loop.create_future(), loop.time() + (float("inf") if left is None else left))
        batch = self._join(member)
        try:
            async with asyncio.timeout(left):
                return await member.answer
        except TimeoutError as expiry:
            if isinstance(expiry, AIError):
                raise
            raise PredictionTimeoutError(f"{self.name} did not answer within {left:.3g} s") from expiry
        finally:
            if not any(other.waits for other in batch.members):
                self._give_up(batch)
            if not batch.ended.done():
                on_runaway(batch.ended)

    def _join(self, member: _Member) -> _Batch:
        loop = asyncio.get_running_loop()
        batch = self._open
        if batch is not None and batch.size + len(member.rows) > self.most_rows:
            self._start(batch)
            batch = None
        if batch is None:
            batch = self._open = _Batch(loop.create_future())
            # Not in the context of its first request, whose deadline is not that of the others.
            batch.timer = loop.call_later(self.wait, self._start, batch, context=Context())
        batch.members.append(member)
        batch.size += len(member.rows)
        if batch.size >= self.most_rows:
            self._start(batch)
        return batch

    def _give_up(self, batch: _Batch) -> None:
        if batch.task is not None:
            batch.task.cancel()
        elif self._open is batch:
            self._close(batch)
            batch.ended.cancel()

    def _close(self, batch: _Batch) -> None:
        if batch.timer is not None:
            batch.timer.cancel()
        if self._open is batch:
            self._open = None

    def _start(self, batch: _Batch) -> None:
        self._close(batch)
        batch.task = asyncio.get_running_loop().create_task(self._run(batch), context=Context())
        batch.task.add_done_callback(lambda _: self._end(batch))  # cancelled before it began, it would not say so

    def _end(self, batch: _Batch) -> None:
        """Say that the batch has ended, once nothing of it runs any more."""
        going_on = [runaway for runaway in batch.runaways if not runaway.done()]
        if going_on:
            going_on[0].add_done_callback(lambda _: self._end(batch))
        else:
            batch.ended.cancel()

    async def _run(self, batch: _Batch) -> None:
        members = [member for member in batch.members if member.waits]
        keep = batch.runaways.append
        try:
            if len(members) == 1 or not await self._together(members, keep):
                await asyncio.gather(*(self._alone(member, keep) for member in members if member.waits))
        finally:
            self._end(batch)

    async def _together(self, members: list[_Member], on_runaway: OnRunaway) -> bool:
        """Run the members' rows in one call; tell whether each has its answer."""
        left = min(member.expires for member in members) - asyncio.get_running_loop().time()
        rows = np.concatenate([member.rows for member in members])
        try:
            with deadline(left / 2 if 0 < left < float("inf") else None):
                outputs = await self.execute(rows, on_runaway)
            parts = _split(outputs, [len(member.rows) for member in members])
        except (ModelError, ResourceError) as error:
            if not isinstance(error, ModelLoadError):
                return False
            self._fail(members, error)
        except Exception as error:  # noqa: BLE001 -- it is each member's own
            self._fail(members, error)
        else:
            for member, part in zip(members, parts, strict=True):
                if member.waits:
                    member.answer.set_result(part)
        return True

    async def _alone(self, member: _Member, on_runaway: OnRunaway) -> None:
        left = member.expires - asyncio.get_running_loop().time()
        if left <= 0:
            return  # its own time limit answers
        try:
            with deadline(left if left < float("inf") else None):
                outputs = await self.execute(member.rows, on_runaway)
        except Exception as error:  # noqa: BLE001 -- it is the member's own
            self._fail([member], error)
        else:
            if member.waits:
                member.answer.set_result(outputs)

    @staticmethod
    def _fail(members: list[_Member], error: Exception) -> None:
        for member in members:
            if member.waits:
                member.answer.set_exception(error)


def _split(outputs: Outputs, lengths: list[int]) -> list[Outputs]:
    """Give each request the rows that are its own."""
    tables = (outputs.values, outputs.probabilities, outputs.confidences)
    if any(table is not None and len(table) != sum(lengths) for table in tables):
        raise ModelError("the model did not answer each row", code="invalid_model_output")
    ends = np.cumsum(lengths)
    return [
        Outputs(*(None if table is None else table[end - length : end] for table in tables))  # type: ignore[arg-type]
        for end, length in zip(ends, lengths, strict=True)
    ]
