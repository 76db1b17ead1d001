"""Rows that hold several: each of those as a row of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunelab.data.reading.table import Bad, Row

# by what their objects hold: an article's paragraphs, a paragraph's questions (SQuAD), a task's instances
INNER = {"paragraphs": {"qas"}, "qas": {"question"}, "instances": {"input", "output"}}


def unfolded(rows: Iterable[Row | Bad]) -> Iterator[tuple[int, Row | Bad]]:
    """The rows with the numbers of those that they stand in."""
    for number, row in enumerate(rows, 1):
        if isinstance(row, Bad):
            yield number, row
            continue
        for one in _unfold(row):
            yield number, one


def _unfold(row: Row) -> Iterator[Row]:
    inner = next((key for key in INNER if _holds_rows(row.get(key), INNER[key])), None)
    if inner is None:
        yield row
        return
    outer = {key: value for key, value in row.items() if key != inner}
    for one in row[inner]:
        yield from _unfold({**outer, **one})


def _holds_rows(value: Any, keys: set[str]) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and keys & one.keys() for one in value)
