"""A row as base and tuned model answered it: what every function of this room reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from tunelab.errors import UserError, listed


class AnsweredRow(BaseModel):
    """One held-out row, both answers to it and their scores. As JSON it is one line of a file of answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    row: int  # in its source, counted from 1
    prompt: str
    reference: str = ""
    base: str
    tuned: str
    base_scores: dict[str, float] = Field(default_factory=dict)  # by metric; one that could not be scored is missing
    tuned_scores: dict[str, float] = Field(default_factory=dict)
    base_ended: bool | None = None  # by itself, not by the length limit; None: nobody has looked
    tuned_ended: bool | None = None
    others: dict[str, str] = Field(default_factory=dict)  # answers of baselines, by their names
    other_scores: dict[str, dict[str, float]] = Field(default_factory=dict)
    columns: dict[str, str] = Field(default_factory=dict)  # further columns of the row
    label: str | None = None

    def change(self, metric: str) -> float | None:
        """The tuned score less the base's; None where one of them is missing or no finite number."""
        before, after = self.base_scores.get(metric), self.tuned_scores.get(metric)
        if before is None or after is None or not math.isfinite(after - before):
            return None
        return after - before


class Change(NamedTuple):
    """How one row's score changed; `gain` is positive where the tuned answer is the better one."""

    row: AnsweredRow
    base: float
    tuned: float
    gain: float


def changes(
    rows: Sequence[AnsweredRow], metric: str, higher_is_better: bool = True
) -> tuple[list[Change], list[AnsweredRow]]:
    """The change of every row that both sides have a score for, in the order given, and the rows without one.

    Raises:
        UserError: there are no rows, or none has scores of this metric.
    """
    if not rows:
        raise UserError("There are no answered rows to look at. Evaluate the run on held-out rows first.")
    changed, unscored = [], []
    for row in rows:
        change = row.change(metric)
        if change is None:
            unscored.append(row)
        else:
            gain = change if higher_is_better else -change
            changed.append(Change(row, row.base_scores[metric], row.tuned_scores[metric], gain))
    if not changed:
        known = sorted({name for row in rows for name in row.base_scores.keys() & row.tuned_scores.keys()})
        raise UserError(
            f"metric = {metric!r}: none of the {len(rows):,} rows has a score of it on both sides. "
            + (f"There are {listed(known)}." if known else "Score the answers first.")
        )
    return changed, unscored


def unscored_note(unscored: Sequence[AnsweredRow], metric: str) -> list[str]:
    """One sentence on rows that no score could be compared of; none where there are none."""
    if not unscored:
        return []
    rows = listed((row.row for row in unscored), most=5)
    one = len(unscored) == 1
    which, left_out = ("row has", "is left out (row") if one else ("rows have", "are left out (rows")
    return [f"{len(unscored):,} {which} no {metric} on both sides and {left_out} {rows})."]
