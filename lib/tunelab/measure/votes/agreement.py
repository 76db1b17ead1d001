"""Whether voters agree: on how many ballots two of them choose the same, and how much of that is more than chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.measure.votes.ballot import Vote, counted

RELIABLE, TENTATIVE = 0.8, 0.667  # Krippendorff 2004, "Content Analysis", section 11.4


@dataclass(frozen=True)
class Agreement:
    """How far voters agree. A choice is a column or a tie; a skip is no choice."""

    voters: int
    ballots: int  # with choices of two voters or more
    pairs: int  # of voters on the same ballot
    share: float | None  # of the pairs that chose the same; None: there is no pair
    alpha: float | None  # Krippendorff's, 1 agreement, 0 as by chance; None: not defined
    skips: int

    @property
    def sentence(self) -> str:
        """What there is to know of it, for people."""
        skipped = f" {counted(self.skips, 'skip')} left out." if self.skips else ""
        if self.share is None:
            who = "Only one person has" if self.voters == 1 else "No two people have"
            if not self.voters:
                who = "Nobody has"
            end = "voted" if self.voters < 2 else "voted on the same ballot"
            return f"{who} {end}, so nothing can be said about agreement. It takes two voters on one ballot.{skipped}"
        said = (
            f"Two voters on the same ballot agree in {self.share:.0%} of {counted(self.pairs, 'pair')} "
            f"({self.voters} voters, {counted(self.ballots, 'ballot')})"
        )
        if self.alpha is None:
            return f"{said}. All chose the same everywhere, so agreement by chance is not defined.{skipped}"
        return f"{said}; Krippendorff's alpha is {self.alpha:.2f}: {_in_words(self.alpha)}.{skipped}"


def _in_words(alpha: float) -> str:
    if alpha >= RELIABLE:
        return "they agree reliably"
    if alpha >= TENTATIVE:
        return "enough for tentative conclusions"
    return "hardly more than by chance" if alpha < 0.2 else "tastes differ, so a call holds for the average voter only"


def voter_agreement(votes: Sequence[Vote]) -> Agreement:
    """The agreement of the voters, over ballots that two or more of them voted on.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability", nominal data, section D: voters may differ
    in number from ballot to ballot. alpha = 1 - (n - 1) · (n - Σ_c o_cc) / (n² - Σ_c n_c²), with o_cc the pairs that
    agree on c, each weighted by 1/(voters of its ballot - 1), and n_c how often c was chosen.
    """
    chosen: dict[str, list[str | None]] = defaultdict(list)
    for vote in votes:
        if vote.choice != "skip":
            chosen[vote.ballot.id].append(vote.winner.key if vote.winner else None)
    units = [Counter(choices) for choices in chosen.values() if len(choices) > 1]
    pairs = sum(unit.total() * (unit.total() - 1) // 2 for unit in units)
    same = sum(count * (count - 1) // 2 for unit in units for count in unit.values())
    voters = {vote.voter for vote in votes if vote.choice != "skip"}
    return Agreement(
        voters=len(voters),
        ballots=len(units),
        pairs=pairs,
        share=same / pairs if pairs else None,
        alpha=_alpha(units),
        skips=sum(vote.choice == "skip" for vote in votes),
    )


def _alpha(units: Sequence[Counter[str | None]]) -> float | None:
    totals = sum(units, Counter())
    n = totals.total()
    by_chance = n * n - sum(count * count for count in totals.values())
    if not by_chance:
        return None
    agreeing = sum(count * (count - 1) / (unit.total() - 1) for unit in units for count in unit.values())
    return 1 - (n - 1) * (n - agreeing) / by_chance
