"""What the built-in sets are measured by: their metrics, their splits as prompts and answers, and their floors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from tunelab.data.builtin import BUILTIN, BuiltinSet
from tunelab.data.examples import Example
from tunelab.data.sets.card import Figure
from tunelab.data.split import read_data
from tunelab.measure.floors import floors_for
from tunelab.measure.metrics import ExecutionAccuracy, Metric, metric_named
from tunelab.spec import DataSpec


@dataclass(frozen=True)
class Sides:
    """Prompts and answers to train on, and held out."""

    prompts: list[str]
    answers: list[str]
    heldout_prompts: list[str]
    heldout_answers: list[str]


def metrics_of(one: BuiltinSet) -> list[Metric]:
    """The metrics that a set's answers are measured by, the one to report first."""
    return [_metric(name, one) for name in one.metrics]


def sides_of(one: BuiltinSet) -> Sides:
    """The set's own split; of a set that has none, the default one."""
    split = read_data(DataSpec(source=one.name, **({"heldout_rows": one.heldout()} if one.heldout else {})))
    return Sides(*_pairs(split.train), *_pairs(split.heldout))


def floors_of(name: str) -> list[Figure]:
    """What each floor reaches on the held-out rows of a built-in set, by each of its metrics."""
    one = BUILTIN[name]
    sides, figures = sides_of(one), []
    for answered_by, floor in floors_for(sides.answers).items():
        guesses = floor(sides.prompts, sides.answers, sides.heldout_prompts)
        figures += scored(one, answered_by, guesses, sides.heldout_answers)
    if one.rules:
        guesses = [one.rules(prompt) for prompt in sides.heldout_prompts]
        figures += scored(one, "rules by hand", guesses, sides.heldout_answers)
    return figures


def scored(one: BuiltinSet, answered_by: str, given: Sequence[str], wanted: Sequence[str]) -> list[Figure]:
    """The mean of each of the set's metrics over these answers."""
    rows = {metric.name: metric.rows(given, wanted) for metric in metrics_of(one)}
    return [Figure(answered_by, name, round(sum(values) / len(values), 1)) for name, values in rows.items()]


def _metric(name: str, one: BuiltinSet) -> Metric:
    if name == ExecutionAccuracy.name:
        assert one.database, f"{one.name} is measured by queries and has no database"
        with closing(one.database()) as database:
            return ExecutionAccuracy(database)
    return metric_named(name)


def _pairs(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    return [example.prompt for example in examples], [example.answer for example in examples]
