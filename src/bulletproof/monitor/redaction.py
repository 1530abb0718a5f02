"""What may be remembered of an error: no secrets, and never more than so much."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PosixPath, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar
from uuid import UUID

from bulletproof.errors.text import redact

_T = TypeVar("_T")

MASK = "***"
MESSAGE = 1000
"""Characters of a message that are kept."""
_MARGIN = 250
"""Characters beyond what is kept that are looked at, too: a secret may begin in the one and end in the other."""
SCANNED = MESSAGE + 2 * _MARGIN
NAME = 100
VALUE = 300
DEPTH = 4
ENTRIES = 20
NODES = 100
"""Values kept of one context, all levels together."""
TEXTS = 4000
"""Characters kept of one context, all texts together."""

_SENSITIVE = re.compile(
    r"passw|passphrase|passcode|pwd|secret|token(?!iz)|authori[sz]ation|cookie"
    r"|(?:api|access|private|encryption|signing)[-_ .]?key|credential|bearer|jwt|session[-_ .]?(?:id|key)|signature"
    r"|csrf|xsrf|card[-_ .]?(?:number|no\b|num)|credit[-_ .]?card|\bcvv|\bcvc|\bssn\b|social[-_ .]?security|iban"
    r"|(?:^|[-_ .])(?:auth|pin|otp|totp|mfa|pw|pass|key|sid)$",
    re.IGNORECASE,
)
_TOKEN_COUNT = re.compile(r"tokens?(?:[-_ ]?(?:count|limit|usage|used|budget|per[-_ ]\w+))?$", re.IGNORECASE)
_E_MAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,256}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d])")
_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_SHOWN_AS_TEXT = frozenset(
    {date, datetime, time, timedelta, Decimal, UUID, PosixPath, PurePosixPath, PureWindowsPath}
)  # fmt: skip
_CARD_FROM = 10**12


def plain(value: object, limit: int = SCANNED) -> str:
    """Return a text as an ordinary string, cut to ``limit`` characters, whatever it is and however it behaves.

    Example:
        >>> class Hostile(Exception):
        ...     def __str__(self):
        ...         raise RuntimeError
        >>> plain(Hostile())
        '<...Hostile without a readable text>'
    """
    if type(value) is str:
        return value[:limit]
    try:
        kind = type(value)
        if issubclass(kind, str):
            return str.__str__(value)[:limit]
        if issubclass(kind, Enum):
            return plain(value._value_, limit)  # type: ignore[attr-defined]
        if issubclass(kind, (list, tuple, dict, set, frozenset)) or kind.__str__ is object.__str__:
            # Their text is made of somebody's repr, which may hold anything.
            return f"<{_class_of(value)}>"
        # Even a text that it gives may be a str with a mind of its own.
        return str.__str__(str(value))[:limit]
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 -- foreign code inside error handling; its failure must not hide the error
        return f"<{_class_of(value)} without a readable text>"


def _class_of(value: object) -> str:
    try:
        # A metaclass may answer for its classes; type itself knows.
        cls = type(value)
        module = type.__dict__["__module__"].__get__(cls)
        name = type.__dict__["__name__"].__get__(cls)
        return name[:NAME] if module in ("builtins", "__main__") else f"{module}.{name}"[:NAME]
    except Exception:  # noqa: BLE001 -- a class may lie about its module, too
        return "object"


def clean(text: str, limit: int = MESSAGE) -> str:
    """Return a text without secrets and control characters, cut to ``limit``; it can always be encoded.

    Example:
        >>> clean("bob@example.com paid with 4111 1111 1111 1111, token=abc")
        '*** paid with ***, token=***'
    """
    if len(text) > limit + _MARGIN:
        text = _cut(text, limit + _MARGIN)
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    if not text.isprintable():
        text = _UNSHOWN.sub(" ", text)
    text = redact(text)
    if "@" in text:
        text = _E_MAIL.sub(MASK, text)
    text = _CARD.sub(_mask_card, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _cut(text: str, limit: int) -> str:
    # Half a secret is not recognised, so no word is cut in two.
    text = text[:limit]
    word = max(text.rfind(" ", -_MARGIN), text.rfind("\n", -_MARGIN))
    return (text[:word] if word >= 0 else text[:-_MARGIN]) + "…"


def _mask_card(match: re.Match[str]) -> str:
    digits = [int(digit) for digit in match[0] if digit.isdigit()]
    # Luhn's check digit (ISO/IEC 7812-1): order numbers and timestamps of the same length rarely pass it.
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return match[0] if (sum(digits[-1::-2]) + sum(doubled)) % 10 else MASK


def is_sensitive(key: str) -> bool:
    """Say whether the name of a value tells that it is a secret.

    Example:
        >>> [is_sensitive(key) for key in ("password", "X-API-Key", "prompt_tokens", "model_path")]
        [True, True, False, False]
    """
    return _SENSITIVE.search(key) is not None and not _TOKEN_COUNT.search(key.removesuffix("token"))


class Scrubber:
    """Makes the context of an error fit to keep.

    ``cheaply`` handles what production sends all the time (numbers, and short texts seen before) for a fraction of a
    microsecond; ``fully`` handles anything.
    """

    _REMEMBERED = 1024

    def __init__(self) -> None:
        # Only names and texts in which nothing was found are remembered, so no secret stays here.
        self._keys: dict[str, bool] = {}
        self._texts: dict[str, None] = {}

    def cheaply(self, context: dict[str, Any]) -> bool:
        """Make the context fit in place; False when that takes more than a few lookups."""
        if len(context) > ENTRIES:
            return False
        keys, texts = self._keys, self._texts
        try:
            for key, value in context.items():
                if keys[key]:
                    context[key] = MASK
                    continue
                kind = type(value)
                if kind is str:
                    texts[value]
                elif not ((kind is int and -_CARD_FROM < value < _CARD_FROM) or value is None or kind is bool):
                    return False
        except KeyError:
            return False
        return True

    def fully(self, context: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """Return the context made fit and how many characters had to be looked at."""
        left = _Left()
        return self._mapping(context, DEPTH, left), TEXTS - left.characters

    def _mapping(self, mapping: Any, depth: int, left: "_Left") -> dict[str, Any]:
        fit: dict[str, Any] = {}
        # A subclass may override its methods; the real ones are asked.
        items, size = dict.items(mapping), dict.__len__(mapping)
        for key, value in left.some(items, size, lambda more: ("…", f"{more} more")):
            name = self._key(key, left)
            fit[name] = MASK if self._sensitive(name) else self._value(value, depth, left)
        return fit

    def _key(self, key: object, left: "_Left") -> str:
        if issubclass(type(key), str):
            name = plain(key, NAME)
            if name not in self._keys:
                left.characters -= len(name)
                name = clean(name, NAME)
            return name
        return plain(key, NAME) if type(key) in (int, float, bool, type(None)) else f"<{_class_of(key)}>"

    def _sensitive(self, name: str) -> bool:
        known = self._keys.get(name)
        if known is None:
            known = is_sensitive(name)
            if len(self._keys) >= self._REMEMBERED:
                self._keys.clear()
            self._keys[name] = known
        return known

    def _value(self, value: Any, depth: int, left: "_Left") -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return _number(value)
        if kind is float:
            return value if abs(value) <= 1e308 else str(value)
        if issubclass(kind, str):
            return self._text(plain(value, VALUE + 2 * _MARGIN), left)
        if issubclass(kind, (bytes, bytearray, memoryview)):
            return f"<{len(value)} bytes>"
        if kind in _SHOWN_AS_TEXT:
            return self._text(str(value), left)
        for base in (dict, list, tuple, set, frozenset):
            if issubclass(kind, base) and depth > 1:
                if base is dict:
                    return self._mapping(value, depth - 1, left)
                items = left.some(base.__iter__(value), base.__len__(value), lambda more: f"… {more} more")
                return [self._value(item, depth - 1, left) for item in items]
        # Its repr may hold anything, take for ever or raise: the class has to do.
        return f"<{_class_of(value)}>"

    def _text(self, text: str, left: "_Left") -> str:
        if text in self._texts:
            return text
        left.characters -= len(text)
        fit = clean(text, VALUE)
        if fit == text and len(text) <= 64:
            if len(self._texts) >= self._REMEMBERED:
                self._texts.clear()
            self._texts[text] = None
        return fit


@dataclass(slots=True)
class _Left:
    """How much more of a context may be looked at."""

    nodes: int = NODES
    characters: int = TEXTS

    def some(self, items: Iterable[_T], size: int, note: Callable[[int], _T]) -> Iterator[_T]:
        """Yield items as long as more may be looked at, then a note that says how many are left out."""
        for number, item in enumerate(items):
            if number >= ENTRIES or self.nodes <= 0 or self.characters <= 0:
                yield note(size - number)
                return
            self.nodes -= 1
            yield item


def _number(value: int) -> int | str:
    if -_CARD_FROM < value < _CARD_FROM:
        return value
    if value.bit_length() > 64:
        return f"<int of {value.bit_length()} bits>"
    return value if clean(str(value)) == str(value) else MASK
