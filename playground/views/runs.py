"""Runs in lists: all of them, those that are picked, those that are deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from playground.english import page
from playground.english import runs as say
from playground.english.train import SIGNS
from playground.views.texts import counted, moment
from tunelab import Difference, Progress, Run, config_diff, list_runs, search_runs
from tunelab.measure.charts import STYLES, line_chart
from tunelab.measure.markup import render
from tunelab.runs_cli import size_text

if TYPE_CHECKING:
    from markupsafe import Markup

    from playground.jobs import Jobs

MOST_LISTED, MOST_PICKED = 100, 6
LETTERS = "ABCDEF"  # of runs that are picked, in the order in which they were
CHART_WIDTH, CHART_HEIGHT = 500, 260
SPARK_WIDTH, SPARK_HEIGHT = 56, 16
NEVER = float("inf")
# how the list is ordered: what it is sorted by, and whether from the end
ORDERS: Mapping[str, tuple[Callable[[Run], object], bool]] = {
    "newest": (lambda run: run.id, True),
    "oldest": (lambda run: run.id, False),
    "name": (lambda run: (run.name.casefold(), run.id), False),
    "loss": (lambda run: _told(run).best, False),
}


@dataclass(frozen=True)
class Told:
    """What the list tells of a run as long as nothing new stands in its log."""

    best: float  # held-out loss; infinite: never measured
    loss: str
    change: str
    spark: str
    method: str
    data: str


@dataclass(frozen=True)
class Row:
    """A run in the list."""

    run: Run
    name: str
    sign: str
    word: str
    status: str
    share: float | None  # of its steps, while it trains
    told: Told
    started: str
    is_chosen: bool


def runs_html(jobs: Jobs, run: Run | None, asked: Sequence[str] = ()) -> Markup:
    """The runs that fit what is asked, (order, words), as a list; the one that is chosen is marked. Pressing one
    chooses it."""
    order, words = (*asked, "", "")[:2]
    order = order if order in ORDERS else "newest"
    every = list_runs(jobs.root)
    found = search_runs(every, words)
    key, from_end = ORDERS[order]
    shown = sorted(found, key=key, reverse=from_end)[:MOST_LISTED]  # type: ignore[arg-type]
    places = {one.id: place for place, one in enumerate(jobs.queued(), 1)} if shown else {}
    rows = [row_of(one, places.get(one.id), one.id == (run.id if run else None)) for one in shown]
    told = _count(every, found, shown, order)
    return render("playground", "runs.html", say=say, page=page, rows=rows, order=order, count=told)


def row_of(run: Run, place: int | None, is_chosen: bool) -> Row:
    """A run in the list; `place`: among those that wait."""
    progress, told = run.progress(), _told(run)
    sign, word = SIGNS[progress.status].split(" ", 1)
    is_running = progress.status == "running" and bool(progress.steps_total)
    return Row(
        run=run,
        name=run.name,
        sign=sign,
        word=f"{word} ({place})" if place else word,
        status=progress.status,
        share=progress.step / progress.steps_total if is_running and progress.steps_total else None,
        told=told,
        started=moment(run.id),
        is_chosen=is_chosen,
    )


def _told(run: Run) -> Told:
    """What the list tells of a run; read again only where its log has grown."""
    try:
        log = run.events_path.stat()
    except OSError:
        return _told_at(run.path, 0, 0)
    return _told_at(run.path, log.st_size, log.st_mtime_ns)


@lru_cache(maxsize=2048)
def _told_at(path: Path, _size: int, _moment_ns: int) -> Told:
    run = Run(path)
    progress, is_readable = run.progress(), run.readable
    best = progress.heldout_loss
    return Told(
        best=NEVER if best is None else best,
        loss=loss_text(progress),
        change=change_text(progress),
        spark=spark(progress),
        method=run.config.method if is_readable else "–",
        data=run.config.stages[0].data.title if is_readable else "–",
    )


def loss_text(progress: Progress) -> str:
    """'4.05 → 2.47': the base's held-out loss and the run's."""
    base, best = progress.base_loss, progress.heldout_loss
    if best is None:
        return "–"
    return (f"{base:.2f} → " if base is not None else "") + f"{best:.2f}"


def change_text(progress: Progress) -> str:
    """'−39 %': how much lower than the base's it is."""
    base, best = progress.base_loss, progress.heldout_loss
    if base is None or best is None or base <= 0:
        return ""
    return f"{100 * (best - base) / base:+.0f}\u00a0%".replace("-", "−")


def spark(progress: Progress) -> str:
    """The held-out losses as the points of a line, the base's first; empty where fewer than two were measured."""
    base = progress.base_loss
    losses = [*([base] if base is not None else []), *(one.heldout_loss for one in progress.evaluations)]
    if len(losses) < 3 or not max(losses) < NEVER:
        return ""
    low, high = min(losses), max(losses)
    across, down = SPARK_WIDTH / (len(losses) - 1), (SPARK_HEIGHT - 3) / ((high - low) or 1)
    return " ".join(f"{place * across:.1f},{(high - loss) * down + 1.5:.1f}" for place, loss in enumerate(losses))


