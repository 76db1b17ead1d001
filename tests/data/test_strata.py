"""Rows held out in strata: groups stay whole, labels keep their shares, the seed decides the rest."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.data.strata import hold_out, joined


def singles(count):
    return [[row] for row in range(count)]


@st.composite
def divisions(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=30))
    rows = list(range(sum(sizes)))
    draw(st.randoms()).shuffle(rows)
    groups, start = [], 0
    for size in sizes:
        groups.append(rows[start : start + size])
        start += size
    labels = draw(st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
    together = draw(st.none() | st.lists(st.none() | st.integers(0, 30), min_size=len(rows), max_size=len(rows)))
    return groups, labels, together


@settings(max_examples=100, deadline=None)
@given(divisions(), st.floats(0.05, 0.6), st.integers(0, 5))
def test_groups_stay_whole_and_no_side_is_empty(division, amount, seed):
    groups, labels, together = division
    merged = joined(groups, together) if together is not None else groups
    if len(merged) < 2:
        return
    held = hold_out(groups, labels, amount, seed, together)
    assert held == sorted(set(held))
    assert 0 < len(held) < len(labels)
    for group in groups:
        assert len(set(group) & set(held)) in (0, len(group))
    if together is not None:
        sides = {(value, row in held) for row, value in enumerate(together) if value is not None}
        assert len({value for value, _side in sides}) == len(sides)
    assert held == hold_out(groups, labels, amount, seed, together)
    target = max(1, round(amount * len(labels)))
    assert len(held) <= target or len(held) == min(map(len, merged))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=4, max_size=300), st.floats(0.05, 0.5), st.integers(0, 3))
def test_of_each_label_its_share_is_held_out_where_rows_stand_alone(labels, amount, seed):
    held = hold_out(singles(len(labels)), labels, amount, seed)
    target = min(max(1, round(amount * len(labels))), len(labels) - 1)
    assert len(held) == target
    of_held, of_all = Counter(labels[row] for row in held), Counter(labels)
    for label, count in of_all.items():
        missed = abs(of_held[label] - count * target / len(labels))
        assert missed <= 1 or min(of_all.values()) == 1  # a label with one row gives its turn to others
        assert of_held[label] < count or count == 1


def test_shares_hold_with_groups_as_well():
    rng = random.Random(0)
    labels, groups = [], []
    while len(labels) < 3000:
        label, size = rng.choice("aaaaabbbcd"), rng.choice((1, 1, 1, 2, 3, 8))
        groups.append(list(range(len(labels), len(labels) + size)))
        labels += [label] * size
    held = hold_out(groups, labels, 0.1, 0)
    assert abs(len(held) - len(labels) / 10) <= 1
    of_held, of_all = Counter(labels[row] for row in held), Counter(labels)
    for label, count in of_all.items():
        assert of_held[label] == pytest.approx(count / 10, abs=2)


def test_rows_of_one_customer_stay_together():
    customers = [f"customer {row // 5}" for row in range(100)]
    held = hold_out(singles(100), None, 20, 0, customers)
    assert len(held) == 20
    assert not {customers[row] for row in held} & {customers[row] for row in range(100) if row not in held}


def test_rows_without_a_customer_stand_alone():
    assert len(hold_out(singles(50), None, 10, 0, [None] * 50)) == 10


def test_the_seed_decides_which():
    assert len({tuple(hold_out(singles(100), None, 0.1, seed)) for seed in range(5)}) == 5


def test_answers_that_all_differ_are_no_strata():
    assert len(hold_out(singles(100), [f"answer {row}" for row in range(100)], 0.1, 0)) == 10


def test_a_large_group_is_trained_on():
    groups = [list(range(60)), *([row] for row in range(60, 100))]
    for seed in range(5):
        assert not set(hold_out(groups, None, 20, seed)) & set(range(60))
