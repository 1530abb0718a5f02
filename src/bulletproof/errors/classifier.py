"""One opinion on every exception: ``classify``."""

from collections.abc import Iterator

from bulletproof.errors import rules as _builtin  # noqa: F401 - importing them registers them
from bulletproof.errors.codes import CODES, ErrorType, Severity
from bulletproof.errors.diagnosis import Diagnosis
from bulletproof.errors.headers import Now, retry_after_of, told_of
from bulletproof.errors.http import judge_remote, judge_status
from bulletproof.errors.plans import CARRIED, Found, diagnosis_of, plan_of, quick_plans
from bulletproof.errors.reading import links, qualified_name, raised_by, read, text_of
from bulletproof.errors.registry import UNKNOWN, Rule, Verdict, checked
from bulletproof.errors.taxonomy import InputValidationError
from bulletproof.errors.text import LIMIT, brief

_DEPTH = 16
_MEMBERS = 64
_WRAPPERS = 4
_SCANNED = 4000
_RANK = {severity: rank for rank, severity in enumerate(Severity)}
_members_of = BaseExceptionGroup.__dict__["exceptions"].__get__
_new = object.__new__


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
        return diagnosis_of(Found(error, Verdict("internal_error", details=details), UNKNOWN.name), (name,))


def _at_once(error: BaseException) -> Diagnosis | None:
    """Return the diagnosis of an exception that stands alone and whose class decides; None for all others."""
    plan = quick_plans.get(type(error))
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
        fields["retryable"] = retryable = own["retryable"]
        if type(retryable) is not bool:
            return None
        fields["hint"] = own["hint"]
        retry_after = own["retry_after"]
        if retry_after is not None:
            if not retry_after > 0:
                return None
            fields["retry_after"] = retry_after
    else:
        if own and not CARRIED.isdisjoint(own):
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
    return diagnosis_of(found, tuple(_names(path)))


def _decide(path: list[tuple[BaseException, bool]], now: Now | None, groups: set[int]) -> Found:
    """Return the verdict on a chain of exceptions, the outermost first."""
    opinions: list[Found] = []
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


def _judge(error: BaseException, now: Now | None, depth: int = 0) -> Found:
    """Return the verdict on one exception by itself."""
    plan = plan_of(type(error))
    if plan.ours:
        return Found(error, _own_verdict(error), plan.name)
    rule, opinion = _first_opinion(error, plan.rules)
    if isinstance(opinion, BaseException):
        if depth < _WRAPPERS and opinion is not error:
            return _judge(opinion, now, depth + 1)
        opinion = Verdict("internal_error", defer="cause")
    own = read(error, "__dict__")
    if plan.carries or not isinstance(own, dict) or not CARRIED.isdisjoint(own):
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
    return Found(error, opinion, rule)


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


def _judge_group(group: BaseExceptionGroup[BaseException], now: Now | None, groups: set[int]) -> Found:
    """Return the verdict on the worst member; the whole is retryable only when every member is."""
    nothing = Found(group, Verdict("internal_error", defer="context"), UNKNOWN.name)
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


def _badness(found: Found) -> tuple[bool, int, bool]:
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
        yield plan_of(type(error)).name
        if isinstance(error, BaseExceptionGroup):
            yield from (plan_of(type(leaf)).name for leaf in _leaves(error)[:_DEPTH])


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
