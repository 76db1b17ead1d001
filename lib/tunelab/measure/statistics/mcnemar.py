"""Right and wrong answers of two sides to the same rows: only rows on which they differ say which is better."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy

from tunelab.measure.statistics.sums import Paired


def mcnemar_p(wins: int, losses: int) -> float:
    """The two-sided p-value of so many rows that only one side has right, and only the other; exact.

    Source: McNemar 1947, "Note on the Sampling Error of the Difference Between Correlated Proportions", with the
    binomial distribution instead of its approximation.
    """
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def least_discordant(alpha: float = 0.05) -> int:
    """How many rows must differ, all to one side, before McNemar's exact test calls it a difference: 6 at 5 %, where
    2 / 2 ** 6 is below that."""
    return math.ceil(1 - math.log2(alpha))


class Outcomes(NamedTuple):
    """Rows that only the tuned side has right, and only the base; how far right is from wrong."""

    wins: int
    losses: int
    scale: float  # 100 where the figure is in per cent

    @property
    def p(self) -> float:
        return mcnemar_p(self.wins, self.losses)

    def ends(self, rows: int, alpha: float) -> tuple[float, float]:
        """An interval of the difference where all rows agree (all won, all lost or none differs), which resampling says
        nothing about: rows of another kind may be as many as `unseen` says, and of the worst kind.

        Source: Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the
        Binomial".
        """
        unseen = self.scale * (1 - (alpha / 2) ** (1 / rows))
        if self.wins:
            return self.scale - 2 * unseen, self.scale
        return (-self.scale, 2 * unseen - self.scale) if self.losses else (-unseen, unseen)


def outcomes(paired: Paired, whole: float | None = None) -> Outcomes | None:
    """How the sides differ, if the metric is a share of right rows: one run, at most two values of a row, and the
    figure is their mean. None: it is something else.

    whole: the figure of right rows, where the metric is known to be a share; without it, rows that are all alike on
    both sides say nothing of that.
    """
    with numpy.errstate(all="ignore"):
        figures = numpy.asarray(paired.value(paired.columns))  # (n, 2): a row's figure on its own
    if paired.runs != 1 or not numpy.isfinite(figures).all() or len(numpy.unique(figures)) > 2:
        return None
    weights = numpy.arange(1.0, paired.rows + 1)  # different ones: a figure that is their mean only by chance is none
    weighted = paired.value((weights[:, None, None] * paired.columns).sum(axis=0))
    scale = float(numpy.ptp(figures)) or whole
    if not scale or not numpy.allclose(weighted, numpy.average(figures, axis=0, weights=weights)):
        return None
    difference = figures[:, 1] - figures[:, 0]
    return Outcomes(int((difference > 0).sum()), int((difference < 0).sum()), scale)
