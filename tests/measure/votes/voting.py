"""Ballots and votes as tests need them."""

from __future__ import annotations

from collections.abc import Sequence

from tunelab.measure.votes import Ballot, Column, Vote


def ballot(prompt: str = "Why?", labels: Sequence[str] = ("base", "tuned"), **fields) -> Ballot:
    """A ballot whose answers say whose they are."""
    columns = tuple(Column(label, f"answer of {label} to {prompt}") for label in labels)
    return Ballot(prompt, columns, **fields)


def vote(on: Ballot, winner: str | None = None, voter: str = "v", *, skip: bool = False, when: float = 0.0) -> Vote:
    """A vote for the column of this label; None: a tie, or a skip."""
    choice = "winner" if winner else "skip" if skip else "tie"
    column = next((one for one in on.columns if one.label == winner), None)
    assert (column is None) == (winner is None)
    return Vote(on, voter, choice, column, None, tuple(range(len(on.columns))), when)


def pairs_of(wins: int, losses: int, ties: int = 0, skips: int = 0) -> list[Vote]:
    """One voter's votes on as many ballots."""
    kinds = ["tuned"] * wins + ["base"] * losses + [None] * (ties + skips)
    first_skip = wins + losses + ties
    return [vote(ballot(f"prompt {n}"), kind, skip=n >= first_skip) for n, kind in enumerate(kinds)]
