"""What is voted on, what a voter sees of it, and what was chosen.

A `Ballot` is one prompt with the answers of two or more columns. A voter gets it as `Shown`: the answers in an order of
their own, without a word of where they come from. A `Vote` knows both: the order that was shown and the column chosen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from tunelab.errors import UserError, listed, shortened

if TYPE_CHECKING:
    from tunelab.answer.question import Comparison

Choice = Literal["winner", "tie", "skip"]
MOST_COLUMNS = 26  # they are shown as A to Z
# what a voter may give as the reason, one of them, by the choice it is for
REASONS: dict[Choice, tuple[str, ...]] = {
    "winner": ("more correct", "more complete", "clearer", "shorter", "better form", "better tone", "safer"),
    "tie": ("both good", "both bad", "the same"),
    "skip": ("can't judge", "bad prompt"),
}


@dataclass(frozen=True)
class Column:
    """One answer of a ballot, and whose it is."""

    label: str  # for people: "base", or the name of a run
    text: str
    run_id: str | None = None  # None: the base, or anything else that is no run
    cut: bool = False  # the answer was still going on at the length limit

    @property
    def key(self) -> str:
        """What the column is called in results: the run's id, whatever its name is by then, else the label."""
        return self.run_id or self.label


@dataclass(frozen=True)
class Ballot:
    """One prompt and its answers. Equal content is the same ballot, whoever brings it.

    Raises:
        UserError: fewer than two columns, more than there are letters, or two with the same key.
    """

    prompt: str
    columns: tuple[Column, ...]
    system: str | None = None

    def __post_init__(self) -> None:
        if not 2 <= len(self.columns) <= MOST_COLUMNS:
            raise UserError(
                f"A ballot on {shortened(self.prompt)} has {len(self.columns)} answers: give 2 to {MOST_COLUMNS}."
            )
        keys = [column.key for column in self.columns]
        if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
            raise UserError(
                f"The ballot on {shortened(self.prompt)} has several answers of {listed(twice)}. Give each column a "
                "label of its own, and each run once."
            )

    @cached_property
    def id(self) -> str:
        return hashlib.sha256(self.as_json().encode()).hexdigest()[:24]

    def as_json(self) -> str:
        """Its content, ASCII only: SQLite can't hold every text that a model writes."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Ballot:
        content: dict[str, Any] = json.loads(text)
        columns = tuple(Column(**column) for column in content.pop("columns"))
        return cls(columns=columns, **content)


def ballot_of(comparison: Comparison) -> Ballot:
    """The ballot on a finished comparison.

    Raises:
        UserError: its answers are still being written, or it has only one.
    """
    if not comparison.done:
        raise UserError(
            f"The answers to {shortened(comparison.prompt)} are still being written. Vote when they are complete."
        )
    if len(comparison.seeds) > 1:
        raise UserError(
            f"There are answers by {len(comparison.seeds)} seeds to {shortened(comparison.prompt)}. Vote on those of "
            "one seed (`Comparison.of_seed`)."
        )
    columns = tuple(
        # a run that was asked otherwise than alone (half as strong, with examples) is somebody else: its label says who
        Column(
            answer.label,
            answer.text,
            None if answer.provenance.own else answer.provenance.adapter,
            answer.stop_reason in ("length", "cancelled"),
        )
        for answer in comparison.answers
    )
    if len({column.key for column in columns}) < len(columns):  # a run that is called as the base is
        columns = tuple(
            column if column.run_id else Column(f"{column.label} (no adapter)", column.text, None, column.cut)
            for column in columns
        )
    return Ballot(comparison.prompt, columns, comparison.system)


@dataclass(frozen=True)
class Shown:
    """A ballot as a voter sees it. It holds no label and no id of a run."""

    token: str  # of this showing: a vote names it
    prompt: str
    answers: tuple[str, ...]  # in the order of this showing
    system: str | None = None

    @property
    def letters(self) -> tuple[str, ...]:
        """What the answers are called: A, B, …"""
        return tuple(chr(ord("A") + place) for place in range(len(self.answers)))


@dataclass(frozen=True)
class Vote:
    """One voter's choice on one ballot."""

    ballot: Ballot
    voter: str
    choice: Choice
    winner: Column | None  # None for a tie or a skip
    reason: str | None
    order: tuple[int, ...]  # the places of the columns as they were shown: order[0] was answer A
    time_unix_seconds: float


def names_of(votes: Iterable[Vote]) -> dict[str, str]:
    """For every column key of the votes the name to show: its last label, with the key where two share one."""
    labels = {column.key: column.label for vote in votes for column in vote.ballot.columns}
    shared = list(labels.values())
    return {key: label if shared.count(label) == 1 else f"{label} ({key})" for key, label in labels.items()}


def counted(number: int, one: str, several: str | None = None) -> str:
    """'1 vote', '1,204 votes'."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
