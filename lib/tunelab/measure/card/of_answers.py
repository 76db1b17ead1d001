"""What changed in the answers: rows that gained and lost most, groups of rows, words, and what rules complain of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunelab.data.doctor.personal import masked
from tunelab.errors import UserError
from tunelab.measure.answered import rows_of
from tunelab.measure.card.facts import Changed, Label, ShownRow, Slice, Word
from tunelab.measure.card.shown import shown_text
from tunelab.measure.changes.ranking import rank
from tunelab.measure.changes.rules import label_answers
from tunelab.measure.changes.slices import Slice as RowSlice
from tunelab.measure.changes.slices import by_column, by_label, by_length, judge
from tunelab.measure.changes.words import WordChange, changed_words

if TYPE_CHECKING:
    from tunelab.measure.changes.rows import AnsweredRow, Change
    from tunelab.run.reports import Report
    from tunelab.run.run import Run

MOST_WORDS = 12
MOST_GROUPS = 12  # labels, or values of a column: more are no table
LEAST_ROWS = 40  # below, no group of rows is large enough to be judged


def answered_rows(run: Run) -> list[AnsweredRow]:
    """The rows of the run's last measurement with all answers and scores; none where there is none that can be read."""
    try:
        return rows_of(run)
    except UserError:
        return []


def changed_of(
    rows: Sequence[AnsweredRow], report: Report, training_answers: Sequence[str], most: int
) -> Changed | None:
    """What changed by the task's metric, with at most `most` rows of either kind; None where no row has a score."""
    metric = _metric(rows, report)
    if metric is None:
        return None
    figure = report.metrics.get(metric)
    better = figure is None or figure.higher_is_better is not False
    ranking = rank(rows, metric, most=max(most, 1), higher_is_better=better)
    words = _words(rows)
    labels = label_answers(rows, training_answers=training_answers or None)
    slices, notes = _slices(rows, metric, better)
    title = figure.title if figure and figure.title else metric
    return Changed(
        metric=title,
        improved=tuple(map(_shown, ranking.improved[:most])),
        worsened=tuple(map(_shown, ranking.worsened[:most])),
        better=ranking.better,
        worse=ranking.worse,
        same=ranking.same,
        slices=slices,
        more_said=_said(words[0]) if most else (),
        less_said=_said(words[1]) if most else (),
        labels=tuple(
            Label(title=one.title, base=one.base, tuned=one.tuned, judged=one.judged)
            for one in labels.labels
            if one.base or one.tuned
        ),
        notes=(*ranking.notes, *notes),
    )


def _metric(rows: Sequence[AnsweredRow], report: Report) -> str | None:
    """The task's metric, or the first one that says something of a single row: by some neither more nor less is
    better."""
    scored = dict.fromkeys(name for row in rows for name in row.tuned_scores if row.change(name) is not None)
    names = [name for name in scored if report.has_direction(name)]
    return report.main_metric if report.main_metric in names else next(iter(names), None)


def _shown(change: Change) -> ShownRow:
    row = change.row
    return ShownRow(
        row=row.row,
        prompt=shown_text(row.prompt),
        reference=shown_text(row.reference),
        base=shown_text(row.base),
        tuned=shown_text(row.tuned),
        base_score=change.base,
        tuned_score=change.tuned,
        gain=change.gain,
    )


def _words(rows: Sequence[AnsweredRow]) -> tuple[Sequence[WordChange], Sequence[WordChange]]:
    texts = [row.model_copy(update={"base": masked(row.base), "tuned": masked(row.tuned)}) for row in rows]
    try:
        found = changed_words(texts, most=MOST_WORDS)
    except UserError:  # no answer holds a word
        return (), ()
    return found.tuned, found.base


def _said(words: Sequence[WordChange]) -> tuple[Word, ...]:
    return tuple(Word(word=shown_text(one.word, 40), base=one.base, tuned=one.tuned) for one in words)


def _slices(rows: Sequence[AnsweredRow], metric: str, higher_is_better: bool) -> tuple[tuple[Slice, ...], list[str]]:
    """Groups of rows that are large enough to say something of, judged together."""
    if len(rows) < LEAST_ROWS:
        return (), []
    groups: list[RowSlice] = []
    labelled = by_label(rows) if any(row.label is not None for row in rows) else []
    if len(labelled) <= MOST_GROUPS:
        groups += labelled
    for column in dict.fromkeys(name for row in rows for name in row.columns):
        if len({row.columns.get(column) for row in rows}) <= MOST_GROUPS:
            groups += by_column(rows, column)
    groups += by_length(rows, quantiles=3)
    judged = judge(groups, metric, higher_is_better=higher_is_better)
    found = [
        Slice(title=shown_text(one.title, 80), rows=one.n, base=one.base, tuned=one.tuned, verdict=one.verdict)
        for one in judged.results
        if one.verdict != "too few rows"
    ]
    return tuple(found), list(judged.notes) if found else []
