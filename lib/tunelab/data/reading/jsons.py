"""JSON and JSONL as rows, in the forms that people nest them in (`frames.py`: by columns, as pandas writes them)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

from tunelab.data.reading.checks import MAX_ROW_CHARACTERS, Unreadable, parse_json
from tunelab.data.reading.frames import are_columns, by_columns, is_split, of_split
from tunelab.data.reading.table import Bad
from tunelab.data.reading.unfolding import INNER
from tunelab.errors import UserError, listed, shortened

Placed = tuple[str, Any]  # where a row stands, and the row
MAX_DOCUMENT = 300_000_000  # characters of a file that is one JSON value, which is read at once
TRAIN, TEST = ("train", "training"), ("test", "heldout", "held_out", "validation", "valid", "val", "dev", "eval")
# text under these names is part of a row
ROW_KEYS = ("instruction", "prompt", "completion", "question", "answer", "query", "response", "input", "output", "text")
ROW_LISTS = (
    "data",
    "rows",
    "examples",
    "instances",
    "items",
    "records",
    "samples",
    "conversations",
    "questions",
    "dataset",
)


def json_lines(open_text: Callable[[], IO[str]]) -> Iterator[Placed]:
    """One value per line; a line that is no JSON is `Bad`."""
    with open_text() as file:
        number = 0
        while line := file.readline(MAX_ROW_CHARACTERS):
            number += 1
            where = f"line {number}"
            if len(line) >= MAX_ROW_CHARACTERS:
                while not line.endswith("\n") and (line := file.readline(MAX_ROW_CHARACTERS)):
                    pass
                yield where, Bad(where, f"is longer than {MAX_ROW_CHARACTERS:,} characters; cut it into several rows")
            elif line.strip():
                try:
                    yield where, parse_json(line)
                except Unreadable as problem:
                    yield where, Bad(where, f"{problem}")


def is_lines(open_text: Callable[[], IO[str]], named_so: bool) -> bool:
    """Whether a file holds one JSON value per line, whatever it is called; `named_so`: it is called that."""
    with open_text() as file:
        starts: list[str] = []
        while len(starts) < 2 and (line := file.readline(MAX_ROW_CHARACTERS)):
            starts += [line.strip()] if line.strip() else []
    first, second = (*starts, "", "")[:2]
    try:
        value = parse_json(first)
    except Unreadable:
        if first in ("{", "[", "[{"):
            return False  # one value over many lines
        return named_so or (first.startswith("{") and first.endswith("}") and second.startswith("{"))
    if isinstance(value, list):
        return second.startswith("[")
    return named_so or second.startswith("{")


def document(open_text: Callable[[], IO[str]], name: str) -> tuple[list[Placed], list[Placed] | None, list[str]]:
    """The rows of a file that is one JSON value, those of its own test part, and notes.

    Raises:
        UserError: it is no JSON, or holds no rows.
    """
    with open_text() as file:
        text = file.read(MAX_DOCUMENT + 1)
    if len(text) > MAX_DOCUMENT:
        raise UserError(
            f"{name} is one JSON value of more than {MAX_DOCUMENT / 1e6:,.0f} MB. Save it as .jsonl, one object per "
            "line: such a "
            "file is read row by row."
        )
    try:
        value = parse_json(text)
    except Unreadable as problem:
        line = getattr(problem.__cause__, "lineno", None)
        column = getattr(problem.__cause__, "colno", None)
        where = f", line {line}, column {column}" if line else ""
        raise UserError(f"{name}{where}: {problem}. Mend it, or save one JSON object per line as .jsonl.") from None
    return rows_of(value, name)


def rows_of(value: Any, name: str) -> tuple[list[Placed], list[Placed] | None, list[str]]:
    """The rows in a JSON value, those of its own test part, and notes.

    Raises:
        UserError: there are none.
    """
    if isinstance(value, list):
        return _placed(value), None, []
    if not isinstance(value, dict):
        raise UserError(f"{name}: the file must hold a list of objects; it holds {shortened(value, 40)}.")
    names = {str(key).lower(): key for key in value}
    train = next((names[key] for key in TRAIN if key in names and _is_rows(value[names[key]])), None)
    test = next((names[key] for key in TEST if key in names and _is_rows(value[names[key]])), None)
    if train is not None:
        unread = [key for key in value if key not in (train, test) and _is_rows(value[key])]
        notes = [f"its parts {listed(unread)} are not read"] if unread else []
        return (
            _placed(_rows(value[train], name)),
            _placed(_rows(value[test], name)) if test is not None else None,
            notes,
        )
    if _is_row(value):
        return _placed([value]), None, []
    return _placed(_rows_inside(value, name)), None, []


def _rows_inside(value: dict[str, Any], name: str) -> list[Any]:
    if is_split(value) or are_columns(value):
        return _rows(value, name)
    lists = [
        key for key, inner in value.items() if isinstance(inner, list) and inner and isinstance(inner[0], dict | list)
    ]
    known = [key for key in lists if key.lower() in ROW_LISTS]
    if len(lists) == 1 or len(known) == 1:
        inner = value[lists[0] if len(lists) == 1 else known[0]]
        return list(inner)
    if len(lists) > 1:
        raise UserError(
            f"{name}: holds several lists of objects ({listed(map(shortened, lists))}). Save the one with the rows as "
            "a file, or call "
            "the parts 'train' and 'test'."
        )
    if _is_rows(value):
        return _rows(value, name)
    raise UserError(
        f"{name}: the file must hold a list of objects; it holds one object with the keys "
        f"{listed(map(shortened, value), 5)}."
    )


def _is_row(value: dict[str, Any]) -> bool:
    """Whether an object is a row itself: it holds turns, text under a name that columns have, or rows within it."""
    if any(_are_turns(inner) for inner in value.values()):
        return True
    named = any(str(key).lower() in ROW_KEYS and isinstance(inner, str) for key, inner in value.items())
    return named or any(isinstance(value.get(key), list) for key in INNER)


def is_turn(value: Any) -> bool:
    """Whether an object is a turn of a conversation."""
    if not isinstance(value, dict):
        return False
    keys = {str(key).lower() for key in value}
    pairs = (
        ("role", "content"),
        ("role", "parts"),
        ("from", "value"),
        ("human", "assistant"),
        ("user", "assistant"),
        ("speaker", "text"),
    )
    return any(set(pair) <= keys for pair in pairs) or ("role" in keys and "tool_calls" in keys)


def _is_rows(value: Any) -> bool:
    """A list of objects, objects keyed by their names, or columns."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict | list)
    if not isinstance(value, dict) or not value:
        return False
    inner = list(value.values())
    return (
        all(isinstance(one, dict) and one for one in inner)
        or is_split(value)
        or are_columns(value)
        or all(_are_turns(one) for one in inner)
    )


def _rows(value: Any, name: str) -> list[Any]:
    if isinstance(value, list):
        return value
    if all(_are_turns(one) for one in value.values()):
        return list(value.values())
    if is_split(value):
        return of_split(value, name)
    return by_columns(value) or list(value.values())


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(is_turn(turn) for turn in value)


def _placed(rows: list[Any]) -> list[Placed]:
    return [(f"row {number}", {"messages": row} if _are_turns(row) else row) for number, row in enumerate(rows, 1)]
