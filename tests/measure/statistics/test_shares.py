"""Intervals and tests of few rows against their definitions, by brute force."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist, fmean

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.measure.changes.intervals import fisher_p, holm, paired_mean, sign_flip_p, sign_test_p, wilson

P_VALUES = st.lists(st.floats(0.0005, 1), min_size=1, max_size=6)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_of_wilsons_interval_are_the_shares_that_just_agree_with_what_was_seen(seen):
    wins, n = seen
    z = NormalDist().inv_cdf(0.975)
    for end in wilson(wins, n):
        if 0 < end < 1:
            assert abs(wins / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-6)
        else:
            assert wins in (0, n)
    low, high = wilson(wins, n)
    assert 0 <= low <= wins / n <= high <= 1
    assert wilson(n - wins, n) == pytest.approx((1 - high, 1 - low))


def test_wilsons_interval_of_no_rows_is_everything():
    assert wilson(0, 0) == (0.0, 1.0)


@given(P_VALUES)
def test_holms_correction_is_the_closed_test_of_all_intersections(p_values):
    def closed(index):
        """The largest Bonferroni p-value of any set of hypotheses that holds this one."""
        others = [i for i in range(len(p_values)) if i != index]
        sets = ([index, *more] for size in range(len(p_values)) for more in itertools.combinations(others, size))
        return max(min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets)

    assert holm(p_values) == pytest.approx([closed(index) for index in range(len(p_values))])


def test_the_sign_flip_test_looks_at_every_way_to_swap_sides():
    differences = [3.0, -1.0, 4.0, 1.5, 0.0, -0.5, 2.5]
    every = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=7)
    ]
    expected = sum(one >= abs(sum(differences)) - 1e-9 for one in every) / len(every)
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_drawn_signs_come_close_to_all_of_them_and_never_say_impossible():
    generator = numpy.random.default_rng(3)
    differences = list(generator.normal(0.5, 1, 18))
    patterns = (numpy.arange(2**18)[:, None] >> numpy.arange(18)) & 1
    exact = float(numpy.mean(numpy.abs((2 * patterns - 1) @ numpy.abs(differences)) >= abs(sum(differences))))
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.01)
    assert 0 < sign_flip_p([1.0 + n / 100 for n in range(60)]) < 0.001


def test_right_and_wrong_answers_give_mcnemars_exact_test():
    # 9 discordant rows, 8 of them one way: 2 * (C(9, 0) + C(9, 1)) / 2 ** 9
    assert sign_flip_p([100.0] * 8 + [-100.0] + [0.0] * 30) == pytest.approx(20 / 512) == sign_test_p(8, 1)
    assert sign_flip_p([0.0] * 5) == 1.0
    assert sign_test_p(3, 3) == 1.0


@pytest.mark.parametrize(("n", "t"), [(10, 2.26216), (20, 2.09302), (31, 2.04227), (121, 1.97993)])
def test_the_interval_of_a_mean_is_students(n, t):
    """t of 0.975 as tables print it, for n - 1 degrees of freedom."""
    values = [float(k % 7) for k in range(n)]
    low, high = paired_mean(values)
    error = numpy.std(values, ddof=1) / math.sqrt(n)
    assert (low + high) / 2 == pytest.approx(fmean(values))
    assert (high - low) / 2 == pytest.approx(t * error, rel=2e-4)


def test_differences_that_are_all_the_same_say_nothing_of_how_sure_their_mean_is():
    assert paired_mean([5.0] * 30) is None
    assert paired_mean([5.0]) is None
    assert paired_mean([]) is None


def test_two_shares_are_compared_as_in_fishers_tea_tasting():
    # four cups of eight are milk first, three of them called so: 34/70
    assert fisher_p(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher_p(4, 4, 0, 4) == pytest.approx(2 / 70)
    assert fisher_p(0, 10, 0, 10) == pytest.approx(1.0)
    assert fisher_p(5, 5, 5, 900) == fisher_p(5, 900, 5, 5) < 1e-8
