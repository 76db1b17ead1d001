"""Rows of several files that are about the same question, put side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tunelab.data.reading import Row
from tunelab.errors import UserError, listed, shortened
from tunelab.measure.statistics.results import LOG_ID, Results

POSITION = "position"
IDS = (
    "id", "doc_id", "row_id", "example_id", "question_id", "sample_id", "item_id", "uid", "uuid", "guid", "key", "idx",
    "index", "row", "row_number", "number",
)  # fmt: skip
ASKED = ("prompt", "question", "input", "instruction", "query", "text", "source")
WANTED = ("reference", "target", "label", "gold", "expected")


@dataclass(frozen=True)
class Joined:
    """The same rows of every file."""

    rows: list[tuple[Row, ...]]  # a cell table per file
    by: str  # a column's name, or 'position'
    columns: list[str]  # that all files have, in the first one's order, without the one joined by
    notes: tuple[str, ...]


def join(files: Sequence[Results], column: str | None = None) -> Joined:
    """Rows joined by a column: the one named, or one that names rows (`id`, …), or the question where each stands once;
    else by position, where all files have as many rows and ask the same at each.

    Raises:
        UserError: no such column, a row's name stands twice, no row is in all files, or their rows can't be told to be
            the same.
    """
    shared = [name for name in _columns(files[0].rows) if all(name in _columns(file.rows) for file in files[1:])]
    by, notes = column or _found(files, shared), list[str]()
    if by == POSITION:
        rows = _by_position(files, shared)
    else:
        if by not in shared:
            without = next(file for file in files if by not in _columns(file.rows))
            raise UserError(
                f"--id {shortened(by)}: {without.name} has no such column. All files have: {listed(shared) or 'none'}. "
                "Name one of them, or `--id position` where the rows stand in one order."
            )
        files, notes = _by_question(files) if by == LOG_ID else (files, [])
        rows, left_out = _by_column(files, by)
        notes += left_out
    return Joined(rows, by, [name for name in shared if name != by], tuple(notes))


def _by_question(files: Sequence[Results]) -> tuple[Sequence[Results], list[str]]:
    """The files with their questions named alike, and a note: by number and hash where all have both; else by number.

    Raises:
        UserError: a question of one number has one hash here and another one there.
    """
    if not any(any(file.hashes) for file in files):
        return files, []
    if all(file.is_log and all(file.hashes) for file in files):
        return [_with_hashes(file) for file in files], []
    known: dict[str, tuple[str, str]] = {}
    for file in files:
        for row, of_question in zip(file.rows, file.hashes, strict=False):  # what is no log has none
            if not of_question:
                continue
            number = _key(row[LOG_ID])
            name, before = known.setdefault(number, (file.name, of_question))
            if before != of_question:
                raise UserError(
                    f"Question {shortened(number, 20)} is another one in {file.name} than in {name}, by its doc_hash. "
                    "Give logs of the same task and version, or `--id position` to compare them as they stand."
                )
    without = listed(file.name for file in files if not all(file.hashes) or not file.is_log)
    return files, [f"questions are taken for the same where their number is: {without} has no hash of every question"]


def _with_hashes(file: Results) -> Results:
    pairs = zip(file.rows, file.hashes, strict=True)
    return replace(file, rows=[row | {LOG_ID: f"{row[LOG_ID]} {of_question}"} for row, of_question in pairs])


def _found(files: Sequence[Results], shared: Sequence[str]) -> str:
    """The column to join by, or 'position'."""
    by_name = {name.lower(): name for name in reversed(shared)}
    if found := next((by_name[name] for name in IDS if name in by_name), None):
        return found
    asked = (by_name[name] for name in ASKED if name in by_name)
    return next((name for name in asked if all(_names_rows(file.rows, name) for file in files)), POSITION)


def _names_rows(rows: Sequence[Row], column: str) -> bool:
    keys = _keys(rows, column)
    return "" not in keys and len(set(keys)) == len(keys)


def _by_column(files: Sequence[Results], column: str) -> tuple[list[tuple[Row, ...]], list[str]]:
    tables = [_keyed(file, column) for file in files]
    common = [key for key in tables[0] if all(key in table for table in tables[1:])]
    if not common:
        one, other = (listed(list(table)[:3]) for table in tables[:2])
        raise UserError(
            f"{' and '.join(file.name for file in files)} share no row: {column} is {one} … in the first and {other} … "
            "in the second. Give results on the same questions, or another column with --id COLUMN."
        )
    notes = [
        f"{len(table) - len(common):,} of {len(table):,} rows of {file.name} are left out: not all files have them"
        for file, table in zip(files, tables, strict=True)
        if len(table) > len(common)
    ]
    return [tuple(table[key] for table in tables) for key in common], notes


def _keyed(file: Results, column: str) -> dict[str, Row]:
    keys = _keys(file.rows, column)
    twice, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise UserError(
            f"{file.name}: {column} is {shortened(twice) if twice else 'empty'} in {count:,} rows. Each row needs a "
            "name of its own: name another column with --id COLUMN, or `--id position` where the rows of all files "
            "stand in one order."
        )
    return dict(zip(keys, file.rows, strict=True))


def _by_position(files: Sequence[Results], shared: Sequence[str]) -> list[tuple[Row, ...]]:
    counts = {file.name: len(file.rows) for file in files}
    if len({len(file.rows) for file in files}) > 1:
        raise UserError(
            f"The files have no column that names rows, and not as many rows: "
            f"{listed(f'{name} {count:,}' for name, count in counts.items())}. Name such a column with --id COLUMN."
        )
    rows = list(zip(*(file.rows for file in files), strict=True))
    for column in (name for name in shared if name.lower() in (*ASKED, *WANTED)):
        for number, row in enumerate(rows, 1):
            if len({_key(side.get(column)) for side in row}) > 1:
                raise UserError(
                    f"Row {number}: {column} is {shortened(row[0].get(column), 40)} in {files[0].name} and something "
                    "else in another file, so the rows do not stand in one order. Name the column that tells which "
                    "rows are the same with --id COLUMN."
                )
    return rows


def _columns(rows: Iterable[Row]) -> dict[str, None]:
    return {name: None for row in rows for name in row}


def _keys(rows: Sequence[Row], column: str) -> list[str]:
    """The cells of a column as names. Where all are whole numbers with a point behind, as tables write them that had an
    empty cell (7.0), they are the numbers."""
    keys = [_key(row.get(column)) for row in rows]
    if all(re.fullmatch(r"-?\d+\.0", key) for key in keys):
        return [key.removesuffix(".0") for key in keys]
    return keys


def _key(value: object) -> str:
    """A cell as a name: 7, 7.0 and '7' are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()
