"""Running kept calls again, one at a time, held by a heartbeat."""

import asyncio
import inspect
import json
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from bulletproof.errors import CODES, Diagnosis, ErrorType, InputValidationError, StoreError, classify, redact
from bulletproof.llm.listener import ErrorListener
from bulletproof.resilience import AIServiceCircuitBreaker, Backoff
from bulletproof.store import KeptCall, KeptStore
from bulletproof.store.kept import FAILED, WAITING

Order = Literal["fifo", "any"]

_LAST_SECONDS = 5.0
_OUTSIDE = (ErrorType.EXTERNAL_SERVICE, ErrorType.RESOURCE)
_EXACT = (str, int, float, bool, type(None))
_log = logging.getLogger("bulletproof.jobs")


def worth_keeping(found: Diagnosis) -> bool:
    """Tell whether a call that failed so may do better later: nothing was wrong with the call itself.

    Example:
        >>> worth_keeping(classify(ConnectionError("unplugged"))), worth_keeping(classify(ValueError("what?")))
        (True, False)
    """
    late = found.code in ("circuit_open", "deadline_exceeded")
    return late or (found.retryable and found.error_type in _OUTSIDE)


@dataclass(eq=False)
class Line:
    """A function whose calls are kept, and what of it is under way here."""

    name: str
    fn: Callable[..., Any]
    waits: bool
    breaker: AIServiceCircuitBreaker | None
    key: Callable[..., str] | None
    expires: float | None
    order: Order
    spacing: float
    on_result: Callable[[KeptCall, Any], Any] | None
    back: bool = False
    awake: asyncio.Event = field(default_factory=asyncio.Event)

    def written(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return the arguments of a call in JSON, and its key.

        Raises:
            InputValidationError: An argument cannot be kept.
        """
        for place, value in [*enumerate(args, 1), *kwargs.items()]:
            _check(value, f"argument {place} of {self.name}")
        return json.dumps({"args": args, "kwargs": kwargs}), self.key and self.key(*args, **kwargs)


class Reruns:
    """Takes kept calls, runs them and writes down how they ended; see ``KeptCalls`` for the arguments."""

    def __init__(
        self,
        store: KeptStore,
        *,
        monitor: ErrorListener | None,
        backoff: Backoff,
        lease: float,
        poll: float,
        now: Callable[[], datetime],
        draw: Callable[[], float],
    ) -> None:
        self._store, self._monitor, self._backoff = store, monitor, backoff
        self._lease, self._poll, self._now, self._draw = lease, poll, now, draw

    def wait(self, found: Diagnosis, step: int) -> float:
        """Return the seconds before a call that failed so is run again."""
        return max(found.retry_after or 0.0, self._backoff.wait(step, 0.0, self._draw))

    async def take(self, line: Line) -> tuple[KeptCall | None, str, float | None]:
        """Return the next call of a line with our claim to it, or None and the seconds to wait, if they are known."""
        if line.breaker is not None and not line.breaker._should_attempt_call():  # noqa: SLF001
            return None, "", None
        if line.back:
            await self._store.hasten(line.name)
            line.back = False
        claim = uuid4().hex
        until = self._now().timestamp() + self._lease
        ordered = line.order == "fifo"
        call, wait = await self._store.claim(line.name, claim, until=until, spacing=line.spacing, ordered=ordered)
        return call, claim, wait

    async def run_again(self, line: Line, call: KeptCall, claim: str) -> bool:
        """Run a call that was taken; False when it has to wait once more."""
        working = asyncio.create_task(self._work(line, call))
        holding = asyncio.create_task(self._hold(call, claim, working))
        try:
            await asyncio.wait([working])
        except asyncio.CancelledError:
            if line.waits:  # a plain function cannot be stopped: when it takes longer, its claim runs out
                working.cancel()
            await asyncio.wait([working], timeout=_LAST_SECONDS)
            if working.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_SECONDS):
                        await self._settle(line, call, claim, working)
            raise
        finally:
            holding.cancel()
        return await self._settle(line, call, claim, working)

    async def _settle(self, line: Line, call: KeptCall, claim: str, working: "asyncio.Task[None]") -> bool:
        now = self._now().timestamp()
        error = None if working.cancelled() else working.exception()
        if working.cancelled():
            await self._surely(lambda: self._store.put_back(claim, due=now))
        elif error is None:
            _log.info("kept call %s of %s was run again", call.id, line.name)
            await self._surely(lambda: self._store.finish(line.name, claim))
            return True
        else:
            found = classify(error)
            later = worth_keeping(found)
            # The text of a bug may hold anything.
            text = redact(found.details) if found.code != "internal_error" else found.exception_chain[0]
            due, state = now + self.wait(found, call.attempts), WAITING if later else FAILED
            if not later:
                self._report(call, found.code, f"failed in a way that another run does not mend: {text}")
            await self._surely(lambda: self._store.put_back(claim, due=due, state=state, code=found.code, error=text))
            return not later
        return False

    async def _work(self, line: Line, call: KeptCall) -> None:
        given = json.loads(call.arguments or "")
        if line.waits:
            result = await line.fn(*given["args"], **given["kwargs"])
        else:
            result = await asyncio.to_thread(line.fn, *given["args"], **given["kwargs"])
        if line.on_result is not None:
            told = line.on_result(call, result)
            if inspect.isawaitable(told):
                await told

    async def _hold(self, call: KeptCall, claim: str, working: "asyncio.Task[None]") -> None:
        """Say that a call is still being run; stop it before somebody else may run it."""
        clock = asyncio.get_running_loop().time
        heard, beat = clock(), self._lease / 4
        while clock() - heard < 0.7 * self._lease:
            await asyncio.sleep(beat)
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(beat):
                    if not await self._store.renew(claim, self._now().timestamp() + self._lease):
                        break
                heard = clock()
        _log.warning("kept call %s is given up here: it was dropped, or the database is away for too long", call.id)
        working.cancel()

    async def _surely(self, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Write down how a call ended, as soon as the database takes it: what is not written is run once more."""
        while True:
            try:
                return await write()
            except StoreError as error:
                _log.warning("the end of a kept call is not written down yet: %s", error)
                await asyncio.sleep(self._poll)

    async def report_expired(self) -> None:
        """Drop the calls whose time is over, and say so."""
        while gone := await self._store.expire():
            for call in gone:
                self._report(call, call.code, f"expired after {call.attempts} attempts; the last error: {call.error}")

    def _report(self, call: KeptCall, code: str, text: str) -> None:
        spec = CODES.get(code, CODES["internal_error"])
        _log.error("kept call %s of %s %s", call.id, call.function, text, extra={"code": code})
        if self._monitor is not None:
            kind, severity = str(spec.error_type), str(spec.severity)
            self._monitor.record_error(kind, call.function, severity, f"kept call {text}", code=code, kept_id=call.id)


def _check(value: Any, place: str) -> None:
    """Refuse what would not come back from JSON as it was."""
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise _no_json(place, f"a key of type {type(key).__name__}")
            _check(item, place)
    elif type(value) is list:
        for item in value:
            _check(item, place)
    elif type(value) not in _EXACT:
        raise _no_json(place, type(value).__name__)
    elif type(value) is float and not math.isfinite(value):
        raise _no_json(place, f"the number {value}")


def _no_json(place: str, what: str) -> InputValidationError:
    return InputValidationError(
        f"{place} cannot be kept: it is or holds {what}, and comes back from JSON as something else, if at all",
        hint="Give the function texts, numbers, booleans, None, lists and dicts, and let it make the rest of them.",
    )
