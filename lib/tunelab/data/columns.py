"""What a table's columns hold, seen over all of its rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tunelab.data.reading import Row
from tunelab.data.reading.jsons import is_turn

MAX_DISTINCT = 200  # values that are told apart
LONGEST_LABEL = 60  # characters


@dataclass
class Column:
    """One column: how many cells are filled, of which kinds, and with how many different values."""

    name: str
    filled: int = 0
    kinds: set[str] = field(default_factory=set)  # text, number, yes/no, list, turns, object
    characters: int = 0
    values: set[str] = field(default_factory=set)  # up to MAX_DISTINCT, of text and numbers
    longest: int = 0  # of its lists

    @property
    def key(self) -> str:
        """The name as it is compared: `System Prompt` is `system_prompt`."""
        return re.sub(r"[\s_-]+", "_", self.name.strip().lower())

    @property
    def is_text(self) -> bool:
        return bool(self.kinds) and self.kinds <= {"text", "number", "yes/no"}

    @property
    def is_number(self) -> bool:
        return bool(self.kinds) and self.kinds <= {"number", "yes/no"}

    def add(self, value: Any) -> None:
        kind = kind_of(value)
        if kind is None:
            return
        self.filled += 1
        self.kinds.add(kind)
        if kind == "list":
            self.longest = max(self.longest, len(value))
        if kind in ("text", "number", "yes/no"):
            text = str(value)
            self.characters += len(text)
            if len(self.values) < MAX_DISTINCT:
                self.values.add(text[: LONGEST_LABEL + 1])


def kind_of(value: Any) -> str | None:
    """What a cell holds; None where it is empty."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, str):
        return "text" if value.strip() else None
    if isinstance(value, bool):
        return "yes/no"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list | tuple):
        if not value:
            return None
        return "turns" if is_turn(value[0]) else "list"
    return ("turns" if is_turn(value) else "object") if value else None


def columns_of(rows: Iterable[Row]) -> dict[str, Column]:
    """The columns of these rows, in the order in which they appear."""
    found: dict[str, Column] = {}
    for row in rows:
        for name, value in row.items():
            column = found.get(name)
            if column is None:
                column = found[name] = Column(name)
            column.add(value)
    return found
