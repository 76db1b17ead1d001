"""Exported votes read back as they were, and no cell can become a formula."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measure.votes.voting import ballot, vote
from tunelab.measure.votes import Ballot, Column, export_votes
from tunelab.measure.votes.export import cell

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝")


def read(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("http://a","b")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]
)
def test_no_text_anywhere_begins_as_a_formula(text):
    one = Ballot(text, (Column(text, text), Column("tuned", f"{text};{text}")), text)
    cast = replace(vote(one, "tuned", text), reason=text)
    for row in csv.reader(io.StringIO(export_votes([cast]), newline="")):
        assert not any(value.startswith(DANGEROUS) for value in row)
    (row,) = read(export_votes([cast]))
    assert row["prompt"] == row["answer_1"] == row["label_1"] == row["voter"] == f"'{text}"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_every_other_text_reads_back_as_it_was(prompt, answer):
    cast = vote(Ballot(prompt, (Column("base", answer), Column("tuned", "x"))), "base")
    (row,) = read(export_votes([cast]))
    for name, text in (("prompt", prompt), ("answer_1", answer)):
        assert row[name].removeprefix("'") == text.removeprefix("'")
        assert row[name] == text or text.startswith(DANGEROUS)


@pytest.mark.parametrize("value", [-3.5, 7, "-3.5", "+12", "-0", "12"])
def test_numbers_stay_numbers(value):
    assert cell(value) == value
    assert cell("-3.5e") == "'-3.5e"


def test_a_file_holds_who_chose_what_and_where_it_stood(tmp_path):
    three = Ballot("Why?", (Column("base", "a"), Column("x", "b", "run-1"), Column("y", "c")), "Brief.")
    votes = [
        replace(vote(three, "x", "v", when=1.5), order=(2, 0, 1), reason="clearer"),
        vote(ballot("Über?"), None, "w"),
        vote(ballot(), skip=True),
    ]
    export_votes(votes, tmp_path / "votes.csv")
    raw = (tmp_path / "votes.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")  # else a spreadsheet misreads letters beyond ASCII
    with open(tmp_path / "votes.csv", encoding="utf-8-sig", newline="") as file:
        first, second, third = csv.DictReader(file, quoting=csv.QUOTE_NONNUMERIC)
    assert (first["winner"], first["reason"], first["system"]) == ("x", "clearer", "Brief.")
    assert [first[f"shown_{n}"] for n in (1, 2, 3)] == [2, 3, 1]
    assert (first["run_2"], first["time"], first["time_unix_seconds"]) == ("run-1", "1970-01-01T00:00:01+00:00", 1.5)
    assert (second["prompt"], second["choice"], second["winner"], second["answer_3"]) == ("Über?", "tie", "", "")
    assert third["choice"] == "skip"


def test_no_votes_are_a_head_alone():
    assert read(export_votes([])) == []
    assert export_votes([]).count("\n") == 1