def _count(every: Sequence[Run], found: Sequence[Run], shown: Sequence[Run], order: str) -> str:
    """How many there are, how many fit, how many are shown."""
    many = counted(len(every), say.RUN)
    if not every:
        return ""
    if not found:
        return say.NONE_FITS.format(many=many)
    parts = [
        say.COUNT.format(many=many) if len(found) == len(every) else say.FITTING.format(found=len(found), many=many)
    ]
    if len(shown) < len(found):
        parts.append(say.CAPPED.format(order=say.ORDERS[order], shown=len(shown), found=len(found)))
    return "; ".join(parts)


@dataclass(frozen=True)
class Picked:
    """A run among those that are compared."""

    letter: str
    run: Run
    name: str
    loss: str
    colour: str
    width: float
    dashes: str


def picked_html(jobs: Jobs, _run: Run | None, asked: Sequence[str] = ()) -> Markup:
    """The runs of these ids on one picture, and in which settings they differ."""
    found = [run for name in dict.fromkeys(asked) if (run := jobs.find(name)) and run.readable]
    shown = found[:MOST_PICKED]
    letters = dict(zip(LETTERS, shown, strict=False))
    styles = [style for style, _letter in zip(cycle(STYLES[1:]), letters, strict=False)]
    picked = [
        Picked(letter, run, run.name, loss_text(run.progress()), *style)
        for (letter, run), style in zip(letters.items(), styles, strict=True)
    ]
    words = say.PICKED.format(many=counted(len(found), say.RUN)) if len(shown) > 1 else say.PICK_MORE
    if len(found) > len(shown):
        words = say.TOO_MANY_PICKED.format(most=MOST_PICKED, many=len(found))
    return render(
        "playground",
        "picked.html",
        say=say,
        words=words,
        picked=picked,
        chart=curves(letters) if len(shown) > 1 else "",
        notes=_notes(shown),
        differences=_differences(shown) if len(shown) > 1 else [],
    )


def _differences(runs: Sequence[Run]) -> list[Difference]:
    """What they differ in beside their names, which stand above."""
    return [one for one in config_diff(*(run.pinned for run in runs)) if one.field != "name"]


def curves(runs: Mapping[str, Run]) -> Markup:
    """The held-out losses of runs by the name of their line; the base's, where it is one and the same."""
    progresses = {name: run.progress() for name, run in runs.items()}
    lines = {name: [(e.step, e.heldout_loss) for e in one.evaluations] for name, one in progresses.items()}
    last = max((points[-1][0] for points in lines.values() if points), default=1)
    bases = {one.base_loss for one in progresses.values() if one.evaluations}
    base = bases.pop() if len(bases) == 1 else None
    level: list[tuple[float, float]] = [] if base is None else [(0.0, base), (float(last), base)]
    return line_chart(
        {say.BASE: level, **lines},
        title=say.CURVES,
        x_title=say.STEP,
        x_limits=(0, last),
        values=True,
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
    )


def _notes(runs: Sequence[Run]) -> list[str]:
    """Why the lines of these runs may not be comparable."""
    notes = []
    if len({_measured_on(run) for run in runs}) > 1:
        notes.append(say.OTHER_ROWS)
    if any(len(run.config.stages) > 1 for run in runs):
        notes.append(say.STAGED)
    return notes


def _measured_on(run: Run) -> object:
    """What the held-out rows of a run follow from."""
    started = run.progress().started
    told = (started.data_sha256, started.heldout_rows) if started else None
    return told, tuple((repr(stage.data), stage.learn) for stage in run.config.stages)


def deleted_html(jobs: Jobs, _run: Run | None = None) -> Markup:
    """The runs that can be restored."""
    every = jobs.deleted()
    many, size = counted(len(every), say.DELETED_RUN), size_text(sum(one.bytes for one in every))
    rows = [(one.run, one.run.name, size_text(one.bytes), moment(one.run.id)) for one in every]
    return render("playground", "deleted.html", say=say, rows=rows, count=say.BIN_COUNT.format(many=many, size=size))


def chosen_run_html(run: Run | None) -> Markup:
    """The place of the run that is chosen in the head; `live` fills in how it goes."""
    return render("playground", "chosen_run.html", run=run, say=page)


def run_choices(runs: list[Run]) -> list[tuple[str, str]]:
    """Label and id of each run, for a dropdown."""
    readable = [run for run in runs if run.readable]
    # a run without a name of its own is called by its method already
    methods = [f" · {run.config.method}" if run.given_name else "" for run in readable]
    return [(f"{run.name}{method} · {moment(run.id)}", run.id) for run, method in zip(readable, methods, strict=True)]
