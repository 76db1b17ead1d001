"""Rows in groups, each judged by itself and all corrected together."""

from __future__ import annotations

import itertools

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measure.changes.made import answered, scored
from tunelab import UserError
from tunelab.measure.changes.slices import Slice, by_column, by_label, by_length, judge
from tunelab.measure.metrics import ExactMatch

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=60)


def of_topics(topics):
    return [answered(row, columns={} if topic is None else {"topic": topic}) for row, topic in enumerate(topics, 1)]


@given(st.lists(st.sampled_from(["a", "b", "is empty", "", None]), min_size=1, max_size=30))
def test_every_row_stands_in_one_slice_of_a_column(topics):
    if all(topic is None for topic in topics):
        return
    rows = of_topics(topics)
    slices = by_column(rows, "topic")
    assert sorted(row.row for one in slices for row in one.rows) == [row.row for row in rows]
    assert len({one.title for one in slices}) == len(slices) == len({topic or "" for topic in topics})


def test_slices_are_named_by_their_value_the_largest_first():
    slices = by_column(of_topics(["b", "a", "a", "", None]), "topic")
    assert [(one.title, len(one.rows)) for one in slices] == [("topic = a", 2), ("topic = b", 1), ("topic is empty", 2)]
    labelled = [answered(row, label=label) for row, label in enumerate(["x", "y", "y", None], 1)]
    assert [one.title for one in by_label(labelled)] == ["label = y", "label = x", "label is empty"]


def test_labels_that_the_metrics_take_for_the_same_are_one_slice_under_their_usual_spelling():
    spelt = ["Refund", "refund ", "Refund", "REFUND", "Straße", "STRASSE", "Straße"]
    rows = [answered(row, label=label) for row, label in enumerate([*spelt, "", "  ", None], 1)]
    *slices, without = by_label(rows)
    assert [(one.title, len(one.rows)) for one in slices] == [("label = Refund", 4), ("label = Straße", 3)]
    assert (without.title, len(without.rows)) == ("label is empty", 3)
    exact = ExactMatch()
    for one in slices:
        assert {exact.score(row.label, other.label) for row in one.rows for other in one.rows} == {100.0}


@given(LENGTHS, st.integers(2, 8), st.sampled_from(["prompt", "reference"]))
def test_rows_of_one_length_are_never_parted_and_slices_are_in_order(lengths, quantiles, of):
    rows = [answered(row, **{of: "x" * length}) for row, length in enumerate(lengths, 1)]
    slices = [[len(getattr(row, of)) for row in one.rows] for one in by_length(rows, of, quantiles)]
    assert 1 <= len(slices) <= quantiles
    assert [length for one in slices for length in one] == sorted(lengths)
    for one, following in itertools.pairwise(slices):
        assert max(one) < min(following)
    if len(set(lengths)) == len(lengths) and len(lengths) >= quantiles:
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_a_column_of_many_numbers_is_cut_into_quantiles_and_one_of_few_is_not():
    many = [answered(row, columns={"price": str(row) if row else ""}) for row in range(41)]
    slices = by_column(many, "price")
    assert [one.title for one in slices] == [
        "price 1 to 10",
        "price 11 to 20",
        "price 21 to 30",
        "price 31 to 40",
        "price is empty",
    ]
    few = [answered(row, columns={"stars": str(row % 5)}) for row in range(40)]
    assert len(by_column(few, "stars")) == 5


def test_a_slice_of_few_rows_is_listed_with_its_figures_and_not_judged():
    few, many = scored([(0.0, 100.0)] * 19), scored([(0.0, 100.0)] * 20)
    found = judge([Slice("few", few), Slice("many", many), Slice("none", [])], "points")
    verdicts = {one.title: one.verdict for one in found.results}
    assert verdicts == {"few": "too few rows", "many": "better", "none": "too few rows"}
    assert found.judged == 1
    assert found.results[0].p is None
    assert (found.results[0].n, found.results[0].difference, found.results[0].win_rate) == (19, 100.0, 1.0)
    assert found.notes == ("Of fewer than 20 rows and not judged are: few, none.",)
    assert found.results[2].sentence == "none: no row has a score on both sides."


def test_the_figures_of_a_slice_are_those_of_its_rows():
    pairs = [(10.0, 20.0)] * 12 + [(20.0, 10.0)] * 4 + [(5.0, 5.0)] * 8
    (result,) = judge([Slice("all", scored(pairs))], "points").results
    assert (result.wins, result.losses, result.ties, result.n) == (12, 4, 8, 24)
    assert result.win_rate == 0.75
    assert result.difference == pytest.approx(80 / 24) == pytest.approx(result.tuned - result.base)
    # swapping sides leaves the verdict to the signs of 16 rows: 2 * sum C(16, 0…4) / 2 ** 16
    assert result.p == pytest.approx(2 * (1 + 16 + 120 + 560 + 1820) / 2**16)
    assert result.sentence.startswith("all: not enough evidence: +3.3 (95 % interval +")


def test_where_lower_is_better_a_fall_is_a_win():
    (result,) = judge([Slice("all", scored([(3.0, 2.0)] * 20))], "points", higher_is_better=False).results
    assert (result.verdict, result.wins, result.difference) == ("better", 20, -1.0)


def test_slices_judged_together_are_corrected_together():
    some = [(0.0, 100.0)] * 7 + [(50.0, 50.0)] * 20  # alone 2 / 2 ** 7 = 0.016
    alone = judge([Slice("one", scored(some))], "points")
    assert alone.results[0].verdict == "better"
    together = judge(
        [Slice("one", scored(some)), *[Slice(str(n), scored([(1.0, 1.0)] * 30)) for n in range(5)]], "points"
    )
    assert together.results[0].p == pytest.approx(6 * 2 / 2**7)
    assert together.results[0].verdict == "not enough evidence"
    assert "corrected for 6 slices" in together.notes[-1]


def test_with_nothing_changed_a_verdict_on_any_of_eight_slices_is_rare():
    """Sides swapped at random in every row: at most 5 % of trials, and 2 standard errors of 300 trials."""
    generator = numpy.random.default_rng(0)
    called = 0
    for _trial in range(300):
        slices = []
        for number in range(8):
            pairs = generator.choice([0.0, 100.0], (24, 2))
            slices.append(Slice(str(number), scored([tuple(map(float, pair)) for pair in pairs])))
        called += any(one.verdict in ("better", "worse") for one in judge(slices, "points").results)
    assert called / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


def test_settings_and_columns_that_are_not_there_are_named():
    rows = of_topics(["a", "b"])
    with pytest.raises(UserError, match=r"column = 'theme': no row has it. There are topic"):
        by_column(rows, "theme")
    with pytest.raises(UserError, match="None of the 2 rows has a label"):
        by_label(rows)
    with pytest.raises(UserError, match="quantiles = 1: allowed are 2 to 20"):
        by_length(rows, quantiles=1)
    with pytest.raises(UserError, match="of = 'answer': allowed are"):
        by_length(rows, "answer")
    with pytest.raises(UserError, match="least_rows = 1"):
        judge([Slice("all", scored([(1.0, 2.0)]))], "points", least_rows=1)
    with pytest.raises(UserError, match=r"alpha = 0.5"):
        judge([Slice("all", scored([(1.0, 2.0)]))], "points", alpha=0.5)
    with pytest.raises(UserError, match="no answered rows"):
        judge([], "points")
