"""Strengths agree with a published table, with the likelihood written out, and with what was simulated."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.measure.votes.voting import ballot, vote
from tunelab import UserError
from tunelab.measure.votes import strengths
from tunelab.measure.votes.bradley_terry import PRIOR

# wins of each team over each other one, American League 1987; Agresti 2002, "Categorical Data Analysis", table 10.10
TEAMS = "Milwaukee Detroit Toronto NewYork Boston Cleveland Baltimore".split()
WINS = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]
AGRESTI = [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0]


def test_strengths_of_baseball_teams_are_those_published():
    votes = []
    for i, one in enumerate(TEAMS):
        for j, other in enumerate(TEAMS):
            if i == j:
                continue
            on = ballot(f"{min(i, j)} {max(i, j)}", sorted([one, other]))
            votes += [vote(on, one, f"v{i}{game}") for game in range(WINS[i][j])]
    found = {column.key: column for column in strengths(votes).columns}
    last = found["Baltimore"].value
    # the imagined column draws them together a little: 1 game beside 78
    assert [found[team].value - last for team in TEAMS] == pytest.approx(AGRESTI, abs=0.05)
    assert [found[team].wins for team in TEAMS] == [sum(row) for row in WINS]
    assert all(column.low < column.value < column.high for column in found.values())


cast = st.lists(
    st.tuples(st.lists(st.sampled_from("abcd"), min_size=2, max_size=4, unique=True).map(sorted), st.integers(0, 4)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=30)
@given(cast)
def test_strengths_are_where_the_likelihood_is_flat(cast):
    """Of first choices out of any sets, ties as a share for each, written out vote by vote."""
    votes = [
        vote(ballot(f"prompt {n}", labels), labels[pick] if pick < len(labels) else None)
        for n, (labels, pick) in enumerate(cast)
    ]
    found = strengths(votes, resamples=100)
    keys = [column.key for column in found.columns]

    def log_likelihood(values: dict[str, float], shifts: dict[tuple[str, ...], float]) -> float:
        values = {key: values[key] + shifts[group] for group in found.groups for key in group}
        total = 0.0
        for one in votes:
            labels = [column.key for column in one.ballot.columns]
            won = [one.winner.key] if one.winner else labels
            total += sum(values[key] for key in won) / len(won) - math.log(sum(math.exp(values[k]) for k in labels))
        return total + sum(PRIOR * values[key] - 2 * PRIOR * math.log1p(math.exp(values[key])) for key in keys)

    best = {column.key: column.value for column in found.columns}
    # the mean of a group is free in the result: find it first
    shifts = {}
    for group in found.groups:
        grid = numpy.linspace(-3, 3, 1201)
        prior = [
            sum(PRIOR * (best[k] + x) - 2 * PRIOR * math.log1p(math.exp(best[k] + x)) for k in group) for x in grid
        ]
        shifts[group] = float(grid[int(numpy.argmax(prior))])
    top = log_likelihood(best, shifts)
    for key in keys:
        for step in (-0.05, 0.05):
            assert log_likelihood(best | {key: best[key] + step}, shifts) < top + 1e-4


def test_strengths_that_were_simulated_are_found_within_their_intervals():
    random, true = numpy.random.default_rng(3), {"base": 0.0, "x": 0.5, "y": 1.2}
    weights = numpy.exp(list(true.values()))
    votes = [
        vote(ballot(f"prompt {n}", list(true)), str(random.choice(list(true), p=weights / weights.sum())))
        for n in range(600)
    ]
    found = strengths(votes)
    mean = sum(true.values()) / 3
    for column in found.columns:
        assert column.low < true[column.key] - mean < column.high
        assert column.high - column.low < 0.4
    assert [column.key for column in found.columns] == ["y", "x", "base"]
    assert found.chance("y", "base") == pytest.approx(math.exp(1.2) / (1 + math.exp(1.2)), abs=0.06)
    assert found.chance("y", "base") + found.chance("base", "y") == pytest.approx(1)
    assert found.sentence.startswith("600 votes on 600 ballots. Strongest first")


def test_thirty_votes_on_one_ballot_are_one_ballot_for_the_interval():
    """Ballots are drawn again, not votes: more voters who all agree leave as much doubt about other prompts."""
    kinds = ["tuned"] * 7 + ["base"] * 5
    once = [vote(ballot(f"prompt {n}"), kind) for n, kind in enumerate(kinds)]
    often = [vote(one.ballot, one.winner.label, f"v{n}") for one in once for n in range(30)]
    narrow, wide = (column.high - column.low for column in (strengths(v).columns[0] for v in (once, often)))
    assert wide >= narrow


def test_columns_that_no_votes_connect_are_said_and_not_compared():
    votes = [vote(ballot(f"prompt {n}", ["a", "b"]), "a") for n in range(12)]
    votes += [vote(ballot(f"prompt {n}", ["c", "d", "e"]), "d") for n in range(12)]
    found = strengths(votes)
    assert found.groups == (("c", "d", "e"), ("a", "b"))
    assert found.chance("a", "d") is None
    assert found.chance("a", "b") > 0.5
    assert "can't be compared: c, d, e; a, b." in found.sentence
    for group in found.groups:
        assert sum(c.value for c in found.columns if c.key in group) == pytest.approx(0, abs=1e-6)
    bridge = [*votes, vote(ballot("bridge", ["b", "c"]))]
    assert len(strengths(bridge).groups) == 1


def test_a_column_that_always_wins_has_a_finite_strength():
    found = strengths([vote(ballot(f"prompt {n}"), "tuned") for n in range(4)])
    assert math.isfinite(found.columns[0].high)
    assert "Below 10 ballots the intervals are too narrow" in found.sentence


def test_skips_are_left_out_and_counted():
    votes = [vote(ballot(f"prompt {n}"), "tuned", skip=False) for n in range(3)]
    votes.append(vote(ballot("other", ["only", "skipped"]), skip=True))
    found = strengths(votes)
    assert {column.key for column in found.columns} == {"base", "tuned"}
    assert (found.votes, found.skips) == (3, 1)
    assert found.sentence.endswith("1 skip left out.")
    assert strengths([]).sentence == "Nobody has voted yet."
    with pytest.raises(UserError, match="at least 100"):
        strengths([], resamples=10)
