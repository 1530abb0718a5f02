"""What callers give, checked and made fit for both databases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from bulletproof.errors import InputValidationError
from bulletproof.store.records import RejectionRow, ResultRow

MAX_ROW = 2**63 - 1
"""Largest number of a row."""
MAX_ID = 200
"""Most characters of a processing id."""


def is_id(processing_id: object) -> bool:
    """Tell whether a run may have this id."""
    return isinstance(processing_id, str) and 0 < len(processing_id) <= MAX_ID and processing_id.isprintable()


def checked_limit(limit: int) -> int:
    """Return the limit of a page; refuse one below 1."""
    if not isinstance(limit, int) or limit < 1:
        raise InputValidationError(f"limit must be a whole number of at least 1, not {limit!r:.40}")
    return min(limit, MAX_ROW)


def clean(value: Any) -> Any:
    """Replace what a database cannot hold: NUL and lone surrogates in texts, NaN and infinity in JSON.

    Example:
        >>> clean({"name": "a\\x00b\\ud800", "share": float("nan"), "kept": [1, "ok"]})
        {'name': 'a\\ufffdb?', 'share': None, 'kept': [1, 'ok']}
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def check_rows(results: Sequence[ResultRow], rejections: Sequence[RejectionRow]) -> None:
    """Refuse rows that cannot be stored as they are, and name the first."""
    # In one piece, which is many times faster than row by row.
    texts = "".join([row.text for row in results])
    labels = "".join([row.label for row in results if row.label is not None])
    if not (_fits(texts) and _fits(labels)):
        bad = next(row for row in results if not (_fits(row.text) and _fits(row.label or "")))
        raise InputValidationError(
            "a text with a NUL character or half a surrogate pair cannot be stored",
            code="invalid_encoding",
            hint="Clean texts before they are stored: bulletproof.ingest.Cleaner does.",
            row=bad.row,
        )
    for number in [row.row for row in results] + [item.row for item in rejections]:
        if not -MAX_ROW <= number <= MAX_ROW:
            raise InputValidationError("the number of a row must fit into 64 bits", row=number)


def _fits(text: str) -> bool:
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
