"""Answers that are SQL, scored by what they return.

A query by a model is anybody's query. It runs on a copy of the database, in memory, where an authorizer lets it read
tables and call the usual functions and nothing else (no writing, attaching, pragmas or extensions), for a limited time
and with limits on rows and on the size of a value. Its rows count as right when they are those of the reference,
whatever the columns are called: in the same order where the reference orders its rows, in any order where it doesn't.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
import weakref
from collections import Counter
from contextlib import closing, suppress
from itertools import starmap
from typing import Any

from tunelab.errors import UserError, shortened
from tunelab.measure.metrics.protocol import RowMetric

SECONDS = 2.0
MOST_ROWS = 10_000
MOST_BYTES = 100_000  # of a query, and of a value or row: the clock is not read inside a function on one value
MOST_RESULT_BYTES = 10_000_000  # of texts and blobs in a result
TOLERANCE = 1e-6  # relative, between numbers

ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# Others are refused: random() and the like return something else each time, printf() and format() can count for minutes
# inside one call, and what a build of SQLite adds may read files.
FUNCTIONS = frozenset(
    """
    abs acos asin atan atan2 avg ceil ceiling char coalesce concat concat_ws cos count cume_dist date datetime
    degrees dense_rank exp first_value floor glob group_concat hex ifnull iif instr julianday lag last_value lead length
    like ln log log10 log2 lower ltrim max median min mod nth_value ntile nullif octet_length percent_rank pi pow power
    quote radians rank replace round row_number rtrim sign sin sqrt strftime string_agg substr substring sum tan time
    timediff total trim trunc typeof unicode unixepoch upper
    json json_array json_array_length json_each json_extract json_group_array json_group_object json_object json_type
    json_valid -> ->>
    """.split()
)
STEPS = 1000  # instructions of SQLite between two looks at the clock

Row = tuple[Any, ...]


class QueryError(Exception):
    """A query that has no result: not SQL, not allowed, too slow or too large; the message says which."""


class Sandbox:
    """A read-only copy of a database in memory, to run queries of unknown origin on."""

    def __init__(self, database: sqlite3.Connection, seconds: float = SECONDS, most_rows: int = MOST_ROWS) -> None:
        self.seconds, self.most_rows = seconds, most_rows
        self._copy = sqlite3.connect(":memory:", check_same_thread=False)
        weakref.finalize(self, self._copy.close)
        database.backup(self._copy)
        for limit in (sqlite3.SQLITE_LIMIT_LENGTH, sqlite3.SQLITE_LIMIT_SQL_LENGTH):
            self._copy.setlimit(limit, MOST_BYTES)
        self._copy.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        # its table is made when it is first asked for, which the authorizer takes for writing
        with suppress(sqlite3.OperationalError):  # a SQLite without JSON
            self._copy.execute("SELECT 1 FROM json_each('[]')").close()
        self._copy.set_authorizer(_authorize)

    def run(self, query: str) -> list[Row]:
        """The rows of one query.

        Raises:
            QueryError: it has none, and why.
        """
        end = time.monotonic() + self.seconds
        self._copy.set_progress_handler(lambda: time.monotonic() > end, STEPS)
        try:
            cursor = self._copy.execute(query)
            with closing(cursor):
                if cursor.description is None:
                    raise QueryError("this is no query")
                return self._fetched(cursor)
        except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:
            late = str(error) == "interrupted"
            raise QueryError(f"not done after {self.seconds:g} seconds" if late else str(error)) from None
        finally:
            self._copy.set_progress_handler(None, STEPS)

    def _fetched(self, cursor: sqlite3.Cursor) -> list[Row]:
        rows, size = [], 0
        for row in cursor:
            rows.append(row)
            size += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
            if len(rows) > self.most_rows or size > MOST_RESULT_BYTES:
                raise QueryError(f"more than {self.most_rows:,} rows, or too long ones")
        return rows


class ExecutionAccuracy(RowMetric):
    """100 where the query returns what the reference returns; else 0, also where it fails.

    Source: Yu et al. 2018, "Spider", section 5, with the tables of one database.
    """

    name, title, unit, range, higher_is_better = "execution_accuracy", "execution accuracy", "%", (0, 100), True
    source = "Yu et al. 2018, 'Spider', section 5"

    def __init__(self, database: sqlite3.Connection) -> None:
        self._sandbox = Sandbox(database)
        self._expected: dict[str, list[Row]] = {}

    def score(self, prediction: str, reference: str) -> float:
        """Raises: UserError where the reference itself fails."""
        expected = self._rows_of(reference)
        try:
            rows = self._sandbox.run(prediction)
        except QueryError:
            return 0.0
        return 100.0 * same_rows(rows, expected, ordered=orders_its_rows(reference))

    def _rows_of(self, reference: str) -> list[Row]:
        if reference not in self._expected:
            try:
                self._expected[reference] = self._sandbox.run(reference)
            except QueryError as error:
                raise UserError(
                    f"The reference {shortened(reference)} can't be run on the database: {error}. References must be "
                    "queries that have a result; mend the row, or give the database that it belongs to."
                ) from None
        return self._expected[reference]


def same_rows(rows: list[Row], expected: list[Row], *, ordered: bool) -> bool:
    """Whether two results are equal, repeated rows counted. Two whole numbers are the same or not; where one has a
    fraction, as sums and means do, they are equal within a relative millionth."""
    if len(rows) != len(expected):
        return False
    if not ordered:
        rows, expected = _in_one_order(rows, expected)
    return all(starmap(_same_row, zip(rows, expected, strict=True)))


def orders_its_rows(query: str) -> bool:
    """Whether a query ends with an ORDER BY of its own, not one inside brackets, a text or a comment."""
    text = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", " ", query, flags=re.S)
    while (outer := re.sub(r"\([^()]*\)", " ", text)) != text:
        text = outer
    return re.search(r"\border\s+by\b", text, re.I) is not None


def _same_row(row: Row, expected: Row) -> bool:
    return len(row) == len(expected) and all(starmap(_same_cell, zip(row, expected, strict=True)))


def _same_cell(cell: Any, expected: Any) -> bool:
    if _is_number(cell) and _is_number(expected):
        return _near(cell, expected)
    return type(cell) is type(expected) and cell == expected


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float)


def _near(one: float, other: float) -> bool:
    """Of two whole numbers: whether they are the same, for they may be ids or times."""
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    return one == other or math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-9)


def _in_one_order(rows: list[Row], expected: list[Row]) -> tuple[list[Row], list[Row]]:
    """The rows that only one of the two results has, so sorted that equal ones stand at one place."""
    some, others = (list((Counter(a) - Counter(b)).elements()) for a, b in ((rows, expected), (expected, rows)))
    runs = [_runs(column) for column in zip(*some, *others, strict=False)]

    def key(row: Row) -> tuple[list[tuple[int, Any]], list[float]]:
        cells = [_sortable(cell, run) for cell, run in zip(row, runs, strict=False)]
        return cells, [cell for cell in row if _is_number(cell)]

    return sorted(some, key=key), sorted(others, key=key)


def _runs(column: tuple[Any, ...]) -> dict[float, int]:
    """For each number of a column, which run of neighbours it belongs to that are nearly the same."""
    runs: dict[float, int] = {}
    last, run = None, 0
    for number in sorted({cell for cell in column if _is_number(cell)}):
        run += last is not None and not math.isclose(last, number, rel_tol=TOLERANCE, abs_tol=1e-9)
        runs[number], last = run, number
    return runs


def _sortable(cell: Any, runs: dict[float, int]) -> tuple[int, Any]:
    if cell is None:
        return 0, 0
    if _is_number(cell):
        return 1, runs[cell]
    return (2, cell) if isinstance(cell, str) else (3, cell)


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY
