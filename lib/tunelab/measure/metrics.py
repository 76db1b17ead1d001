"""Metrics of answers, and how sure a difference is.

Each metric scores rows one by one, because a paired comparison needs every row; its mean is the figure to report. They
are `evaluate.Metric` classes, made here rather than loaded by name: loading by name fetches code from the Hub.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import evaluate
import numpy

from tunelab.run.reports import Interval


class RowMetric(evaluate.Metric):
    """A metric that is the mean of a score per row, 0 to 100."""

    name = ""
    description = ""
    citation = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(keep_in_memory=True, **options)

    def score(self, prediction: str, reference: str) -> float:
        """The score of one row, 0 to 100."""
        raise NotImplementedError

    def rows(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """The score of every row."""
        return [self.score(p, r) for p, r in zip(predictions, references, strict=True)]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return {self.name: float(numpy.mean(self.rows(predictions, references)))}


class ExactMatch(RowMetric):
    """100 where the answer is the reference, case and outer white space aside; else 0."""

    name = "exact_match"
    description = "Share of answers that are the reference, in per cent."

    def score(self, prediction: str, reference: str) -> float:
        return 100.0 * (prediction.strip().casefold() == reference.strip().casefold())


class ChrF(RowMetric):
    """F-score of character n-grams (n to 6, recall weighted twice), as sacrebleu computes it for a sentence."""

    name = "chrf"
    description = "Character n-gram F-score, 0 to 100."
    citation = "Popović 2015, 'chrF: character n-gram F-score for automatic MT evaluation', WMT, equation 1."

    def score(self, prediction: str, reference: str) -> float:
        return _chrf().sentence_score(prediction, [reference]).score


METRICS: dict[str, type[RowMetric]] = {metric.name: metric for metric in (ExactMatch, ChrF)}


def main_metric(references: Sequence[str]) -> str:
    """The metric that fits these answers: exact match where they repeat (labels), chrF where each is its own text."""
    return ExactMatch.name if len(set(references)) <= len(references) / 2 else ChrF.name


@functools.cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def paired_bootstrap(
    before: Sequence[float], after: Sequence[float], resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of after - before over the same rows, with the percentiles 2.5 and 97.5 of its bootstrap distribution.

    Source: Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation", section 3; Efron and
    Tibshirani 1993, chapter 13.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"paired rows are needed: {len(before)} before, {len(after)} after")
    differences = numpy.asarray(after, dtype=float) - numpy.asarray(before, dtype=float)
    parts = [differences[rows].mean(axis=1) for rows in _resamples(len(differences), resamples, seed)]
    resampled = numpy.concatenate(parts)
    return _interval(float(differences.mean()), resampled, len(differences))


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Sum of the numerators over sum of the denominators, rows resampled in pairs. Source: as `paired_bootstrap`.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    if len(numerators) != len(denominators) or not numerators:
        raise ValueError(f"paired rows are needed: {len(numerators)} above, {len(denominators)} below")
    above, below = numpy.asarray(numerators, dtype=float), numpy.asarray(denominators, dtype=float)
    parts = [above[rows].sum(axis=1) / below[rows].sum(axis=1) for rows in _resamples(len(above), resamples, seed)]
    return _interval(float(above.sum() / below.sum()), numpy.concatenate(parts), len(above))


def _resamples(rows: int, resamples: int, seed: int, at_once: int = 500) -> Iterator[numpy.ndarray]:
    """Row indices (resamples, rows), drawn with replacement, in parts that need little memory."""
    generator = numpy.random.default_rng(seed)
    for start in range(0, resamples, at_once):
        yield generator.integers(0, rows, (min(at_once, resamples - start), rows))


def _interval(value: float, resampled: numpy.ndarray, rows: int) -> Interval:
    low, high = numpy.percentile(resampled, (2.5, 97.5))
    return Interval(value, float(low), float(high), rows)
