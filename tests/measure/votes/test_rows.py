"""Winners become rows that can be trained on; whatever is left out is counted."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.measure.votes.voting import ballot, vote
from tunelab import DataSpec, read_data
from tunelab.measure.votes import Ballot, Column, votes_to_rows


def test_winners_become_rows_and_pairs():
    votes = [vote(ballot("p"), "tuned"), vote(ballot("q", ["base", "x", "y"], system="Brief."), "x")]
    found = votes_to_rows(votes)
    assert found.rows == [
        {"prompt": "p", "completion": "answer of tuned to p"},
        {"prompt": "q", "system": "Brief.", "completion": "answer of x to q"},
    ]
    assert [(pair["chosen"], pair["rejected"]) for pair in found.pairs] == [
        ("answer of tuned to p", "answer of base to p"),
        ("answer of x to q", "answer of base to q"),
        ("answer of x to q", "answer of y to q"),
    ]
    assert found.sentence == "2 votes became 2 training rows and 3 preference pairs."


def test_rows_of_votes_can_be_trained_on_as_they_are():
    votes = [vote(ballot(f"prompt {n}", system="Be brief." if n % 2 else None), "tuned") for n in range(10)]
    read = read_data(DataSpec(rows=votes_to_rows(votes).rows, heldout=2))
    examples = {example.asked[-1].content: example for example in (*read.train, *read.heldout)}
    assert {prompt: example.answer for prompt, example in examples.items()} == {
        f"prompt {n}": f"answer of tuned to prompt {n}" for n in range(10)
    }
    systems = Counter(example.asked[0].content for example in examples.values() if example.asked[0].role == "system")
    assert systems == {"Be brief.": 5}


def test_the_majority_of_a_ballot_counts_once():
    on = ballot("p")
    votes = [vote(on, "tuned", "v"), vote(on, "tuned", "w"), vote(on, "base", "x"), vote(on, None, "y")]
    found = votes_to_rows(votes)
    assert [row["completion"] for row in found.rows] == ["answer of tuned to p"]
    assert len(found.pairs) == 1
    even = votes_to_rows([*votes, vote(on, "base", "z")])
    assert (even.rows, even.pairs, even.undecided, even.ties) == ([], [], 1, 1)


def test_what_would_teach_something_wrong_is_left_out_and_said():
    cut = Ballot("cut", (Column("base", "a"), Column("tuned", "It goes on and", cut=True)))
    empty = Ballot("empty", (Column("base", "a"), Column("tuned", " ")))
    same = Ballot("same", (Column("base", "a"), Column("tuned", "a")))
    again = Ballot("same", (Column("base", "a"), Column("tuned", "b")))
    votes = [vote(cut, "tuned"), vote(empty, "tuned"), vote(same, "tuned"), vote(again, "base")]
    votes += [vote(ballot("t")), vote(ballot("s"), skip=True)]
    found = votes_to_rows(votes)
    assert found.rows == [{"prompt": "same", "completion": "a"}]
    assert found.pairs == [{"prompt": "same", "chosen": "a", "rejected": "b"}]
    assert found.sentence == (
        "6 votes became 1 training row and 1 preference pair. Left out: 1 tie, 1 skip, 1 winner that was cut at the "
        "length limit, 1 empty winner, 1 row that was there already, 1 pair of equal answers."
    )
    assert votes_to_rows([]).sentence == "0 votes became 0 training rows and 0 preference pairs."


cast = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["base", "tuned", "tie", "skip"])), max_size=30)


@given(cast)
def test_every_ballot_with_a_winner_is_a_row_or_is_counted(cast):
    votes = [
        vote(ballot(f"{n}"), kind if kind in ("base", "tuned") else None, f"v{i}", skip=kind == "skip")
        for i, (n, kind) in enumerate(cast)
    ]
    found = votes_to_rows(votes)
    with_winner = {n for n, kind in cast if kind in ("base", "tuned")}
    assert len(found.rows) + found.undecided + found.cut + found.empty + found.repeated == len(with_winner)
    assert (found.ties, found.skips) == (sum(k == "tie" for _, k in cast), sum(k == "skip" for _, k in cast))
    for row in found.rows:
        kinds = [kind for n, kind in cast if f"{n}" == row["prompt"]]
        better = "tuned" if kinds.count("tuned") > kinds.count("base") else "base"
        assert row["completion"] == f"answer of {better} to {row['prompt']}"
