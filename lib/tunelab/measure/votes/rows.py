"""Votes become training data: the answer that people prefer, and pairs of a preferred and a rejected one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.measure.votes.ballot import Ballot, Column, Vote, counted


@dataclass(frozen=True)
class VoteRows:
    """What votes teach. Of several votes on one ballot the majority counts, once."""

    rows: list[dict[str, str]]  # prompt, completion; system where the ballot has one
    pairs: list[dict[str, str]]  # prompt, chosen, rejected; system
    votes: int
    ties: int  # votes, left out
    skips: int  # votes, left out
    undecided: int  # ballots whose voters chose different answers equally often, left out
    cut: int  # ballots whose winner was cut at the length limit, left out
    empty: int  # ballots whose winner has no word, left out
    repeated: int  # ballots whose row was there already
    same: int  # pairs whose two answers are the same text, left out

    @property
    def sentence(self) -> str:
        """What became rows, and what was left out, for people."""
        left = [
            (self.ties, "tie", "ties"),
            (self.skips, "skip", "skips"),
            (self.undecided, "ballot without a majority", "ballots without a majority"),
            (self.cut, "winner that was cut at the length limit", "winners that were cut at the length limit"),
            (self.empty, "empty winner", "empty winners"),
            (self.repeated, "row that was there already", "rows that were there already"),
            (self.same, "pair of equal answers", "pairs of equal answers"),
        ]
        said = ", ".join(counted(number, one, several) for number, one, several in left if number)
        return (
            f"{counted(self.votes, 'vote')} became {counted(len(self.rows), 'training row')} and "
            f"{counted(len(self.pairs), 'preference pair')}.{f' Left out: {said}.' if said else ''}"
        )


def votes_to_rows(votes: Sequence[Vote]) -> VoteRows:
    """The rows and pairs that votes give, in the order in which their ballots were first voted on. The rows can be
    trained on as they are: `DataSpec(source=votes_to_rows(votes).rows)`."""
    ballots: dict[str, Ballot] = {}
    wins: dict[str, Counter[Column]] = defaultdict(Counter)
    for vote in votes:
        if vote.winner:
            ballots[vote.ballot.id] = vote.ballot
            wins[vote.ballot.id][vote.winner] += 1
    rows: dict[tuple[tuple[str, str], ...], None] = {}
    pairs: dict[tuple[tuple[str, str], ...], None] = {}
    left: Counter[str] = Counter()
    for name, ballot in ballots.items():
        winner = _majority(wins[name])
        if reason := _why_not(winner):
            left[reason] += 1
            continue
        assert winner is not None
        asked = {"prompt": ballot.prompt} | ({"system": ballot.system} if ballot.system else {})
        row = tuple((asked | {"completion": winner.text}).items())
        left["repeated"] += row in rows
        rows[row] = None
        others = [column.text for column in ballot.columns if column != winner]
        left["same"] += others.count(winner.text)
        for text in others:
            if text != winner.text:
                pairs[tuple((asked | {"chosen": winner.text, "rejected": text}).items())] = None
    choices = Counter(vote.choice for vote in votes)
    names = ("undecided", "cut", "empty", "repeated", "same")
    return VoteRows(
        rows=list(map(dict, rows)),
        pairs=list(map(dict, pairs)),
        votes=len(votes),
        ties=choices["tie"],
        skips=choices["skip"],
        **{what: left[what] for what in names},
    )


def _majority(wins: Counter[Column]) -> Column | None:
    """The column with the most votes; None where several have as many."""
    (first, most), *rest = wins.most_common()
    return None if rest and rest[0][1] == most else first


def _why_not(winner: Column | None) -> str | None:
    """Why nothing is learned of a ballot, if so."""
    if winner is None:
        return "undecided"
    if winner.cut:
        return "cut"
    return None if winner.text.strip() else "empty"
