"""Explaining a traceback that is only text: ``explain``."""

import re
import sys
from functools import cache
from pathlib import Path
from types import FunctionType

from bulletproof.errors.classifier import classify
from bulletproof.errors.diagnosis import Diagnosis
from bulletproof.errors.registry import has_rule
from bulletproof.errors.taxonomy import InputValidationError

_LIMIT = 1_000_000
_CHAIN = 16
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"
_LINK = re.compile(f"^[ |]*(?P<link>{re.escape(_CAUSE)}|{re.escape(_CONTEXT)})\\s*$", re.MULTILINE)
_MEMBER = re.compile(r"^[ |]*\+(?:-\+)?-{8,}(?: \S+ -{8,})?\s*$", re.MULTILINE)
_HEAD = re.compile(r"^[ |+]*(?:Exception Group )?Traceback \(most recent call last\):\s*$", re.MULTILINE)
_RAISED = re.compile(r"^(?P<name>(?:\w+\.)*(?:<locals>\.)?[A-Za-z_]\w*)(?:: (?P<text>.*))?$", re.DOTALL)
_NAME = re.compile(r"(?:\w+\.)+[A-Z_]\w*|\w*(?:Error|Exception|Exit|Interrupt|Warning|Timeout|Expired|Iteration|Group)")
_PACKAGE = re.compile(r'^\s*File "[^"]*[/\\](?:site|dist)-packages[/\\](?P<package>\w+)[/\\.]', re.MULTILINE)
_KIN = Path(__file__).with_name("kin.txt")


def explain(traceback_text: str) -> Diagnosis:
    """Say what a traceback means that is only text, such as one pasted from a log.

    The last exception's qualified name and message decide, as they would in ``classify``; the causes printed above it
    are taken into account, and so are the members of an exception group. Nothing is imported to know a class:
    one that is loaded already is used, the base classes of others are on record.

    Args:
        traceback_text: What Python printed, or just its last line: ``package.Error: message``.

    Returns:
        The diagnosis; ``rule`` names the rule that decided.

    Raises:
        InputValidationError: The text names no exception.

    Example:
        >>> found = explain("openai.RateLimitError: Error code: 429 - {'error': {'code': 'insufficient_quota'}}")
        >>> found.code, found.rule
        ('quota_exhausted', 'openai.RateLimitError')
    """
    text = traceback_text[-_LIMIT:].replace("\r\n", "\n")
    parts = _LINK.split(text)
    error: BaseException | None = None
    for position in range(max(0, len(parts) - 1 - 2 * _CHAIN), len(parts), 2):
        found = _exception_in(parts[position])
        if found is None:
            continue
        if error is not None and found is not error:
            if parts[position - 1] == _CAUSE:
                found.__cause__ = error
            else:
                found.__context__ = error
        error = found
    if error is None:
        raise InputValidationError(
            "no exception found in the text",
            hint="Give a Python traceback, or at least its last line: 'package.Error: message'.",
        )
    return classify(error)


def _exception_in(block: str) -> BaseException | None:
    """Build the exception that one traceback ends with."""
    segments = _MEMBER.split(block)
    if len(segments) > 1:
        found = [error for error in map(_single, segments[1:]) if error is not None]
        members = [error for error in found if type(error).__name__ not in ("ExceptionGroup", "BaseExceptionGroup")]
        head = _single(segments[0])
        if members:
            return BaseExceptionGroup(str(head) if head is not None else "group", members)
        return head
    return _single(block)


def _single(block: str) -> BaseException | None:
    headed = _HEAD.search(block)
    lines = [line.lstrip("|+ ") if line[:1] in "|+ " and "|" in line[:40] else line for line in block.splitlines()]
    starts = [
        number
        for number, line in enumerate(lines)
        if (match := _RAISED.match(line)) is not None and _plausible(match["name"], headed=headed is not None)
    ]
    if not starts:
        return None
    # After a traceback's frames the first line that is not indented names the exception; its message may have more.
    heads = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    later = [number for number in starts if not heads or number > heads[-1]]
    start = later[0] if heads and later else starts[-1]
    match = _RAISED.match("\n".join(lines[start:]).rstrip())
    if match is None:
        return None
    error = _stand_in(match["name"], match["text"] or "")
    packages = _PACKAGE.findall(block)
    return _raised_in(packages[-1], error) if packages else error


def _raised_in(package: str, error: BaseException) -> BaseException:
    """Give the exception a traceback that ends in a package, as the text says of the true one."""
    raiser = FunctionType(_raise.__code__, {"__name__": package})
    try:
        raiser(error)
    except BaseException as raised:  # noqa: BLE001 - it was raised only to get its traceback
        return raised
    return error


def _raise(error: BaseException) -> None:
    raise error


def _plausible(name: str, *, headed: bool) -> bool:
    return bool(_NAME.fullmatch(name)) or (headed and ("." in name or name[:1].isupper())) or has_rule(name)


def _stand_in(name: str, text: str) -> BaseException:
    """Return an exception of that name and text, of the real class's kind where the class is at hand."""
    module, _, cls_name = name.replace(".<locals>", "").rpartition(".")
    base = _class_at_hand(module or "builtins", cls_name)
    if base is not None and not module:
        try:
            return base(text)
        except TypeError:
            pass  # such as UnicodeDecodeError: it wants more than a text
    if base is None and not has_rule(name):
        base = _relative(name)
    bases: tuple[type, ...] = (base or Exception,)
    namespace = {"__module__": module or "builtins", "__str__": lambda _: text}
    for kind in (bases, (Exception,)):
        try:
            cls: type[BaseException] = type(cls_name, kind, namespace)
            return cls.__new__(cls, text)
        except TypeError:
            continue  # a class with a layout or a constructor of its own
    return Exception(text)


def _class_at_hand(module: str, name: str) -> type[BaseException] | None:
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _relative(name: str) -> type[BaseException] | None:
    """Return a stand-in for the base class that leads to one that a rule names, as far as that is on record."""
    kin = _kin()
    known = kin.get(name) or kin.get(f"{name.rpartition('.')[0]}.*") or ("Warning" if name.endswith("Warning") else "")
    module, _, cls_name = known.rpartition(".")
    if not module:
        return _class_at_hand("builtins", cls_name)
    base = None if has_rule(known) else _relative(known)
    return type(cls_name, (base or Exception,), {"__module__": module})


@cache
def _kin() -> dict[str, str]:
    """Read which classes of the libraries derive from which: ``base: class class ...``."""
    found = {}
    for line in _KIN.read_text(encoding="utf-8").splitlines():
        base, _, classes = line.partition(": ")
        found.update(dict.fromkeys(classes.split(), base))
    return found
