"""Items of a batch as files: JSON lines, and CSV that no spreadsheet takes for formulas."""

import csv
import io
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import orjson

from bulletproof.store.batch_records import ItemRow

# A spreadsheet takes a cell that starts with one of these for a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_OF_RESULT = (
    "final_url", "title", "author", "date", "language", "text_chars", "truncated", "left_out_chars", "sentiment",
    "score", "confidence", "analyzer",
)  # fmt: skip
_BLOCK = 64 * 1024  # bytes handed on at once


def defuse(text: str) -> str:
    """Keep a spreadsheet from taking a text for a formula.

    Example:
        >>> defuse("=1+1"), defuse("fine")
        ("'=1+1", 'fine')
    """
    return "'" + text if text.startswith(_FORMULA) else text


async def export_jsonl(items: AsyncIterable[ItemRow]) -> AsyncIterator[bytes]:
    """Write items as JSON lines.

    Args:
        items: Such as ``BatchStore.stream_results`` yields.

    Yields:
        Pieces of the file, UTF-8. Each line is an object with ``row`` (from 1), ``url``, ``status``, ``stage``,
        ``attempts``, ``code``, ``error``, ``hint``, ``result``, ``seconds`` and ``updated_at``.
    """
    lines: list[bytes] = []
    size = 0
    async for item in items:
        lines.append(orjson.dumps(_told(item), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))
        size += len(lines[-1])
        if size >= _BLOCK:
            yield b"".join(lines)
            lines, size = [], 0
    if lines:
        yield b"".join(lines)


async def export_csv(items: AsyncIterable[ItemRow]) -> AsyncIterator[bytes]:
    """Write items as CSV (RFC 4180), with a header and a line for each.

    Args:
        items: Such as ``BatchStore.stream_results`` yields.

    Yields:
        Pieces of the file, UTF-8. Texts that a spreadsheet would take for formulas begin with an apostrophe.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    names = ("row", "url", "status", *_OF_RESULT, "stage", "attempts", "code", "error", "hint", "updated_at")
    writer.writerow(names)
    async for item in items:
        told = _told(item)
        cells = told | {name: (told["result"] or {}).get(name) for name in _OF_RESULT}
        writer.writerow([_cell(cells[name]) for name in names])
        if out.tell() >= _BLOCK:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()


def _told(item: ItemRow) -> dict[str, Any]:
    return {
        "row": item.position + 1, "url": item.url, "status": item.status, "stage": item.stage,
        "attempts": sum(item.attempts.values()), "code": item.code, "error": item.error, "hint": item.hint,
        "result": item.result, "seconds": item.seconds, "updated_at": item.updated_at,
    }  # fmt: skip


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return defuse(value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_UTC_Z).decode().strip('"'))
