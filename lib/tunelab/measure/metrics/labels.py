"""Answers that are labels: which is given where which is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy

from tunelab.errors import UserError, listed, shortened
from tunelab.measure.metrics.protocol import Metric, Reference, RowMetric, naming, paired, ratio
from tunelab.measure.metrics.text import folded


class Accuracy(RowMetric):
    """100 where the answer is the label, case and outer white space aside; else 0."""

    name, title, unit, range, higher_is_better = "accuracy", "accuracy", "%", (0, 100), True
    source = "the share of rows whose label is right"

    def score(self, prediction: str, reference: str) -> float:
        return 100.0 * (folded(prediction) == folded(reference))


class MacroF1(Metric):
    """The mean over labels of each one's F1, so that a rare label counts as much as a frequent one.

    Over the labels that the rows want: of two models on the same rows it is the mean of the same labels. A wrong
    answer costs the wanted label recall and the given label precision; one that is no label of the set costs recall.
    Columns: right, given and wanted, for each label.

    labels: the set that answers are out of. Case and outer white space are no difference.
    """

    name, title, unit, range, higher_is_better = "macro_f1", "macro-F1", "points", (0, 100), True
    source = "Opitz and Burst 2019, 'Macro F1 and Macro F1', equation 2 (the mean of F1 scores)"
    of_rows = False  # of one row it is its accuracy, and so would be the mean of rows

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = LabelSet(labels)

    def sums(self, predictions: Sequence[str], references: Sequence[Reference]) -> numpy.ndarray:
        """Raises: UserError where a reference is no label of the set."""
        columns = numpy.zeros((len(references), 3, len(self.labels.names)))
        for row, (given, wanted) in enumerate(self.labels.places(predictions, references)):
            columns[row, 2, wanted] = 1
            if given is not None:
                columns[row, 1, given] = 1
                columns[row, 0, given] = given == wanted
        return columns.reshape(len(references), -1)

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        right, given, wanted = numpy.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
        f1 = ratio(2 * right, given + wanted, 0.0)
        return 100 * ratio((f1 * (wanted > 0)).sum(-1), (wanted > 0).sum(-1), 0.0)


@dataclass(frozen=True)
class Confusion:
    """How often each label was given where each was wanted. Labels stand in the order of the set."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]  # [wanted][given]
    no_label: tuple[int, ...]  # by wanted label: answers that are none of the labels

    @property
    def rows(self) -> int:
        return sum(map(sum, self.counts)) + sum(self.no_label)

    @property
    def accuracy(self) -> float:
        """Share of rows whose label is right, 0 to 1."""
        return sum(row[place] for place, row in enumerate(self.counts)) / self.rows

    def f1(self, label: str) -> float:
        """F1 of one label, 0 to 1; 0 where it was neither wanted nor given."""
        place = self.labels.index(label)
        wanted = sum(self.counts[place]) + self.no_label[place]
        given = sum(row[place] for row in self.counts)
        return 2 * self.counts[place][place] / (given + wanted) if given + wanted else 0.0

    def confused(self, most: int = 10) -> list[tuple[str, str, int]]:
        """Wanted label, given label and how often, the most frequent confusions first."""
        found = [
            (self.labels[wanted], self.labels[given], count)
            for wanted, row in enumerate(self.counts)
            for given, count in enumerate(row)
            if count and wanted != given
        ]
        return sorted(found, key=lambda one: -one[2])[:most]


def confusion(predictions: Sequence[str], references: Sequence[Reference], labels: Iterable[str]) -> Confusion:
    """The confusion matrix of answers out of a set of labels; those that are none of them are counted as such.

    Raises:
        UserError: a reference is no label of the set; names the row.
        ValueError: there are no rows, or not as many predictions as references.
    """
    known = LabelSet(labels)
    counts = numpy.zeros((len(known.names), len(known.names) + 1), dtype=int)
    for given, wanted in known.places(predictions, references):
        counts[wanted, -1 if given is None else given] += 1
    if not counts.any():
        raise ValueError("there are no rows to score")
    table = [[int(count) for count in row] for row in counts]
    return Confusion(known.names, tuple(tuple(row[:-1]) for row in table), tuple(row[-1] for row in table))


class LabelSet:
    """The labels that answers are out of; of two that differ in case or outer white space the first is its name."""

    def __init__(self, labels: Iterable[str]) -> None:
        named: dict[str, str] = {}
        for label in labels:
            named.setdefault(folded(label), label.strip())
        if not named:
            raise ValueError("a set of labels needs a label")
        self.names = tuple(named.values())
        self._places = {key: place for place, key in enumerate(named)}

    def places(self, predictions: Sequence[str], references: Sequence[Reference]) -> Iterable[tuple[int | None, int]]:
        """For each row the place of the label given (None: it is none of the set) and of the one wanted.

        Where several labels are right, the one given is the one wanted if it is among them, else the first.
        """
        for row, (prediction, texts) in enumerate(paired(predictions, references), 1):
            with naming(row):
                wanted = [self._wanted(text) for text in texts]
            given = self._places.get(folded(prediction))
            yield given, given if given is not None and given in wanted else wanted[0]

    def _wanted(self, reference: str) -> int:
        if folded(reference) not in self._places:
            raise UserError(
                f"reference = {shortened(reference)} is none of the {len(self.names)} labels: {listed(self.names)}. "
                "Give all labels there are, or mend the row."
            )
        return self._places[folded(reference)]
