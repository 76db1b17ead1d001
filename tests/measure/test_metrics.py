"""Metrics agree with what others compute; intervals hold what they promise."""

from __future__ import annotations

import numpy
import pytest

from tunelab.measure.metrics import ChrF, ExactMatch, bootstrap_ratio, paired_bootstrap

PREDICTIONS = ["Return a list.", "the cat sat", ""]
REFERENCES = ["Return a new list.", "The cat sat ", "x"]


def chrf_by_hand(prediction: str, reference: str, beta: float = 2, longest: int = 6) -> float:
    """Popović 2015, equation 1, averaged over the n that both texts have."""
    scores = []
    texts = ["".join(t.split()) for t in (prediction, reference)]
    for n in range(1, longest + 1):
        grams = [[t[i : i + n] for i in range(len(t) - n + 1)] for t in texts]
        if not grams[0] or not grams[1]:
            continue
        matches = sum(min(grams[0].count(g), grams[1].count(g)) for g in set(grams[0]))
        scores.append((matches / len(grams[0]), matches / len(grams[1])))
    if not scores:
        return 0.0
    precision, recall = numpy.mean(scores, axis=0)
    if not precision + recall:
        return 0.0
    return 100 * (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


@pytest.mark.parametrize(("prediction", "reference"), zip(PREDICTIONS, REFERENCES, strict=True))
def test_chrf_is_its_equation(prediction, reference):
    assert ChrF().score(prediction, reference) == pytest.approx(chrf_by_hand(prediction, reference), abs=0.01)


def test_metrics_work_as_evaluate_metrics_without_the_hub():
    assert ExactMatch().compute(predictions=PREDICTIONS, references=REFERENCES) == {
        "exact_match": pytest.approx(100 / 3)
    }
    metric = ChrF()
    metric.add_batch(predictions=PREDICTIONS[:1], references=REFERENCES[:1])
    metric.add(prediction=PREDICTIONS[1], reference=REFERENCES[1])
    rows = ChrF().rows(PREDICTIONS[:2], REFERENCES[:2])
    assert metric.compute()["chrf"] == pytest.approx(sum(rows) / 2)


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
