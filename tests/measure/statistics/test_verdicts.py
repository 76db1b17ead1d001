"""Verdicts, their sentences, and that a verdict and its interval never contradict each other."""

from __future__ import annotations

import math
import re

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.measure.metrics import ExactMatch, LengthRatio, LossPerToken, Perplexity
from tunelab.measure.statistics import Measured, Verdict, compared_rates, compared_scores, holm, judge_all
from tunelab.run.reports import FEWEST_ROWS, Interval

RIGHT = ExactMatch()


def right(scores) -> numpy.ndarray:
    return numpy.stack([100.0 * numpy.asarray(scores, float), numpy.ones(len(scores))], axis=1)


def exact(before, after, **more) -> Measured:
    return Measured("exact match", "%", right(before), right(after), RIGHT.value, **more)


def answers(rows=300, before=0.3, after=0.45, seed=0):
    generator = numpy.random.default_rng(seed)
    first = generator.random(rows) < before
    return first, first | (generator.random(rows) < after)


def test_a_clear_gain_is_said_in_one_sentence():
    before, after = answers()
    (verdict,) = judge_all([exact(before, after)])
    gain = 100 * (after.mean() - before.mean())
    assert verdict.decision == "better"
    assert verdict.change.value == pytest.approx(gain)
    assert re.fullmatch(
        rf"better: \+{gain:.0f} points exact match, 95 % interval \d\d to \d\d, 300 rows, one run", verdict.sentence
    )
    assert verdict.base == pytest.approx(100 * before.mean())
    assert verdict.test == "McNemar"


def test_several_runs_are_counted_and_their_spread_is_in_the_interval():
    before, one = answers()
    runs = [answers(after=share, seed=0)[1] for share in (0.3, 0.6)]
    (alone,) = judge_all([exact(before, one)])
    (verdict,) = judge_all([exact(before, one, runs=[right(run) for run in runs])])
    assert verdict.sentence.endswith("300 rows, 3 runs")
    assert len(verdict.runs) == 3
    assert verdict.tuned == pytest.approx(numpy.mean(verdict.runs))
    assert verdict.change.high - verdict.change.low > 1.5 * (alone.change.high - alone.change.low)


def test_scores_of_rows_are_judged_as_their_sums_are():
    before, one = answers()
    other = answers(after=0.6)[1]
    scores = [100.0 * side for side in (before, one, other)]
    (by_scores,) = judge_all([Measured.of_scores("exact match", "%", *scores, cut=0.25)])
    (by_sums,) = judge_all([exact(before, one, runs=[right(other)], cut=0.25)])
    assert by_scores == by_sums
    assert by_scores.runs == pytest.approx((100 * one.mean(), 100 * other.mean()))


def test_a_baseline_that_does_as_well_is_named():
    before, after = answers()
    nearly = after.copy()
    nearly[:3] = ~nearly[:3]
    better = numpy.ones(300, bool)
    (verdict,) = judge_all([exact(before, after, baselines={"naive Bayes": right(nearly), "majority": right(before)})])
    assert verdict.sentence.startswith("better than the base, but naive Bayes does as well: +")
    assert [one.standing for one in verdict.baselines] == ["as good", "worse"]
    assert verdict.baselines[0].value == pytest.approx(100 * nearly.mean())
    both = {"naive Bayes": right(nearly), "nearest neighbour": right(after), "rules": right(better)}
    (verdict,) = judge_all([exact(before, after, baselines=both)])
    assert "but rules does better" in verdict.sentence
    del both["rules"]
    (verdict,) = judge_all([exact(before, after, baselines=both)])
    assert "but naive Bayes and nearest neighbour do as well" in verdict.sentence


def test_without_evidence_the_sentence_says_what_the_rows_could_show():
    before, after = answers(rows=40, before=0.5, after=0.08, seed=3)
    (verdict,) = judge_all([exact(before, after)])
    assert verdict.decision == "not enough evidence"
    assert verdict.sentence.endswith("; 40 rows would show only differences above 15 points")
    (nothing,) = judge_all([exact(before, before)])
    assert nothing.sentence == (
        "not enough evidence: 0 points exact match, 95 % interval -9 to 9, 40 rows, one run; 40 rows would show only "
        "differences above 15 points"
    )


def test_fewer_rows_than_twenty_show_nothing():
    rows = FEWEST_ROWS - 1
    (verdict,) = judge_all([exact(numpy.zeros(rows), numpy.ones(rows))])
    assert verdict.decision == "not enough evidence"
    assert verdict.change.low <= 0 <= verdict.change.high
    assert "fewer than 20 rows" in verdict.sentence
    (enough,) = judge_all([exact(numpy.zeros(rows + 1), numpy.ones(rows + 1))])
    assert enough.decision == "better"
    assert enough.change.low < 100 == enough.change.high


def test_a_loss_that_falls_is_better_and_digits_follow_the_interval():
    generator, loss = numpy.random.default_rng(1), LossPerToken()
    tokens = generator.integers(5, 30, 200)
    before = loss.sums(2.0 * tokens + generator.normal(0, 1, 200), tokens, tokens)
    after = loss.sums(1.9 * tokens + generator.normal(0, 1, 200), tokens, tokens)
    measured = Measured(loss.title, loss.unit, before, after, loss.value, higher_is_better=False)
    (verdict,) = judge_all([measured])
    assert verdict.decision == "better"
    assert re.match(r"better: -0\.\d{2,3} nats loss per token, 95 % interval -0\.\d+ to -0\.\d+, 200", verdict.sentence)
    (turned,) = judge_all([Measured(loss.title, loss.unit, after, before, loss.value, higher_is_better=False)])
    assert turned.decision == "worse"


