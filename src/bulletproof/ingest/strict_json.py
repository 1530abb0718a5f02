"""One JSON value out of a text: the grammar of RFC 8259 and our limits, with the place of whatever is wrong.

The C scanner of the standard library does the work; what it lets pass (NaN, Infinity, numbers beyond a float, lone
surrogates, endless integers, any depth it can bear) is refused here.
"""

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from bulletproof.ingest.records import IngestLimits

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|-?Infinity|NaN|-?\d[\d.eE+-]*|[\[\]{}]', re.DOTALL)
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)

# How the standard library begins: "Expecting value", "Expecting property name enclosed in double quotes".
_BEFORE_BRACKET = ("Expecting v", "Expecting p")


class Flaw(Exception):  # noqa: N818 - it never leaves this room
    """What is wrong with a JSON text, and where.

    Args:
        message: What is wrong.
        pos: Index of the character where it is.
        end: Index up to which the text was looked at; more text behind it can change the verdict.
    """

    def __init__(self, message: str, pos: int, end: int) -> None:
        super().__init__(message)
        self.message = message
        self.pos = pos
        self.end = end


class _Refusal(Exception):  # noqa: N818
    """Raised by a hook, which does not know the place."""


class StrictDecoder:
    """Decodes JSON values one by one.

    Args:
        limits: Depth, digits, fields in an object.
        constants: Whether NaN and Infinity come through as floats instead of being refused.

    Example:
        >>> StrictDecoder(IngestLimits()).decode('[1, {"a": 2}] tail', 0)
        ([1, {'a': 2}], 13)
    """

    def __init__(self, limits: IngestLimits, *, constants: bool = False) -> None:
        self._limits = limits
        self._raw_decode = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=None if constants else self._float,
            parse_constant=None if constants else self._constant,
        ).raw_decode
        self.duplicates: list[str] = []

    def decode(self, text: str, pos: int, depth: int = 0) -> tuple[Any, int]:
        """Decode the value that begins at ``pos``.

        Args:
            text: The text; it may go on behind the value.
            pos: Where the value begins; no whitespace before it.
            depth: Arrays and objects around the value.

        Returns:
            The value, and the index behind it. Field names given twice are in ``duplicates`` then.

        Raises:
            Flaw: The value is not valid, not whole, or over a limit.
        """
        self.duplicates = []
        try:
            value, end = self._raw_decode(text, pos)
        except json.JSONDecodeError as error:
            unterminated = error.msg.startswith("Unterminated string")
            place = error.pos
            if error.msg.startswith("Illegal trailing comma"):  # Python 3.13 names the comma, not what follows
                place = len(text) - len(text[place + 1 :].lstrip(" \t\r\n"))
            raise Flaw(_wording(text, error), place, len(text) if unterminated else place) from None
        except RecursionError:
            self._find(text, pos, depth, "it is nested too deeply")
        except _Refusal as refusal:
            self._find(text, pos, depth, str(refusal))
        if text.count("[", pos, end) + text.count("{", pos, end) + depth > self._limits.max_depth:
            self._check_depth(text, pos, end, depth)
        if text.find("\\u", pos, end) >= 0:
            _check_surrogates(text, pos, end)
        return value, end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            self.duplicates.extend(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        if len(fields) > self._limits.max_columns:
            raise _Refusal(f"An object has {len(fields):,} fields; at most {self._limits.max_columns:,} are allowed")
        return fields

    def _integer(self, digits: str) -> int:
        if len(digits) > self._limits.max_integer_digits and not self._short(digits):
            raise _Refusal("number")
        return int(digits)

    def _short(self, digits: str) -> bool:
        return len(digits.lstrip("-")) <= self._limits.max_integer_digits

    def _float(self, digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise _Refusal("number")
        return value

    def _constant(self, _name: str) -> NoReturn:
        raise _Refusal("number")

    def _find(self, text: str, pos: int, depth: int, reason: str) -> NoReturn:
        """Raise the flaw that a hook met, with its place."""
        self._check_depth(text, pos, len(text), depth)
        if reason == "number":
            for token in _TOKEN.finditer(text, pos):
                message = self._number_flaw(token[0])
                if message:
                    raise Flaw(message, token.start(), token.end())
        raise Flaw(reason, pos, pos)

    def _number_flaw(self, token: str) -> str | None:
        if token in ("NaN", "Infinity", "-Infinity"):
            return f"{token} is not valid JSON; use null for a missing number"
        if token[0] not in "-0123456789":
            return None
        if token.lstrip("-").isdigit():
            limit = self._limits.max_integer_digits
            return None if self._short(token) else f"An integer has more than the {limit} digits allowed"
        try:
            return "A number is too large" if math.isinf(float(token)) else None
        except ValueError:
            return None

    def _check_depth(self, text: str, pos: int, end: int, depth: int) -> None:
        for token in _TOKEN.finditer(text, pos, end):
            if token[0] in "[{":
                depth += 1
                if depth > self._limits.max_depth:
                    raise Flaw(
                        f"It is nested more than {self._limits.max_depth} levels deep", token.start(), token.end()
                    )
            elif token[0] in "]}":
                depth -= 1


def _check_surrogates(text: str, pos: int, end: int) -> None:
    for escape in _ESCAPE.finditer(text, pos, end):
        if escape[1]:
            raise Flaw(f"\\{escape[1]} is half of a character (a lone surrogate)", escape.start(), escape.end())


def _wording(text: str, error: json.JSONDecodeError) -> str:
    message, pos = error.msg, error.pos
    char = text[pos : pos + 1]
    if message.startswith("Illegal trailing comma") or (char in ("]", "}") and message[:11] in _BEFORE_BRACKET):
        return "There is a comma before the closing bracket, or a value is missing"
    if char == "'" and message[:11] in _BEFORE_BRACKET:
        return "Field names and texts must stand in double quotes"
    if message.startswith("Invalid control character"):
        code = ord(text[pos]) if pos < len(text) else 0
        return f"A text holds the control character U+{code:04X}; it must be escaped"
    if message.startswith("Unterminated string"):
        return "A text begins here and never ends"
    return message.removesuffix(" at").replace("Expecting", "Expected")
