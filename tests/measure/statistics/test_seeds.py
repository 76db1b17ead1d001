"""Runs that differ make a difference less sure; rows that are few hide one."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tunelab.measure.statistics import Paired, mcnemar_p, rows_needed, smallest_difference, spread, weigh
from tunelab.measure.statistics.power import smallest_share

ERRORS = st.floats(0.01, 10)


def test_with_one_run_only_the_rows_speak():
    one = spread([3.0], by_rows=1.5)
    assert one.error == 1.5
    assert one.widened(3.0, (1.0, 6.0), 0.05) == (1.0, 6.0)
    assert one.p(3.0) == 0.0


def test_variances_of_rows_and_runs_add_up():
    found = spread([2.0, 5.0, 8.0], by_rows=1.0)
    assert found.error == pytest.approx(math.sqrt(1.0 + 9.0 / 3))
    z, t = stats.norm.ppf(0.975), stats.t.ppf(0.975, 2)
    assert found.reach(0.05) == pytest.approx(math.sqrt(z**2 + t**2 * 3))
    # 0 is the end of the interval whose confidence is 1 - p
    assert found.reach(found.p(5.0)) == pytest.approx(5.0)


def test_rows_that_say_nothing_leave_students_interval_of_the_runs():
    gains = [2.0, 5.0, 9.0, 4.0]
    found = spread(gains, by_rows=0.0)
    expected = stats.ttest_1samp(gains, 0.0)
    assert found.widened(5.0, (5.0, 5.0), 0.05) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p(5.0) == pytest.approx(expected.pvalue)


def test_runs_that_do_not_differ_leave_the_normal_test_of_the_rows():
    found = spread([2.0, 2.0], by_rows=1.0)
    assert found.p(2.0) == pytest.approx(2 * stats.norm.sf(2.0))
    assert spread([2.0, 2.0], by_rows=0.0).p(2.0) < 1e-9
    assert spread([0.0, 0.0], by_rows=0.0).p(0.0) == 1.0


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=6), ERRORS)
def test_runs_only_ever_widen_an_interval(gains, error):
    value, ends = numpy.mean(gains), (numpy.mean(gains) - 2 * error, numpy.mean(gains) + 3 * error)
    low, high = spread(gains, error).widened(value, ends, 0.05)
    assert low <= ends[0] + 1e-9
    assert high >= ends[1] - 1e-9


def trained(generator, rows, runs, effect, by_run, by_row=30.0, noise=20.0):
    """Scores of a base and of runs: rows, runs and both together vary."""
    base = generator.normal(50, 10, rows)
    changes = generator.normal(effect, by_row, rows) + generator.normal(0, by_run, runs)[:, None]
    after = base + changes + generator.normal(0, noise, (runs, rows))
    columns = [numpy.stack([side, numpy.ones(rows)], axis=1) for side in (base, *after)]
    return Paired.of(columns[0], columns[1:], lambda sums: sums[..., 0] / sums[..., 1])


def test_an_interval_of_three_runs_holds_the_effect_though_runs_differ_as_much_as_rows_do():
    generator = numpy.random.default_rng(8)
    inside = found = 0
    for trial in range(300):
        evidence = weigh(trained(generator, 60, 3, 4.0, by_run=5.0), draws=400, swaps=400, seed=trial)
        interval = evidence.interval(0.05, counts=True)
        inside += interval.low <= 4.0 <= interval.high
        low, high = evidence.bootstrap.ends()
        found += low <= 4.0 <= high
    assert inside >= 280
    assert found < 270  # rows alone promise too much


def test_runs_that_are_one_and_the_same_are_as_sure_as_one():
    one = trained(numpy.random.default_rng(1), 80, 1, 5.0, by_run=0.0)
    three = Paired.of(one.columns[:, 0], [one.columns[:, 1]] * 3, one.value)
    alone, together = weigh(one), weigh(three)
    assert together.paired.gain == pytest.approx(alone.paired.gain)
    assert together.bootstrap.ends() == pytest.approx(alone.bootstrap.ends())
    assert together.interval(0.05, True).low == pytest.approx(alone.interval(0.05, True).low)


def test_a_difference_that_rows_can_show_is_found_in_four_of_five_samples():
    generator = numpy.random.default_rng(2)
    smallest = smallest_difference(spread([0.0], by_rows=40 / math.sqrt(100)))
    found = [stats.ttest_1samp(generator.normal(smallest, 40, 100), 0).pvalue <= 0.05 for _ in range(2000)]
    assert numpy.mean(found) == pytest.approx(0.8, abs=0.03)


def test_rows_that_are_needed_show_the_difference_in_four_of_five_samples():
    rows = rows_needed(10.0, discordant=30.0)
    generator = numpy.random.default_rng(3)
    counts = generator.multinomial(rows, [0.2, 0.1, 0.7], 1000)
    assert numpy.mean([mcnemar_p(int(won), int(lost)) <= 0.05 for won, lost, _ in counts]) == pytest.approx(
        0.8, abs=0.05
    )
    with pytest.raises(ValueError, match="discordant"):
        rows_needed(10.0, discordant=5.0)


def test_of_few_rows_six_must_differ():
    assert smallest_share(40) == pytest.approx(6 / 40)
    assert smallest_share(4) == 1.0
