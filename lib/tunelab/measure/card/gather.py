"""A run's card: everything that its directory, its report and its data say, in one place."""

from __future__ import annotations

import time

from tunelab.measure.card.facts import RunCard
from tunelab.measure.card.of_answers import answered_rows, changed_of
from tunelab.measure.card.of_data import Say, data_of
from tunelab.measure.card.of_run import cost_of, curves_of, settings_of, trained_of
from tunelab.measure.card.said import headline_of, limits_of, missing_of, notes_of, repeat_of
from tunelab.measure.card.shown import one_line
from tunelab.run.public import public_report, without_paths
from tunelab.run.reports import read_report
from tunelab.run.run import Run


def card_of(run: Run, *, rows: int, on_progress: Say) -> RunCard:
    """The facts of a run, whatever its state, with at most `rows` rows of its data shown of each kind.

    Raises:
        UserError: its configuration can't be read.
    """
    _ = run.config
    progress, kept = run.progress(), read_report(run.path)
    report = public_report(kept, run) if kept else None
    trained = trained_of(run, progress)
    stages, training_answers = data_of(run, rows, on_progress)
    changed = changed_of(answered_rows(run), report, training_answers, rows) if report else None
    return RunCard(
        run=run.id,
        name=one_line(run.name),
        status=progress.status,
        message=one_line(without_paths(progress.message, run)),
        written_unix_seconds=time.time(),
        headline=headline_of(run, progress, report),
        trained=trained,
        stages=stages,
        settings=settings_of(run, trained),
        notes=notes_of(run, progress),
        curves=() if run.imported_from else curves_of(run, progress),
        report=report,
        changed=changed,
        cost=cost_of(run, progress, report),
        limits=limits_of(run, progress, report),
        repeat=repeat_of(run, stages, report),
        missing=missing_of(run, report, changed),
    )
