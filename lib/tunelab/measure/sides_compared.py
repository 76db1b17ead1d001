"""Two sides of the same rows, and others who answered them: figures, differences and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from tunelab.errors import UserError
from tunelab.run.reports import Baseline, Compared, CutAnswers, Report

if TYPE_CHECKING:
    import numpy

    from tunelab.measure.changes.rows import AnsweredRow
    from tunelab.measure.metrics import Metric

TUNED, BASE = "tuned", "base"  # who answered, beside baselines by their names


class Side(BaseModel):
    """What one model makes of the rows: summed -log p and scored tokens of each, its answers and whether each ended by
    itself, and the same losses on the general instructions."""

    model_config = ConfigDict(frozen=True)
    losses: list[float]
    tokens: list[int]
    answers: list[str]
    ended: list[bool]
    general_losses: list[float]
    general_tokens: list[int]

    @property
    def loss_columns(self) -> numpy.ndarray:
        """What each row adds to the loss per token (rows, 2)."""
        import numpy

        return numpy.stack([numpy.array(self.losses), numpy.array(self.tokens, dtype=float)], axis=1)


@dataclass(frozen=True)
class ScoredMetric:
    """What each row adds to a metric, by who answered: computed once for figures, verdict and rows."""

    metric: Metric
    sums: dict[str, numpy.ndarray]  # (rows, k) of `TUNED`, `BASE` and others
    rows: tuple[int, ...]  # the rows that are scored, counted from 0
    notes: tuple[str, ...]

    @classmethod
    def of(cls, metric: Metric, answers: Mapping[str, Sequence[str]], references: Sequence[str]) -> ScoredMetric:
        """Everybody's answers to the same rows.

        Raises:
            UserError: a user's metric raises on every row, or a reference does not fit one of this library.
        """
        from tunelab.measure.metrics import score_sides

        scored = score_sides(metric, list(answers.values()), references)
        notes = tuple(note.rstrip(".") for note in scored.notes)
        return cls(metric, dict(zip(answers, scored.sums, strict=True)), scored.rows, notes)

    @property
    def others(self) -> dict[str, numpy.ndarray]:
        """The sums of all but tuned and base."""
        return {who: sums for who, sums in self.sums.items() if who not in (TUNED, BASE)}

    def against(self, who: str) -> Compared:
        """Tuned against somebody else."""
        from tunelab.measure.statistics import compared

        metric, whole = self.metric, 100.0 if self.metric.unit == "%" else None
        better = metric.higher_is_better
        figure = compared(self.sums[who], self.sums[TUNED], metric.value, higher_is_better=better, whole=whole)
        return figure.model_copy(update={"title": metric.title, "unit": metric.unit})

    def by_row(self, who: str) -> dict[int, float]:
        """The figure of each row on its own; one that is no finite number is missing, or that a row does not have."""
        if not self.metric.of_rows:
            return {}
        values = self.metric.value(self.sums[who]).tolist()
        return {row: value for row, value in zip(self.rows, values, strict=True) if math.isfinite(value)}


def compare_sides(base: Side, tuned: Side, scored: Sequence[ScoredMetric], **facts: Any) -> Report:
    """Two sides of the same rows, and tuned against others who answered them, with intervals on every difference. The
    first of the metrics is the task's. `facts`: further fields of the report."""
    others = scored[0].others if scored else {}
    return Report(
        rows=len(base.losses),
        heldout_loss=_compared_losses(base.losses, tuned.losses, base.tokens),
        metrics={one.metric.name: one.against(BASE) for one in scored},
        main_metric=scored[0].metric.name if scored else None,
        baselines=tuple(
            Baseline(name=who, metrics={one.metric.name: one.against(who) for one in scored}) for who in others
        ),
        general_loss=_compared_losses(base.general_losses, tuned.general_losses, base.general_tokens),
        probe_rows=len(base.general_losses),
        cut_answers=CutAnswers(base=base.ended.count(False), tuned=tuned.ended.count(False)),
        **facts,
    )


def _compared_losses(before: Sequence[float], after: Sequence[float], tokens: Sequence[int]) -> Compared:
    """Loss per scored token: sums over sums, so that long rows count by their length."""
    from tunelab.measure.statistics import compared_rates

    figure = compared_rates(before, after, tokens, higher_is_better=False)
    return figure.model_copy(update={"title": "loss per token", "unit": "nats"})


def compare_runs(
    first: Sequence[AnsweredRow], second: Sequence[AnsweredRow], known: Mapping[str, Compared] | None = None
) -> dict[str, Compared]:
    """The scores of two runs' answers to the same rows, by metric: `base` is the first run, `tuned` the second. A
    metric that is no mean over rows (macro-F1) is left out.

    known: the metrics as a report of one of the runs has them, with title, unit and direction; without them those of
    one's own have none.

    Raises:
        UserError: they share no row.
    """
    from tunelab.measure.metrics import NAMED, RowMetric
    from tunelab.measure.statistics import compared_scores

    by_row = {(row.row, row.prompt, row.reference): row for row in second}
    pairs = [(row, other) for row in first if (other := by_row.get((row.row, row.prompt, row.reference)))]
    if not pairs:
        raise UserError("The two runs have no row in common that both answered. Measure them on the same data.")
    found = {}
    for name in pairs[0][0].tuned_scores:
        metric = NAMED.get(name)
        scores = [(a.tuned_scores.get(name), b.tuned_scores.get(name)) for a, b in pairs]
        both = [(a, b) for a, b in scores if a is not None and b is not None]
        if not both or (metric is not None and not issubclass(metric, RowMetric)):
            continue
        before, after = ([pair[side] for pair in both] for side in (0, 1))
        about = (known or {}).get(name) or metric
        figure = compared_scores(before, after, higher_is_better=about.higher_is_better if about else None)
        said = {"title": about.title, "unit": about.unit} if about else {"title": name}
        found[name] = figure.model_copy(update=said)
    return found
