"""How sure a difference of paired rows is: the percentile bootstrap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy

from tunelab.run.reports import Interval


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
