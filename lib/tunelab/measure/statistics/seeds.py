"""How much of a difference is one lucky run: the spread from run to run beside that from row to row.

Rows and runs are crossed: every run answers the same rows. The variance of the mean gain is that of drawing other rows
(by the bootstrap) plus that of training with other seeds (the variance of the runs' gains over how many they are). The
second holds a part of the first, the rows' share in how runs differ; that is counted twice, on the safe side. Few runs
say little about their own spread, which the degrees of freedom of Student's t carry.

Source: Cornfield and Tukey 1956, "Average Values of Mean Squares in Factorials" (rows and runs both random);
Satterthwaite 1946, "An Approximate Distribution of Estimates of Variance Components" (degrees of freedom). Why runs
matter: Bouthillier et al. 2021, "Accounting for Variance in Machine Learning Benchmarks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy


@dataclass(frozen=True)
class Spread:
    """The standard error of a gain, by rows and by runs.

    error: of both.
    rows_error: of the rows alone.
    degrees: of freedom of the error; infinite with one run, whose spread nobody knows.
    """

    error: float
    rows_error: float
    degrees: float

    def quantile(self, probability: float) -> float:
        """Of the distribution that the gain over its error has: Student's t, or the normal one with one run."""
        from scipy.stats import t

        normal = math.isinf(self.degrees)
        return NormalDist().inv_cdf(probability) if normal else float(t.ppf(probability, self.degrees))

    def widened(self, value: float, ends: tuple[float, float], confidence: float) -> tuple[float, float]:
        """An interval of the rows, made as much wider as runs differ; each end keeps its share."""
        if math.isinf(self.degrees):
            return ends
        tail = 0.5 + confidence / 2
        reach = self.quantile(tail) * self.error
        of_rows = NormalDist().inv_cdf(tail) * self.rows_error
        if not of_rows:
            return value - reach, value + reach
        wider = max(1.0, reach / of_rows)
        return value - wider * (value - ends[0]), value + wider * (ends[1] - value)

    def p(self, gain: float) -> float:
        """The two-sided p-value of a gain of 0; 0 with one run, whose rows alone are asked."""
        from scipy.stats import t

        if math.isinf(self.degrees):
            return 0.0
        return float(2 * t.sf(abs(gain) / self.error, self.degrees)) if self.error else float(not gain)


def spread(gains: Sequence[float], rows_error: float, rows: int) -> Spread:
    """The standard error of the mean of the runs' gains over the same rows."""
    runs = len(gains)
    if runs == 1:
        return Spread(rows_error, rows_error, math.inf)
    of_rows, of_runs = rows_error**2, float(numpy.var(gains, ddof=1)) / runs
    weights = of_rows**2 / max(1, rows - 1) + of_runs**2 / (runs - 1)
    degrees = (of_rows + of_runs) ** 2 / weights if weights else runs - 1
    return Spread(math.sqrt(of_rows + of_runs), rows_error, degrees)
