"""Anybody's result files as rows: CSV, JSON, JSONL, and the sample logs of lm-evaluation-harness.

A row is a flat table of cells; what is nested ({"scores": {"f1": 0.5}}) becomes a column of its own (`scores.f1`). In a
sample log a row is a question, by its number and the hash of its text, and a metric that was read through a filter has
the filter's name behind its own. Nothing else of the log is kept: no column there that is a number by chance
is taken for a score.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.data.reading import Bad, Row, bad_rows_note, read_table
from tunelab.errors import UserError, shown_name

LOG_ID = "doc_id"
# what a line of a sample log holds beside its metrics (lm_eval 0.4)
LOG_FIELDS = frozenset(
    "doc_id doc target arguments resps filtered_resps filter metrics doc_hash prompt_hash target_hash".split()
)
NO_FILTER = (None, "none")


@dataclass(frozen=True)
class Results:
    """The rows of one file."""

    name: str
    rows: list[Row]
    is_log: bool  # of lm-evaluation-harness
    notes: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()  # of a log: of each row's question, empty where the log has none


def read_results(path: str | Path, name: str | None = None) -> Results:
    """The rows of a result file; `name` is what it is called, by default as the file is.

    Raises:
        UserError: no such file, of a kind that is not read, empty, or more of its rows are broken than not.
    """
    name = shown_name(name or Path(path).name)
    if not Path(path).expanduser().is_file():
        raise UserError(f"There is no file {shown_name(str(path))}. Give two result files: CSV, JSON or JSONL.")
    table = read_table(path, "first row")
    bad, rows = [], []
    for row in table.rows:
        if isinstance(row, Bad):
            bad.append(row)
        else:
            rows.append(row)
    notes = [*table.notes, *([bad_rows_note(bad, len(rows), name)] if bad else [])]
    if not rows:
        raise UserError(f"{name} holds no rows. Give a result file with one row per question.")
    is_log = all(LOG_ID in row and LOG_FIELDS & {"resps", "filtered_resps", "doc_hash"} & row.keys() for row in rows)
    notes = [f"{name}: {note}" for note in notes]
    if not is_log:
        return Results(name, [_flat(row) for row in rows], is_log, tuple(notes))
    questions = _of_log(rows)
    return Results(name, [row for _hash, row in questions], is_log, tuple(notes), tuple(h for h, _row in questions))


def _flat(row: Row) -> Row:
    cells: Row = {}
    for name, value in row.items():
        inner = value.items() if isinstance(value, dict) else ()
        cells |= {f"{name}.{key}": cell for key, cell in inner} if isinstance(value, dict) else {str(name): value}
    return cells


def _of_log(rows: Iterable[Row]) -> list[tuple[str, Row]]:
    """A row per question, named by its number, with the question's hash; a filter's metrics beside those of others."""
    questions: dict[tuple[str, str], Row] = {}
    made = []
    for row in rows:
        number, of_question = str(row[LOG_ID]), str(row.get("doc_hash") or "")
        scores = _metrics(row)
        question = questions.get((number, of_question))
        if question is None or scores.keys() & question.keys():  # a question twice is found where rows are joined
            question = questions[number, of_question] = {LOG_ID: number}
            made.append((of_question, question))
        question |= scores
    return made


def _metrics(row: Row) -> dict[str, Any]:
    names = row.get("metrics")
    if not isinstance(names, list):  # older logs don't name them
        names = [name for name in row if name not in LOG_FIELDS]
    through = row.get("filter")
    behind = "" if through in NO_FILTER else f" ({through})"
    return {f"{name}{behind}": row[name] for name in names if isinstance(name, str) and name in row}
