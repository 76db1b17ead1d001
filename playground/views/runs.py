"""Runs in lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playground.views.texts import moment
from playground.views.training import SIGNS
from tunelab import Run, list_runs
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup

    from playground.jobs import Jobs

RUN_COLUMNS = ["Run", "Status", "Held-out loss", "Method", "Data", "Started", "Id"]


def run_table(runs: list[Run], places: dict[str, int]) -> list[list[str]]:
    """One row per run, in the order given; columns as RUN_COLUMNS."""
    rows = []
    for run in runs:
        progress = run.progress()
        base, best = progress.base_loss, progress.heldout_loss
        change = "–" if best is None else (f"{base:.2f} → " if base is not None else "") + f"{best:.2f}"
        place = places.get(run.id)
        rows.append(
            [
                run.name,
                f"{SIGNS['queued']} ({place})" if place else SIGNS[progress.status],
                change,
                run.config.method if run.readable else "–",
                run.config.stages[0].data.title if run.readable else "–",
                moment(run.id),
                run.id,
            ]
        )
    return rows


def runs_html(jobs: Jobs, run: Run | None) -> Markup:
    """All runs as a list; the one that is chosen is marked. Pressing one chooses it."""
    every = list_runs(jobs.root)
    places = {one.id: place for place, one in enumerate(jobs.queued(), 1)}
    rows = [(row, row[-1] == (run.id if run else None)) for row in run_table(every, places)]
    return render("playground", "runs.html", columns=RUN_COLUMNS, rows=rows)


def chosen_run_html(run: Run | None) -> Markup:
    """The place of the run that is chosen in the head; `live` fills in how it goes."""
    return render("playground", "chosen_run.html", run=run)


def run_choices(runs: list[Run]) -> list[tuple[str, str]]:
    """Label and id of each run, for a dropdown."""
    readable = [run for run in runs if run.readable]
    # a run without a name of its own is called by its method already
    methods = [f" · {run.config.method}" if run.given_name else "" for run in readable]
    return [(f"{run.name}{method} · {moment(run.id)}", run.id) for run, method in zip(readable, methods, strict=True)]
