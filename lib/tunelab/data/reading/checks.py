"""What a row may hold: text that is text, not too much of it, and not nested without end."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tunelab.data.reading.table import Bad, Row
from tunelab.errors import UserError, shortened

MAX_ROW_CHARACTERS = 20_000_000  # a book is one row of plain text
MAX_DEPTH = 50
MAX_NUMBER_BITS = 10_000  # Python writes no longer ones as text
MAX_COLUMNS = 1000
MAX_ROWS = 20_000_000
LONGEST_REASON = 150  # characters


class Unreadable(Exception):
    """Why a row can't be read, as a clause."""


def checked(rows: Iterable[tuple[str, Any]], name: str) -> Iterator[Row | Bad]:
    """Rows with their places, each `Bad` if it is no object, or if something in it is no text."""
    for number, (where, row) in enumerate(rows, 1):
        if number > MAX_ROWS:
            raise UserError(f"{name} holds more than {MAX_ROWS:,} rows. Take a part of it.")
        if isinstance(row, Bad):
            yield row
            continue
        try:
            yield check_row(row)
        except Unreadable as problem:
            yield Bad(where, str(problem)[:LONGEST_REASON])


def check_row(row: Any) -> Row:
    """The row, if it can be used.

    Raises:
        Unreadable: it can't; why.
    """
    if not isinstance(row, dict):
        raise Unreadable(
            f'is {shortened(row, 40)}, not an object; write each row as {{"prompt": "…", "completion": "…"}}'
        )
    if len(row) > MAX_COLUMNS:
        raise Unreadable(f"has {len(row):,} columns; at most {MAX_COLUMNS:,} are read")
    left = _count(row, MAX_DEPTH, MAX_ROW_CHARACTERS)
    if left < 0:
        raise Unreadable(f"is longer than {MAX_ROW_CHARACTERS:,} characters; cut it into several rows")
    return row


def parse_json(text: str) -> Any:
    """What JSON says. NaN is None, as infinite numbers are: no text is written so.

    Raises:
        Unreadable: it is no JSON, is nested too deep, or names a key twice.
    """
    try:
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
        return DECODER.decode(text)
    except RecursionError:
        raise Unreadable(f"is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise Unreadable(f"not valid JSON: {_reason(error)}, near {_near(text, error)}") from error


def _object(pairs: list[tuple[str, Any]]) -> Row:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _value in pairs]
        raise Unreadable(f"names the key {shortened(next(n for n in names if names.count(n) > 1), 40)} twice")
    return made


# made once: `json.loads` with hooks makes one for every row
DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=lambda _name: None)


def _count(value: Any, depth: int, left: int) -> int:
    """`left` less the characters of a value."""
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
        return left - len(value)
    if not isinstance(value, dict | list | tuple):
        if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
            raise Unreadable("holds a number of thousands of digits; write it as text")
        return left
    if depth == 0:
        raise Unreadable(f"is nested more than {MAX_DEPTH} deep")
    # a key that is no text counts as what it is
    items = itertools.chain(value, value.values()) if isinstance(value, dict) else value
    for item in items:
        if type(item) is str:  # what most are: said here, for a call takes longer
            if not item.isascii():
                _check_text(item)
            left -= len(item)
        else:
            left = _count(item, depth - 1, left)
    return left


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unreadable(what_is_no_text(text[error.start])) from None


def what_is_no_text(letter: str) -> str:
    """Why a letter is none, as a clause: half of a pair, by which a byte that is no UTF-8 is decoded, too."""
    half = ord(letter)
    if 0xDC80 <= half <= 0xDCFF:
        return f"holds a byte (0x{half - 0xDC00:02x}) that is not UTF-8; save the file as UTF-8"
    return f"holds half a character (\\u{half:04x} alone), which no text can"


def _reason(error: ValueError) -> str:
    return error.msg.lower() if isinstance(error, json.JSONDecodeError) else str(error)


def _near(text: str, error: ValueError) -> str:
    position = error.pos if isinstance(error, json.JSONDecodeError) else 0
    near = text[max(0, position - 15) : position + 15].strip() or text[-20:].strip()
    return json.dumps(near, ensure_ascii=False)
