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

WHITESPACE = " \t\r\n"

_TOKEN = re.compile(
    r'"[^"\\]*(?:\\.[^"\\]*)*"?|-?Infinity|NaN|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|[\[\]{}]', re.DOTALL
)
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)


class Flaw(Exception):  # noqa: N818 - it never leaves this room
    """What is wrong with a JSON text, and where; more text behind ``end`` can change the verdict."""

    def __init__(self, message: str, pos: int, end: int) -> None:
        super().__init__(message)
        self.message = message
        self.pos = pos
        self.end = end


class _Refusal(Exception):  # noqa: N818
    """Raised by a hook of the scanner: a message, and the token that is wrong, for a hook does not know the place."""


class StrictDecoder:
    """Decodes JSON values one by one; with ``constants``, NaN and Infinity come through as floats."""

    def __init__(self, limits: IngestLimits, *, constants: bool = False) -> None:
        self._limits = limits
        self._raw_decode = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=None if constants else _finite,
            parse_constant=None if constants else _no_constant,
        ).raw_decode
        self.duplicates: list[str] = []

    def decode(self, text: str, pos: int, depth: int = 0) -> tuple[Any, int]:
        """Return the value at ``pos``, inside of ``depth`` arrays and objects, and the index behind it."""
        self.duplicates = []
        try:
            value, end = self._raw_decode(text, pos)
        except json.JSONDecodeError as error:
            unterminated = error.msg.startswith("Unterminated string")
            place = error.pos
            if error.msg.startswith("Illegal trailing comma"):  # Python 3.13 names the comma, not what follows
                place = len(text) - len(text[place + 1 :].lstrip(WHITESPACE))
            raise Flaw(_wording(text, error), place, len(text) if unterminated else place) from None
        except RecursionError:
            self._check_depth(text, pos, len(text), depth)
            raise Flaw("it is nested too deeply", pos, pos) from None
        except _Refusal as refusal:
            message, refused = refusal.args
            found = next((token for token in _TOKEN.finditer(text, pos) if token[0] == refused), None)
            raise Flaw(message, *(found.span() if found else (pos, pos))) from None
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
            raise _Refusal(
                f"An object has {len(fields):,} fields; at most {self._limits.max_columns:,} are allowed", ""
            )
        return fields

    def _integer(self, digits: str) -> int:
        limit = self._limits.max_integer_digits
        if len(digits) > limit and len(digits.lstrip("-")) > limit:
            raise _Refusal(f"An integer has more than the {limit} digits allowed", digits)
        return int(digits)

    def _check_depth(self, text: str, pos: int, end: int, depth: int) -> None:
        limit = self._limits.max_depth
        for token in _TOKEN.finditer(text, pos, end):
            if token[0] in "[{":
                depth += 1
                if depth > limit:
                    raise Flaw(f"It is nested more than {limit} levels deep", token.start(), token.end())
            elif token[0] in "]}":
                depth -= 1


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Refusal("A number is too large", digits)
    return value


def _no_constant(name: str) -> NoReturn:
    raise _Refusal(f"{name} is not valid JSON; use null for a missing number", name)


def _check_surrogates(text: str, pos: int, end: int) -> None:
    for escape in _ESCAPE.finditer(text, pos, end):
        if escape[1]:
            raise Flaw(f"\\{escape[1]} is half of a character (a lone surrogate)", escape.start(), escape.end())


def _wording(text: str, error: json.JSONDecodeError) -> str:
    message, char = error.msg, text[error.pos : error.pos + 1]
    expecting = message.startswith(("Expecting value", "Expecting property name"))
    if message.startswith("Illegal trailing comma") or (expecting and char in ("]", "}")):
        return "There is a comma before the closing bracket, or a value is missing"
    if expecting and char == "'":
        return "Field names and texts must stand in double quotes"
    if message.startswith("Invalid control character"):
        return f"A text holds the control character U+{ord(char):04X}; it must be escaped"
    if message.startswith("Unterminated string"):
        return "A text begins here and never ends"
    return message.removesuffix(" at").replace("Expecting", "Expected")
