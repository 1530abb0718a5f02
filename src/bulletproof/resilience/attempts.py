"""What a retry decides after each try; nothing here waits or calls."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulletproof.errors import CircuitOpenError, classify
from bulletproof.errors.headers import retry_after_of, should_retry_of
from bulletproof.resilience.callables import name_of
from bulletproof.resilience.deadlines import remaining
from bulletproof.resilience.gate import refused_by_gate

if TYPE_CHECKING:
    from bulletproof.resilience.retry import RetryPolicy

_log = logging.getLogger("bulletproof.resilience")

Wanted = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors: a type, several, or a predicate."""

_KEPT = 10  # earlier errors attached to the last one
# By way of the class, because an exception may forbid setting attributes.
_set_context = BaseException.__dict__["__context__"].__set__
_set_suppressed = BaseException.__dict__["__suppress_context__"].__set__
_CHAIN = 32  # links followed when looking for the end of a chain


@dataclass(frozen=True, slots=True)
class RetryEvent:
    """What a hook is told.

    Args:
        name: Name of the function.
        attempt: The try that has just ended, from 1.
        error: What it raised; None when its result was not wanted.
        wait: Seconds until the next try; None when there is none.
        reason: Why there is none, in words; empty when there is one.
    """

    name: str
    attempt: int
    error: Exception | None
    wait: float | None
    reason: str = ""


class Course:
    """One call on its way through its tries.

    Args:
        policy: The rules.
        fn: The function, whose name hooks and notes give.
    """

    __slots__ = ("_earlier", "_entered", "_fn", "_policy", "_retrying", "_waited", "attempt")

    def __init__(self, policy: "RetryPolicy", fn: Callable[..., Any]) -> None:
        self._policy = policy
        self._fn = fn
        self._earlier: list[Exception] = []
        self._waited = 0.0
        self._retrying = False
        self._entered = policy.budget is not None
        if policy.budget is not None:
            policy.budget.enter()
        self.attempt = 1

    def failed(self, error: Exception) -> float | None:
        """Decide after an error.

        Returns:
            Seconds to wait before the next try; None to raise the error now, with the earlier ones attached.
        """
        wait, reason = self._judge(error)
        if wait is None:
            if self.attempt > 1 or reason:
                attach(
                    error, self._earlier, "retry", f"gave up after try {self.attempt}: {reason or 'not worth a retry'}"
                )
            self._end(error, reason or "the error is not worth a retry")
        else:
            self._earlier.append(error)
            del self._earlier[:-_KEPT]
            self._go_on(error, wait)
        return wait

    def returned(self, result: Any) -> float | None:
        """Decide after a result.

        Returns:
            Seconds to wait before the next try; None to return the result.
        """
        unwanted = self._policy.retry_on_result
        if unwanted is None or not unwanted(result):
            self.close()
            return None
        wait, reason = self._plan(None)
        if wait is None:
            self._end(None, reason)
        else:
            self._go_on(None, wait)
        return wait

    def close(self) -> None:
        """Let go of the earlier errors, whose tracebacks hold the caller's frame, and of the budget."""
        self._earlier.clear()
        self._release()
        if self._entered and self._policy.budget is not None:
            self._entered = False
            self._policy.budget.leave()

    def _judge(self, error: Exception) -> tuple[float | None, str]:
        if isinstance(error, CircuitOpenError):
            return None, "the circuit is open" if self.attempt > 1 else ""
        if refused_by_gate(error):
            return None, "the gate is closed for longer than this call can wait"
        policy = self._policy
        if policy.retry_on is None:
            diagnosis = classify(error, now=policy.now)
            if not diagnosis.retryable:
                return None, ""
            return self._plan(diagnosis.retry_after)
        if not matches(policy.retry_on, error) or should_retry_of(error) is False:
            return None, ""
        return self._plan(retry_after_of(error, now=policy.now))

    def _plan(self, asked: float | None) -> tuple[float | None, str]:
        policy = self._policy
        self._release()
        if self.attempt >= policy.max_attempts:
            return None, "no tries left" if policy.max_attempts > 1 else ""
        if asked is None:
            wait = policy.waits.wait(self.attempt - 1, self._waited, policy.draw)
        elif asked > policy.max_retry_after:
            return None, f"asked to wait {asked:.0f} s, at most {policy.max_retry_after:g} s are allowed"
        else:
            wait = asked if policy.gate is None else policy.gate.turn() or asked
        left = remaining()
        if left is not None and wait >= left:
            return None, f"a wait of {wait:.3g} s does not fit into the {left:.3g} s left"
        if policy.budget is not None:
            if not policy.budget.acquire():
                return None, "the retry budget is used up"
            self._retrying = True
        return wait, ""

    def _go_on(self, error: Exception | None, wait: float) -> None:
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "%s: try %d of %d failed with %s, the next one in %.3g s",
                name_of(self._fn),
                self.attempt,
                self._policy.max_attempts,
                "an unwanted result" if error is None else type(error).__qualname__,
                wait,
            )
        self._tell(self._policy.on_retry, error, wait, "")
        self._waited = wait
        self.attempt += 1

    def _end(self, error: Exception | None, reason: str) -> None:
        self.close()
        self._tell(self._policy.on_giveup, error, None, reason)

    def _tell(
        self, hook: Callable[[RetryEvent], Any] | None, error: Exception | None, wait: float | None, reason: str
    ) -> None:
        if hook is None:
            return
        event = RetryEvent(name_of(self._fn), self.attempt, error, wait, reason)
        try:
            hook(event)
        except Exception:  # noqa: BLE001 - whatever it is, it must not reach the call
            _log.exception("a retry hook of %s failed; the call goes on", event.name)

    def _release(self) -> None:
        if self._retrying and self._policy.budget is not None:
            self._retrying = False
            self._policy.budget.release()


