"""Exceptions labelled by hand from the documentation of their libraries are classified as labelled."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bulletproof.errors import classify

_TABLE = Path(__file__).with_name("labelled.tsv")
with _TABLE.open(encoding="utf-8", newline="") as _file:
    ROWS = list(csv.DictReader(_file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['class']}-{row['status']}-{row['code']}")
def test_an_exception_means_what_its_documentation_says(
    row: dict[str, str], stand_in: Callable[..., BaseException]
) -> None:
    body = json.loads(row["body"]) if row["body"] else None
    found = classify(stand_in(row["class"], row["text"], row["status"], body))
    assert (found.error_type, found.code, found.retryable) == (row["type"], row["code"], row["retryable"] == "yes"), (
        f"{row['class']} {row['status']} {row['text']!r}: decided by {found.rule!r}; see {row['page']}"
    )


def test_the_table_is_large_enough_to_mean_something() -> None:
    assert len(ROWS) >= 150
