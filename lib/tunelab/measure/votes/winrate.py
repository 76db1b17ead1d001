"""How often people prefer the tuned model to the base, with an interval that holds while they vote.

Somebody who looks after every vote and stops when the figure pleases is misled by an ordinary interval. This one is a
confidence sequence: with probability 95 % the true rate lies in it at *every* moment, so a class may watch and call
the winner as soon as the interval leaves 50 %.

The method is the beta-binomial mixture. For a rate m, the evidence against it after n scores x in [0, 1] with sum s is

    E(m) = ∫ q^s (1-q)^(n-s) dq / (m^s (1-m)^(n-s)) = B(1+s, 1+n-s) / (m^s (1-m)^(n-s))

a non-negative supermartingale that begins at 1 if the scores have the mean m (x -> q^x (1-q)^(1-x) / … is convex, so
scores between 0 and 1, such as a tie's 1/2, only make it smaller). By Ville's inequality it ever reaches 1/0.05 with
probability at most 5 %; the interval is every m that is below that.

Votes on one ballot, or by one voter, say partly the same thing: ten votes on one prompt are not ten prompts. They
count as fewer independent ones (`_independent`).

Source: Robbins 1970, "Statistical methods related to the law of the iterated logarithm"; Howard, Ramdas, McAuliffe and
Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", section 3 (beta-binomial mixture);
for scores in [0, 1] Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy

from tunelab.errors import UserError, listed, shortened
from tunelab.measure.votes.ballot import Vote, counted, names_of

Ties = Literal["half", "left out"]
Reach = Literal["these voters", "such voters"]
ALPHA = 0.05
FEW = 5  # ballots, or voters: fewer say next to nothing of others


@dataclass(frozen=True)
class WinRate:
    """The share of votes for the tuned column against another, and its 95 % interval, valid at every moment."""

    tuned: str  # names to show
    base: str
    wins: int
    losses: int
    ties: int
    skips: int  # not in the rate
    elsewhere: int  # votes for a third column of the ballot: not in the rate
    ballots: int  # of the votes that count
    voters: int
    value: float  # 0 to 1; 0.5 where there is no vote
    low: float
    high: float
    independent: float  # as how many independent votes they count
    ties_count: Ties
    speaks_for: Reach

    @property
    def votes(self) -> int:
        """How many votes the rate is of."""
        return self.wins + self.losses + (self.ties if self.ties_count == "half" else 0)

    @property
    def verdict(self) -> Literal["better", "worse", "not enough evidence"]:
        if self.low > 0.5:
            return "better"
        return "worse" if self.high < 0.5 else "not enough evidence"

    @property
    def sentence(self) -> str:
        """What the votes say, for people."""
        left = self._left_out()
        if not self.votes:
            return f"Nobody has chosen between {self.tuned} and {self.base} yet.{left}"
        called = {
            "better": f"{self.tuned} is preferred to {self.base}",
            "worse": f"{self.base} is preferred to {self.tuned}",
            "not enough evidence": f"not enough evidence to prefer {self.tuned} or {self.base}",
        }[self.verdict]
        tied = {"half": "of which each counts half", "left out": "which are left out"}[self.ties_count]
        return (
            f"{called[0].upper()}{called[1:]}: {self.tuned} wins {self.value:.0%} of "
            f"{counted(self.votes, 'vote')} (95 % interval {100 * self.low:.0f} to {100 * self.high:.0f}, valid "
            f"whenever you look; {counted(self.ties, 'tie')}, {tied}).{self._reach()}{left}"
        )

    def _reach(self) -> str:
        """Of whom and of what it speaks."""
        said = f" By {counted(self.voters, 'voter')}"
        if self.speaks_for == "these voters":
            said += ", so for that voter only" if self.voters == 1 else ", so for them and not for others"
        elif self.voters < FEW:
            said += " (too few to speak for others)"
        said += f", on {counted(self.ballots, 'ballot')}"
        if self.ballots < FEW:
            said += " (too few to speak of other prompts)"
        if self.independent < 0.95 * self.votes:
            said += (
                ". Votes on the same ballot or by the same voter repeat each other: they count as "
                f"{max(1, round(self.independent)):,} independent ones"
            )
        return f"{said}."

    def _left_out(self) -> str:
        parts = []
        if self.skips:
            parts.append(f"{self.skips:,} skipped")
        if self.elsewhere:
            parts.append(f"{self.elsewhere:,} for another answer")
        return f" Left out: {' and '.join(parts)}." if parts else ""


def win_rate(
    votes: Sequence[Vote],
    tuned: str,
    base: str = "base",
    *,
    ties: Ties = "half",
    speak_for: Reach | None = None,
) -> WinRate:
    """How often `tuned` wins over `base` (keys of columns: a run's id, or a label), of the votes on ballots that have
    both. A tie counts half a win, or is left out; a skip, and a vote for a third column, are left out and counted.

    `speak_for`: "such voters", a class of which these are a part, or "these voters" and nobody else, for which fewer
    votes are enough; None: such voters, unless there is only one. The ballots always stand for others like them.

    Raises:
        UserError: no ballot has both columns, or a choice is unknown.
    """
    if ties not in ("half", "left out"):
        raise UserError(f"ties = {shortened(ties)}: allowed are 'half' and 'left out'.")
    if speak_for not in (None, "these voters", "such voters"):
        raise UserError(f"speak_for = {shortened(speak_for)}: allowed are 'these voters' and 'such voters'.")
    both = [vote for vote in votes if {tuned, base} <= {column.key for column in vote.ballot.columns}]
    names = names_of(votes)
    if tuned == base or (votes and not both):
        known = listed(names, 6) or "none"
        raise UserError(
            f"No vote is on a ballot with both {shortened(tuned)} and {shortened(base)}. Columns that were voted on: "
            f"{known}. Give two of these."
        )
    scored = [(vote, score) for vote in both if (score := _score(vote, tuned, base, ties)) is not None]
    scores = [score for _vote, score in scored]
    ballots, voters = [vote.ballot.id for vote, _ in scored], [vote.voter for vote, _ in scored]
    reach = speak_for or ("these voters" if len(set(voters)) == 1 else "such voters")
    value, low, high, independent = anytime_interval(scores, ballots, voters, speak_for=reach)
    winners = [vote.winner.key for vote in both if vote.winner]
    return WinRate(
        tuned=names.get(tuned, tuned),
        base=names.get(base, base),
        wins=winners.count(tuned),
        losses=winners.count(base),
        ties=sum(vote.choice == "tie" for vote in both),
        skips=sum(vote.choice == "skip" for vote in both),
        elsewhere=sum(key not in (tuned, base) for key in winners),
        ballots=len(set(ballots)),
        voters=len(set(voters)),
        value=value,
        low=low,
        high=high,
        independent=independent,
        ties_count=ties,
        speaks_for=reach,
    )


def _score(vote: Vote, tuned: str, base: str, ties: Ties) -> float | None:
    """1 for a win of the tuned column, 0 for one of the base, None for what does not count."""
    if vote.choice == "tie":
        return 0.5 if ties == "half" else None
    if vote.winner is None or vote.winner.key not in (tuned, base):
        return None
    return float(vote.winner.key == tuned)


def anytime_interval(
    scores: Sequence[float] | numpy.ndarray,
    ballots: Sequence[str] | numpy.ndarray,
    voters: Sequence[str] | numpy.ndarray,
    *,
    speak_for: Reach = "such voters",
    alpha: float = ALPHA,
) -> tuple[float, float, float, float]:
    """The mean of the scores (each 0 to 1), the ends of its confidence sequence, and as how many independent scores
    they count; `ballots` and `voters` say which ballot each is on, and by whom."""
    if not len(scores):
        return 0.5, 0.0, 1.0, 0.0
    values = numpy.asarray(scores, float)
    groups = [_numbered(ballots), *([_numbered(voters)] if speak_for == "such voters" else [])]
    mean, count = float(values.mean()), _independent(values, groups)
    return mean, *_ends(mean, count, alpha), count


def evidence_against(mean: float, count: float) -> Callable[[float], float]:
    """log E(m) as a function of the rate m, after `count` independent scores of this mean; 0 says nothing,
    log(20) = 3.0 is a call at 5 %."""
    wins, losses = mean * count, (1 - mean) * count
    mixed = math.lgamma(1 + wins) + math.lgamma(1 + losses) - math.lgamma(2 + count)

    def evidence(rate: float) -> float:
        if (wins and not rate) or (losses and rate == 1):
            return math.inf
        return mixed - (wins and wins * math.log(rate)) - (losses and losses * math.log1p(-rate))

    return evidence


def _ends(mean: float, count: float, alpha: float) -> tuple[float, float]:
    """Where the evidence reaches 1/alpha below and above the mean. It is least at the mean, and rises to both sides."""
    evidence, limit = evidence_against(mean, count), math.log(1 / alpha)

    def end(outer: float) -> float:
        if evidence(outer) < limit:
            return outer
        inside, outside = mean, outer
        for _ in range(40):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if evidence(middle) < limit else (inside, middle)
        return outside

    return end(0.0), end(1.0)


def _numbered(names: Sequence[str] | numpy.ndarray) -> numpy.ndarray:
    return numpy.unique(names, return_inverse=True)[1]


def _independent(scores: numpy.ndarray, groupings: Sequence[numpy.ndarray]) -> float:
    """As how many independent scores these count: n over the design effect, the variance of their mean with the scores
    of a group taken together over that of independent ones. A grouping numbers the group of each score.

    It is between the number of groups, as if all scores of one were the same, and n. Where no group has two scores it
    is n, and the interval is exact. Else it is an estimate, drawn towards dependence while there are few groups: one
    more of mean size is counted in, all won or all lost at even odds.

    Source: Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering", equation 2.3; Kish 1965.
    """
    n, mean = len(scores), float(scores.mean())
    rest = scores - mean
    alone = float((rest**2).sum())
    total, fewest = alone, 0.0
    for groups in groupings:
        sizes = numpy.bincount(groups)
        if sizes.max() > 1:
            fewest += float((sizes**2).sum()) / n**2  # one over the number of groups, if they are equal
            total += max(0.0, _between(rest, groups, mean) - alone)
    if not fewest:
        return float(n)
    return min(float(n), max(1 / fewest, n * alone / total if alone else 0.0))


def _between(rest: numpy.ndarray, groups: numpy.ndarray, mean: float) -> float:
    """The sum over groups of their squared sums, corrected for few groups, and of the group that is counted in."""
    sums = numpy.bincount(groups, rest)
    count = len(sums)
    counted_in = (len(rest) / count) ** 2 * (mean**2 + (1 - mean) ** 2) / 2
    return float((sums**2).sum()) * count / max(1, count - 1) + counted_in
