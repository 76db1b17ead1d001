"""Which rows changed most, and which are answered differently."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measure.changes.made import answered, scored
from tunelab import UserError
from tunelab.measure.changes import AnsweredRow
from tunelab.measure.changes.ranking import disagreeing, overlap, rank

POINTS = st.integers(0, 100).map(float)


@given(st.lists(st.tuples(POINTS, POINTS), min_size=1, max_size=40), st.integers(1, 12), st.booleans())
def test_the_rows_shown_are_the_ones_that_changed_most_and_every_row_is_counted(pairs, most, higher):
    ranking = rank(scored(pairs), "points", most=most, higher_is_better=higher)
    gains = sorted((after - before if higher else before - after) for before, after in pairs)
    assert [one.gain for one in ranking.improved] == [gain for gain in reversed(gains) if gain > 0][:most]
    assert [one.gain for one in ranking.worsened] == [gain for gain in gains if gain < 0][:most]
    assert ranking.better + ranking.worse + ranking.same == len(pairs)
    assert ranking.better == sum(gain > 0 for gain in gains)


def test_rows_without_a_score_on_both_sides_are_left_out_and_named():
    rows = [*scored([(0.0, 100.0), (math.nan, 50.0)]), answered(3, base="a", tuned="b")]
    ranking = rank(rows, "points")
    assert [one.row.row for one in ranking.improved] == [1]
    assert ranking.notes == ("2 rows have no points on both sides and are left out (rows 2, 3).",)


def test_a_metric_that_was_not_scored_names_those_that_were():
    with pytest.raises(UserError, match=r"metric = 'chrf': none of the 1 rows has a score of it .* There are points"):
        rank(scored([(1.0, 2.0)]), "chrf")
    with pytest.raises(UserError, match="Score the answers first"):
        rank([answered()], "chrf")
    with pytest.raises(UserError, match="no answered rows"):
        rank([], "chrf")
    with pytest.raises(UserError, match="most = 0"):
        rank(scored([(1.0, 2.0)]), "points", most=0)


def test_answers_that_differ_are_found_the_least_alike_first_and_case_is_no_difference():
    rows = [
        answered(1, "Card arrival", "card  arrival\n"),
        answered(2, "the card has arrived", "the card has arrived today"),
        answered(3, "the card has arrived", "no idea"),
    ]
    found = disagreeing(rows)
    assert [one.row.row for one in found.rows] == [3, 2]
    assert (found.different, found.of) == (2, 3)
    assert found.rows[1].overlap == pytest.approx(2 * 4 / 9)
    assert len(disagreeing(rows, most=1).rows) == 1


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_words_in_common_are_counted_the_same_from_both_sides(one, other):
    assert overlap(one, other) == overlap(other, one)
    assert 0 <= overlap(one, other) <= 1


def test_a_row_is_read_back_from_the_line_it_is_written_as():
    row = answered(7, "a", "b", scores=(math.inf, 2.0), columns={"topic": "card"}, label="x", base_ended=False)
    assert AnsweredRow.model_validate_json(row.model_dump_json()) == row
