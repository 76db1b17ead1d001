"""Votes are blind, are kept, and are never counted twice, whoever votes at the same time."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.measure.votes.voting import ballot
from tunelab import LoRA, ModelSpec, Run, RunConfig, Stage, UserError, runs_root
from tunelab.answer.question import Answer, Comparison, Provenance
from tunelab.measure.votes import Ballot, Column, VoteStore, ballot_of, new_voter
from tunelab.spec import DataSpec

texts = st.text(max_size=20)  # any letters, also zeros and halves of surrogate pairs


def column_of(store, shown, label):
    """The letter under which the column of this label was shown."""
    (one,) = (one for one in store.ballots() if one.prompt == shown.prompt)
    return shown.letters[shown.answers.index(next(c.text for c in one.columns if c.label == label))]


def run_on_disk(name: str) -> Run:
    data = DataSpec(rows=[{"prompt": "a", "completion": "b"}])
    return Run.create(
        RunConfig(model=ModelSpec(repo_id="starter"), technique=LoRA(), stages=[Stage(data=data)], name=name)
    )


def test_a_vote_is_for_the_answer_that_stood_at_the_letter(tmp_path):
    store = VoteStore(tmp_path)
    one = ballot(labels=["base", "x", "y"])
    for number in range(20):
        shown = store.show(store.add(one), f"voter {number}")
        vote = store.vote(shown.token, column_of(store, shown, "x"), "clearer")
        assert vote.winner == one.columns[1]
        assert [one.columns[place].text for place in vote.order] == list(shown.answers)
    assert {vote.winner for vote in store.votes()} == {one.columns[1]}
    assert len({vote.order for vote in store.votes()}) > 1
    assert {vote.reason for vote in store.votes()} == {"clearer"}


def test_every_order_is_shown_equally_often_whatever_the_columns_are(tmp_path):
    store = VoteStore(tmp_path, random.Random(0))
    name = store.add(ballot(labels=["base", "x", "y"]))
    shown = Counter(store.show(name, "v").answers for _ in range(180))
    assert len(shown) == 6
    # each 30 of 180: four standard deviations are 4 · sqrt(180 · 1/6 · 5/6) = 20
    assert max(abs(count - 30) for count in shown.values()) < 20


@settings(max_examples=10)
@given(
    st.lists(st.sampled_from(["base", "tuned", "zebra", "run 3"]), min_size=2, max_size=4, unique=True), st.integers(0)
)
def test_the_order_shown_is_that_of_the_shuffle_and_of_nothing_else(tmp_path_factory, labels, seed):
    """Two ballots with the same number of columns and other content get the same places from the same shuffle."""
    places = []
    for names in (labels, [f"other {n}" for n in range(len(labels))]):
        store = VoteStore(tmp_path_factory.mktemp("runs"), random.Random(seed))
        one = ballot(labels=names)
        shown = store.show(store.add(one), "v")
        places.append([[c.text for c in one.columns].index(text) for text in shown.answers])
        assert sorted(shown.answers) == sorted(c.text for c in one.columns)
    assert places[0] == places[1]


@pytest.mark.parametrize("part", ["@40", "@stage2"])
def test_a_run_as_it_was_at_some_time_is_voted_on_as_long_as_the_run_is_there(part):
    made = run_on_disk("a run")
    store = VoteStore(runs_root())
    one = Ballot("Why?", (Column("base", "because"), Column("a run then", "so", f"{made.id}{part}")))
    store.add(one)
    assert store.next_for("v") == one
    shutil.rmtree(made.path)
    assert store.next_for("v") is None


def test_what_a_voter_is_shown_names_neither_column_nor_run(tmp_path):
    made = run_on_disk("my secret run")
    store = VoteStore(runs_root())
    one = Ballot("Why?", (Column("the base", "because"), Column("my secret run", "so", made.id)))
    shown = repr(store.show(store.add(one), "v"))
    assert not any(word in shown for word in ("the base", "my secret run", made.id, one.id))


@given(texts, texts, texts, st.one_of(st.none(), texts))
def test_any_text_comes_back_as_it_was(prompt, left, right, system):
    one = Ballot(prompt, (Column("base", left), Column("tuned", right)), system)
    assert Ballot.from_json(one.as_json()) == one
    assert one.as_json().isascii()
    assert Ballot.from_json(one.as_json()).id == one.id


def test_a_later_vote_of_the_same_voter_replaces_the_earlier_one(tmp_path):
    store = VoteStore(tmp_path)
    name = store.add(ballot())
    for choice in ("A", "tie", "skip"):
        store.vote(store.show(name, "v").token, choice)
    store.vote(store.show(name, "w").token, "tie")
    assert [(vote.voter, vote.choice) for vote in store.votes()] == [("v", "skip"), ("w", "tie")]
    assert store.votes()[0].winner is None


def test_the_same_comparison_is_one_ballot(tmp_path):
    store = VoteStore(tmp_path)
    assert store.add(ballot()) == store.add(ballot())
    assert store.add(ballot()) != store.add(ballot(system="Be brief."))
    assert len(store.ballots()) == 2


def test_a_voter_gets_each_ballot_once_those_with_few_votes_first(tmp_path):
    store = VoteStore(tmp_path)
    names = [store.add(ballot(f"prompt {n}")) for n in range(4)]
    store.vote(store.show(names[2], "early").token, "tie")
    got = []
    while (one := store.next_for("v")) is not None:
        got.append(one.id)
        store.vote(store.show(one.id, "v").token, "A")
    assert sorted(got) == sorted(names)
    assert got[-1] == names[2]


def test_a_vote_on_a_deleted_run_is_one_message_and_earlier_votes_stay():
    made = run_on_disk("gone soon")
    store = VoteStore()
    one = Ballot("Why?", (Column("base", "because"), Column("gone soon", "so", made.id)))
    name = store.add(one)
    store.vote(store.show(name, "v").token, "A")
    kept = store.votes()
    waiting = [store.show(name, voter) for voter in ("v", "w")]
    shutil.rmtree(made.path)
    for shown in waiting:  # also where it would have replaced one
        with pytest.raises(UserError, match=rf"{made.id} was deleted.*1 earlier vote .*next ballot"):
            store.vote(shown.token, "B")
    with pytest.raises(UserError, match="was deleted"):
        store.show(name, "x")
    with pytest.raises(UserError, match="no such run"):
        store.add(one)
    assert store.votes() == kept
    assert store.next_for("x") is None


@pytest.mark.parametrize(
    ("choice", "reason", "said"),
    [
        ("C", None, "A, B, tie and skip"),
        ("", None, "A, B, tie and skip"),
        ("AB", None, "A, B, tie and skip"),
        ("A", "both bad", "more correct"),
        ("tie", "clearer", "both good"),
        ("skip", "", "can't judge"),
    ],
)
def test_a_choice_or_reason_that_is_not_offered_is_refused_and_nothing_is_kept(tmp_path, choice, reason, said):
    store = VoteStore(tmp_path)
    shown = store.show(store.add(ballot()), "v")
    with pytest.raises(UserError, match=said):
        store.vote(shown.token, choice, reason)
    assert store.votes() == []


def test_what_does_not_exist_is_said(tmp_path):
    store = VoteStore(tmp_path)
    assert store.votes() == store.ballots() == []
    assert not store.path.exists()  # looking makes no file
    assert store.next_for("v") is None
    with pytest.raises(UserError, match="Show the ballot again"):
        store.vote("nothing", "A")
    with pytest.raises(UserError, match="Add it first"):
        store.show("nothing", "v")
    with pytest.raises(UserError, match="new_voter"):
        store.show(store.add(ballot()), " ")


def test_a_ballot_needs_two_columns_each_with_a_name_of_its_own():
    with pytest.raises(UserError, match="has 1 answers: give 2 to 26"):
        ballot(labels=["base"])
    with pytest.raises(UserError, match="several answers of base"):
        ballot(labels=["base", "tuned", "base"])


def test_a_file_that_is_no_file_of_votes_is_said_and_left_alone(tmp_path):
    (tmp_path / "votes.sqlite").write_bytes(b"not a database, but somebody's text " * 100)
    with pytest.raises(UserError, match="stays as it is"):
        VoteStore(tmp_path).votes()
    (tmp_path / "votes.sqlite").unlink()
    with sqlite3.connect(tmp_path / "votes.sqlite") as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(UserError, match="has format 0"):
        VoteStore(tmp_path).add(ballot())


def test_two_voters_have_different_ids():
    assert len({new_voter() for _ in range(100)}) == 100


VOTER = """
import sys
from pathlib import Path
from tests.measure.votes.voting import ballot
from tunelab.measure.votes import VoteStore
store = VoteStore(Path(sys.argv[1]))
names = [store.add(ballot(f"prompt {n}")) for n in range(10)]
for round in range(3):
    for name in names:
        store.vote(store.show(name, sys.argv[2]).token, "A")
        store.vote(store.show(name, "shared").token, "tie")
