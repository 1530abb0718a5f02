"""Takes an item through its stages, and decides what becomes of it when one of them fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bulletproof.errors import AIError, CircuitOpenError, Diagnosis, StoreError, classify
from bulletproof.errors.http import status_of
from bulletproof.errors.text import one_line
from bulletproof.fetch import TooSoonError
from bulletproof.monitor import AIErrorMonitor
from bulletproof.pipeline.batch import Batch
from bulletproof.pipeline.batching import SHARED
from bulletproof.pipeline.handing import Carried, made_of
from bulletproof.pipeline.items import DONE, STAGES, ProcessingItem, ProcessingStatus
from bulletproof.pipeline.queue import Kind, WorkQueue
from bulletproof.pipeline.retries import next_wait
from bulletproof.pipeline.scheduler import Wait, raised_inside
from bulletproof.resilience import AIServiceCircuitBreaker, BreakerRegistry, CircuitState, RetryPolicy, timeout

Stage = Callable[[ProcessingItem, Carried], Awaitable[str | None]]
NEXT = dict(zip(STAGES, (*STAGES[1:], DONE), strict=True))
_DOWNLOAD = STAGES[0]
_DOWN, _TROUBLED = 10_000, 1000
_ANOTHER_OUTAGE = 600.0  # seconds without a sign of the last one
_NEXT_PROBE = 0.1  # seconds, after one that a host answered, if only to say that it has a page in trouble
_ASK_AGAIN = 2.0  # seconds, when nobody says when a service that is down may be asked again

current: ContextVar[tuple[Batch, ProcessingItem] | None] = ContextVar("bulletproof_item", default=None)
"""The item that this task works on, and its batch."""


@dataclass(kw_only=True, slots=True, eq=False)
class Runner:
    """Runs the stages of items one after the other, each under its breaker and its retry policy.

    Each of ``stages`` leaves what the next one needs in ``Carried`` and returns its name, or None for the one that
    follows. Items wait ``patience`` seconds for a lane that is down (a tenth of it for one that never worked), and as
    long as it takes for the store if that stage is shared: ``is_shared`` tells from which stage on all that is left to
    be done is done for many items together. ``time`` is the scheduler's. ``troubled`` are the breakers that saw a
    failure, by name, at most a thousand.
    """

    stages: Mapping[str, Stage]
    policies: Mapping[str, RetryPolicy]
    breakers: BreakerRegistry
    queue: WorkQueue[Any]
    patience: float
    is_shared: Callable[[str], bool]
    monitor: AIErrorMonitor
    logger: logging.Logger
    clock: Callable[[], float]
    time: Callable[[], float]
    now: Callable[[], datetime]
    troubled: dict[str, AIServiceCircuitBreaker] = field(default_factory=dict)
    _down: dict[str, tuple[float, float]] = field(default_factory=dict)  # since when, and when that was seen last
    _told: object = None

    def begin(self) -> None:
        """Forget what was down."""
        self._down.clear()

    async def run(self, batch: Batch, item: ProcessingItem, leave: Callable[[bool], None]) -> Wait | None:
        """Take an item as far as it gets; return where it waits, or None when it is done.

        ``leave`` gives back its place in its lane, and its place among those that run if what follows is shared.
        """
        current.set((batch, item))
        carried: Carried = item.carry
        in_place = True
        task = asyncio.current_task()
        try:
            while item.stage != DONE:
                stage = item.stage
                lane = carried.lane if stage == _DOWNLOAD else stage
                if not in_place and lane in self._down:
                    return self._waits(batch, item, Wait(lane, Kind.LATER))
                try:
                    await self._attempt(batch, item, stage, lane)
                except TooSoonError as error:
                    return self._in_turn(lane, error)
                except Exception as error:  # noqa: BLE001 -- classified and reported there
                    wait = self._failed(batch, item, stage, lane, error)
                    return None if wait is None else self._waits(batch, item, wait)
                leave(self.is_shared(item.stage))
                in_place = False
        except BaseException as error:
            if not raised_inside(error, task):
                batch.move(item, ProcessingStatus.PENDING, self.now())
                raise
            self.report(item, classify(error))
            self.fail(batch, item, classify(error))
            return None
        batch.figures.degraded += "degraded" in (item.result or ())
        batch.figures.truncated += "truncated" in (item.result or ())
        item.error = item.code = item.hint = item.error_type = item.not_before = item.carry = None
        batch.move(item, ProcessingStatus.SUCCESS, self.now())
        return None

    def fail(self, batch: Batch, item: ProcessingItem, diagnosis: Diagnosis, why: str = "") -> None:
        """End an item that cannot be helped."""
        _note(item, diagnosis)
        item.carry = made_of(item)  # for another time
        item.result = item.not_before = None
        stage = batch.figures.stages[item.stage]
        stage.failed += 1
        stage.items -= 1
        batch.figures.failed_types[item.error_type or ""] += 1
        batch.figures.failed_codes[diagnosis.code] += 1
        batch.move(item, ProcessingStatus.FAILED, self.now())
        batch.keep_failure(item)
        self.logger.warning(
            "%s of %s failed for good: %s: %s%s",
            item.stage, one_line(item.url, limit=200), diagnosis.code, one_line(diagnosis.details, limit=300),
            f" ({why}, {item.retry_count} retries)" if why else "",
            extra={"stage": item.stage, "code": diagnosis.code, "error_type": item.error_type},
        )  # fmt: skip

    def report(self, item: ProcessingItem, diagnosis: Diagnosis) -> None:
        """Tell the monitor of a failure, under the name of the stage."""
        self.monitor.record_error(
            str(diagnosis.error_type), item.stage, str(diagnosis.severity), diagnosis.details,
            code=diagnosis.code, url=one_line(item.url, limit=200),
        )  # fmt: skip

    def _waits(self, batch: Batch, item: ProcessingItem, wait: Wait) -> Wait:
        batch.move(item, ProcessingStatus.RETRYING, self.now())
        return wait._replace(size=item.carry.size)

    def _in_turn(self, lane: str, error: TooSoonError) -> Wait:
        """Have the pages of a host that wants time between two visits wait for their turn."""
        due = self.time() + (error.retry_after or 0.0)
        self.queue.narrow(lane)  # else all that the host bears at the same time would come only to be sent back
        self.queue.park(lane, due, self.time())
        return Wait(lane, Kind.AGAIN, due)

    async def _attempt(self, batch: Batch, item: ProcessingItem, stage: str, lane: str) -> None:
        """Run a stage once; when it succeeds the item is at the next one."""
        carried: Carried = item.carry
        breaker = self.breakers.get(lane) if stage != "extract" else None
        carried.probing = breaker is not None and breaker.state in (CircuitState.OPEN, CircuitState.HALF_OPEN)
        carried.begun = False
        ticket = breaker.admit() if breaker is not None else None
        before, moves, since = item.status, len(item.history), carried.since
        batch.move(item, ProcessingStatus.IN_PROGRESS, self.now())
        carried.begun = True
        item.attempts[stage] = item.attempts.get(stage, 0) + 1
        figures = batch.figures.stages[stage]
        figures.attempts += 1
        started = self.clock()
        if carried.since is None:
            carried.since = started
        try:
            limit = self.policies[stage].attempt_timeout
            async with nullcontext() if limit is None else timeout(limit):
                following = await self.stages[stage](item, carried)
        except TooSoonError:  # the site was not asked: all is as before
            if breaker is not None:
                breaker.withdraw(ticket)  # type: ignore[arg-type]  # as below
            figures.attempts -= 1
            item.attempts[stage] -= 1
            if not item.attempts[stage]:
                del item.attempts[stage]
            batch.move(item, before, self.now())
            del item.history[moves:]
            carried.since, carried.begun = since, False
            raise
        except BaseException as error:
            if breaker is not None:
                if carried.probing and _answered(stage, error):
                    # It tells of this page alone, and the next probe is another one's.
                    breaker.withdraw(ticket)  # type: ignore[arg-type]  # as below
                else:
                    self._judge(breaker, ticket, error)
            raise
        finally:
            seconds = self.clock() - started
            if carried.begun:
                item.seconds[stage] = item.seconds.get(stage, 0.0) + seconds
                figures.times.add(seconds)
            if carried.begun and stage == _DOWNLOAD:
                batch.figures.answered(lane.removeprefix("host:"), seconds)
        if breaker is not None:
            breaker.succeeded(ticket)  # type: ignore[arg-type]  # there is one where there is a breaker
        self.monitor.record_success(stage, seconds)
        if self._down and self._down.pop(lane, None) is not None:
            self.queue.widen(lane, self.time())
            self.logger.info("%s works again", lane)
        figures.succeeded += 1
        item.stage = following or NEXT[stage]
        batch.figures.advanced(stage, item.stage)
        self.logger.debug("%s of %s done in %.3f s", stage, item.url, seconds)

    def _failed(self, batch: Batch, item: ProcessingItem, stage: str, lane: str, error: Exception) -> Wait | None:
        diagnosis = classify(error, now=self.now)
        now = self.time()
        kind = Kind.AGAIN if stage == _DOWNLOAD else Kind.LATER
        refused = isinstance(error, CircuitOpenError)
        passes = diagnosis.retryable or diagnosis.code == "disk_full"  # somebody makes room sooner or later
        outage = stage == "store" and isinstance(error, StoreError) and passes and self.is_shared("store")
        if not refused:
            self.report(item, diagnosis)
        if refused or outage:
            if not outage and not self._may_wait(lane, now, error):
                self.fail(batch, item, diagnosis, "it was down for too long")
                return None
            item.carry.spared += item.carry.begun
            _note(item, diagnosis)
            batch.figures.parked += 1
            if stage == "extract":  # only some documents need the service that is down
                return Wait(lane, kind, now + (diagnosis.retry_after or _ASK_AGAIN))
            self._park(lane, error, diagnosis, now)
            return Wait(lane, kind, now)
        wait, why = self._next_wait(item, stage, lane, error, diagnosis, now)
        if wait is None:
            self.fail(batch, item, diagnosis, why)
            return None
        _note(item, diagnosis)
        item.not_before = self.now() + timedelta(seconds=wait)
        batch.figures.retries += 1
        batch.figures.stages[stage].retried += 1
        batch.figures.retried_codes[diagnosis.code] += 1
        self.logger.info(
            "%s of %s failed: %s: %s; retry %d of %d in %.2f s",
            stage, one_line(item.url, limit=200), diagnosis.code, one_line(diagnosis.details, limit=300),
            *item.retries_of(stage), wait,
            extra={"stage": stage, "code": diagnosis.code, "error_type": item.error_type},
        )  # fmt: skip
        return Wait(lane, kind, now + wait)

    def _next_wait(
        self, item: ProcessingItem, stage: str, lane: str, error: Exception, diagnosis: Diagnosis, now: float
    ) -> tuple[float | None, str]:
        """Return the seconds until the next try, or None and why there is none."""
        carried: Carried = item.carry
        if carried.probing and _answered(stage, error):
            self._down[lane] = (now, now)  # somebody is there: the outage, if it is one, begins anew
            self.queue.narrow(lane)
            pause = min(diagnosis.retry_after or _NEXT_PROBE, self.policies[stage].max_retry_after)
            self.queue.park(lane, now + pause, now)
        elif carried.probing and diagnosis.retryable:
            # It was sent ahead to see whether a service that was down is back: that is no fault of the item's.
            carried.spared += 1
            if not self._may_wait(lane, now, error):
                return None, "it was down for too long"
            return self.breakers.get(lane).get_metrics()["retry_after"] or 0.0, ""  # the next probe is another's
        wait, why = next_wait(
            self.policies[stage], error, diagnosis,
            attempt=item.attempts[stage] - carried.spared, waited=carried.waited,
            spent=self.clock() - (carried.since or 0.0),
        )  # fmt: skip
        if wait is None:
            return None, why
        used, allowed = item.retries_of(stage)
        if used >= allowed:
            return None, "no tries left"
        if stage == _DOWNLOAD and diagnosis.code == "rate_limited" and diagnosis.retry_after is not None:
            self.queue.park(lane, now + wait, now)  # the site means all of us, not this page alone
        item.retry_count += 1
        item.retries[stage] = item.retries.get(stage, 0) + 1
        carried.waited = wait
        return wait, ""

    def _judge(self, breaker: AIServiceCircuitBreaker, ticket: Any, error: BaseException) -> None:
        """Hand a ticket back; one call made for many items failed once, however many of them are told of it."""
        shared = error.__dict__.get(SHARED)
        if shared is not None and shared is self._told:
            breaker.withdraw(ticket)
            return
        self._told = shared
        breaker.failed(ticket, error)
        self.troubled[breaker.service_name] = breaker
        if len(self.troubled) > _TROUBLED:
            del self.troubled[next(iter(self.troubled))]

    def _may_wait(self, lane: str, now: float, error: Exception) -> bool:
        """Tell whether there is hope for a lane that is down."""
        since, last = self._down.get(lane, (now, now))
        if now - last > _ANOTHER_OUTAGE:
            since = now
        self._down[lane] = (since, now)
        if len(self._down) > _DOWN:
            del self._down[next(iter(self._down))]
        if getattr(error, "state", "") == CircuitState.FORCED_OPEN.value:
            return True
        breaker = self.breakers.get(lane)
        elsewhere = isinstance(error, CircuitOpenError) and error.service != breaker.service_name
        hope = elsewhere or breaker.get_metrics()["successes"] > 0
        return now - since <= self.patience * (1.0 if hope else 0.1)

    def _park(self, lane: str, error: Exception, diagnosis: Diagnosis, now: float) -> None:
        """Start nothing in a lane until it may work again, and then one item to see whether it does."""
        since, _ = self._down.setdefault(lane, (now, now))
        if since == now:
            self.logger.warning("%s is down (%s): its items wait", lane, diagnosis.code)
        self.queue.narrow(lane)
        probing = getattr(error, "state", "") == CircuitState.HALF_OPEN.value and self.queue.running(lane) > 1
        if not probing:  # else the lane goes on as soon as the probe is back
            self.queue.park(lane, now + (diagnosis.retry_after or _ASK_AGAIN), now)


def _answered(stage: str, error: BaseException) -> bool:
    """Tell whether a host answered that it failed: it is up, whatever is wrong with the page."""
    if stage != _DOWNLOAD:
        return False
    where = error.where if isinstance(error, AIError) else {}
    return 500 <= (where.get("http_status") or status_of(error) or 0) < 600


def _note(item: ProcessingItem, diagnosis: Diagnosis) -> None:
    item.error, item.code, item.hint = diagnosis.details, diagnosis.code, diagnosis.hint
    item.error_type = str(diagnosis.error_type)
