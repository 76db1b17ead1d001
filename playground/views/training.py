"""How a run goes: its status, figures, charts and notes."""

from __future__ import annotations

import math
import time as clock
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from playground.english import page
from playground.english import train as say
from playground.views.techniques import technique_picture
from playground.views.texts import duration, plain_markdown
from tunelab import TECHNIQUES, ModelSpec, Progress, Run, RunConfig, Stage, diagnose
from tunelab.data.split import stamps_of
from tunelab.machine import hardware, libraries
from tunelab.measure.changes.scrub import answers_over_steps
from tunelab.measure.charts import training_picture
from tunelab.measure.markup import render
from tunelab.run.events import Evaluated, Finished, RolledBack
from tunelab.train.forecast import Forecast, Unforeseen
from tunelab.train.memory import read_and_forecast

if TYPE_CHECKING:
    from markupsafe import Markup

    from playground.jobs import Jobs
    from playground.material import Material


FORECAST_SECONDS = 600  # how long a forecast holds at most: other work on the machine comes and goes


@dataclass(frozen=True)
class Figures:
    """The numbers above the chart, as text."""

    step: str
    loss: str
    heldout: str
    base: str
    speed: str
    left: str


def figures(progress: Progress) -> Figures:
    """Step, losses, speed and time left; a dash for what is not known yet."""
    base, speed, left = progress.base_loss, progress.tokens_per_second, progress.seconds_left
    measured = progress.kept or (progress.evaluations[-1] if progress.evaluations else None)
    done = [one for one in progress.steps if one.step <= progress.step]
    heldout = "–" if measured is None else f"{measured.heldout_loss:.3f}"
    return Figures(
        step=say.STEP_OF.format(step=progress.step, steps=progress.steps_total) if progress.steps_total else "–",
        loss=f"{done[-1].loss:.3f}" if done else "–",
        heldout=heldout,
        base=say.OF_BASE.format(loss=f"{base:.3f}") if base is not None else "",
        speed=say.SPEED.format(tokens=f"{speed:,.0f}") if speed else "–",
        left=duration(left) if left is not None else "–",
    )


def status_line(progress: Progress, waiting: str | None) -> str:
    """Sign, word and what there is to say about a run, each said once; `waiting`: its place and when its turn comes."""
    if waiting:
        return say.WAITS.format(sign=say.SIGNS["queued"], waiting=waiting)
    sign, word = say.SIGNS[progress.status].split(" ", 1)
    if progress.status == "running" and progress.steps:
        return f"{sign} {word}"  # the step stands below
    if progress.message.startswith(word):
        return f"{sign} {progress.message}"
    return f"{sign} {word} · {progress.message}"


def progress_html(run: Run | None, progress: Progress | None, waiting: str | None) -> Markup:
    """The status line, the progress bar and the figures of one run."""
    if run is None or progress is None:
        return render("playground", "no_run.html", say=say)
    share = progress.step / progress.steps_total if progress.steps_total else 0.0
    if progress.status == "finished":
        share = 1.0
    values = figures(progress)
    names = [name for name in say.FIGURES if name != "left" or progress.status in ("running", "queued")]
    shown = [(say.FIGURES[name], getattr(values, name), values.base if name == "heldout" else "") for name in names]
    told = {"status": status_line(progress, waiting), "share": share, "figures": shown, "found": diagnose(run)}
    return render("playground", "progress.html", run=run, page=page, **told)


def status_html(jobs: Jobs, run: Run | None) -> Markup:
    """How a run goes, with its place in the queue."""
    if run is None:
        return progress_html(None, None, None)
    return progress_html(run, run.progress(), _waiting(jobs, run))


def _waiting(jobs: Jobs, run: Run) -> str | None:
    found = jobs.waiting(run)
    return found.words if found else None


def chosen_html(jobs: Jobs, run: Run | None) -> Markup:
    """The run that is chosen and its status, for the head of every room."""
    if run is None:
        return render("playground", "chosen.html", run=None, status="", say=page)
    progress = run.progress()
    status = status_line(progress, _waiting(jobs, run))
    if progress.status == "running" and progress.steps_total:
        status += say.AT_STEP.format(step=progress.step, steps=progress.steps_total)
    return render("playground", "chosen.html", run=run, status=status, say=page)


def chart_html(jobs: Jobs, run: Run | None) -> Markup:
    """What a run measured over its steps."""
    if run is None:
        return render("playground", "charts.html", charts=[])
    charts = training_picture(run.progress(), run.config if run.readable else None)
    return render("playground", "charts.html", charts=charts)


def samples_html(jobs: Jobs, run: Run | None) -> Markup:
    """Answers of a run while it trains: the base's and the newest, prompt by prompt."""
    return render("playground", "samples.html", prompts=answers_over_steps(run) if run else (), say=say)


def curve_text(progress: Progress) -> list[list[str]]:
    """What was measured while training, columns as `CURVE_COLUMNS`: the charts for those who can't see them."""
    rows, kept = [], progress.kept
    for e in progress.evaluations:
        near = [s.loss for s in progress.steps if e.step - 10 < s.step <= e.step]
        mean = f"{sum(near) / len(near):.3f}" if near else "–"
        metric = "–" if e.metric_value is None else f"{e.metric} {e.metric_value:.1f}{_of_base(e.base_metric, 1)}"
        general = "–" if e.general_loss is None else f"{e.general_loss:.3f}{_of_base(e.base_general_loss, 3)}"
        rows.append([str(e.step), mean, f"{e.heldout_loss:.3f}", metric, general, _mark(e, kept)])
    return rows


def _of_base(value: float | None, digits: int) -> str:
    return "" if value is None else f" {say.OF_BASE.format(loss=f'{value:.{digits}f}')}"


