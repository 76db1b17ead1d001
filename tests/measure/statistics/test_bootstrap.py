"""Intervals hold what they promise."""

from __future__ import annotations

import numpy
import pytest

from tunelab.measure.metrics import bootstrap_ratio, paired_bootstrap


def test_the_interval_holds_the_true_difference_in_about_95_of_100_samples():
    generator = numpy.random.default_rng(1)
    inside = 0
    for trial in range(200):
        before = generator.normal(50, 20, 80)
        after = before + generator.normal(3, 10, 80)
        interval = paired_bootstrap(list(before), list(after), resamples=1000, seed=trial)
        inside += interval.low <= 3 <= interval.high
    assert 180 <= inside <= 199


def test_equal_rows_have_no_difference_and_unequal_counts_are_refused():
    interval = paired_bootstrap([1.0, 2.0], [1.0, 2.0])
    assert (interval.value, interval.low, interval.high, interval.n) == (0, 0, 0, 2)
    with pytest.raises(ValueError, match="2 before, 1 after"):
        paired_bootstrap([1.0, 2.0], [1.0])


def test_a_ratio_of_sums_lies_in_its_interval():
    generator = numpy.random.default_rng(3)
    below = generator.uniform(5, 50, 200)
    interval = bootstrap_ratio(list(0.7 * below + generator.normal(0, 2, 200)), list(below))
    assert interval.low < 0.7 < interval.high
    assert interval.high - interval.low < 0.05
    with pytest.raises(ValueError, match="0 above"):
        bootstrap_ratio([], [])
