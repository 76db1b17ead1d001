"""What the page shows, as plain data made from runs and comparisons. Knows nothing of Gradio."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunelab import Answer, Ladder, ModelSpec, Progress, Run
from tunelab.measure.ladder import PAGE_FILE
from tunelab.measure.markup import render
from tunelab.measure.pages import ladder_body
from tunelab.run.events import Evaluated, Finished, RolledBack

if TYPE_CHECKING:
    from markupsafe import Markup

# word and sign together: nothing is told by colour alone
SIGNS = {
    "queued": "◔ queued",
    "running": "▶ training",
    "finished": "✓ finished",
    "stopped": "■ stopped",
    "paused": "‖ paused",
    "failed": "✕ failed",
    "lost": "? lost",
    "unreadable": "✕ unreadable",
}
CURVE_COLUMNS = ["Step", "Train loss (mean)", "Held-out loss", "Metric", "General loss", ""]
RUN_COLUMNS = ["Run", "Status", "Held-out loss", "Method", "Data", "Started", "Id"]


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
    base = progress.base_loss
    measured = progress.kept or (progress.evaluations[-1] if progress.evaluations else None)
    done = [one for one in progress.steps if one.step <= progress.step]
    heldout = "–" if measured is None else f"{measured.heldout_loss:.3f}"
    speed = progress.tokens_per_second
    left = progress.seconds_left
    return Figures(
        step=f"{progress.step} of {progress.steps_total}" if progress.steps_total else "–",
        loss=f"{done[-1].loss:.3f}" if done else "–",
        heldout=heldout,
        base=f"(base {base:.3f})" if base is not None else "",
        speed=f"{speed:,.0f} tokens/s" if speed else "–",
        left=duration(left) if left is not None else "–",
    )


def status_line(progress: Progress, place: int | None) -> str:
    """Sign, word and what there is to say about a run, each said once."""
    if place:
        return f"◔ queued, number {place} in line"
    sign, word = SIGNS[progress.status].split(" ", 1)
    if progress.status == "running" and progress.steps:
        return f"{sign} {word}"  # the step stands below
    if progress.message.startswith(word):
        return f"{sign} {progress.message}"
    return f"{sign} {word} · {progress.message}"


def duration(seconds: float) -> str:
    """Time for people: '40 s', '3 min 20 s'."""
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60:02d} s"


def progress_html(run: Run | None, progress: Progress | None, place: int | None) -> Markup:
    """The status line, the progress bar and the figures of one run."""
    if run is None or progress is None:
        return render("playground", "no_run.html")
    share = progress.step / progress.steps_total if progress.steps_total else 0.0
    if progress.status == "finished":
        share = 1.0
    values = figures(progress)
    shown = [("step", values.step, ""), ("loss", values.loss, ""), ("held-out loss", values.heldout, values.base)]
    shown.append(("speed", values.speed, ""))
    if progress.status in ("running", "queued"):
        shown.append(("time left", values.left, ""))
    status = status_line(progress, place)
    return render("playground", "progress.html", run=run, status=status, share=share, figures=shown)


def curve_text(progress: Progress) -> list[list[str]]:
    """What was measured while training, columns as CURVE_COLUMNS: the charts for those who can't see them."""
    rows, kept = [], progress.kept
    for e in progress.evaluations:
        near = [s.loss for s in progress.steps if e.step - 10 < s.step <= e.step]
        mean = f"{sum(near) / len(near):.3f}" if near else "–"
        metric = "–" if e.metric_value is None else f"{e.metric} {e.metric_value:.1f}{_of_base(e.base_metric, 1)}"
        general = "–" if e.general_loss is None else f"{e.general_loss:.3f}{_of_base(e.base_general_loss, 3)}"
        rows.append([str(e.step), mean, f"{e.heldout_loss:.3f}", metric, general, _mark(e, kept)])
    return rows


def _of_base(value: float | None, digits: int) -> str:
    return "" if value is None else f" (base {value:.{digits}f})"


def _mark(evaluation: Evaluated, kept: Evaluated | None) -> str:
    best = "lowest" if evaluation.best_by == "loss" else "best"
    if evaluation is kept:
        return f"{best}: kept" if evaluation.best else "kept"
    return f"{best} so far" if evaluation.best else ""


