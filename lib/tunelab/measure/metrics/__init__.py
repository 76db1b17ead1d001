"""Metrics of answers: each a function of sums over rows (`protocol`), so that any of them can be resampled exactly.
`text` and `number` compare texts, `labels` labels, `fields` JSON, `sql` the rows that queries return; `losses` are of
the right answer. `custom` reads a user's own, `propose` finds those that fit a task, `face` makes one an
`evaluate.Metric`. Uses `errors` and `data`; imports no library that is slow to import.
"""

from tunelab.errors import UserError, listed, shortened
from tunelab.measure.metrics.custom import Scored, load_metric, score_sides
from tunelab.measure.metrics.face import as_evaluate
from tunelab.measure.metrics.fields import FieldAccuracy, FieldF1, SameJSON, ValidJSON
from tunelab.measure.metrics.labels import Accuracy, Confusion, MacroF1, confusion
from tunelab.measure.metrics.losses import BitsPerByte, LossPerToken, Perplexity, StopRate
from tunelab.measure.metrics.number import NumberMatch
from tunelab.measure.metrics.propose import metrics_for, task_of
from tunelab.measure.metrics.protocol import Measure, Metric, Reference, RowMetric
from tunelab.measure.metrics.sql import ExecutionAccuracy
from tunelab.measure.metrics.text import (
    BLEU,
    ChrF,
    Distinct1,
    Distinct2,
    ExactMatch,
    LengthRatio,
    OneOf,
    RougeL,
    TokenF1,
)

__all__ = [
    "BLEU",
    "METRICS",
    "NAMED",
    "Accuracy",
    "BitsPerByte",
    "ChrF",
    "Confusion",
    "Distinct1",
    "Distinct2",
    "ExactMatch",
    "ExecutionAccuracy",
    "FieldAccuracy",
    "FieldF1",
    "LengthRatio",
    "LossPerToken",
    "MacroF1",
    "Measure",
    "Metric",
    "NumberMatch",
    "OneOf",
    "Perplexity",
    "Reference",
    "RougeL",
    "RowMetric",
    "SameJSON",
    "Scored",
    "StopRate",
    "TokenF1",
    "ValidJSON",
    "as_evaluate",
    "confusion",
    "load_metric",
    "metric_named",
    "metrics_for",
    "score_sides",
    "task_of",
]

# every metric that needs nothing but answers and references
NAMED: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        ExactMatch,
        OneOf,
        TokenF1,
        Accuracy,
        RougeL,
        ChrF,
        BLEU,
        ValidJSON,
        SameJSON,
        FieldAccuracy,
        FieldF1,
        NumberMatch,
        LengthRatio,
        Distinct1,
        Distinct2,
    )
}
# what every report of a run has
METRICS: dict[str, type[Metric]] = {metric.name: metric for metric in (ExactMatch, ChrF)}


def metric_named(name: str) -> Metric:
    """A metric of answers and references by its name.

    Raises:
        UserError: there is no such metric.
    """
    if name not in NAMED:
        raise UserError(f"metric = {shortened(name)}: there is no such metric. There are: {listed(NAMED, most=20)}.")
    return NAMED[name]()
