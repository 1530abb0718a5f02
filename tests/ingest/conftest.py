"""Helpers of the tests of the ingest room."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bulletproof.errors import AIError
from bulletproof.ingest import IngestLimits, ParsedFile, Record, Rejection, open_upload


@dataclass
class Reading:
    """All that came out of a file."""

    file: ParsedFile
    records: list[Record]
    rejections: list[Rejection]

    @property
    def texts(self) -> list[str]:
        return [record.text for record in self.records]


class Dripping(io.BytesIO):
    """A file that hands out a few bytes at a time, as a socket does, and cannot be sought in."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        super().__init__(data)
        self._sizes = sizes
        self._turn = 0

    def seekable(self) -> bool:
        return False

    def seek(self, *args: int) -> int:
        raise io.UnsupportedOperation("seek")

    def read(self, size: int | None = -1, /) -> bytes:
        self._turn += 1
        most = self._sizes[self._turn % len(self._sizes)]
        return super().read(most if size is None or size < 0 else min(size, most))


Reader = Callable[..., Reading]


def _read(
    data: bytes | str,
    name: str | None = "file.csv",
    content_type: str | None = None,
    *,
    text_field: str | None = None,
    sizes: list[int] | None = None,
    **limits: float,
) -> Reading:
    raw = data.encode() if isinstance(data, str) else data
    source = Dripping(raw, sizes) if sizes else io.BytesIO(raw)
    file = open_upload(source, name, content_type, text_field=text_field, limits=IngestLimits(**limits))  # type: ignore[arg-type]
    reading = Reading(file, [], [])
    for chunk in file.chunks():
        reading.records += chunk.records
        reading.rejections += chunk.rejections
    return reading


@pytest.fixture(scope="session")
def read() -> Reader:
    """Read a whole file from bytes."""
    return _read


@pytest.fixture(scope="session")
def refusal() -> Callable[..., AIError]:
    """Read a file that must be refused, and return the error."""

    def _refusal(*args: object, **options: object) -> AIError:
        with pytest.raises(AIError) as caught:
            _read(*args, **options)  # type: ignore[arg-type]
        return caught.value

    return _refusal
