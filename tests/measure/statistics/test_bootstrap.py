"""BCa intervals against scipy's, and that they hold what they promise."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats._resampling import BootstrapResult

from tunelab.measure.metrics import ChrF, MacroF1
from tunelab.measure.statistics import Paired, bootstrap_ratio, paired_bootstrap, resampled
from tunelab.measure.statistics.bootstrap import times_drawn
from tunelab.measure.statistics.sums import mean, scored

CONFIDENCE = (0.95, 0.995)


def of_scipy(columns, statistic, drawn, confidence):
    """scipy's BCa interval from the same draws; it resamples row numbers, because a row is several columns."""

    def by_rows(rows, axis=-1):
        return statistic(columns[rows.astype(int)].sum(axis=rows.ndim - 1 if axis == -1 else axis))

    made = BootstrapResult(confidence_interval=None, bootstrap_distribution=drawn, standard_error=0.0)
    found = stats.bootstrap(
        (numpy.arange(len(columns)),),
        by_rows,
        n_resamples=0,
        bootstrap_result=made,
        confidence_level=confidence,
        method="BCa",
        vectorized=True,
    )
    return tuple(found.confidence_interval)


def cases():
    generator = numpy.random.default_rng(5)
    skewed = generator.exponential(20, 80)
    yield "a mean of skewed scores", Paired.of_scores(generator.uniform(0, 5, 80), skewed)
    # 64 rows of 0 and 1: means are exact, and scipy too sees which draws equal the figure
    right = [(generator.random(64) < share) * 1.0 for share in (0.3, 0.45)]
    yield "right and wrong answers", Paired.of_scores(*right)
    texts = ["the cat sat", "a dog", "one two three four", "été à Paris", "", "no"] * 6
    others = [texts[place] for place in generator.permutation(len(texts))]
    mixed = [a if generator.random() < 0.6 else b for a, b in zip(texts, others, strict=True)]
    yield (
        "chrF of all rows",
        Paired.of(*(ChrF().sums(o, texts) for o in [others]), [ChrF().sums(mixed, texts)], ChrF().value),
    )
    labels = list(generator.choice(["a", "b", "c"], 90, p=[0.6, 0.3, 0.1]))
    given_ = [[label if generator.random() < p else "a" for label in labels] for p in (0.3, 0.6, 0.7)]
    macro = MacroF1("abc")
    before, *after = (macro.sums(answers, labels) for answers in given_)
    yield "macro-F1 of two runs", Paired.of(before, after, macro.value)


@pytest.mark.parametrize(("name", "paired"), list(cases()), ids=[name for name, _ in cases()])
@pytest.mark.parametrize("confidence", CONFIDENCE)
def test_an_interval_is_scipys_of_the_same_draws(name, paired, confidence):
    found = resampled(paired.columns, paired.gain_of, draws=3000, seed=2)
    expected = of_scipy(paired.columns, paired.gain_of, found.drawn, confidence)
    assert found.ends(confidence) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert found.error == pytest.approx(numpy.std(found.drawn, ddof=1))


def test_an_interval_from_draws_of_our_own_is_near_scipys():
    values = numpy.random.default_rng(1).exponential(10, 120)
    own = paired_bootstrap([0.0] * 120, list(values), draws=20_000)
    theirs = stats.bootstrap((values,), numpy.mean, n_resamples=20_000, method="BCa", rng=7).confidence_interval
    assert (own.low, own.high) == pytest.approx(tuple(theirs), abs=0.12)  # 0.1 is a twentieth of its width


@given(st.integers(1, 50), st.integers(1, 40), st.integers(0, 5))
def test_each_draw_takes_as_many_rows_as_there_are(rows, draws, seed):
    counts = numpy.concatenate(list(times_drawn(rows, draws, seed)))
    assert counts.shape == (draws, rows)
    assert (counts.sum(axis=1) == rows).all()
    assert (counts >= 0).all()


def test_draws_in_parts_are_as_many_as_were_asked_for(monkeypatch):
    monkeypatch.setattr("tunelab.measure.statistics.bootstrap.AT_ONCE", 100)
    parts = list(times_drawn(30, 10, 0))
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert len({part[0].tobytes() for part in parts}) == 4


def test_each_row_is_drawn_once_on_average():
    counts = numpy.concatenate(list(times_drawn(20, 20_000, 3)))
    assert counts.mean(axis=0) == pytest.approx(numpy.ones(20), abs=0.04)
    assert counts.var(axis=0) == pytest.approx(numpy.full(20, 0.95), abs=0.06)  # of a multinomial: 1 - 1 / rows


def test_the_interval_holds_the_true_difference_in_about_95_of_100_samples():
    generator = numpy.random.default_rng(1)
    inside = 0
    for trial in range(200):
        before = generator.normal(50, 20, 80)
        after = before + generator.exponential(10, 80) - 7  # skewed, mean 3
        interval = paired_bootstrap(list(before), list(after), draws=1000, seed=trial)
        inside += interval.low <= 3 <= interval.high
    assert 180 <= inside <= 199


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=30), st.floats(-50, 50))
def test_an_interval_moves_with_the_scores_and_turns_with_the_sides(pairs, shift):
    before, after = (list(side) for side in zip(*pairs, strict=True))
    one = paired_bootstrap(before, after, draws=200)
    assert one.low <= one.high
    moved = paired_bootstrap(before, [score + shift for score in after], draws=200)
    assert (moved.value, moved.low, moved.high) == pytest.approx(
        (one.value + shift, one.low + shift, one.high + shift), abs=1e-6
    )
    turned = paired_bootstrap(after, before, draws=200)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-one.value, -one.high, -one.low), abs=1e-6)


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


def test_draws_that_are_not_finite_are_left_out_and_a_figure_that_is_not_has_no_interval():
    columns = scored([1.0, 2.0, 3.0, 4.0])
    columns[:3, 1] = 0.0  # a draw without the last row divides by 0
    with numpy.errstate(divide="ignore", invalid="ignore"):
        found = resampled(columns, mean, draws=500)
        assert not numpy.isfinite(found.drawn).all()
        low, high = found.ends()
        assert numpy.isfinite([low, high]).all()
        nothing = resampled(columns[:3], mean, draws=50)
    assert numpy.isnan(nothing.ends()).all()
