"""Two sides of the same rows, as what each row adds: the form in which every metric can be resampled exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

Value = Callable[[numpy.ndarray], numpy.ndarray]  # columns (..., k) summed over rows → the figure (...)


@dataclass(frozen=True, eq=False)
class Paired:
    """What n rows add to the sums of a metric: on the side of the base, and in each run of the tuned side.

    columns: (n, 1 + runs, k); of the second axis 0 is the base, the others are the tuned side's runs.
    value: of sums, as `Measure.value`.
    """

    columns: numpy.ndarray
    value: Value

    @classmethod
    def of(cls, base: numpy.ndarray, tuned: Sequence[numpy.ndarray], value: Value) -> Paired:
        """Of the columns (n, k) of the base and of each run of the tuned side.

        Raises:
            ValueError: there are no rows, or the sides have not the same.
        """
        sides = [numpy.asarray(side, dtype=float) for side in (base, *tuned)]
        if len(sides) < 2 or sides[0].ndim != 2 or not len(sides[0]) or len({side.shape for side in sides}) > 1:
            raise ValueError(f"the same rows are needed on all sides, got {[side.shape for side in sides]}")
        return cls(numpy.stack(sides, axis=1), value)

    @classmethod
    def of_scores(cls, before: Sequence[float], after: Sequence[float]) -> Paired:
        """Of one score per row and side; the figure is their mean.

        Raises:
            ValueError: there are no rows, or not as many before as after.
        """
        return cls.of(scored(before), [scored(after)], mean)

    @property
    def rows(self) -> int:
        return len(self.columns)

    @property
    def runs(self) -> int:
        return self.columns.shape[1] - 1

    @property
    def figures(self) -> numpy.ndarray:
        """The figure of all rows (1 + runs,): the base's, then each run's."""
        return self.value(self.columns.sum(axis=0))

    @property
    def gain(self) -> float:
        """The mean of the tuned side's runs less the base."""
        return float(self.gain_of(self.columns.sum(axis=0)))

    def gain_of(self, totals: numpy.ndarray) -> numpy.ndarray:
        """The gain (...) of sums (..., 1 + runs, k)."""
        figures = self.value(totals)
        with numpy.errstate(invalid="ignore"):  # of two infinite ones it is nan
            return figures[..., 1:].mean(-1) - figures[..., 0]


def scored(scores: Sequence[float]) -> numpy.ndarray:
    """Columns (n, 2) of one score per row: score and 1."""
    column = numpy.asarray(scores, dtype=float)
    return numpy.stack([column, numpy.ones_like(column)], axis=1)


def mean(sums: numpy.ndarray) -> numpy.ndarray:
    """First column over second: the mean of scores, or a rate such as the loss per token."""
    return sums[..., 0] / sums[..., 1]
