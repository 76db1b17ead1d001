"""Intervals and tests of few rows against their definitions, by brute force."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.measure.statistics import fisher_p, paired_mean, wilson


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


@pytest.mark.parametrize(("n", "t"), [(10, 2.26216), (20, 2.09302), (31, 2.04227), (121, 1.97993)])
def test_the_interval_of_a_mean_is_students(n, t):
    """t of 0.975 as tables print it, for n - 1 degrees of freedom."""
    values = [float(k % 7) for k in range(n)]
    low, high = paired_mean(values)
    error = numpy.std(values, ddof=1) / math.sqrt(n)
    assert (low + high) / 2 == pytest.approx(fmean(values))
    assert (high - low) / 2 == pytest.approx(t * error, rel=1e-5)


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
