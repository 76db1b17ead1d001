"""Two sides of the same rows, and others who answered them: figures, differences and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from tunelab.errors import UserError
from tunelab.run.reports import Baseline, Compared, CutAnswers, Report

if TYPE_CHECKING:
    import numpy

    from tunelab.measure.changes.rows import AnsweredRow
    from tunelab.measure.metrics import Metric


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


def compare_sides(
    base: Side,
    tuned: Side,
    references: Sequence[str],
    metrics: Sequence[Metric],
    *,
    seconds: float,
    others: dict[str, list[str]] | None = None,
    selected_on: int = 0,
) -> Report:
    """Two sides of the same rows, and tuned against `others` who answered them, with intervals on every difference. The
    first of the metrics is the task's."""
    compared: dict[str, dict[str, Compared]] = {}
    notes: list[str] = []
    if references:
        answers = {"base": base.answers, **(others or {})}
        for metric in metrics:
            for who, figure in _compared(metric, answers, tuned.answers, references, notes).items():
                compared.setdefault(who, {})[metric.name] = figure
    return Report(
        rows=len(base.losses),
        heldout_loss=_compared_losses(base.losses, tuned.losses, base.tokens),
        metrics=compared.get("base", {}),
        main_metric=metrics[0].name if references else None,
        baselines=tuple(Baseline(name=name, metrics=compared[name]) for name in others or {} if references),
        general_loss=_compared_losses(base.general_losses, tuned.general_losses, base.general_tokens),
        probe_rows=len(base.general_losses),
        seconds=seconds,
        selected_on=selected_on,
        cut_answers=CutAnswers(base=base.ended.count(False), tuned=tuned.ended.count(False)),
        notes=tuple(notes),
    )


def _compared(
    metric: Metric,
    answers: dict[str, list[str]],
    tuned: Sequence[str],
    references: Sequence[str],
    notes: list[str],
) -> dict[str, Compared]:
    """Tuned against each of those who answered, by one metric."""
    from tunelab.measure.metrics import score_sides
    from tunelab.measure.statistics import compared

    scored = score_sides(metric, [tuned, *answers.values()], references)
    notes += [note.rstrip(".") for note in scored.notes]
    after, *sides = scored.sums
    found = {}
    whole, better = 100.0 if metric.unit == "%" else None, metric.higher_is_better is not False
    for who, before in zip(answers, sides, strict=True):
        figure = compared(before, after, metric.value, higher_is_better=better, whole=whole)
        found[who] = figure.model_copy(update={"title": metric.title, "unit": metric.unit})
    return found


def _compared_losses(before: Sequence[float], after: Sequence[float], tokens: Sequence[int]) -> Compared:
    """Loss per scored token: sums over sums, so that long rows count by their length."""
    from tunelab.measure.statistics import compared_rates

    figure = compared_rates(before, after, tokens, higher_is_better=False)
    return figure.model_copy(update={"title": "loss per token", "unit": "nats"})


def compare_runs(first: Sequence[AnsweredRow], second: Sequence[AnsweredRow]) -> dict[str, Compared]:
    """The scores of two runs' answers to the same rows, by metric: `base` is the first run, `tuned` the second. A
    metric that is no mean over rows (macro-F1) is left out.

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
        figure = compared_scores(before, after, higher_is_better=metric is None or metric.higher_is_better is not False)
        said = {"title": metric.title, "unit": metric.unit} if metric else {"title": name}
        found[name] = figure.model_copy(update=said)
    return found