def _mark(evaluation: Evaluated, kept: Evaluated | None) -> str:
    kept_best, best = say.CURVE_MARKS["loss" if evaluation.best_by == "loss" else "metric"]
    if evaluation is kept:
        return kept_best if evaluation.best else say.KEPT
    return best if evaluation.best else ""


def notes_text(run: Run, progress: Progress) -> str:
    """What the run found out before its first step, what it started from and where its result lies, as Markdown."""
    started = progress.started
    if started is None:
        return ""
    share = started.trainable_parameters / started.total_parameters
    lines = [
        say.TRAINED_OF.format(
            trained=f"{started.trainable_parameters:,}", share=f"{share:.1%}", total=f"{started.total_parameters:,}"
        ),
        say.COMPUTED.format(
            quantization=started.quantization if started.quantization != "none" else say.NOT_QUANTISED,
            dtype=started.dtype,
            device=started.device,
            threads=started.threads,
        ),
        say.ROWS.format(train=f"{sum(started.train_rows):,}", heldout=f"{sum(started.heldout_rows):,}"),
        *([say.STARTED_FROM.format(runs=" ← ".join(run.lineage))] if run.lineage else []),
        *started.notes,
        *(say.NOTICED.format(step=notice.step, message=notice.message) for notice in progress.notices),
        *([taken] if (taken := memory_text(progress)) else []),
        *([say.ADAPTER.format(path=run.adapter_path)] if run.has_adapter else []),
    ]
    return "\n".join(f"- {plain_markdown(line)}" for line in lines)


def stage_results(run: Run | None, progress: Progress) -> tuple[list[tuple[str, int]], int | None]:
    """The stages of a finished run whose results are kept, as (name, number), and which of them the run is now. Nothing
    for runs of one stage."""
    if run is None or progress.status != "finished" or len(run.config.stages) < 2:
        return [], None
    kept = [done.stage for done in progress.stages if run.stage_path(done.stage).is_dir()]
    stages = run.config.stages
    names = {number: stages[number].name or stages[number].data.title for number in kept}
    choices = [(say.STAGE_RESULT.format(number=number + 1, name=name), number) for number, name in names.items()]
    ending = progress.ending
    return choices, ending.stage if isinstance(ending, RolledBack) else len(stages) - 1


def memory_text(progress: Progress) -> str:
    """What a finished run took at most, beside what was forecast; empty where that is not known."""
    started, ending = progress.started, progress.ending
    if started is None or not isinstance(ending, Finished) or not ending.peak_memory_bytes:
        return ""
    taken = ending.gpu_peak_memory_bytes or ending.peak_memory_bytes  # as the forecast: of the device
    ahead = say.MEMORY_FORECAST.format(forecast=started.forecast_bytes / 1e9) if started.forecast_bytes else ""
    return say.MEMORY_TAKEN.format(taken=taken / 1e9) + ahead


@dataclass(frozen=True)
class Ahead:
    """What training will take, in words; or why it can't begin."""

    words: str = ""
    details: str = ""
    refusal: str = ""
    seconds: float | None = None  # of the whole run, where they are known


def forecast_of(config: RunConfig, *, time: bool) -> Ahead:
    """What a configuration will take on this machine; with `time` some steps of it are computed. Reads its rows.

    Raises:
        UserError: data or model can't be read.
    """
    try:
        ahead = _foreseen(config.model_copy(update={"name": None}).model_dump_json(), time, *_stands(config))
    except Unforeseen as reason:
        return Ahead(words=str(reason))
    free = hardware.available_memory_bytes(ahead.device)
    is_timed = time and not ahead.untimed
    words = say.MEMORY.format(needed=ahead.total / 1e9, free=free / 1e9)
    if is_timed:
        words += f", {ahead.time_text}"
    if ahead.total > free:
        words += say.TOO_MUCH_MEMORY
    return Ahead(words, ahead.note(free), seconds=ahead.seconds_total if is_timed else None)


@lru_cache(maxsize=32)
def _foreseen(config: str, time: bool, *_stands: object) -> Forecast:
    """The forecast of a configuration, which takes a second or more: every page that opens asks for the same one."""
    libraries.load()
    return read_and_forecast(RunConfig.model_validate_json(config), time=time)


def _stands(config: RunConfig) -> tuple[object, ...]:
    """What a forecast follows from beside its configuration: files as they are now, and about how much memory there
    is."""
    named = [config.model.repo_id, *(s for one in config.stages for s in (one.data.source, one.data.heldout))]
    stamps = stamps_of([*named, *(one.replay.source for one in config.stages if one.replay)])
    return (*stamps, round(math.log(hardware.available_memory_bytes()), 1), clock.monotonic() // FORECAST_SECONDS)


def forecast_html(ahead: Ahead, *, waiting: bool = False) -> Markup:
    """A forecast; `waiting`: that of the time is still worked out."""
    return render("playground", "forecast.html", ahead=ahead, waiting=waiting, say=say)


def material_html(material: Material) -> Markup:
    """The data in hand in one line."""
    return render("playground", "material.html", material=material, say=say)


def stages_html(stages: tuple[Stage, ...]) -> Markup:
    """The stages that are trained before the data in hand."""
    return render("playground", "stages.html", stages=stages, say=say)


def technique_html(kind: str, quantization: str) -> Markup:
    """What a technique trains, in a sentence and a picture."""
    technique = TECHNIQUES[kind]
    quantized = quantization != "none" and kind != "full"
    title = technique().title_on(ModelSpec(repo_id="starter", quantization=quantization if quantized else "none"))
    picture = technique_picture(kind, quantized)
    return render("playground", "technique.html", title=title, summary=technique.summary, picture=picture)
