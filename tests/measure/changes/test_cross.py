"""Rows filtered by what they have in common: every count is that of a filter written by hand."""

from __future__ import annotations

import random

import pytest
from scipy.stats import binomtest

from tests.measure.changes.made import answered
from tunelab.measure.changes.cross import CrossFilter
from tunelab.measure.changes.rules import labels_of, rules, sides
from tunelab.measure.changes.words import changed_words

LABELS = ("refund", "card", "top up")


def rows_of(count=160, seed=0):
    """Rows with labels, a column and answers of a few words; some have no score."""
    dice = random.Random(seed)
    return [
        answered(
            row,
            dice.choice(["no idea", "sorry, I cannot help", ""]),
            dice.choice(["refund it is", "card it is", "top top top up"]),
            prompt="x" * dice.randint(1, 40),
            reference="card it is",
            label=dice.choice(LABELS),
            columns={"channel": dice.choice(["mail", "chat"])},
            scores=(dice.choice([0.0, 50.0]), dice.choice([0.0, 50.0, 100.0])) if dice.random() < 0.9 else None,
        )
        for row in range(1, count + 1)
    ]


FILTERS = [
    {},
    {"label": ["label = card"]},
    {"label": ["label = card", "label = refund"], "column:channel": ["channel = mail"]},
    {"tuned-word": ["card", "refund"], "change": ["tuned is better"]},
    {"base-rule": ["refusal"], "label": ["label = top up"]},
]


def has(row, facet, value):
    """Whether a row has a value of a facet, read from the row itself."""
    if facet == "label":
        return f"label = {row.label}" == value
    if facet == "column:channel":
        return f"channel = {row.columns['channel']}" == value
    if facet == "change":
        change = row.change("points")
        return value == (
            "no score"
            if change is None
            else "tuned is better"
            if change > 0
            else "base is better"
            if change < 0
            else "same score"
        )
    if facet in ("tuned-word", "base-word"):
        return value in (row.tuned if facet == "tuned-word" else row.base).replace(",", "").lower().split()
    if facet in ("tuned-rule", "base-rule"):
        return value in labels_of(sides(row)[facet == "tuned-rule"], rules())
    low, high = value.removeprefix("prompt of ").removesuffix(" characters").split(" to ")
    return int(low) <= len(row.prompt) <= int(high)


def passes(row, filters, *, but=()):
    return all(any(has(row, facet, value) for value in values) for facet, values in filters.items() if facet not in but)


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: "+".join(filters) or "none")
def test_every_bar_counts_the_rows_that_the_other_choices_leave(filters):
    rows = rows_of()
    cross = CrossFilter(rows, "points")
    cross.read_rules()
    look = cross.look(filters)
    assert [rows[place] for place in look.rows] == [row for row in rows if passes(row, filters)]
    assert {facet.name for facet in look.facets} >= {"change", "label", "column:channel", "prompt-length", "base-rule"}
    for facet in look.facets:
        left = [row for row in rows if passes(row, filters, but=(facet.name,))]
        for bar in facet.bars:
            those = [row for row in left if has(row, facet.name, bar.value)]
            changes = [change for row in those if (change := row.change("points")) is not None]
            assert (bar.rows, bar.wins, bar.losses, bar.ties) == (
                len(those), sum(c > 0 for c in changes), sum(c < 0 for c in changes), changes.count(0.0),
            )  # fmt: skip
            assert bar.chosen == (bar.value in filters.get(facet.name, ()))
    assert look.words == changed_words([row for row in rows if passes(row, filters, but=("tuned-word", "base-word"))])


def test_where_less_is_better_a_fall_is_won():
    rows = [answered(1, scores=(3, 1)), answered(2, scores=(1, 3)), answered(3, scores=(1, 2))]
    whole = CrossFilter(rows, "points", higher_is_better=False).look().whole
    assert (whole.wins, whole.losses) == (1, 2)


def test_verdicts_are_exact_sign_tests_corrected_for_all_bars_and_few_rows_get_none():
    rows = [answered(n, prompt="x" * 5, label="won", scores=(0, 1)) for n in range(30)]
    rows += [answered(n, prompt="x" * 5, label="lost", scores=(1, 0)) for n in range(30, 52)]
    rows += [answered(n, prompt="x" * 5, label="even", scores=(n % 2, 1 - n % 2)) for n in range(52, 82)]
    # alone its p-value is below 5 %, not among so many
    rows += [answered(n, prompt="x" * 5, label="luck", scores=(0, 1) if n > 87 else (1, 0)) for n in range(82, 105)]
    rows += [answered(n, prompt="x" * 5, label="few", scores=(0, 1)) for n in range(105, 115)]
    assert 0.01 < binomtest(6, 23).pvalue < 0.05
    look = CrossFilter(rows, "points").look()
    bars = {bar.title: bar.verdict for facet in look.facets if facet.name == "label" for bar in facet.bars}
    assert bars == {
        "won": "better",
        "lost": "worse",
        "even": "not enough evidence",
        "luck": "not enough evidence",
        "few": "too few rows",
    }
    assert look.judged == 4
    assert not look.by_answers


@pytest.mark.parametrize(
    "filters", [{"change": ["tuned is better"]}, {"tuned-word": ["card"]}], ids=["outcome", "word"]
)
def test_rows_chosen_by_their_answers_are_not_judged(filters):
    look = CrossFilter(rows_of(), "points").look(filters)
    assert look.by_answers
    assert look.judged == 0
    assert {bar.verdict for facet in look.facets for bar in facet.bars} == {None}


def test_choices_that_these_rows_do_not_know_choose_nothing():
    cross = CrossFilter(rows_of(20), "points")
    assert cross.look({"label": ["label = gone"], "nonsense": ["x"]}) == cross.look()


def test_rows_stand_in_the_order_asked_for():
    rows = [
        answered(1, "a b", "a b", scores=(0, 0)),
        answered(2, "a b", "c d", scores=(5, 0)),
        answered(3, "a b", "a d", scores=(0, 9)),
    ]
    cross = CrossFilter(rows, "points")
    order = {
        name: [rows[place].row for place in cross.ordered(range(3), name)]
        for name in ("improved", "worsened", "different", "given")
    }
    assert order == {"improved": [3, 1, 2], "worsened": [2, 1, 3], "different": [2, 3, 1], "given": [1, 2, 3]}


def test_labels_stand_with_the_weakest_first_and_a_column_of_one_value_has_no_bars():
    rows = [
        answered(n, label="good" if n % 2 else "bad", columns={"all": "same"}, scores=(0, n % 2)) for n in range(50)
    ]
    facets = {facet.name: facet for facet in CrossFilter(rows, "points").look().facets}
    assert [bar.title for bar in facets["label"].bars] == ["bad", "good"]
    assert "column:all" not in facets
