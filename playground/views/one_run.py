"""One run: what it is, why it ended, and what can be taken along from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playground.english import page
from playground.english import runs as say
from playground.english.train import SIGNS
from playground.exports import KINDS, Made
from playground.views.runs import change_text, loss_text
from playground.views.texts import duration
from playground.views.training import status_line
from tunelab import Progress, Run, diagnose, read_report
from tunelab.measure.markup import render
from tunelab.run.deleting import run_bytes
from tunelab.run.public import name_of
from tunelab.runs_cli import size_text
from tunelab.techniques import FullFineTuning

if TYPE_CHECKING:
    from markupsafe import Markup

    from playground.jobs import Jobs

Fact = tuple[str, str]


def about_html(jobs: Jobs, run: Run | None) -> Markup:
    """How a run stands, in words and figures; why it failed, with buttons for what to do about it."""
    if run is None:
        return render("playground", "about.html", say=say, run=None)
    progress = run.progress()
    waiting = jobs.waiting(run)
    status = f"{SIGNS['queued']}, {waiting.words}" if waiting else status_line(progress, None)
    share = progress.step / progress.steps_total if progress.steps_total and progress.status == "running" else None
    report = read_report(run.path)
    return render(
        "playground",
        "about.html",
        say=say,
        page=page,
        run=run,
        status=status,
        kind=progress.status,
        share=share,
        verdict=report.sentence if report else "",
        diagnosis=diagnose(run),
        facts=_facts(run, progress),
        problem=run.labels.problem,
    )


def _facts(run: Run, progress: Progress) -> list[Fact]:
    """What a run is made of, by name."""
    change = change_text(progress)
    loss = loss_text(progress) + (f" ({change})" if change else "")
    known = [("loss", loss if loss != "–" else "")]
    if run.readable:
        config = run.config
        known += [
            ("steps", f"{progress.step} of {progress.steps_total}" if progress.steps_total else ""),
            ("method", config.method),
            ("model", name_of(config.model.repo_id)),
            ("data", ", then ".join(dict.fromkeys(stage.data.title for stage in config.stages))),
            ("rows", _rows(progress)),
        ]
    seconds = sum(one.seconds for one in progress.steps) + sum(one.seconds for one in progress.evaluations)
    known += [
        ("took", duration(seconds) if seconds else ""),
        ("size", size_text(run_bytes(run))),
        ("from", " ← ".join(run.lineage)),
        ("id", run.id),
    ]
    return [(say.FACTS[name], value) for name, value in known if value]


def _rows(progress: Progress) -> str:
    started = progress.started
    if started is None or not started.train_rows:
        return ""
    return say.ROWS.format(train=f"{sum(started.train_rows):,}", heldout=f"{sum(started.heldout_rows):,}")


def take_html(jobs: Jobs, run: Run | None) -> Markup:
    """What can be taken along from a run: links to what is there, buttons for what has to be made."""
    if run is None or not run.readable:
        return render("playground", "take.html", say=say, run=None)
    reasons = {kind: jobs.exports.refusal(run, kind) or "" for kind in KINDS}
    is_whole = isinstance(run.config.technique, FullFineTuning)
    made: list[Made | None] = [jobs.exports.one(run, kind) for kind in KINDS]
    at_once = [] if run.imported_from else ["notebook"]
    at_once += [] if is_whole or not run.has_adapter else ["adapter"]
    return render(
        "playground",
        "take.html",
        say=say,
        run=run,
        at_once=at_once,
        made=[one for one in made if one and (run.has_adapter or one.kind == "card")],
        reasons=reasons,
        size=lambda one: size_text(one.bytes),
    )