def notes_text(run: Run, progress: Progress) -> str:
    """What the run found out before its first step, what it started from and where its result lies, as Markdown."""
    started = progress.started
    if started is None:
        return ""
    share = started.trainable_parameters / started.total_parameters
    lines = [
        f"{started.trainable_parameters:,} trained parameters ({share:.1%} of {started.total_parameters:,})",
        f"{started.quantization if started.quantization != 'none' else 'not quantised'}, computed in {started.dtype} "
        f"on {started.device} with {started.threads} threads",
        f"{sum(started.train_rows):,} rows to train on, {sum(started.heldout_rows):,} held out",
        *([f"started from {' ← '.join(run.lineage)}"] if run.lineage else []),
        *started.notes,
        *(f"from step {notice.step}: {notice.message}" for notice in progress.notices),
        *([taken] if (taken := memory_text(progress)) else []),
        *([f"adapter: {run.adapter_path}"] if run.has_adapter else []),
    ]
    return "\n".join(f"- {plain_markdown(line)}" for line in lines)


def stage_results(run: Run | None, progress: Progress) -> tuple[list[tuple[str, int]], int | None]:
    """The stages of a finished run whose results are kept, as (name, number), and which of them the run is now. Nothing
    for runs of one stage."""
    if run is None or progress.status != "finished" or len(run.config.stages) < 2:
        return [], None
    kept = [done.stage for done in progress.stages if run.stage_path(done.stage).is_dir()]
    stages = run.config.stages
    choices = [(f"stage {number + 1}: {stages[number].name or stages[number].data.title}", number) for number in kept]
    ending = progress.ending
    return choices, ending.stage if isinstance(ending, RolledBack) else len(stages) - 1


def memory_text(progress: Progress) -> str:
    """What a finished run took at most, beside what was forecast; empty where that is not known."""
    started, ending = progress.started, progress.ending
    if started is None or not isinstance(ending, Finished) or not ending.peak_memory_bytes:
        return ""
    taken = ending.gpu_peak_memory_bytes or ending.peak_memory_bytes  # as the forecast: of the device
    ahead = f" ({started.forecast_bytes / 1e9:.2f} GB were forecast)" if started.forecast_bytes else ""
    return f"memory taken: {taken / 1e9:.2f} GB{ahead}"


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return html.escape("".join(f"\\{c}" if c in r"\`*_{}[]()#+!|~<>" else c for c in text), quote=False)


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


def moment(identity: str) -> str:
    """When something was made, from its id: '11-24 10:15'."""
    if not identity[:8].isdigit():
        return identity
    return f"{identity[4:6]}-{identity[6:8]} {identity[9:11]}:{identity[11:13]}"


def run_choices(runs: list[Run]) -> list[tuple[str, str]]:
    """Label and id of each run, for a dropdown."""
    readable = [run for run in runs if run.readable]
    # a run without a name of its own is called by its method already
    methods = [f" · {run.config.method}" if run.given_name else "" for run in readable]
    return [(f"{run.name}{method} · {moment(run.id)}", run.id) for run, method in zip(readable, methods, strict=True)]


def answer_footer(answer: Answer) -> str:
    """What stands under an answer, as Markdown."""
    state = {None: "…", "end of turn": "ended by itself", "length": "cut at the length", "cancelled": "cancelled"}
    speed = f"{answer.tokens} tokens in {answer.seconds:.1f} s" if answer.tokens else ""
    facts = " · ".join(part for part in (speed, state[answer.stop_reason]) if part)
    return f"{facts}  \n{plain_markdown(answer.provenance.text)}"


def rung_choices(rungs: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and name of each rung of a ladder, for a choice."""
    spec = ModelSpec(repo_id="starter")
    return [
        (technique.title_on(spec.model_copy(update={"quantization": quantization})), name)
        for name, (technique, quantization) in rungs.items()
    ]


def ladder_choices(ladders: list[Ladder]) -> list[tuple[str, str]]:
    """Label and id of each ladder, for a dropdown."""
    return [(f"{one.config.data.title} · {one.config.steps} steps · {moment(one.id)}", one.id) for one in ladders]


def ladder_html(ladder: Ladder) -> Markup:
    """Chart and table of a ladder as it stands, and where its page lies."""
    return render("playground", "ladder.html", body=ladder_body(ladder), page_file=ladder.path / PAGE_FILE)
