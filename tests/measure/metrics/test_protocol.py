"""What every metric promises: sums that add up, its range, clear refusals; and figures that are not of texts."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from contextlib import closing

import numpy
import pytest

from tests.measure.metrics.cases import cases
from tunelab.errors import UserError
from tunelab.measure.metrics import (
    METRICS,
    NAMED,
    BitsPerByte,
    ExecutionAccuracy,
    LossPerToken,
    MacroF1,
    Metric,
    Perplexity,
    RowMetric,
    StopRate,
)

LABELS = ["card", "pin", "refund", "Überweisung"]


def objects(seed: int, rows: int = 200) -> list[str]:
    draw = random.Random(seed)
    return [json.dumps({key: draw.randint(0, 2) for key in "abc" if draw.random() < 0.8}) for _ in range(rows)]


def fitting(metric: Metric) -> tuple[list[str], list[str]]:
    """200 answers and references that the metric can score, awkward answers included."""
    predictions, references = cases()
    if metric.name in ("valid_json", "same_json", "field_accuracy", "field_f1"):
        return [*predictions[:20], *objects(1, 180)], objects(2)
    if metric.name == "number_match":
        return predictions, [f"{row % 50}" for row in range(200)]
    if metric.name == "macro_f1":
        draw = random.Random(3)
        return [*predictions[:20], *draw.choices(LABELS, k=180)], draw.choices(LABELS, k=200)
    if metric.name == "execution_accuracy":
        queries = [f"SELECT {row % 3}" for row in range(200)]
        return [*predictions[:20], *queries[:180]], queries
    return predictions, references


@pytest.fixture(params=[*NAMED, "macro_f1", "execution_accuracy"])
def metric(request):
    if request.param == "macro_f1":
        return MacroF1(LABELS)
    if request.param == "execution_accuracy":
        with closing(sqlite3.connect(":memory:")) as database:
            return ExecutionAccuracy(database)
    return NAMED[request.param]()


def test_the_figure_of_all_rows_is_that_of_the_sums_of_its_parts(metric):
    predictions, references = fitting(metric)
    parts = [metric.sums(predictions[part], references[part]) for part in (slice(70), slice(70, 71), slice(71, None))]
    total = sum(part.sum(axis=0) for part in parts)
    assert float(metric.value(total)) == pytest.approx(metric(predictions, references))
    assert numpy.allclose(numpy.concatenate(parts), metric.sums(predictions, references))


def test_resampled_sums_give_the_figures_of_the_resampled_rows(metric):
    predictions, references = fitting(metric)
    drawn = numpy.random.default_rng(0).integers(0, 200, (3, 200))
    values = metric.value(metric.sums(predictions, references)[drawn].sum(axis=1))
    for value, rows in zip(values, drawn, strict=True):
        assert value == pytest.approx(metric([predictions[row] for row in rows], [references[row] for row in rows]))


def test_every_figure_stays_in_its_range_and_says_what_it_is(metric):
    predictions, references = fitting(metric)
    low, high = metric.range
    rows = metric.rows(predictions, references)
    assert all(low <= value <= high for value in rows)
    assert low <= metric(predictions, references) <= high
    assert rows == [metric.score(p, r) for p, r in zip(predictions, references, strict=True)]
    for text in (metric.name, metric.title, metric.source, type(metric).__doc__):
        assert text
    assert metric.higher_is_better in (True, False, None)
    if metric.higher_is_better and metric.name != "bleu":
        assert metric(references, references) >= metric(predictions, references)


def test_no_rows_and_unequal_counts_are_refused(metric):
    with pytest.raises(ValueError, match="no rows"):
        metric([], [])
    with pytest.raises(ValueError, match="zip"):
        metric(["a"], fitting(metric)[1][:2])
    with pytest.raises(ValueError, match="row 1 has no reference"):
        metric(["a"], [[]])


def test_a_row_metric_takes_the_best_of_several_references_and_names_the_row_of_a_mistake():
    class Distance(RowMetric):
        name, higher_is_better = "distance", False

        def score(self, prediction: str, reference: str) -> float:
            if not reference:
                raise UserError("there is nothing to compare with")
            return abs(len(prediction) - len(reference))

    assert Distance().rows(["abc", "a"], [("a", "ab"), "abc"]) == [1, 2]
    with pytest.raises(UserError, match="Row 2: there is nothing"):
        Distance()(["a", "b"], ["a", ""])


def test_reports_have_the_metrics_they_had():
    assert list(METRICS) == ["exact_match", "chrf"]


def test_loss_perplexity_and_bits_per_byte_are_of_sums():
    nats, tokens, lengths = [2.0, 9.0, 0.5], [1, 6, 1], [3, 20, 0]
    expected = {LossPerToken: 11.5 / 8, Perplexity: math.exp(11.5 / 8), BitsPerByte: 11.5 / math.log(2) / 23}
    for kind, value in expected.items():
        measure = kind()
        sums = measure.sums(nats, tokens, lengths)
        assert float(measure.value(sums.sum(axis=0))) == pytest.approx(value)
        assert measure.value(sums).shape == (3,)
        assert measure.higher_is_better is False
    with pytest.raises(ValueError, match="row 2 has no scored token"):
        LossPerToken().sums([1.0, 0.0], [1, 0], [1, 1])
    assert float(Perplexity().value(numpy.array([1e6, 1.0, 1.0]))) == math.inf
    assert BitsPerByte().value(BitsPerByte().sums([0.5], [1], [0])).tolist() == [math.inf]


def test_the_stop_rate_is_the_share_of_answers_that_ended():
    rate = StopRate()
    assert float(rate.value(rate.sums([True, False, True, True]).sum(axis=0))) == 75
