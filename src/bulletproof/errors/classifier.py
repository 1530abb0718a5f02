"""One opinion on every exception: ``classify``."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bulletproof.errors import rules as _builtin  # noqa: F401 - importing them registers them
from bulletproof.errors.codes import CODES, ErrorType, Severity
from bulletproof.errors.diagnosis import Diagnosis
from bulletproof.errors.headers import Now, retry_after_of, told_of
from bulletproof.errors.http import STATUS_ATTRIBUTES, judge_remote, judge_status
from bulletproof.errors.reading import links, module_of, mro_of, qualified_name, raised_by, read, text_of
from bulletproof.errors.registry import UNKNOWN, Rule, Verdict, checked, on_change, rules_for
from bulletproof.errors.taxonomy import AIError, InputValidationError
from bulletproof.errors.text import LIMIT, brief, one_line

_DEPTH = 16
_MEMBERS = 64
_WRAPPERS = 4
_SCANNED = 4000
_CLASSES = 4096
_CARRIED = STATUS_ATTRIBUTES | {"headers", "retry_after", "body"}
_SPECIAL = _CARRIED | {"__getattr__", "__getattribute__", "__dict__"}
_RANK = {severity: rank for rank, severity in enumerate(Severity)}
_vars_of = type.__dict__["__dict__"].__get__
_members_of = BaseExceptionGroup.__dict__["exceptions"].__get__
_new = object.__new__


class _Plan(NamedTuple):
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


class _Found(NamedTuple):
    """An exception with the verdict on it."""

    error: BaseException
    verdict: Verdict
    rule: str
    more: int = 0


class _Quick(NamedTuple):
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


_plans: dict[type, _Plan] = {}
_quick: dict[type, _Quick] = {}


def classify(error: BaseException, *, now: Now | None = None) -> Diagnosis:
    """Say what an exception means.

    The exception's own class decides, by the rule for its qualified name or that of a base class. When that says
    little (an unknown class, a bare ``RuntimeError``), a decided opinion on its cause goes first, or on the exception
    during whose handling it was raised. Of a group the worst member decides. HTTP statuses, ``Retry-After`` and its
    kin, and the vendors' error bodies are read where an exception carries them.

    Args:
        error: Any exception whatever.
        now: Gives the present moment (aware); only asked when a service names a date to come back.

    Returns:
        The diagnosis. The function is pure and never raises.

    Example:
        >>> found = classify(TimeoutError("no answer"))
        >>> found.code, found.severity.value, found.retryable, found.counts_as_failure
        ('service_timeout', 'medium', True, True)
        >>> classify(ValueError("a bug")).code
        'internal_error'
    """
    try:
        diagnosis = _at_once(error)
        if diagnosis is not None:
            return diagnosis
    except BaseException:  # noqa: BLE001, S110 - a hostile exception: the careful way below knows how to treat it
        pass
    try:
        return _examine(error, now)
    except BaseException as failure:  # noqa: BLE001 - whoever asks is handling an error and must not get another
        name = qualified_name(type(error))
        details = f"{name} (it could not be examined: {type(failure).__name__})"
        return _diagnosis(_Found(error, Verdict("internal_error", details=details), UNKNOWN.name), (name,))


def _at_once(error: BaseException) -> Diagnosis | None:
    """Return the diagnosis of an exception that stands alone and whose class decides; None for all others."""
    plan = _quick.get(type(error))
    if plan is None or error.__cause__ is not None or error.__context__ is not None:
        return None
    fixed, wording, network, by_code = plan
    own = error.__dict__
    text = str(error)
    if len(text) > LIMIT:
        return None
    details = brief(text)
    diagnosis = _new(Diagnosis)
    fields = diagnosis.__dict__
    if by_code is not None:
        if "\n" in text or not details:
            return None
        fields.update(by_code[own["code"]])
        fields["retryable"] = own["retryable"]
        fields["hint"] = own["hint"]
        retry_after = own["retry_after"]
        if retry_after is not None:
            if not retry_after > 0:
                return None
            fields["retry_after"] = retry_after
    else:
        if own and not _CARRIED.isdisjoint(own):
            return None
        if wording is not None and wording(text) is not None:
            return None
        if network and error.__traceback__ is not None and raised_by(error) == "database":
            return None
        fields.update(fixed)
    if details:
        fields["details"] = details
    return diagnosis


def _examine(error: BaseException, now: Now | None) -> Diagnosis:
    """Do what ``classify`` does, with all that may turn up."""
    path = list(_path(error))
    found = _decide(path, now, set())
    verdict = found.verdict
    if verdict.retry_after is None and len(path) > 1 and _retryable(verdict) and verdict.code != "circuit_open":
        found = found._replace(verdict=verdict._replace(retry_after=retry_after_of(error, now=now)))
    return _diagnosis(found, tuple(_names(path)))


def _decide(path: list[tuple[BaseException, bool]], now: Now | None, groups: set[int]) -> _Found:
    """Return the verdict on a chain of exceptions, the outermost first."""
    opinions: list[_Found] = []
    defer = "context"
    for error, explicit in path:
        if opinions and (not isinstance(error, Exception) or (defer == "cause" and not explicit)):
            break  # what cancelled the work says nothing about the error that followed
        found = _judge_group(error, now, groups) if isinstance(error, BaseExceptionGroup) else _judge(error, now)
        defer = found.verdict.defer
        if defer == "no":
            return found
        opinions.append(found)
    return next((found for found in opinions if found.verdict.code != "internal_error"), opinions[0])


def _judge(error: BaseException, now: Now | None, depth: int = 0) -> _Found:
    """Return the verdict on one exception by itself."""
    plan = _plan_of(type(error))
    if plan.ours:
        return _Found(error, _own_verdict(error), plan.name)
    rule, opinion = _first_opinion(error, plan.rules)
    if isinstance(opinion, BaseException):
        if depth < _WRAPPERS and opinion is not error:
            return _judge(opinion, now, depth + 1)
        opinion = Verdict("internal_error", defer="cause")
    own = read(error, "__dict__")
    if plan.carries or not isinstance(own, dict) or not _CARRIED.isdisjoint(own):
        if opinion.defer != "no":
            by_status = judge_status(error)
            if by_status is not None:
                rule, opinion = "HTTP status", by_status
        retry_after, told = told_of(error, now=now)
        if retry_after is not None or told is not None:
            opinion = opinion._replace(
                retry_after=opinion.retry_after if retry_after is None else retry_after,
                retryable=opinion.retryable if told is None else told,
            )
    return _Found(error, opinion, rule)


def _first_opinion(error: BaseException, rules: tuple[Rule, ...]) -> tuple[str, Verdict | BaseException]:
    notes = ""
    for rule in rules:
        opinion: Verdict | str | BaseException | None = rule.verdict
        try:
            if rule.judge is not None:
                opinion = rule.judge(error)
            elif rule.wording is not None:
                opinion = rule.wording(text_of(error)[:_SCANNED]) or rule.verdict
            elif rule.remote and rule.verdict is not None:
                opinion = judge_remote(error, rule.verdict)
            elif rule.network and raised_by(error) == "database":
                opinion = "database_unavailable"
            if isinstance(opinion, BaseException):
                return rule.name + notes, opinion
            if opinion is not None:
                return rule.name + notes, checked(opinion)
        except Exception as failure:  # noqa: BLE001 - a rule of the user's: its failure is told in Diagnosis.rule
            notes += f"; rule {rule.name!r} failed: {type(failure).__name__}"
    return UNKNOWN.name + notes, Verdict("internal_error", defer="context")


def _judge_group(group: BaseExceptionGroup[BaseException], now: Now | None, groups: set[int]) -> _Found:
    """Return the verdict on the worst member; the whole is retryable only when every member is."""
    nothing = _Found(group, Verdict("internal_error", defer="context"), UNKNOWN.name)
    if id(group) in groups:
        return nothing
    groups.add(id(group))
    everyone = [_decide(list(_path(leaf)), now, groups) for leaf in _leaves(group)]
    found = [one for one in everyone if one.verdict.code != "cancelled"] or everyone
    if not found:
        return nothing
    worst = max(found, key=_badness)
    verdict = worst.verdict._replace(
        retryable=all(_retryable(one.verdict) for one in found),
        retry_after=max((one.verdict.retry_after for one in found if one.verdict.retry_after), default=None),
        counts=any(one.verdict.counts is not False for one in found),
        defer="no",
    )
    return worst._replace(verdict=verdict, more=len(found) - 1)


def _badness(found: _Found) -> tuple[bool, int, bool]:
    verdict = found.verdict
    return verdict.counts is not False, _RANK[CODES[verdict.code].severity], not _retryable(verdict)


def _retryable(verdict: Verdict) -> bool:
    return CODES[verdict.code].retryable if verdict.retryable is None else verdict.retryable


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the members that are no groups themselves, at most so many of them."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    seen = 0
    while waiting and len(leaves) < _MEMBERS and seen < 4 * _MEMBERS:
        seen += 1
        current = waiting.pop(0)
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(_members_of(current))
        else:
            leaves.append(current)
    return leaves


def _path(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """Yield the exception and its causes, each with whether it is an explicit one."""
    seen: set[int] = set()
    current: BaseException | None = error
    explicit = True
    while current is not None and id(current) not in seen and len(seen) < _DEPTH:
        yield current, explicit
        seen.add(id(current))
        cause, context = links(current)
        current, explicit = (cause, True) if cause is not None else (context, False)


def _names(path: list[tuple[BaseException, bool]]) -> Iterator[str]:
    for error, _ in path:
        yield _plan_of(type(error)).name
        if isinstance(error, BaseExceptionGroup):
            yield from (_plan_of(type(leaf)).name for leaf in _leaves(error)[:_DEPTH])


def _own_verdict(error: BaseException) -> Verdict:
    """Return what one of our own errors says about itself."""
    code = read(error, "code")
    if not isinstance(code, str) or code not in CODES:
        code = read(type(error), "default_code")
        code = code if isinstance(code, str) and code in CODES else "internal_error"
    retryable, retry_after, hint = read(error, "retryable"), read(error, "retry_after"), read(error, "hint")
    text = text_of(error)
    return Verdict(
        code,
        retryable if isinstance(retryable, bool) else None,
        " ".join(text.split()) if "\n" in text else text,
        retry_after if isinstance(retry_after, int | float) and retry_after > 0 else None,
        not (isinstance(error, InputValidationError) or CODES[code].error_type is ErrorType.VALIDATION),
        hint if isinstance(hint, str) else None,
    )


def _diagnosis(found: _Found, chain: tuple[str, ...]) -> Diagnosis:
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


def _plan_of(cls: type) -> _Plan:
    try:
        plan = _plans.get(cls)
        if plan is None:
            if len(_plans) >= _CLASSES:
                _forget()  # classes made at run time must not pile up
            plan = _plans[cls] = _plan(cls)
            quick = _quick_of(cls, plan)
            if quick is not None:
                _quick[cls] = quick
    except TypeError:  # a metaclass that cannot be hashed
        plan = _plan(cls)
    return plan


def _plan(cls: type) -> _Plan:
    order = mro_of(cls)
    carries = any(not _SPECIAL.isdisjoint(_vars_of(base)) for base in order if module_of(base) != "builtins")
    return _Plan(qualified_name(cls), rules_for(cls), any(base is AIError for base in order), carries)


def _quick_of(cls: type, plan: _Plan) -> _Quick | None:
    rule = plan.rules[0]
    if BaseExceptionGroup in mro_of(cls):
        return None
    if plan.ours:
        return _Quick({}, None, False, _ByCode(cls, plan.name))
    if plan.carries or rule.remote or rule.judge or rule.verdict is None or rule.verdict.details is not None:
        return None
    verdict = rule.verdict._replace(details=f"{plan.name} without a message")
    fixed = vars(_diagnosis(_Found(Exception(), verdict, rule.name), (plan.name,)))
    return _Quick(fixed, rule.wording, rule.network, None)


def _forget() -> None:
    _plans.clear()
    _quick.clear()


_blank = {code: _blank_of(code) for code in CODES}
on_change(_forget)
