"""How sure a figure of rows is: the bias-corrected and accelerated bootstrap (BCa) of any function of sums over rows.

`scipy.stats.bootstrap` calls the statistic on resampled rows; a function of sums needs only how often each row was
drawn, so that thousands of draws are one product of matrices, also for metrics of hundreds of columns (macro-F1).
From the same draws both give the same interval (a test says so).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy

from tunelab.measure.statistics.sums import Paired, mean, scored
from tunelab.run.reports import Interval

DRAWS = 10_000
AT_ONCE = 4_000_000  # counts in memory, of 8 bytes


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """A figure, the same of resampled rows, and the same with each row left out."""

    value: float
    drawn: numpy.ndarray  # (draws,)
    left_out: numpy.ndarray  # (n,)

    @property
    def error(self) -> float:
        """The standard error: the standard deviation of the draws."""
        drawn = self.drawn[numpy.isfinite(self.drawn)]
        return float(drawn.std(ddof=1)) if len(drawn) > 1 else math.nan

    def ends(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two ends of the BCa interval; nan where the figure is not finite. Where no draw differs, both are the
        figure.

        Source: Efron 1987, "Better Bootstrap Confidence Intervals"; Efron and Tibshirani 1993, equations 14.9 to 14.15,
        with draws equal to the figure counted half, as scipy does. Draws that are not finite are left out.
        """
        drawn = self.drawn[numpy.isfinite(self.drawn)]
        if not len(drawn) or not math.isfinite(self.value):
            return math.nan, math.nan
        if numpy.ptp(drawn) == 0:
            return self.value, self.value
        bias, acceleration = self._bias(drawn), self._acceleration()
        normal, ends = NormalDist(), []
        for tail in (0.5 - confidence / 2, 0.5 + confidence / 2):
            z = bias + normal.inv_cdf(tail)
            ends.append(100 * normal.cdf(bias + z / (1 - acceleration * z)))
        low, high = numpy.percentile(drawn, ends)
        return float(low), float(high)

    def _bias(self, drawn: numpy.ndarray) -> float:
        near = 1e-9 * numpy.ptp(drawn)  # equal but for rounding
        below = ((drawn < self.value - near).mean() + (drawn <= self.value + near).mean()) / 2
        half = 0.5 / len(drawn)  # no draw on one side: as if half a one was
        return NormalDist().inv_cdf(min(max(float(below), half), 1 - half))

    def _acceleration(self) -> float:
        influence = self.left_out.mean() - self.left_out
        squares = float((influence**2).sum())
        if not math.isfinite(squares) or squares == 0:
            return 0.0
        return float((influence**3).sum()) / (6 * squares**1.5)


def resampled(
    columns: numpy.ndarray, statistic: Callable[[numpy.ndarray], numpy.ndarray], draws: int = DRAWS, seed: int = 0
) -> Bootstrap:
    """The bootstrap of a function of sums.

    columns: (n, …), what each row adds.
    statistic: of sums (…), and of many of them at once (draws, …) → (draws,).
    """
    with numpy.errstate(all="ignore"):  # of no rows (one of one is left out), or of sums beyond a float
        flat, total = columns.reshape(len(columns), -1), columns.sum(axis=0)
        parts = []
        for counts in times_drawn(len(columns), draws, seed):
            parts.append(statistic((counts @ flat).reshape(len(counts), *columns.shape[1:])))
        return Bootstrap(float(statistic(total)), numpy.concatenate(parts), statistic(total - columns))


def times_drawn(rows: int, draws: int, seed: int) -> Iterator[numpy.ndarray]:
    """How often each row is drawn (some draws, rows), in parts that need little memory."""
    generator = numpy.random.default_rng(seed)
    at_once = max(1, AT_ONCE // rows)
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        places = generator.integers(0, rows, (size, rows)) + rows * numpy.arange(size)[:, None]
        yield numpy.bincount(places.ravel(), minlength=size * rows).reshape(size, rows).astype(float)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Sum of the numerators over sum of the denominators with its 95 % BCa interval, rows resampled in pairs.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    if len(numerators) != len(denominators) or not len(numerators):
        raise ValueError(f"paired rows are needed: {len(numerators)} above, {len(denominators)} below")
    columns = scored(numerators)
    columns[:, 1] = denominators
    return _interval(resampled(columns, mean, draws, seed))


def paired_bootstrap(before: Sequence[float], after: Sequence[float], draws: int = DRAWS, seed: int = 0) -> Interval:
    """The mean of after - before over the same rows with its 95 % BCa interval.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    if len(before) != len(after) or not len(before):
        raise ValueError(f"paired rows are needed: {len(before)} before, {len(after)} after")
    paired = Paired.of_scores(before, after)
    return _interval(resampled(paired.columns, paired.gain_of, draws, seed))


def _interval(bootstrap: Bootstrap) -> Interval:
    low, high = bootstrap.ends()
    return Interval(bootstrap.value, low, high, len(bootstrap.left_out))