def test_a_figure_without_a_direction_is_only_different():
    ratio = LengthRatio()
    lengths = numpy.tile([20.0, 10.0], (50, 1)) + numpy.arange(50)[:, None] % 3
    (verdict,) = judge_all([Measured(ratio.title, ratio.unit, lengths, lengths * [3, 1], ratio.value, None)])
    assert verdict.decision == "different"


def test_an_infinite_figure_is_no_evidence_and_is_written_as_json():
    perplexity = Perplexity()
    before, after = (perplexity.sums([nats] * 30, [1] * 30, [4] * 30) for nats in (2.0, 1000.0))
    (verdict,) = judge_all([Measured("perplexity", "", before, after, perplexity.value, False)])
    assert verdict.decision == "not enough evidence"
    assert "no finite number" in verdict.sentence
    again = Verdict.model_validate_json(verdict.model_dump_json())
    assert again.tuned == math.inf
    assert math.isnan(again.change.low)


def test_cut_answers_are_told():
    before, after = answers()
    (verdict,) = judge_all([exact(before, after, cut=0.124)])
    assert verdict.sentence.endswith("; 12 % of the answers were cut at the length limit")


def test_what_is_judged_at_once_is_corrected():
    sides = [answers(rows=60, before=0.5, after=share, seed=seed) for seed, share in enumerate((0.2, 0.0, 0.6, 0.1))]
    together = judge_all([exact(*pair) for pair in sides])
    alone = [judge_all([exact(*pair)])[0] for pair in sides]
    assert [one.p for one in together] == pytest.approx(holm([one.change.p for one in alone]))
    assert all("corrected for 4 judged at once" in one.sentence for one in together)
    for one, other in zip(together, alone, strict=True):
        assert one.change.low <= other.change.low + 1e-9
        assert one.change.high >= other.change.high - 1e-9


SHARES = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))


@given(st.lists(SHARES.filter(lambda counts: sum(counts) > 0), min_size=1, max_size=4))
def test_a_verdict_and_its_interval_never_contradict_each_other(counted):
    measured = []
    for won, lost, same in counted:
        before = numpy.repeat([0, 1, 1], [won, lost, same])
        measured.append(exact(before, numpy.repeat([1, 0, 1], [won, lost, same])))
    for verdict in judge_all(measured, draws=200):
        low, high = verdict.change.low, verdict.change.high
        assert low <= verdict.change.value <= high
        expected = "better" if low > 0 else "worse" if high < 0 else "not enough evidence"
        assert verdict.decision == expected
        if verdict.decision != "not enough evidence":
            assert verdict.p <= 0.05
            shown = re.search(r"interval (-?[\d.]+) to (-?[\d.]+)", verdict.sentence)
            assert 0 not in [float(end) for end in shown.groups()]


def test_what_a_report_holds_is_judged_by_the_same_interval_and_test():
    before, after = answers(rows=80, after=0.1, seed=2)
    figure = compared_scores(100.0 * before, 100.0 * after)
    (verdict,) = judge_all([exact(before, after)])
    assert (figure.base, figure.tuned) == pytest.approx((verdict.base, verdict.tuned))
    assert figure.change == verdict.change
    assert figure.verdict == verdict.decision


def test_a_loss_counts_rows_by_their_tokens():
    figure = compared_rates([2.0, 30.0] * 20, [1.0, 30.0] * 20, [1, 30] * 20, higher_is_better=False)
    assert figure.base == pytest.approx(32 / 31)
    assert figure.change.value == pytest.approx(-1 / 31)


def test_an_interval_of_an_older_report_has_no_p_value():
    assert Interval(1.0, 0.0, 2.0, 40).p is None


def test_a_share_never_differs_by_more_than_all_of_it():
    before, after = answers(rows=24, before=0.05, after=0.97)
    runs = [right(answers(rows=24, after=share, seed=seed)[1]) for share, seed in ((0.2, 1), (0.99, 2))]
    (verdict,) = judge_all([exact(before, after, runs=runs)])
    assert verdict.change.high == 100
    assert verdict.change.value < 100


def test_a_difference_too_small_for_six_digits_is_not_written_as_none():
    before = numpy.linspace(1e-9, 9e-9, 40)
    sums = [numpy.stack([column, numpy.ones(40)], axis=1) for column in (before, 2 * before)]
    (verdict,) = judge_all([Measured("score", "", sums[0], sums[1], RIGHT.value)])
    assert verdict.sentence.startswith("better: +5.0e-09 score, 95 % interval 4.")


def test_rows_that_all_gain_the_same_are_not_written_with_the_digits_of_rounding():
    sums = [numpy.stack([numpy.full(30, score), numpy.ones(30)], axis=1) for score in (0.1, 0.3)]
    (verdict,) = judge_all([Measured("score", "", sums[0], sums[1], RIGHT.value)])
    assert verdict.sentence.startswith("better: +0.20 score, 95 % interval 0.20 to 0.20,")


@pytest.mark.filterwarnings("error")
def test_one_row_and_figures_beyond_a_number_are_judged_without_a_warning():
    (one,) = judge_all([exact([1], [0])])
    huge = [numpy.stack([numpy.full(30, score), numpy.ones(30)], axis=1) for score in (1e308, -1e308)]
    (infinite,) = judge_all([Measured("score", "", huge[0], huge[1], RIGHT.value)])
    assert one.decision == infinite.decision == "not enough evidence"