def matches(wanted: Wanted, error: Exception) -> bool:
    """Tell whether an error is of the types named, or as the predicate wants it.

    A predicate that fails wants nothing: the error of the call matters more than that of the predicate.
    """
    if isinstance(wanted, type | tuple):
        return isinstance(error, wanted)
    try:
        return bool(wanted(error))
    except Exception:  # noqa: BLE001 - see above
        _log.exception("a predicate failed to judge a %s, which is therefore left alone", type(error).__qualname__)
        return False


def check_wanted(name: str, wanted: Any) -> None:
    """Refuse what is no exception class, tuple of them, or predicate."""
    for one in wanted if isinstance(wanted, tuple) else (wanted,):
        if isinstance(one, type) and not issubclass(one, Exception):
            raise ValueError(f"{name}={one.__qualname__}: only subclasses of Exception can be handled")
        if not callable(one) or (isinstance(wanted, tuple) and not isinstance(one, type)):
            raise TypeError(f"{name} must be an exception class, a tuple of them, or a predicate, not {one!r}")


def attach(error: Exception, earlier: list[Exception], topic: str, note: str) -> None:
    """Make earlier errors, the oldest first, reachable from the one raised at last, with notes on the ``topic``."""
    lines = [f"{topic}: {note}", *(f"{topic}: before that {_brief(one)}" for one in reversed(earlier))]
    # Not add_note(): an exception may forbid setting attributes, and one raised again and again must not grow.
    notes = error.__dict__.setdefault("__notes__", [])
    if isinstance(notes, list):
        notes[:] = [line for line in notes if not (isinstance(line, str) and line.startswith(f"{topic}: "))] + lines
    later: BaseException = error
    for one in reversed(earlier):
        later = _link(later, one)


def _brief(error: Exception) -> str:
    try:
        return f"{type(error).__qualname__}: {error!s:.200}"
    except Exception:  # noqa: BLE001 - __str__ of foreign code may raise anything
        return type(error).__qualname__


def _link(later: BaseException, earlier: BaseException) -> BaseException:
    """Hang one error behind another and return the one to hang the next behind; never makes a ring."""
    held = {id(node) for node in _chain(earlier)}
    chain = _chain(later)
    end = chain[-1]
    if len(chain) == _CHAIN or any(id(node) in held for node in chain):
        return later
    # Suppressed, so that it is neither printed at length nor taken for the cause of the last error.
    _set_context(end, earlier)
    _set_suppressed(end, True)
    return earlier


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while len(chain) < _CHAIN:
        following = chain[-1].__cause__ or chain[-1].__context__
        if following is None or any(following is node for node in chain):
            break
        chain.append(following)
    return chain
