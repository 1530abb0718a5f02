"""What is known about exception classes, worked out once for each: the rules that hold, the fields that follow."""

from collections.abc import Callable
from typing import Any, NamedTuple

from bulletproof.errors.codes import CODES, ErrorType
from bulletproof.errors.diagnosis import Diagnosis
from bulletproof.errors.http import STATUS_ATTRIBUTES
from bulletproof.errors.reading import module_of, mro_of, qualified_name, text_of
from bulletproof.errors.registry import Rule, Verdict, on_change, rules_for
from bulletproof.errors.taxonomy import AIError, InputValidationError
from bulletproof.errors.text import one_line

CARRIED = STATUS_ATTRIBUTES | {"headers", "retry_after", "body"}
_SPECIAL = CARRIED | {"__getattr__", "__getattribute__", "__dict__"}
_CLASSES = 4096
_vars_of = type.__dict__["__dict__"].__get__
_new = object.__new__


class Plan(NamedTuple):
    """What is known about an exception class before any instance is looked at.

    Args:
        name: Its qualified name.
        rules: Those that hold for it, the most special first.
        ours: Whether it is an ``AIError``.
        carries: Whether its instances may carry a status or headers by way of the class.
    """

    name: str
    rules: tuple[Rule, ...]
    ours: bool
    carries: bool


class Found(NamedTuple):
    """An exception with the verdict on it."""

    error: BaseException
    verdict: Verdict
    rule: str
    more: int = 0


class Quick(NamedTuple):
    """What is needed to diagnose an exception whose class decides.

    Args:
        fixed: The finished fields of the diagnosis.
        wording: The function of the text that may overrule them.
        network: Whether the traceback may overrule them.
        by_code: For an ``AIError`` the fields by its code; None for all others.
    """

    fixed: dict[str, Any]
    wording: Callable[[str], Verdict | None] | None
    network: bool
    by_code: "_ByCode | None"


class _ByCode(dict[str, dict[str, Any]]):
    """For one of our own classes the fields that follow from class and code, made when a code is first met."""

    def __init__(self, cls: type, name: str) -> None:
        self.neutral = issubclass(cls, InputValidationError)
        self.name = name

    def __missing__(self, code: str) -> dict[str, Any]:
        fields = self[code] = {
            **_blank[code],
            "counts_as_failure": not (self.neutral or CODES[code].error_type is ErrorType.VALIDATION),
            "exception_chain": (self.name,),
            "rule": self.name,
        }
        return fields


_plans: dict[type, Plan] = {}
quick_plans: dict[type, Quick] = {}


def diagnosis_of(found: Found, chain: tuple[str, ...]) -> Diagnosis:
    code, retryable, details, retry_after, counts, hint, _ = found.verdict
    diagnosis = _new(Diagnosis)
    fields = diagnosis.__dict__
    fields.update(_blank[code])
    if retryable is not None:
        fields["retryable"] = retryable
    if retry_after is not None:
        fields["retry_after"] = retry_after
    if counts is False:
        fields["counts_as_failure"] = False
    if hint is not None:
        fields["hint"] = hint
    details = one_line(text_of(found.error) if details is None else details)
    details = details or f"{qualified_name(type(found.error))} without a message"
    fields["details"] = f"{details} (and {found.more} more in the group)" if found.more else details
    fields["exception_chain"] = chain
    fields["rule"] = found.rule
    return diagnosis


def _blank_of(code: str) -> dict[str, Any]:
    """Return the fields that follow from the code alone, in the order of the class."""
    spec = CODES[code]
    fields = Diagnosis(
        spec.error_type, code, spec.severity, spec.retryable, None, spec.http_status, True, spec.title, "", spec.hint
    )
    return vars(fields)


def plan_of(cls: type) -> Plan:
    try:
        plan = _plans.get(cls)
        if plan is None:
            if len(_plans) >= _CLASSES:
                _forget()  # classes made at run time must not pile up
            plan = _plans[cls] = _plan(cls)
            quick = _quick_of(cls, plan)
            if quick is not None:
                quick_plans[cls] = quick
    except TypeError:  # a metaclass that cannot be hashed
        plan = _plan(cls)
    return plan


def _plan(cls: type) -> Plan:
    order = mro_of(cls)
    carries = any(not _SPECIAL.isdisjoint(_vars_of(base)) for base in order if module_of(base) != "builtins")
    return Plan(qualified_name(cls), rules_for(cls), any(base is AIError for base in order), carries)


def _quick_of(cls: type, plan: Plan) -> Quick | None:
    rule = plan.rules[0]
    if BaseExceptionGroup in mro_of(cls):
        return None
    if plan.ours:
        return Quick({}, None, False, _ByCode(cls, plan.name))
    if plan.carries or rule.remote or rule.judge or rule.verdict is None or rule.verdict.details is not None:
        return None
    verdict = rule.verdict._replace(details=f"{plan.name} without a message")
    fixed = vars(diagnosis_of(Found(Exception(), verdict, rule.name), (plan.name,)))
    return Quick(fixed, rule.wording, rule.network, None)


def _forget() -> None:
    _plans.clear()
    quick_plans.clear()


_blank = {code: _blank_of(code) for code in CODES}
on_change(_forget)
