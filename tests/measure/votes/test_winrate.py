"""A class may look after every vote: the interval holds at every moment, and says of whom it speaks."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.votes import Classes, called_after
from tests.measure.votes.voting import ballot, pairs_of, vote
from tunelab import UserError
from tunelab.measure.votes import win_rate
from tunelab.measure.votes.winrate import anytime_interval, evidence_against

few = st.integers(0, 40)
rates = st.floats(0.02, 0.98)


def evidence_by_hand(wins: int, losses: int, rate: Fraction) -> Fraction:
    """wins! losses! / (n+1)! over rate^wins (1-rate)^losses, in fractions."""
    mixed = Fraction(math.factorial(wins) * math.factorial(losses), math.factorial(wins + losses + 1))
    return mixed / (rate**wins * (1 - rate) ** losses)


def alone(wins: int, losses: int) -> tuple[float, float, float, float]:
    """The interval of one voter's votes on as many ballots."""
    n = wins + losses
    return anytime_interval(
        [1.0] * wins + [0.0] * losses, [f"{i}" for i in range(n)], ["v"] * n, speak_for="these voters"
    )


@given(few, few, rates)
def test_the_evidence_is_a_martingale(wins, losses, rate):
    """Its mean after one more vote is what it is now, if votes are won at that rate."""
    n = wins + losses

    def evidence(more_wins: int, more_losses: int) -> float:
        total = n + more_wins + more_losses
        return math.exp(evidence_against((wins + more_wins) / total if total else 0.5, total)(rate))

    assert rate * evidence(1, 0) + (1 - rate) * evidence(0, 1) == pytest.approx(evidence(0, 0), rel=1e-6)


@given(few, few)
def test_the_interval_is_every_rate_whose_evidence_is_below_twenty(wins, losses):
    mean, low, high, count = alone(wins, losses)
    assert count == wins + losses
    assert low <= mean <= high
    for rate in (Fraction(i, 97) for i in range(1, 97)):
        near = min(abs(float(rate) - low), abs(float(rate) - high)) < 1e-6
        assert near or (low < rate < high) == (evidence_by_hand(wins, losses, rate) < 20)


def test_at_most_five_in_a_hundred_who_watch_fair_votes_ever_call_them():
    """Exactly: over all sequences of 150 votes, by how many lead to a call at some moment."""
    reached, called = {0: 1.0}, 0.0  # by wins: the share of sequences that are still without a call
    for votes in range(1, 151):
        after: dict[int, float] = {}
        for wins, share in reached.items():
            for more in (0, 1):
                after[wins + more] = after.get(wins + more, 0.0) + share / 2
        _mean, low, high, _count = zip(*(alone(wins, votes - wins) for wins in after), strict=True)
        outside = [wins for wins, a, b in zip(after, low, high, strict=True) if not a <= 0.5 <= b]
        called += sum(after.pop(wins) for wins in outside)
        reached = after
    assert 0.01 < called <= 0.05
    assert called + sum(reached.values()) == pytest.approx(1)


@pytest.mark.parametrize("order", ["mixed", "ballot by ballot", "voter by voter"])
def test_classes_whose_ballots_and_voters_lean_are_seldom_misled(order):
    """The binomial distribution of 5 % in 60 has more than 8 in one case of 600."""
    random = numpy.random.default_rng(1)
    kind = Classes(ballots_lean=1.0, voters_lean=1.0, order=order)
    assert sum(called_after(kind, random, voters=10, ballots=10) > 0 for _ in range(60)) <= 8


def test_classes_see_what_is_there():
    random = numpy.random.default_rng(1)
    called = [called_after(Classes(rate=0.8), random, voters=12, ballots=15) for _ in range(20)]
    assert sum(votes > 0 for votes in called) >= 16


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=30), st.integers(2, 5))
def test_voters_who_all_vote_alike_count_once_a_ballot(scores, copies):
    n = len(scores)
    once = anytime_interval(scores, [f"{i}" for i in range(n)], ["v"] * n, speak_for="these voters")
    ballots, voters = ([f"{i}" for i in range(n)] * copies, [f"v{i // n}" for i in range(n * copies)])
    again = anytime_interval(scores * copies, ballots, voters, speak_for="these voters")
    assert again == pytest.approx(once)


