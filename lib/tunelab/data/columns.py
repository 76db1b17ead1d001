"""What a table's columns hold, seen over all of its rows."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tunelab.data.cells import is_blank, list_in
from tunelab.data.reading import Row
from tunelab.data.reading.jsons import is_turn
from tunelab.data.turns import inner_turns

MAX_DISTINCT = 200  # values that are told apart
MAX_INNER = 40  # names in objects that are kept
LONGEST_LABEL = 60  # characters
LONGEST_LIST = 4000  # characters of a list that is written as text and counted
SCALAR = {"text", "number", "yes/no"}
NUMERIC = re.compile(r"[-+]?[\d.,]*\d\s?%?|true|false|yes|no", re.IGNORECASE)
ADDRESS = re.compile(r"(https?://|www\.)\S+")
SQL = re.compile(r"\s*(select|with|insert|update|delete)\s", re.IGNORECASE)
ASKERS = ("user", "human", "prompter")


@dataclass
class Column:
    """One column: how many cells are filled, of which kinds, and with how many different values."""

    name: str
    filled: int = 0
    kinds: set[str] = field(default_factory=set)  # text, number, yes/no, list, turns, object
    characters: int = 0
    values: set[str] = field(default_factory=set)  # up to MAX_DISTINCT, of text and numbers
    longest: int = 0  # of its lists
    items: set[str] = field(default_factory=set)  # kinds of what its lists hold
    inner: dict[str, set[str]] = field(default_factory=dict)  # names in its objects, and the kinds of what they hold
    spaced: int = 0  # cells of several words
    lists_as_text: int = 0
    whole: int = 0  # turns in which somebody asks
    blank: set[str] = field(default_factory=set)  # words that stand for nothing
    blanks: int = 0
    opening: str | None = None
    varies: bool = False  # whether a text differs from the first one

    @property
    def key(self) -> str:
        """The name as it is compared: `System Prompt` and `systemPrompt` are `system_prompt`."""
        return re.sub(r"[\s_-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name.strip()).lower())

    @property
    def is_text(self) -> bool:
        """Text and numbers; a list of one counts as what it holds."""
        kinds = self.kinds | self.items if self.longest <= 1 and not self.lists_as_text else self.kinds
        return bool(kinds - {"list"}) and kinds <= SCALAR | ({"list"} if kinds is not self.kinds else set())

    @property
    def is_number(self) -> bool:
        return bool(self.kinds) and self.kinds <= {"number", "yes/no"}

    @property
    def is_numeric(self) -> bool:
        """Numbers, or yes and no, also where they are written as text."""
        return self.is_text and bool(self.values) and all(NUMERIC.fullmatch(value.strip()) for value in self.values)

    @property
    def is_address(self) -> bool:
        return bool(self.values) and all(ADDRESS.match(value) and " " not in value for value in self.values)

    @property
    def is_sql(self) -> bool:
        return self.is_text and bool(self.values) and all(SQL.match(value) for value in self.values)

    @property
    def is_id(self) -> bool:
        """Whether every cell is another short code or number."""
        if self.kinds == {"number"} and not all(re.fullmatch(r"\d+(\.0)?", value) for value in self.values):
            return False
        short = self.characters <= 40 * self.filled
        codes = all(re.fullmatch(r"[\w.:/-]*\d[\w.:/-]*", value.strip()) for value in self.values)
        return self.filled > 1 and short and codes and len(self.values) >= min(self.filled, MAX_DISTINCT)

    @property
    def is_prose(self) -> bool:
        """Whether most cells are text of several words that few others share."""
        many = len(self.values) >= min(MAX_DISTINCT, self.filled / 2)
        return self.is_text and self.spaced * 2 > self.filled and many and not self.is_address

    @property
    def is_few(self) -> bool:
        """Whether values repeat as labels do."""
        return self.is_text and len(self.values) < MAX_DISTINCT and len(self.values) <= self.filled / 3

    @property
    def is_constant(self) -> bool:
        return self.filled > 1 and not self.varies

    @property
    def length(self) -> float:
        """Characters of a cell."""
        return self.characters / max(1, self.filled)

    def add(self, value: Any) -> None:
        kind = kind_of(value)
        if kind is None:
            if isinstance(value, str) and value.strip():
                self.blank.add(value.strip())
                self.blanks += 1
            return
        self.filled += 1
        self.kinds.add(kind)
        if kind in SCALAR:
            self._add_text(str(value))
        elif kind == "list":
            self.longest = max(self.longest, len(value))
            self.items |= {kind_of(item) or "nothing" for item in value[:20]}
            if len(value) == 1 and self.items <= SCALAR:
                self._add_text(str(value[0]))
        elif kind == "turns":
            self.whole += _somebody_asks(value)
        else:
            self._add_object(value)

    def _add_text(self, text: str) -> None:
        self.characters += len(text)
        self.spaced += " " in text.strip()
        if self.opening is None:
            self.opening = text
        elif not self.varies:
            self.varies = text != self.opening
        if len(self.values) < MAX_DISTINCT:
            self.values.add(_told_apart(text))
        if text.lstrip().startswith(("[", "{")) and len(text) <= LONGEST_LIST and (items := list_in(text)):
            self.lists_as_text += 1
            self.longest = max(self.longest, len(items))

    def _add_object(self, value: dict[Any, Any]) -> None:
        for key, item in value.items():
            if len(self.inner) < MAX_INNER or key in self.inner:
                self.inner.setdefault(str(key), set()).add(kind_of(item) or "nothing")
        texts = value.get("text")
        self.longest = max(self.longest, len(texts) if isinstance(texts, list) else len(value))


def _told_apart(text: str) -> str:
    """A text, or of a long one its beginning and a number that tells it from others that begin as it does."""
    return text if len(text) <= LONGEST_LABEL else f"{text[:LONGEST_LABEL]}:{zlib.crc32(text.encode(errors='replace'))}"


def kind_of(value: Any) -> str | None:
    """What a cell holds; None where it is empty."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, str):
        return "text" if value.strip() and not is_blank(value) else None
    if isinstance(value, bool):
        return "yes/no"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list | tuple):
        if not value:
            return None
        return "turns" if is_turn(value[0]) else "list"
    if not value:
        return None
    return "turns" if is_turn(value) or inner_turns(value) else "object"


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


def _somebody_asks(value: Any) -> bool:
    """Whether turns hold one that is no answer."""
    turns = value if isinstance(value, list | tuple) else [value]
    return any(
        str(word).lower() in ASKERS
        for turn in turns[:3]
        if isinstance(turn, dict)
        for key, word in turn.items()
        if str(key).lower() in ("role", "from", "speaker", "author")
    )
