"""What a metric is: a function of sums over rows.

Each row gives a few numbers (its score and 1; the n-grams that agree and those there are; right, given and wanted per
label), and the figure is computed from their sums. So a mean, macro-F1, BLEU and the loss per token are all resampled
alike: `value` of the sums of the drawn rows, exactly, for thousands of draws at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import numpy

from tunelab.errors import UserError

Reference = str | Sequence[str]  # several texts: each of them is right
UNBOUNDED = (-math.inf, math.inf)


class Measure(ABC):
    """A figure that is a function of sums over rows, and what there is to know to read it."""

    name: ClassVar[str]  # 'exact_match'
    title: ClassVar[str]  # 'exact match', for people
    unit: ClassVar[str]  # '%', 'points', 'nats', 'bits'; '' for a number without one
    range: ClassVar[tuple[float, float]]
    higher_is_better: ClassVar[bool | None]  # None: neither
    source: ClassVar[str]

    @abstractmethod
    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        """The figure (...) of columns (..., k) that are summed over rows; of a single row's columns, that row's."""


class Metric(Measure):
    """A figure of answers against references."""

    of_rows: ClassVar[bool] = True  # it says something of a single row

    @abstractmethod
    def sums(self, predictions: Sequence[str], references: Sequence[Reference]) -> numpy.ndarray:
        """What each row adds (rows, k).

        Raises:
            UserError: a reference does not fit the metric; names the row.
            ValueError: the two are not of one length.
        """

    def rows(self, predictions: Sequence[str], references: Sequence[Reference]) -> list[float]:
        """The figure of every row on its own. Only a `RowMetric` is their mean."""
        return [float(value) for value in self.value(self.sums(predictions, references))]

    def score(self, prediction: str, reference: str) -> float:
        """The figure of one row."""
        return float(self.value(self.sums([prediction], [reference])[0]))

    def __call__(self, predictions: Sequence[str], references: Sequence[Reference]) -> float:
        """The figure of all rows.

        Raises:
            UserError: a reference does not fit the metric.
            ValueError: there are no rows, or not as many predictions as references.
        """
        if not len(references):
            raise ValueError("there are no rows to score")
        return float(self.value(self.sums(predictions, references).sum(axis=0)))


class RowMetric(Metric):
    """The mean of a score per row; where a reference is several texts, the best of their scores counts."""

    @abstractmethod
    def score(self, prediction: str, reference: str) -> float:
        """The score of one row."""

    def rows(self, predictions: Sequence[str], references: Sequence[Reference]) -> list[float]:
        """The score of every row."""
        best, scores = min if self.higher_is_better is False else max, []
        for row, (prediction, texts) in enumerate(paired(predictions, references), 1):
            with naming(row):
                scores.append(float(best(self.score(prediction, text) for text in texts)))
        return scores

    def sums(self, predictions: Sequence[str], references: Sequence[Reference]) -> numpy.ndarray:
        scores = numpy.array(self.rows(predictions, references), dtype=float)
        return numpy.stack([scores, numpy.ones_like(scores)], axis=1)

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        return sums[..., 0] / sums[..., 1]


def paired(predictions: Sequence[str], references: Sequence[Reference]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each prediction with the texts of its reference.

    Raises:
        ValueError: the two are not of one length, or a row has no reference.
    """
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True), 1):
        texts = (reference,) if isinstance(reference, str) else tuple(reference)
        if not texts:
            raise ValueError(f"row {row} has no reference")
        yield prediction, texts


@contextmanager
def naming(row: int) -> Iterator[None]:
    """A mistake in a row says which (counted from 1)."""
    try:
        yield
    except UserError as error:
        raise UserError(f"Row {row}: {error}") from None


def ratio(above: numpy.ndarray, below: numpy.ndarray, where_nothing: float) -> numpy.ndarray:
    """above / below, elementwise; `where_nothing` where both are 0, infinite where only `below` is."""
    with numpy.errstate(divide="ignore", invalid="ignore"):
        return numpy.where((above == 0) & (below == 0), where_nothing, numpy.divide(above, below))
