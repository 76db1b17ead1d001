"""p-values against their definitions, by brute force: McNemar, swapping sides, Holm."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tunelab.measure.metrics import Accuracy, ChrF, ExactMatch, MacroF1
from tunelab.measure.statistics import Paired, holm, mcnemar_p, outcomes, sign_flip_p, swap_p
from tunelab.measure.statistics.holm import holm_steps
from tunelab.measure.statistics.mcnemar import least_discordant

P_VALUES = st.lists(st.floats(0.0005, 1), min_size=1, max_size=6)


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
    assert sign_flip_p([100.0] * 8 + [-100.0] + [0.0] * 30) == pytest.approx(20 / 512) == mcnemar_p(8, 1)
    assert sign_flip_p([0.0] * 5) == 1.0
    assert mcnemar_p(3, 3) == 1.0


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_steps([0.01, 0.04, 0.03, 0.005]) == [3, 1, 2, 4]
    assert holm([0.4, 0.9]) == [0.8, 0.9]
    assert holm([]) == []


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_test_is_the_binomial_one_of_rows_that_differ(wins, losses):
    def tail(count):
        return sum(math.comb(wins + losses, k) for k in range(count + 1)) / 2 ** (wins + losses)

    assert mcnemar_p(wins, losses) == pytest.approx(min(1.0, 2 * tail(min(wins, losses))))
    assert mcnemar_p(wins, losses) == mcnemar_p(losses, wins)


def test_six_rows_to_one_side_are_the_fewest_that_count_at_5_per_cent():
    assert least_discordant(0.05) == 6
    for alpha in (0.2, 0.05, 0.01, 0.05 / 9, 0.001):
        assert mcnemar_p(least_discordant(alpha), 0) <= alpha < mcnemar_p(least_discordant(alpha) - 1, 0)
    assert mcnemar_p(6, 0) <= 0.05 < mcnemar_p(5, 0)


def test_right_and_wrong_answers_are_recognised_and_other_figures_are_not():
    before, after, labels = ["a", "b", "b", "c"], ["a", "c", "b", "b"], ["a", "c", "a", "b"]
    for metric in (ExactMatch(), Accuracy()):
        paired = Paired.of(metric.sums(before, labels), [metric.sums(after, labels)], metric.value)
        found = outcomes(paired)
        assert (found.wins, found.losses, found.scale) == (2, 0, 100.0)
    macro, chrf = MacroF1("abc"), ChrF()
    sums = [macro.sums(side, labels) for side in (before, after)]
    assert outcomes(Paired.of(sums[0], sums[1:], macro.value)) is None
    texts = ["one", "two words", "three", "four"]
    sums = [chrf.sums(side, texts) for side in (["none", *texts[1:]], [texts[0], "no", *texts[2:]])]
    assert outcomes(Paired.of(sums[0], sums[1:], chrf.value)) is None
    graded = Paired.of_scores([0.0, 0.5, 1.0], [1.0, 0.5, 0.0])
    assert outcomes(graded) is None


def test_rows_that_are_all_alike_are_right_or_wrong_only_where_that_is_known():
    paired = Paired.of_scores([0.0] * 30, [0.0] * 30)
    assert outcomes(paired) is None
    assert outcomes(paired, whole=100.0).p == 1.0
    low, high = outcomes(paired, whole=100.0).ends(30, 0.05)
    assert (low, high) == pytest.approx((-11.57, 11.57), abs=0.01)  # Clopper and Pearson of 0 of 30: 0 to 11.57 %
    assert stats.binomtest(0, 30).proportion_ci(0.95).high == pytest.approx(high / 100)


def test_swapping_sides_of_a_metric_that_is_no_mean_looks_at_every_way():
    labels = list("aabbccab")
    answers = [list("abbbcaab"), list("aabbccba")]
    metric = MacroF1("abc")
    figures = []
    for ways in itertools.product((False, True), repeat=len(labels)):
        sides = [
            [pair[way != side] for pair, way in zip(zip(*answers, strict=True), ways, strict=True)] for side in (0, 1)
        ]
        figures.append(metric(sides[1], labels) - metric(sides[0], labels))
    seen = metric(answers[1], labels) - metric(answers[0], labels)
    expected = sum(abs(one) >= abs(seen) - 1e-9 for one in figures) / len(figures)
    sums = [metric.sums(side, labels) for side in answers]
    assert swap_p(Paired.of(sums[0], sums[1:], metric.value)) == pytest.approx(expected)


def test_several_runs_of_a_mean_are_swapped_as_their_mean():
    generator = numpy.random.default_rng(2)
    before, runs = generator.normal(0, 1, 12), generator.normal(0.4, 1, (3, 12))
    columns = [numpy.stack([side, numpy.ones(12)], axis=1) for side in (before, *runs)]
    together = Paired.of(columns[0], columns[1:], lambda sums: sums[..., 0] / sums[..., 1])
    assert swap_p(together) == pytest.approx(swap_p(Paired.of_scores(before, runs.mean(axis=0))))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_a_p_value_is_one_and_the_same_for_both_directions(differences):
    p = sign_flip_p(differences)
    assert 0 < p <= 1
    assert p == pytest.approx(sign_flip_p([-difference for difference in differences]))


def test_random_swaps_agree_with_scipys_permutation_test():
    generator = numpy.random.default_rng(4)
    before, after = generator.normal(50, 20, 40), generator.normal(55, 20, 40)
    expected = stats.permutation_test(
        (after, before),
        lambda x, y, axis: numpy.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=1,
    ).pvalue
    assert swap_p(Paired.of_scores(before, after)) == pytest.approx(expected, abs=0.015)
