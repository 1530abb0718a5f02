"""Items leave the store as files that programs and spreadsheets can read."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from bulletproof.store import ItemRow, defuse, export_csv, export_jsonl

WHEN = datetime(2030, 1, 1, 12, tzinfo=UTC)
ITEMS = [
    ItemRow(
        position=0, url="https://example.com/1", status="success", stage="done", attempts={"download": 2, "store": 1},
        result={"title": '=HYPERLINK("http://evil.example")', "score": -0.5, "date": "2029-12-01"},
        updated_at=WHEN,
    ),
    ItemRow(position=4, url="@sum, 1\n2", status="failed", code="blocked_url", error="not allowed", updated_at=WHEN),
]  # fmt: skip


async def source(items: list[ItemRow]) -> AsyncIterator[ItemRow]:
    for item in items:
        yield item


async def table(items: list[ItemRow]) -> list[dict[str, str]]:
    data = b"".join([piece async for piece in export_csv(source(items))]).decode()
    return list(csv.DictReader(io.StringIO(data, newline="")))


async def test_json_lines_hold_all_that_is_known() -> None:
    lines = b"".join([piece async for piece in export_jsonl(source(ITEMS))]).splitlines()
    first, second = map(json.loads, lines)
    assert (first["row"], first["attempts"], first["result"]) == (1, 3, ITEMS[0].result)
    assert (second["row"], second["url"], second["code"], second["result"]) == (5, "@sum, 1\n2", "blocked_url", None)
    assert first["updated_at"] == "2030-01-01T12:00:00Z"


async def test_no_cell_of_a_table_is_a_formula_and_numbers_stay_numbers() -> None:
    first, second = await table(ITEMS)
    assert first["title"] == '\'=HYPERLINK("http://evil.example")'
    assert (first["score"], first["date"], first["updated_at"]) == ("-0.5", "2029-12-01", "2030-01-01T12:00:00Z")
    assert second["url"] == "'@sum, 1\n2"
    assert (second["error"], second["title"]) == ("not allowed", "")


async def test_a_batch_without_items_is_a_header() -> None:
    assert b"".join([piece async for piece in export_csv(source([]))]).startswith(b"row,url,status")
    assert [piece async for piece in export_jsonl(source([]))] == []


async def test_many_items_come_in_pieces() -> None:
    items = [ItemRow(position=number, url=f"https://example.com/{number}") for number in range(5000)]
    for export in (export_csv, export_jsonl):
        pieces = [piece async for piece in export(source(items))]
        assert len(pieces) > 1
        assert max(map(len, pieces)) < 80_000
    assert [row["row"] for row in await table(items)] == [str(number + 1) for number in range(5000)]


@given(st.text())
def test_a_defused_text_never_begins_a_formula_and_is_otherwise_kept(text: str) -> None:
    safe = defuse(text)
    assert safe in (text, "'" + text)
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