"""


def test_two_processes_that_vote_at_the_same_time_lose_no_vote(tmp_path):
    """They also make the file at the same time, and share a voter."""
    processes = [
        subprocess.Popen([sys.executable, "-c", VOTER, str(tmp_path), name], stderr=subprocess.PIPE, text=True)
        for name in ("v", "w")
    ]
    for process in processes:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    votes = Counter(vote.voter for vote in VoteStore(tmp_path).votes())
    assert votes == {"v": 10, "w": 10, "shared": 10}


def test_threads_may_share_a_store(tmp_path):
    store = VoteStore(tmp_path)
    problems = []

    def vote(voter):
        try:
            for n in range(5):
                store.vote(store.show(store.add(ballot(f"prompt {n}")), voter).token, "B")
                store.votes()
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=vote, args=(f"voter {n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(store.votes()) == 30
    with sqlite3.connect(store.path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def answer(label, adapter, reason="end of turn"):
    return Answer(label, f"by {label}", 2, reason, 0.1, Provenance("b", "0" * 64, adapter, "fp32", "t", "greedy"))


def test_a_finished_comparison_becomes_a_ballot():
    answers = (answer("base", None), answer("mine", "run-1", "length"))
    made = ballot_of(Comparison("Why?", "Be brief.", answers, True))
    assert made == Ballot("Why?", (Column("base", "by base"), Column("mine", "by mine", "run-1", True)), "Be brief.")
    assert [column.key for column in made.columns] == ["base", "run-1"]
    with pytest.raises(UserError, match="still being written"):
        ballot_of(Comparison("Why?", None, answers, False))


def test_a_run_that_is_called_base_is_still_told_from_the_base():
    made = ballot_of(Comparison("Why?", None, (answer("base", None), answer("base", "run-1")), True))
    assert [column.key for column in made.columns] == ["base", "run-1"]
