"""How strong each of several columns is, from votes on any subsets of them.

A voter who sees the columns S chooses column i with probability w_i / Σ_{j in S} w_j. For two columns this is the model
of Bradley and Terry 1952, for more that of Luce 1959. The strengths are found by the MM algorithm: each step sets

    w_i <- (wins of i) / Σ over ballots with i of 1 / Σ_{j in S} w_j

which never lowers the likelihood. Every column also has PRIOR wins and losses against an imagined one of strength 1, so
that a column that never won has a finite strength, and so has one that always did.

Source: Hunter 2004, "MM algorithms for generalized Bradley-Terry models", equations 3 and 30; for the imagined column
Caron and Doucet 2012. Intervals: percentile bootstrap over ballots (Efron 1979), because votes on one ballot depend on
each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from tunelab.errors import UserError, listed
from tunelab.measure.votes.ballot import Vote, counted, names_of

PRIOR = 0.5  # wins, and losses, of each column against the imagined one
RESAMPLES = 1000
STEPS, CLOSE = 2000, 1e-9  # MM stops where no strength moves by more than this share
FEW_BALLOTS = 10  # below, bootstrap intervals are too narrow


@dataclass(frozen=True)
class Strength:
    """One column: its strength as log-odds against the mean of its group, 0."""

    key: str
    name: str
    value: float
    low: float  # 95 % interval
    high: float
    wins: float  # a tie of k columns is 1/k win for each
    votes: int


@dataclass(frozen=True)
class Strengths:
    """The columns that were voted on, the strongest first."""

    columns: tuple[Strength, ...]
    groups: tuple[tuple[str, ...], ...]  # keys of columns that votes connect; strengths compare within a group
    ballots: int
    votes: int
    skips: int

    def chance(self, one: str, other: str) -> float | None:
        """The probability that `one` is preferred to `other` (keys); None where no votes connect them."""
        if not any({one, other} <= set(group) for group in self.groups):
            return None
        value = {column.key: column.value for column in self.columns}
        return float(1 / (1 + numpy.exp(value[other] - value[one])))

    @property
    def sentence(self) -> str:
        """The order, how sure it is, and what can't be compared, for people."""
        if not self.votes:
            return f"Nobody has voted yet.{self._skipped()}"
        said = f"{counted(self.votes, 'vote')} on {counted(self.ballots, 'ballot')}. "
        said += " ".join(map(self._of_group, self.groups))
        if len(self.groups) > 1:
            names = {column.key: column.name for column in self.columns}
            apart = "; ".join(listed((names[key] for key in group), 4) for group in self.groups)
            said += f" No votes connect these, so they can't be compared: {apart}. Vote on ballots that hold both."
        if self.ballots < FEW_BALLOTS:
            said += f" Below {FEW_BALLOTS} ballots the intervals are too narrow."
        return f"{said}{self._skipped()}"

    def _of_group(self, group: tuple[str, ...]) -> str:
        first, *rest = (column for column in self.columns if column.key in group)
        chance = self.chance(first.key, rest[0].key)
        assert chance is not None
        order = ", ".join(f"{c.name} {c.value:+.2f} [{c.low:+.2f}, {c.high:+.2f}]" for c in (first, *rest))
        return (
            f"Strongest first, in log-odds with 95 % intervals: {order}. {first.name} would be preferred to "
            f"{rest[0].name} in {chance:.0%} of votes."
        )

    def _skipped(self) -> str:
        return f" {counted(self.skips, 'skip')} left out." if self.skips else ""


def strengths(votes: Sequence[Vote], *, resamples: int = RESAMPLES, seed: int = 0) -> Strengths:
    """The strength of every column that was voted on. A tie of k columns is 1/k win for each; a skip is left out.

    Raises:
        UserError: `resamples` is below 100.
    """
    if resamples < 100:
        raise UserError(f"resamples = {resamples}: at least 100 are needed for a 95 % interval.")
    counting = [vote for vote in votes if vote.choice != "skip"]
    names = {key: name for key, name in names_of(votes).items() if any(key in _keys(vote) for vote in counting)}
    keys, skips = list(names), len(votes) - len(counting)
    if not counting:
        return Strengths((), (), 0, 0, skips)
    table = _Table(counting, keys)
    groups = _connected(keys, {_keys(vote) for vote in counting})
    places = [[keys.index(key) for key in group] for group in groups]
    value = _centred(table.fit(numpy.ones((1, table.ballots))), places)[0]
    random = numpy.random.default_rng(seed)
    weights = random.multinomial(table.ballots, numpy.full(table.ballots, 1 / table.ballots), size=resamples)
    low, high = numpy.percentile(_centred(table.fit(weights), places), [2.5, 97.5], axis=0)
    seen = Counter(key for vote in counting for key in _keys(vote))
    wins = table.wins.sum(0)
    columns = [
        Strength(key, names[key], float(value[i]), float(low[i]), float(high[i]), float(wins[i]), seen[key])
        for i, key in enumerate(keys)
    ]
    columns.sort(key=lambda column: -column.value)
    return Strengths(tuple(columns), groups, table.ballots, len(counting), skips)


class _Table:
    """Votes counted by ballot: wins (ballots, columns), and how often each set of columns was shown (ballots, sets)."""

    def __init__(self, votes: Sequence[Vote], keys: Sequence[str]) -> None:
        rows = {name: row for row, name in enumerate(dict.fromkeys(vote.ballot.id for vote in votes))}
        sets = {found: place for place, found in enumerate(dict.fromkeys(map(_keys, votes)))}
        column = {key: place for place, key in enumerate(keys)}
        self.ballots = len(rows)
        self.wins = numpy.zeros((len(rows), len(keys)))
        self.shown = numpy.zeros((len(rows), len(sets)))
        for vote in votes:
            row, present = rows[vote.ballot.id], _keys(vote)
            winners = [vote.winner.key] if vote.winner else sorted(present)
            for key in winners:
                self.wins[row, column[key]] += 1 / len(winners)
            self.shown[row, sets[present]] += 1
        self.members = numpy.array([[key in present for key in keys] for present in sets], float)

    def fit(self, weights: numpy.ndarray) -> numpy.ndarray:
        """log w (resamples, columns), where each ballot counts `weights` (resamples, ballots) times."""
        wins, shown = weights @ self.wins + PRIOR, weights @ self.shown
        strength = numpy.ones_like(wins)
        for _ in range(STEPS):
            drawn = (shown / (strength @ self.members.T)) @ self.members + 2 * PRIOR / (strength + 1)
            before, strength = strength, wins / drawn
            if numpy.abs(strength / before - 1).max() < CLOSE:
                break
        return numpy.log(strength)


def _keys(vote: Vote) -> frozenset[str]:
    return frozenset(column.key for column in vote.ballot.columns)


def _connected(keys: Sequence[str], sets: set[frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    """The keys in groups: two are together if votes on ballots lead from one to the other. The largest comes first."""
    group = {key: {key} for key in keys}
    for present in sets:
        joined = set().union(*(group[key] for key in present))
        group |= dict.fromkeys(joined, joined)
    found = {tuple(key for key in keys if key in one) for one in group.values()}
    return tuple(sorted(found, key=lambda one: (-len(one), keys.index(one[0]))))


def _centred(values: numpy.ndarray, groups: Sequence[Sequence[int]]) -> numpy.ndarray:
    """The same with the mean of each group at 0: only differences within one mean anything."""
    centred = values.copy()
    for group in groups:
        centred[:, group] -= values[:, group].mean(1, keepdims=True)
    return centred
