"""What two sides of the same rows say about their difference: a test, and an interval that never says otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy

from tunelab.measure.statistics.bootstrap import DRAWS, Bootstrap, resampled
from tunelab.measure.statistics.mcnemar import Outcomes, outcomes
from tunelab.measure.statistics.power import smallest_difference, smallest_share
from tunelab.measure.statistics.seeds import Spread, spread
from tunelab.measure.statistics.sums import Paired, Value, mean
from tunelab.measure.statistics.swapping import SWAPS, swap_p
from tunelab.run.reports import FEWEST_ROWS, Compared, Interval

ALPHA = 0.05
Test = Literal["McNemar", "paired randomisation"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What rows and runs say about a gain, before it is known how much is judged at once."""

    paired: Paired
    bootstrap: Bootstrap
    spread: Spread
    outcomes: Outcomes | None  # of right and wrong answers
    p: float  # of "nothing changed", two-sided
    most: float = math.inf  # no difference can be larger

    @property
    def test(self) -> Test:
        return "McNemar" if self.outcomes else "paired randomisation"

    def interval(self, alpha: float, counts: bool) -> Interval:
        """The gain with its interval of confidence 1 - alpha. Where the test does not count it as a difference, or
        there are fewer than `FEWEST_ROWS` rows, an interval that leaves out 0 is stretched to it: the values that
        either of the two allows."""
        value, rows = self.paired.gain, self.paired.rows
        if self.outcomes and numpy.ptp(self.bootstrap.drawn) == 0:
            low, high = self.outcomes.ends(rows, alpha)
        else:
            low, high = self.spread.widened(value, self.bootstrap.ends(1 - alpha), alpha)
        if not counts or rows < FEWEST_ROWS:
            low, high = min(low, 0.0), max(high, 0.0)
        return Interval(value, max(low, -self.most), min(high, self.most), rows, self.p)

    def smallest(self, alpha: float) -> float | None:
        """The smallest difference that so many rows and runs show (power 80 %); None where rows do not tell."""
        found = smallest_difference(self.spread, alpha)
        if self.outcomes:
            found = max(found, smallest_share(self.paired.rows, alpha) * self.outcomes.scale)
        return found if math.isfinite(found) and found > 0 else None


def weigh(
    paired: Paired, whole: float | None = None, *, draws: int = DRAWS, swaps: int = SWAPS, seed: int = 0
) -> Evidence:
    """The evidence of a difference: McNemar's exact test of right and wrong answers, else the paired randomisation
    test; with several runs the larger of that p-value and the one of rows and runs (`seeds`).

    whole: the figure of right rows, where the metric is a share of them.
    """
    bootstrap = resampled(paired.columns, paired.gain_of, draws, seed)
    figures = paired.figures
    of_both = spread([float(gain) for gain in figures[1:] - figures[0]], bootstrap.error)
    counted = outcomes(paired, whole)
    if not math.isfinite(paired.gain):
        return Evidence(paired, bootstrap, of_both, counted, 1.0)  # an infinite figure says nothing
    p = counted.p if counted else swap_p(paired, swaps, seed)
    return Evidence(paired, bootstrap, of_both, counted, max(p, of_both.p(paired.gain)), _most(paired, whole))


def _most(paired: Paired, whole: float | None) -> float:
    """The largest difference there can be, where the figure is a share of `whole`."""
    rows = numpy.asarray(paired.value(paired.columns))
    return whole if whole and rows.min() >= 0 and rows.max() <= whole else math.inf


@numpy.errstate(all="ignore")  # figures may be infinite
def compared(
    base: numpy.ndarray,
    tuned: numpy.ndarray,
    value: Value,
    *,
    higher_is_better: bool | None = True,
    whole: float | None = None,
    seed: int = 0,
) -> Compared:
    """One figure of two sides of the same rows, columns (n, k) each, with the 95 % BCa interval of their difference
    and its p-value. `whole`: the figure of right rows, where it is a share of them."""
    paired = Paired.of(base, [tuned], value)
    evidence = weigh(paired, whole, seed=seed)
    before, after = (float(figure) for figure in paired.figures)
    change = evidence.interval(ALPHA, counts=evidence.p <= ALPHA)
    return Compared(base=before, tuned=after, change=change, higher_is_better=higher_is_better)


def compared_rates(
    before: Sequence[float], after: Sequence[float], counts: Sequence[int], *, higher_is_better: bool = True
) -> Compared:
    """`compared` of a sum over a count, such as the loss per token: rows count by how many tokens they have."""
    sides = [
        numpy.stack([numpy.asarray(side, float), numpy.asarray(counts, float)], axis=1) for side in (before, after)
    ]
    return compared(sides[0], sides[1], mean, higher_is_better=higher_is_better)


def compared_scores(
    before: Sequence[float], after: Sequence[float], *, higher_is_better: bool | None = True
) -> Compared:
    """`compared` of one score per row and side; the figure is their mean."""
    paired = Paired.of_scores(before, after)
    return compared(paired.columns[:, 0], paired.columns[:, 1], paired.value, higher_is_better=higher_is_better)
