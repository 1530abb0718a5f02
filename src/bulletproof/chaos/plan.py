"""What is to go wrong, where, when and how often."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from bulletproof.errors import (
    CODES,
    AIError,
    ConfigurationError,
    ErrorType,
    ExternalServiceError,
    InputValidationError,
    ModelError,
    ResourceError,
)

NOTHING: Any = type("Nothing", (), {"__repr__": lambda _: "nothing"})()
KINDS = ("latency", "hang", "error", "memory", "garbage")
_BY_TYPE: dict[ErrorType, type[AIError]] = {
    ErrorType.VALIDATION: InputValidationError,
    ErrorType.RESOURCE: ResourceError,
    ErrorType.MODEL: ModelError,
    ErrorType.EXTERNAL_SERVICE: ExternalServiceError,
}
_OF_ITS_OWN = "circuit_open"  # made by a breaker alone


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that goes wrong; exactly one of ``latency``, ``hang``, ``error``, ``memory`` and ``garbage`` is given.

    Args:
        stage: Where, as the call names itself; ``*`` stands for any characters.
        latency: Seconds that the call takes longer: a number, or the least and the most.
        hang: Seconds without an answer, after which it is a timeout.
        error: What is raised instead of the call: an exception, its class, or a code of ``bulletproof.errors.CODES``.
        memory: Bytes that are held during the call.
        garbage: What is answered in place of the result, after the call; or a function that spoils it.
        probability: Share of the calls that it happens to, in (0, 1].
        calls: First and last call of the stage that it may happen to, counted from 1.
        seconds: When it may happen: from, until, in seconds since the ``Chaos`` was made.

    Raises:
        ValueError: The rule makes no sense.

    Example:
        >>> Rule("store", latency=(0.1, 0.5), probability=0.2).kind
        'latency'
    """

    stage: str
    latency: float | tuple[float, float] | None = None
    hang: float | None = None
    error: type[Exception] | Exception | str | None = None
    memory: int | None = None
    garbage: Any = NOTHING
    probability: float = 1.0
    calls: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind) is not (NOTHING if kind == "garbage" else None)]
        if not isinstance(self.stage, str) or not self.stage:
            raise ValueError("a rule must name its stage")
        if len(given) != 1:
            raise ValueError(f"a rule must have exactly one of {', '.join(KINDS)}, not {len(given)} of them")
        if isinstance(self.latency, int | float):
            object.__setattr__(self, "latency", (self.latency, self.latency))
        for name in ("latency", "calls", "seconds"):
            _check_span(name, getattr(self, name), least=1 if name == "calls" else 0)
        for name in ("hang", "memory", "probability"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ValueError(f"{name} must be a number above 0, not {value!r:.40}")
        if self.probability > 1:
            raise ValueError(f"probability must be at most 1, not {self.probability}")
        _check_error(self.error)

    @property
    def kind(self) -> str:
        """Which of the five it is."""
        return next((kind for kind in KINDS[:-1] if getattr(self, kind) is not None), "garbage")

    def concerns(self, stage: str) -> bool:
        """Tell whether the rule is about a stage."""
        return fnmatchcase(stage, self.stage)

    def make_error(self, stage: str) -> Exception:
        """Return what the call raises; says that it was put there."""
        said = f"{stage} fails because the chaos plan says so"
        error = self.error
        if isinstance(error, Exception):
            return error
        if isinstance(error, str):
            exact = (cls for cls in _below(AIError) if vars(cls).get("default_code") == error)
            return next(exact, _BY_TYPE[CODES[error].error_type])(said, code=error)
        assert error is not None
        return error(said)


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes wrong in all; the same plan and seed strike the same calls.

    Args:
        rules: Each call meets every rule about its stage, in this order, until one raises.
        seed: Decides where chance does.

    Example:
        >>> plan = Plan.from_json('{"seed": 7, "rules": [{"stage": "llm", "error": "rate_limited", "calls": [3, 7]}]}')
        >>> plan.seed, plan.rules[0].calls
        (7, (3, 7))
    """

    rules: Sequence[Rule] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan: an object with ``seed`` and ``rules``, whose members are the arguments of ``Rule``.

        Raises:
            ConfigurationError: It is no plan; says which rule is wrong, and how.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"the chaos plan is not JSON: {error}") from error
        if not isinstance(found, dict) or found.keys() - {"seed", "rules"}:
            raise ConfigurationError("the chaos plan must be a JSON object with 'rules' and, if wanted, 'seed'")
        given, seed = found.get("rules", []), found.get("seed", 0)
        if not isinstance(given, list) or type(seed) is not int:
            raise ConfigurationError("in the chaos plan 'rules' must be a list and 'seed' a whole number")
        return cls(tuple(_rule(number, item) for number, item in enumerate(given, 1)), seed)


def _rule(number: int, item: Any) -> Rule:
    known = {field.name for field in fields(Rule)}
    try:
        if not isinstance(item, dict) or item.keys() - known:
            raise ValueError(f"it must be an object with members among {', '.join(sorted(known))}")
        spans = ("latency", "calls", "seconds")
        given: dict[str, Any] = {"stage": ""} | item
        return Rule(**given | {name: tuple(given[name]) for name in spans if isinstance(given.get(name), list)})
    except ValueError as error:
        raise ConfigurationError(f"rule {number} of the chaos plan is wrong: {error}") from error


def _check_span(name: str, span: Any, *, least: float) -> None:
    if span is None:
        return
    fits = isinstance(span, tuple) and len(span) == 2 and all(_is_number(end) for end in span)
    if not fits or not least <= span[0] <= span[1]:
        raise ValueError(f"{name} must be two numbers, the first at least {least} and not above the second")


def _check_error(error: Any) -> None:
    is_class = isinstance(error, type) and issubclass(error, Exception)
    if error is None or is_class or isinstance(error, Exception):
        return
    if error == _OF_ITS_OWN or not isinstance(error, str) or error not in CODES:
        raise ValueError(f"error must be an exception, its class, or a code such as service_timeout, not {error!r:.40}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def _below(cls: type[AIError]) -> list[type[AIError]]:
    return [inner for child in cls.__subclasses__() for inner in (child, *_below(child))]
