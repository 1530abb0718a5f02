"""Rules: what an exception class means, found by its qualified name.

A rule for ``package.Error`` holds for the class ``Error`` of any module of that package and for all its subclasses;
a rule with a longer module path goes before one with a shorter. So no library is imported to know its errors, and a
class that moves to another module of its library is still known.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeVar

from bulletproof.errors.codes import CODES
from bulletproof.errors.reading import mro_of, qualified_name
from bulletproof.errors.taxonomy import ConfigurationError

Defer = Literal["no", "cause", "context"]


class Verdict(NamedTuple):
    """What a rule says about an exception.

    Args:
        code: A key of ``CODES``.
        retryable: Overrides what the code says.
        details: Replaces the exception's own text, where that holds data or reads badly.
        retry_after: Seconds to wait, where the exception says so in a way of its own.
        counts: Whether a circuit breaker counts it; None for the usual.
        hint: Overrides the hint of the code.
        defer: Whose opinion goes first when it is a decided one: nobody's (``no``), that of an explicit ``cause``,
            or that of any ``context`` in which the exception was raised.
    """

    code: str
    retryable: bool | None = None
    details: str | None = None
    retry_after: float | None = None
    counts: bool | None = None
    hint: str | None = None
    defer: Defer = "no"


Opinion = Verdict | str | BaseException | None
Judge = Callable[[BaseException], Opinion]
J = TypeVar("J", bound=Judge)


class Rule(NamedTuple):
    """A rule as registered.

    Args:
        name: The qualified name it was registered for.
        verdict: What it says; None when a function has to be asked.
        judge: A function of the exception, asked first.
        wording: A function of the exception's text, asked first; equal texts get equal answers.
        remote: Whether the HTTP status and body that the exception carries go before the verdict.
        network: Whether it matters which library the connection belongs to.
    """

    name: str
    verdict: Verdict | None = None
    judge: Judge | None = None
    wording: Callable[[str], Verdict | None] | None = None
    remote: bool = False
    network: bool = False


UNKNOWN: Final = Rule("unknown exception", Verdict("internal_error", defer="context"))

_CARRIERS = frozenset({"vendored", "_vendor", "vendor", "externals", "thirdparty", "packages"})

_rules: dict[str, Rule] = {}
_listeners: list[Callable[[], None]] = []


def register(
    code: str | Verdict,
    names: str,
    *,
    remote: bool = False,
    network: bool = False,
    wording: Callable[[str], Verdict | None] | None = None,
) -> None:
    """Say that the exception classes named mean this code.

    Args:
        code: A key of ``CODES``, or a ``Verdict``.
        names: Qualified names of exception classes, separated by white space.
        remote: Whether the HTTP status and body that an exception carries go first.
        network: Whether the exception means a database when a database driver raised it.
        wording: A function of the exception's text that goes first; it must depend on the text alone.

    Raises:
        ValueError: The code is not in ``CODES``.
    """
    verdict = checked(code)
    for name in names.split():
        _rules[name] = Rule(name, verdict, None, wording, remote, network)
    _changed()


def read_verdict(text: str) -> Verdict:
    """Return the verdict that a table states as ``code, mark ... = details``; ``rules/known.txt`` says which marks."""
    head, _, details = text.partition(" = ")
    code, *marks = head.split(", ")
    return checked(
        Verdict(
            code,
            retryable=False if "final" in marks else None,
            details=details or None,
            counts=False if "neutral" in marks else None,
            defer="cause" if "cause" in marks else "context" if "context" in marks else "no",
        )
    )


def verdicts(table: Mapping[str, str]) -> dict[str, Verdict]:
    """Return for each name its verdict, from a table of the names that stand for one."""
    return {name: read_verdict(verdict) for verdict, names in table.items() for name in names.split()}


def phrases(table: str) -> tuple[tuple[re.Pattern[str], Verdict], ...]:
    """Read a table of verdicts; what is indented below each are regular expressions for the words that stand for it."""
    found: list[tuple[list[str], Verdict]] = []
    for line in table.splitlines():
        if line.startswith(" "):
            found[-1][0].append(line.strip())
        elif line and not line.startswith("#"):
            found.append(([], read_verdict(line.removesuffix(":"))))
    return tuple((re.compile("|".join(words), re.IGNORECASE), verdict) for words, verdict in found)


def rule(*names: str) -> Callable[[J], J]:
    """Make a function the rule for exception classes, given by their qualified names.

    The function gets the exception and returns a key of ``CODES``, a ``Verdict``, another exception that the first one
    only wraps and that is judged in its place, or None when it has no opinion: then the rules of the base classes are
    asked. A rule for a class replaces the one there was. When the function itself fails, it counts as having no
    opinion, and ``Diagnosis.rule`` says so. It must do no input or output and change nothing.

    Args:
        *names: Such as ``"mylib.QuotaError"``; ``mylib.anything.QuotaError`` is meant too, and subclasses.

    Raises:
        ValueError: A name is empty or not made of identifiers.

    Example:
        >>> @rule("mylib.QuotaError")
        ... def quota(error: BaseException) -> str:
        ...     return "quota_exhausted"
        >>> from bulletproof.errors import classify
        >>> class QuotaError(Exception):
        ...     __module__ = "mylib.errors"
        >>> classify(QuotaError("used up")).code
        'quota_exhausted'
    """
    for name in names:
        if not all(part.isidentifier() for part in name.replace(".<locals>", "").split(".")):
            raise ValueError(f"not the qualified name of a class: {name!r}; write it as 'package.Error'")

    def decorate(judge: J) -> J:
        for name in names:
            _rules[name] = Rule(name, judge=judge)
        _changed()
        return judge

    return decorate


def checked(opinion: str | Verdict) -> Verdict:
    """Return the opinion as a ``Verdict``; a ``ValueError`` when its code is unknown."""
    verdict = Verdict(opinion) if isinstance(opinion, str) else opinion
    if verdict.code not in CODES:
        raise ValueError(f"unknown error code {verdict.code!r}: it must be a key of bulletproof.errors.CODES")
    return verdict


def rules_for(cls: type) -> tuple[Rule, ...]:
    """Return the rules that hold for a class, the most special first."""
    found = []
    for base in mro_of(cls):
        known = next((_rules[name] for name in _names(qualified_name(base)) if name in _rules), None)
        if known is None:
            continue
        if base is not cls and known.verdict is not None and known.verdict.defer == "cause":
            # A class of somebody's own is a wrapper rather than a bug.
            known = known._replace(verdict=known.verdict._replace(defer="context"))
        found.append(known)
    # A library's own word goes before what Python says of a built-in class that its error is as well.
    return (*sorted(found, key=lambda known: "." not in known.name), UNKNOWN)


def has_rule(name: str) -> bool:
    """Whether there is a rule for the class of that qualified name itself."""
    return any(known in _rules for known in _names(name))


def load_rules() -> list[str]:
    """Load the rules that installed packages bring along: their entry points of the group ``bulletproof.rules``.

    An entry point names a module that registers rules when it is imported, or a function that does so when it is
    called. Nothing is loaded unless this function is called.

    Returns:
        The names of the entry points loaded.

    Raises:
        ConfigurationError: One of them cannot be loaded; the others are.
    """
    from importlib.metadata import entry_points  # slow to import, seldom needed

    failed: list[tuple[str, Exception]] = []
    loaded = []
    for point in sorted(entry_points(group="bulletproof.rules"), key=lambda point: point.name):
        try:
            found = point.load()
            if callable(found):
                found()
            loaded.append(point.name)
        except Exception as error:  # noqa: BLE001 - the code of other packages; all are tried, then it is told
            failed.append((f"{point.name} ({point.value})", error))
    if failed:
        names = ", ".join(name for name, _ in failed)
        raise ConfigurationError(
            f"rules of other packages cannot be loaded: {names}",
            hint="Correct or remove the packages named.",
        ) from failed[0][1]
    return loaded


def on_change(listener: Callable[[], None]) -> None:
    """Call the listener whenever rules are added."""
    _listeners.append(listener)


def _changed() -> None:
    for listener in _listeners:
        listener()


def _names(name: str) -> list[str]:
    """Return the names under which a rule for a class may be registered: a.b.C and a.C for a.b.C.

    What a library carries inside itself (``pip._vendor.requests``) is known as the original is.
    """
    module, _, cls = name.rpartition(".")
    parts = module.split(".") if module else []
    names = [".".join([*parts[:length], cls]) for length in range(len(parts), 0, -1)]
    carried = max((index for index, part in enumerate(parts) if part in _CARRIERS), default=-1)
    if 0 <= carried < len(parts) - 1:
        names = _names(".".join([*parts[carried + 1 :], cls])) + names
    return names or [cls]
