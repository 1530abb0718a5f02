"""What flows from a parser to the analysis, and the limits it flows under."""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

MIB = 2**20


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """How much a file may hold before it, or a row of it, is refused.

    Args:
        max_bytes: Size of the file as it is sent, in bytes.
        max_decompressed_bytes: Size of a gzip file once unpacked, in bytes.
        max_compression_ratio: Unpacked bytes for each packed byte; looked at from the first MiB unpacked on.
        max_records: Records of a file.
        max_records_per_packed_byte: Records for each byte of a gzip file; looked at from 100,000 records on.
        max_depth: Nesting of objects and arrays in JSON.
        max_field_bytes: Size of one field or paragraph as UTF-8, in bytes.
        max_record_bytes: Size of one record, or one line, with all its fields; what is held in memory at a time.
        max_columns: Columns of a table, or fields of a JSON object.
        max_integer_digits: Digits of an integer in JSON.
        max_text_chars: Length of a cleaned text that is still analysed, in characters.
        max_rejected_share: Share of bad rows, in [0, 1], above which the whole file is refused.
        chunk_size: Rows handed on at a time.

    Raises:
        ValueError: A limit is not positive, or the share is outside [0, 1].

    Example:
        >>> IngestLimits(max_columns=20).max_columns
        20
    """

    max_bytes: int = 25 * MIB
    max_decompressed_bytes: int = 250 * MIB
    max_compression_ratio: float = 200.0
    max_records: int = 2_000_000
    max_records_per_packed_byte: float = 1.0
    max_depth: int = 64
    max_field_bytes: int = 128 * 1024
    max_record_bytes: int = 4 * MIB
    max_columns: int = 1000
    max_integer_digits: int = 20
    max_text_chars: int = 20_000
    max_rejected_share: float = 0.5
    chunk_size: int = 512

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if name == "max_rejected_share":
                if not 0 <= value <= 1:
                    raise ValueError(f"max_rejected_share must be in [0, 1], got {value!r}")
            elif not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")


class Record(NamedTuple):
    """One text to analyse; ``row`` counts the records of the file from 1."""

    row: int
    text: str


class Rejection(NamedTuple):
    """One row that cannot be used, and why."""

    row: int
    code: str
    details: str


class Chunk(NamedTuple):
    """The next rows of a file, good and bad; each in the order of the file."""

    records: list[Record]
    rejections: list[Rejection]


Row: TypeAlias = Record | Rejection
"""What a parser yields."""


def shorten(value: Any, limit: int = 60) -> str:
    """Return a name in quotes, on one line, that fits in a message."""
    text = "".join(char if char.isprintable() else "?" for char in str(value)[: limit + 1])
    return f"'{text}'" if len(text) <= limit else f"'{text[: limit - 1]}…'"


def listing(names: "list[str] | tuple[str, ...]", limit: int = 20) -> str:
    """Return names as a list that fits in a message: the first, and how many more."""
    shown = ", ".join(shorten(name) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
