"""Tables that JSON holds by their columns: lists side by side, and what pandas writes (`orient` "split", "columns")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tunelab.data.reading.headings import is_heading
from tunelab.data.reading.table import Bad
from tunelab.errors import UserError, listed, shortened


def is_split(value: dict[str, Any]) -> bool:
    """Whether an object is a table of lists with the columns' names beside them."""
    if not {"columns", "data"} <= value.keys() <= {"columns", "data", "index"}:
        return False
    columns, data = value["columns"], value["data"]
    named = isinstance(columns, list) and all(isinstance(name, str | int) for name in columns)
    return named and bool(columns) and isinstance(data, list) and all(isinstance(row, list) for row in data)


def of_split(value: dict[str, Any], name: str) -> list[Any]:
    """Its rows, `Bad` where they are longer or shorter than the columns.

    Raises:
        UserError: a column stands twice.
    """
    columns = list(map(str, value["columns"]))
    if doubled := next((column for column in columns if columns.count(column) > 1), None):
        raise UserError(f"{name}: the column {shortened(doubled)} stands twice. Give each column its own name.")
    return [
        dict(zip(columns, cells, strict=True))
        if len(cells) == len(columns)
        else Bad(f"row {number}", f"{len(cells)} cells, but there are {len(columns)} columns ({listed(columns, 4)})")
        for number, cells in enumerate(value["data"], 1)
    ]


def are_columns(value: dict[str, Any]) -> bool:
    """Whether lists stand side by side as columns: all as long, and of text or numbers, or one is under the name of a
    column."""
    inner = list(value.values())
    if len(inner) < 2 or not all(isinstance(one, list) for one in inner) or len({len(one) for one in inner}) > 1:
        return False
    if not any(isinstance(cell, dict | list) for one in inner for cell in one):
        return True
    return any(is_heading(name) and one and all(isinstance(cell, str) for cell in one) for name, one in value.items())


def by_columns(value: dict[str, Any]) -> list[Any] | None:
    """The rows of columns, as lists or as objects with the same keys (pandas' index); None where the objects are rows,
    keyed by what they are called."""
    inner = list(value.values())
    if are_columns(value):
        return [dict(zip(value, cells, strict=True)) for cells in zip(*inner, strict=True)]
    if not all(isinstance(one, dict) for one in inner) or len({tuple(one) for one in inner}) != 1:
        return None
    index = list(inner[0])
    if not _are_places(index, len(inner)) and not _name_columns(value, index):
        return None
    return [{column: cells[key] for column, cells in value.items()} for key in index]


def _are_places(index: list[str], columns: int) -> bool:
    return columns > 1 and all(str(key).isdigit() for key in index)


def _name_columns(columns: Iterable[str], index: list[str]) -> bool:
    """Whether the outer keys are mostly names of columns, and the inner ones are none."""
    known = [is_heading(name) for name in columns]
    return sum(known) > len(known) / 2 and not any(map(is_heading, index))
