"""Votes as a table for a spreadsheet, one row each. What people and models wrote can't become a formula there."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tunelab.machine.files import write_atomically
from tunelab.measure.votes.ballot import Vote

# a cell that begins so is a formula to some spreadsheet, also in the wide letters of East Asian keyboards
FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
HEAD = ("ballot", "prompt", "system", "voter", "choice", "winner", "reason", "time", "time_unix_seconds")


def export_votes(votes: Sequence[Vote], path: str | Path | None = None) -> str:
    """The votes as CSV, written to `path` if one is given (UTF-8 with the mark that spreadsheets look for).

    For each answer, in the ballot's order, come its label, run, text and the place it was shown at (1: answer A). A
    text that begins as a formula does is preceded by an apostrophe; numbers stay numbers, also negative ones.

    Source: OWASP, "CSV Injection".
    """
    most = max((len(vote.ballot.columns) for vote in votes), default=2)
    parts = ("label", "run", "answer", "shown")
    head = [*HEAD, *(f"{part}_{number}" for number in range(1, most + 1) for part in parts)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(head)
    for vote in votes:
        row = _row(vote)
        writer.writerow([cell(value) for value in (*row, *[""] * (len(head) - len(row)))])
    if path is not None:
        write_atomically(Path(path), text.getvalue().encode("utf-8-sig", "backslashreplace"))
    return text.getvalue()


def cell(value: str | float | None) -> str | float:
    """A value as it may stand in a cell."""
    if value is None:
        return ""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _row(vote: Vote) -> list[str | float | None]:
    ballot = vote.ballot
    when = datetime.fromtimestamp(vote.time_unix_seconds, UTC).isoformat(timespec="seconds")
    row: list[str | float | None] = [ballot.id, ballot.prompt, ballot.system, vote.voter, vote.choice]
    row += [vote.winner.label if vote.winner else None, vote.reason, when, vote.time_unix_seconds]
    for place, column in enumerate(ballot.columns):
        row += [column.label, column.run_id, column.text, 1 + vote.order.index(place)]
    return row
