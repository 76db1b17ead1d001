"""Agreement is that of the published examples, and says where there is none to speak of."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measure.votes.voting import ballot, vote
from tunelab.measure.votes import voter_agreement

# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", sections A and C; a row is an observer
BINARY = "0100000010", "1110010000"
NOMINAL = "12332141 2...".replace(" ", ""), "1233224125.3", ".3332342251.", "12332441251."


def read(rows, values):
    return [
        vote(ballot(f"unit {unit}", values), value, f"observer {observer}")
        for observer, row in enumerate(rows)
        for unit, value in enumerate(row)
        if value != "."
    ]


def test_alpha_is_that_of_krippendorffs_examples():
    assert voter_agreement(read(BINARY, "01")).alpha == pytest.approx(0.095, abs=0.0005)
    assert voter_agreement(read(NOMINAL, "12345")).alpha == pytest.approx(0.743, abs=0.0005)


choices = st.lists(st.lists(st.sampled_from(["base", "tuned", None]), min_size=1, max_size=5), min_size=1, max_size=8)


@given(choices)
def test_the_share_is_that_of_all_pairs_of_voters(units):
    votes = [vote(ballot(f"{u}"), kind, f"v{n}") for u, kinds in enumerate(units) for n, kind in enumerate(kinds)]
    pairs = [a == b for kinds in units for a, b in combinations(kinds, 2)]
    found = voter_agreement(votes)
    assert found.pairs == len(pairs)
    assert found.share == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    assert found.alpha is None or found.alpha <= 1
    assert found.sentence


def test_alpha_is_one_where_all_agree_and_undefined_where_there_is_one_answer():
    kinds = ["base", "tuned", None]
    votes = [vote(ballot(kind or "tie"), kind, voter) for kind in kinds for voter in "vw"]
    assert voter_agreement(votes).alpha == 1
    assert "they agree reliably" in voter_agreement(votes).sentence
    same = voter_agreement(votes[:2])
    assert (same.share, same.alpha) == (1, None)
    assert "not defined" in same.sentence


def test_one_voter_has_nobody_to_agree_with():
    votes = [vote(ballot(f"{n}"), "base") for n in range(5)]
    found = voter_agreement([*votes, vote(ballot("5"), skip=True, voter="w")])
    assert (found.share, found.alpha, found.voters, found.skips) == (None, None, 1, 1)
    assert found.sentence.startswith("Only one person has voted, so nothing can be said about agreement.")
    apart = voter_agreement([*votes, vote(ballot("6"), "base", "w")])
    assert apart.sentence.startswith("No two people have voted on the same ballot")
    assert voter_agreement([]).sentence.startswith("Nobody has voted")
