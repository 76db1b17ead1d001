"""A metric as an `evaluate.Metric`, for those who work with that library.

It is made from the metric here: `evaluate.load` by name would fetch code from the Hub, or run a file of that name in
the working directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunelab.measure.metrics.protocol import Metric, Reference


def as_evaluate(metric: Metric) -> Any:
    """An `evaluate.Metric` that computes {metric.name: figure}, offline; references are texts, or lists of texts."""
    import datasets
    import evaluate

    class Face(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            text = datasets.Value("string")
            return evaluate.MetricInfo(
                description=(type(metric).__doc__ or metric.title).strip(),
                citation=metric.source,
                features=[
                    datasets.Features({"predictions": text, "references": text}),
                    datasets.Features({"predictions": text, "references": datasets.List(text)}),
                ],
            )

        def _compute(self, predictions: Sequence[str], references: Sequence[Reference]) -> dict[str, float]:
            return {metric.name: metric(predictions, references)}

    return Face(keep_in_memory=True, config_name=metric.name)
