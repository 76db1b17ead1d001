"""How much of a difference is one lucky run: the spread from run to run beside that from row to row.

Rows and runs are crossed: every run answers the same rows. The variance of the mean gain is that of drawing other rows
(by the bootstrap) plus that of training with other seeds (the variance of the runs' gains over how many they are). The
second holds a part of the first, the rows' share in how runs differ; that is counted twice, on the safe side.

Few runs say little about their own spread, so each part gets the quantile of its own degrees of freedom: the squares of
an interval's reach by rows and of its reach by runs (Student's t of runs - 1) add up. That holds at least what it
promises however the two parts compare. Degrees of freedom estimated for their sum (Satterthwaite) promise too much:
measured, 92 % instead of 95 % with three runs that differ more than rows do.

Source: Banerjee 1961, "On Confidence Interval for Two-Means Problem Based on Separate Estimates of Variances and
Tabulated Values of t-Table", for a sum of variances; Cornfield and Tukey 1956, "Average Values of Mean Squares in
Factorials" (rows and runs both random). Why runs matter: Bouthillier et al. 2021, "Accounting for Variance in Machine
Learning Benchmarks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy

SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Spread:
    """The standard errors of a gain.

    by_rows: of drawing other rows.
    by_runs: of training with other seeds; 0 with one run, whose spread nobody knows.
    """

    by_rows: float
    by_runs: float
    runs: int

    @property
    def error(self) -> float:
        """The standard error of both."""
        return math.hypot(self.by_rows, self.by_runs)

    def reach(self, alpha: float) -> float:
        """How far an interval of confidence 1 - alpha goes to either side."""
        return math.hypot(NormalDist().inv_cdf(1 - alpha / 2) * self.by_rows, self._reach_by_runs(alpha))

    def widened(self, value: float, ends: tuple[float, float], alpha: float) -> tuple[float, float]:
        """An interval of the rows alone, of confidence 1 - alpha, with what runs differ added to either side."""
        more = self._reach_by_runs(alpha)
        return value - math.hypot(value - ends[0], more), value + math.hypot(ends[1] - value, more)

    def p(self, gain: float) -> float:
        """The two-sided p-value of a gain of 0: where the interval's end would be 0. 0 with one run, whose rows alone
        are asked; never below `SMALLEST_P` with several."""
        from scipy.optimize import brentq

        if self.runs == 1:
            return 0.0
        if not gain:
            return 1.0
        distance = abs(gain)
        if self.reach(SMALLEST_P) <= distance:
            return SMALLEST_P
        largest = 1 - 1e-9
        if self.reach(largest) >= distance:
            return 1.0
        return float(brentq(lambda alpha: self.reach(alpha) - distance, SMALLEST_P, largest, xtol=1e-13))

    def _reach_by_runs(self, alpha: float) -> float:
        from scipy.stats import t

        return float(t.ppf(1 - alpha / 2, self.runs - 1)) * self.by_runs if self.by_runs else 0.0


def spread(gains: Sequence[float], by_rows: float) -> Spread:
    """Of the runs' gains over the same rows, and the standard error that rows give their mean."""
    runs = len(gains)
    by_runs = math.sqrt(float(numpy.var(gains, ddof=1)) / runs) if runs > 1 else 0.0
    return Spread(by_rows, by_runs, runs)
