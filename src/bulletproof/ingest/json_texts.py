"""The texts of JSON records, taken from the field that holds them."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

from bulletproof.errors import InvalidFileError
from bulletproof.ingest.json_stream import kind_of
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.records import MIB, IngestLimits, Record, Rejection, Row, listing, shorten
from bulletproof.ingest.text_field import find_text_field, missing_field, named

_SAMPLE_VALUES = 100
_MISSING = object()

_Value: TypeAlias = tuple[Any, int] | Rejection


def json_texts(values: Iterator[_Value], wanted: str | None, limits: IngestLimits, notes: Notes) -> Iterator[Row]:
    """Yield the text of each JSON value, given with its size; the field is found from the first of them."""
    head: list[_Value] = []
    size = 0
    for value in values:
        head.append(value)
        size += 200 if isinstance(value, Rejection) else value[1]
        if len(head) >= _SAMPLE_VALUES or size > MIB:
            break
    _find_field([value[0] for value in head if not isinstance(value, Rejection)], wanted, notes)
    field, most = notes.text_field, limits.max_field_bytes
    for row, item in enumerate(chain(head, values), 1):
        if isinstance(item, Rejection):
            yield item
            continue
        value, size = item
        text = value
        if isinstance(value, dict):
            if field is None:  # the first object comes after what the field was looked for in
                field = notes.text_field = wanted or next(iter(named(list(value))), None)
            text = value.get(field, _MISSING)
        if size * 4 > most and (name := _oversized(value, most)):
            yield Rejection(row, "text_too_long", f"{name} is longer than the {most:,} bytes allowed")
        elif isinstance(text, str):
            yield Record(row, text)
        elif not isinstance(value, dict):
            yield Rejection(row, "invalid_input", f"expected an object or a text, got {kind_of(value)}")
        elif text is None:
            yield Record(row, "")
        elif text is _MISSING:
            lacking = f"field {shorten(field)}" if field else "text field"
            found = listing(list(value), 5) or "none"
            yield Rejection(row, "missing_field", f"there is no {lacking}; the fields are {found}")
        else:
            yield Rejection(row, "invalid_input", f"the field {shorten(field)} is {kind_of(text)}, not a text")


def _find_field(values: Sequence[Any], wanted: str | None, notes: Notes) -> None:
    samples: dict[str, list[Any]] = {}
    for value in values:
        if isinstance(value, dict):
            for name, content in value.items():
                samples.setdefault(name, []).append(content)
    if samples:
        notes.text_field = find_text_field(samples, wanted, notes)
    elif any(isinstance(value, str) for value in values):
        if wanted is not None:
            notes.say("The text field was ignored: the file holds plain texts, which have no fields.")
    elif values and not isinstance(values[0], dict):
        raise InvalidFileError(
            f"There is no text in the file: its records are {kind_of(values[0], plural=True)}; "
            "expected objects with a text field, or texts",
            code="missing_field",
        )
    elif values:
        raise missing_field(wanted or "text", [])


def _oversized(value: Any, most: int) -> str | None:
    """Return the name of a text in a record that is over the limit, None when there is none."""
    for name, text in value.items() if isinstance(value, dict) else [(None, value)]:
        if isinstance(text, str) and len(text.encode()) > most:
            return "the text" if name is None else f"the field {shorten(name)}"
    return None
