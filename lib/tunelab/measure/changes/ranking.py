"""Which rows changed most: the first thing to read after a figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tunelab.errors import UserError
from tunelab.measure.changes.rows import AnsweredRow, Change, changes, unscored_note
from tunelab.measure.changes.wording import words

MOST = 10


@dataclass(frozen=True)
class Ranking:
    """The rows whose score rose most and fell most, and how many rows rose, fell or stayed."""

    metric: str
    improved: tuple[Change, ...]  # the largest gain first
    worsened: tuple[Change, ...]  # the largest loss first
    better: int  # rows, shown or not
    worse: int
    same: int
    notes: tuple[str, ...]


def rank(rows: Sequence[AnsweredRow], metric: str, *, most: int = MOST, higher_is_better: bool = True) -> Ranking:
    """The `most` rows that improved and worsened most; rows of equal gain in the order given.

    Raises:
        UserError: there are no rows, none has scores of this metric, or `most` is below 1.
    """
    _check(most)
    changed, unscored = changes(rows, metric, higher_is_better)
    better = sorted((one for one in changed if one.gain > 0), key=lambda one: -one.gain)
    worse = sorted((one for one in changed if one.gain < 0), key=lambda one: one.gain)
    return Ranking(
        metric=metric,
        improved=tuple(better[:most]),
        worsened=tuple(worse[:most]),
        better=len(better),
        worse=len(worse),
        same=len(changed) - len(better) - len(worse),
        notes=tuple(unscored_note(unscored, metric)),
    )


class Disagreement(NamedTuple):
    """A row whose two answers are not the same; `overlap`: the share of words they have in common, 0 to 1."""

    row: AnsweredRow
    overlap: float


@dataclass(frozen=True)
class Disagreements:
    """Rows that base and tuned model answer differently."""

    rows: tuple[Disagreement, ...]  # the least in common first
    different: int  # rows, shown or not
    of: int


def disagreeing(rows: Sequence[AnsweredRow], *, most: int = MOST) -> Disagreements:
    """The `most` rows whose two answers have least in common; case and white space alone make no difference. Needs no
    score: it also finds rows where both are wrong, each in its own way.

    Raises:
        UserError: `most` is below 1.
    """
    _check(most)
    found = [Disagreement(row, overlap(row.base, row.tuned)) for row in rows if _folded(row.base) != _folded(row.tuned)]
    found.sort(key=lambda one: one.overlap)
    return Disagreements(tuple(found[:most]), len(found), len(rows))


def overlap(one: str, other: str) -> float:
    """Twice the words that stand in both texts over the words of both, 0 to 1 (Dice); two texts without words: 0."""
    first, second = Counter(words(one)), Counter(words(other))
    every = first.total() + second.total()
    return 2 * (first & second).total() / every if every else 0.0


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _check(most: int) -> None:
    if most < 1:
        raise UserError(f"most = {most}: at least 1 row has to be shown.")
