"""How values of cells are written in a prompt or an answer, and templates that put them there."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

from tunelab.data.reading import Row
from tunelab.data.reading.checks import Unreadable, parse_json

FIELD = re.compile(r"\{([^{}]+)\}")
BLANK = ("nan", "NaN", "<noinput>", "<nooutput>", "<no input>")  # what tables write into cells that are empty

YES_OR_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def is_blank(text: str) -> bool:
    """Whether a cell says in words that it is empty."""
    return len(text) < 20 and text.strip() in BLANK


def cell(value: Any) -> str:
    """A cell as people write it, nothing for one that is empty in any way."""
    return "" if isinstance(value, str) and is_blank(value) else written(value)


def says_yes(value: Any) -> bool | None:
    """Whether a cell says yes or no, in words or as a number; None where it says neither."""
    return YES_OR_NO.get(str(value).strip().lower().removesuffix(".0"))


def list_in(text: str) -> list[Any] | dict[str, Any] | None:
    """The list or the object that is written as text: as JSON, or as Python shows it."""
    if not text.strip().endswith(("]", "}")):
        return None
    try:
        found = parse_json(text)
    except Unreadable:
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return found if isinstance(found, list | dict) else None


def written(value: Any) -> str:
    """A value as people write it: no quotes and brackets, nothing for what is missing, `3` for 3.0."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {written(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        separator = "; " if any(isinstance(item, dict | list | tuple) for item in value) else ", "
        return separator.join(text for item in value if (text := written(item)))
    return str(value)


def is_template(text: str, columns: list[str]) -> bool:
    """Whether a role names a template, and no column."""
    return text not in columns and FIELD.search(text) is not None


def fields_of(template: str) -> list[str]:
    """The columns that a template names, with what stands behind them."""
    return FIELD.findall(template)


def column_of(field: str, columns: list[str]) -> str | None:
    """The column of a template's field: `slots`, of `slots.value` or `slots:json`."""
    if field in columns:
        return field
    return next((column for column in columns if re.match(rf"{re.escape(column)}[.:]", field)), None)


def filled(template: str, columns: list[str]) -> Callable[[Row], str]:
    """The template as a function of a row. `{slots}` is a cell as people write it, `{slots.value}` what its objects
    hold under a name, `{slots:json}` the cell as JSON."""
    return lambda row: FIELD.sub(lambda match: _field(row, match[1], columns), template)


def _field(row: Row, field: str, columns: list[str]) -> str:
    column = column_of(field, columns)
    if column is None:
        return "{" + field + "}"
    value = row.get(column)
    rest = field.removeprefix(column)
    if rest == ":json":
        return json.dumps(value, ensure_ascii=False)
    for key in rest.lstrip(".").split(".") if rest else ():
        value = _within(value, key)
    return cell(value)


def _within(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return [_within(item, key) for item in value]
    return value.get(key) if isinstance(value, dict) else None