def test_a_class_on_one_ballot_says_nothing_of_other_prompts():
    votes = [vote(ballot(), "tuned", f"v{n}") for n in range(100)]
    found = win_rate(votes, "tuned")
    assert found.value == 1
    assert found.verdict == "not enough evidence"
    assert "1 ballot (too few to speak of other prompts)" in found.sentence
    assert "count as 1 independent" in found.sentence


def test_one_voter_on_many_ballots_speaks_for_that_voter():
    found = win_rate(pairs_of(wins=38, losses=2), "tuned")
    assert found.verdict == "better"
    assert found.sentence.startswith("Tuned is preferred to base: tuned wins 95% of 40 votes (95 % interval ")
    assert "for that voter only" in found.sentence
    assert win_rate(pairs_of(wins=2, losses=38), "tuned").verdict == "worse"
    assert win_rate(pairs_of(wins=38, losses=2), "tuned", speak_for="such voters").verdict == "not enough evidence"


def test_a_few_voters_speak_for_themselves_when_asked_to():
    votes = [vote(ballot(f"prompt {n}"), "tuned" if n % 10 else "base", f"v{n % 3}") for n in range(90)]
    assert win_rate(votes, "tuned").verdict == "not enough evidence"
    assert "too few to speak for others" in win_rate(votes, "tuned").sentence
    theirs = win_rate(votes, "tuned", speak_for="these voters")
    assert theirs.verdict == "better"
    assert "for them and not for others" in theirs.sentence


def test_a_tie_counts_half_or_is_left_out_as_said():
    votes = pairs_of(wins=6, losses=2, ties=8, skips=3)
    half, without = win_rate(votes, "tuned"), win_rate(votes, "tuned", ties="left out")
    assert (half.value, half.votes) == (10 / 16, 16)
    assert (without.value, without.votes) == (6 / 8, 8)
    assert "8 ties, of which each counts half" in half.sentence
    assert "8 ties, which are left out" in without.sentence
    assert "Left out: 3 skipped." in half.sentence


cast = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["base", "tuned", "third", "tie", "skip"]), st.integers(0, 6)),
    max_size=40,
)


@given(cast)
def test_every_vote_is_counted_once_and_both_sides_see_the_same(cast):
    votes = []
    for number, what, voter in cast:
        on = ballot(f"prompt {number}", ["base", "tuned", "third"])
        winner = None if what in ("tie", "skip") else what
        votes.append(vote(on, winner, f"v{voter}", skip=what == "skip"))
    found, turned = win_rate(votes, "tuned"), win_rate(votes, "base", "tuned")
    assert found.wins + found.losses + found.ties + found.skips + found.elsewhere == len(votes)
    assert (found.wins, found.losses) == (turned.losses, turned.wins)
    assert (found.low, found.high) == pytest.approx((1 - turned.high, 1 - turned.low))
    assert found.low <= found.value <= found.high
    assert 0 <= found.independent <= found.votes + 1e-9
    assert found.sentence


def test_columns_nobody_voted_on_are_named_with_those_there_are():
    with pytest.raises(UserError, match=r"'other' and 'base'\. Columns that were voted on: base, tuned"):
        win_rate(pairs_of(1, 1), "other")
    with pytest.raises(UserError, match="both 'base' and 'base'"):
        win_rate(pairs_of(1, 1), "base")
    with pytest.raises(UserError, match="'half' and 'left out'"):
        win_rate([], "tuned", ties="whole")
    with pytest.raises(UserError, match="'these voters' and 'such voters'"):
        win_rate([], "tuned", speak_for="all")
    assert win_rate([], "tuned").sentence == "Nobody has chosen between tuned and base yet."
