"""Answers that are JSON objects, field by field.

An answer counts as JSON when all of it is: text around an object, a code fence, a key that stands twice and NaN don't.
An object is taken apart into values and the paths to them, `customer.name`; a list of plain values has one path,
`tags[]`, and no order; a list that holds objects or lists keeps its order, `items[0].price`. Numbers are equal when
their values are (1, 1.0 and 1e0), a number never equals a text or a truth value, texts are equal letter by letter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy

from tunelab.errors import UserError, shortened
from tunelab.measure.metrics.protocol import Metric, Reference, RowMetric, naming, paired, ratio

Path = tuple[str | int | None, ...]  # keys, places in a list, None for any place
Leaves = Counter[tuple[Path, Any]]


def parse_json(text: str) -> Any:
    """The value of a text that is JSON from beginning to end; numbers are `Decimal`.

    Raises:
        ValueError: it is not.
    """
    try:
        return json.loads(
            text.strip(),
            parse_float=_number,
            parse_int=_number,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_json(text: str) -> bool:
    """Whether a text is JSON from beginning to end."""
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def leaves(value: Any) -> Leaves:
    """How often each value stands under each path of a parsed object; an empty object or list counts as a value."""
    return Counter(_leaves(value, ()))


@dataclass(frozen=True)
class FieldScore:
    """Values of one field, or of all: how many were given, how many wanted, how many agree."""

    right: int
    given: int
    wanted: int

    @property
    def precision(self) -> float:
        """Share of the given values that are right, 0 to 1."""
        return self.right / self.given if self.given else 0.0

    @property
    def recall(self) -> float:
        """Share of the wanted values that were given, 0 to 1."""
        return self.right / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 1 where nothing was wanted and nothing given."""
        both = self.given + self.wanted
        return 2 * self.right / both if both else 1.0

    def __add__(self, other: FieldScore) -> FieldScore:
        return FieldScore(self.right + other.right, self.given + other.given, self.wanted + other.wanted)


@dataclass(frozen=True)
class FieldScores:
    """What `field_scores` found: shares from 0 to 1."""

    rows: int
    valid: float  # answers that are JSON
    whole: float  # answers that equal their reference
    micro: FieldScore  # all values of all fields
    fields: dict[str, FieldScore]  # by path, list places left out: 'items[].price'


def field_scores(predictions: Sequence[str], references: Sequence[str]) -> FieldScores:
    """Validity, whole objects and F1 by field of answers against references. An answer that is not JSON gives no value.

    Raises:
        UserError: a reference is not JSON; says which row.
        ValueError: the two are not of one length, or empty.
    """
    if not references:
        raise ValueError("there are no rows to score")
    fields: dict[str, FieldScore] = {}
    valid = whole = 0
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True), 1):
        wanted, given = _wanted(reference, f"reference {row}"), _given(prediction)
        valid += given is not None
        whole += given == wanted
        for path, score in _by_path(given or Counter(), wanted).items():
            fields[path] = fields.get(path, FieldScore(0, 0, 0)) + score
    micro = sum(fields.values(), FieldScore(0, 0, 0))
    return FieldScores(len(references), valid / len(references), whole / len(references), micro, fields)


class ValidJSON(RowMetric):
    """100 where the whole answer is JSON; else 0."""

    name, title, unit, range, higher_is_better = "valid_json", "valid JSON", "%", (0, 100), True
    source = "RFC 8259, the whole answer"

    def score(self, prediction: str, reference: str) -> float:
        return 100.0 * is_json(prediction)


class SameJSON(RowMetric):
    """100 where the answer is JSON that equals the reference; else 0."""

    name, title, unit, range, higher_is_better = "same_json", "whole object right", "%", (0, 100), True
    source = "equality of parsed values"

    def score(self, prediction: str, reference: str) -> float:
        return 100.0 * (_given(prediction) == _wanted(reference))


class FieldAccuracy(RowMetric):
    """Of the values that the answer or the reference has, the share that both have."""

    name, title, unit, range, higher_is_better = "field_accuracy", "fields right", "%", (0, 100), True
    source = "the mean over rows of the share of fields right, of those that answer or reference has"

    def score(self, prediction: str, reference: str) -> float:
        wanted, given = _wanted(reference), _given(prediction) or Counter()
        paths = {path for path, _ in (wanted | given)}
        # a list is one field, and right as a whole
        right = sum(_at(wanted, path) == _at(given, path) for path in paths)
        return 100.0 * right / len(paths)


class FieldF1(Metric):
    """F1 of JSON values with their fields, counted over all rows; where a reference is several texts, the best counts.

    Columns: values right, given and wanted. 100 where nothing was wanted and nothing given.
    """

    name, title, unit, range, higher_is_better = "field_f1", "field F1", "points", (0, 100), True
    source = "micro-averaged F1, van Rijsbergen 1979, 'Information Retrieval', chapter 7"

    def sums(self, predictions: Sequence[str], references: Sequence[Reference]) -> numpy.ndarray:
        """Raises: UserError where a reference is not JSON."""
        counts = []
        for row, (prediction, texts) in enumerate(paired(predictions, references), 1):
            with naming(row):
                best = max((_agreeing(prediction, text) for text in texts), key=lambda score: score.f1)
            counts.append((best.right, best.given, best.wanted))
        return numpy.array(counts, dtype=float).reshape(-1, 3)

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        return 100 * ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2], 1.0)


def _agreeing(prediction: str, reference: str) -> FieldScore:
    wanted, given = _wanted(reference), _given(prediction) or Counter()
    return FieldScore((wanted & given).total(), given.total(), wanted.total())


def _given(prediction: str) -> Leaves | None:
    try:
        return leaves(parse_json(prediction))
    except ValueError:
        return None


def _wanted(reference: str, what: str = "reference") -> Leaves:
    try:
        return leaves(parse_json(reference))
    except ValueError as error:
        raise UserError(
            f"{what} = {shortened(reference)} is not JSON ({error}). Answers can be scored by field only where every "
            "reference is JSON: mend the row, or choose the metric exact_match."
        ) from None


def _by_path(given: Leaves, wanted: Leaves) -> dict[str, FieldScore]:
    scores: dict[str, FieldScore] = {}
    for leaf in given.keys() | wanted.keys():
        path = _written(leaf[0])
        one = FieldScore(min(given[leaf], wanted[leaf]), given[leaf], wanted[leaf])
        scores[path] = scores.get(path, FieldScore(0, 0, 0)) + one
    return scores


def _at(values: Leaves, path: Path) -> Leaves:
    return Counter({leaf: count for leaf, count in values.items() if leaf[0] == path})


def _written(path: Path) -> str:
    """A path for people, 'items[].price'."""
    return "".join(f".{part}" if isinstance(part, str) else "[]" for part in path).removeprefix(".")


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        plain = not any(isinstance(item, dict | list) for item in value)
        for place, item in enumerate(value):
            yield from _leaves(item, (*path, None if plain else place))
    else:
        # Python takes True for 1: the type is part of what is compared
        yield path, (type(value).__name__, str(value) if isinstance(value, dict | list) else value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{shortened(text)} is too large a number") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
