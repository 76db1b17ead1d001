"""Results as tables and static pages that open without a server. `templates/*.html` write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from tunelab.measure.charts import interval_chart
from tunelab.measure.markup import render
from tunelab.measure.units import size
from tunelab.run.report_words import titled
from tunelab.run.reports import Compared, Report

if TYPE_CHECKING:
    from tunelab.measure.ladder import Ladder, Rung

READING = (
    "Gain is tuned minus base over the same rows, with its 95 % BCa bootstrap interval; an interval that contains 0 "
    "proves nothing. Intervals are of each rung alone, verdicts corrected for all of them judged at once (Holm). "
    "Forgetting is the rise of the loss, in nats per token, on general instructions that are in no training set. "
    "Peak memory is that of the whole training process, libraries included; training is the time of the steps alone. A "
    "rung on a quantised base is compared with the quantised base."
)


def ladder_columns(ladder: Ladder) -> list[str]:
    """Headings of the ladder's table."""
    metric = _metric_title(ladder.rungs()) or "Score"
    return [
        "Technique", "Trained", "Size", "Peak memory", "Training", "Held-out loss", metric,
        "Gain [95 %]", "Forgetting [95 %]", "Verdict",
    ]  # fmt: skip


def ladder_table(ladder: Ladder) -> list[list[str]]:
    """The ladder's table as text: a row per base, then one per rung in the order they were asked for."""
    rungs = ladder.rungs()
    metric = _metric(rungs)
    measured = {rung.name: rung.report for rung in rungs if rung.report}
    said = dict(zip(measured, verdicts(list(measured.values())), strict=True))
    bases = {rung.base: rung.report for rung in rungs if rung.report}
    return [
        *(_base_row(name, report, metric) for name, report in bases.items()),
        *(_row(rung, metric, said.get(rung.name)) for rung in rungs),
    ]


def _base_row(name: str, report: Report, metric: str | None) -> list[str]:
    score = f"{report.metrics[metric].base:.1f}" if metric else ""
    said = "what those on it are compared with"
    return [f"Base ({name})", "0", "", "", "", f"{report.heldout_loss.base:.3f}", score, "", "", said]


def _row(rung: Rung, metric: str | None, verdict: str | None) -> list[str]:
    report = rung.report
    main = report.metrics[metric] if report and metric else None
    return [
        rung.title,
        f"{rung.trainable_parameters:,} ({rung.trainable_share:.2%})" if rung.trainable_parameters is not None else "",
        size(rung.result_bytes) if rung.result_bytes is not None else "",
        _memory(rung),
        f"{rung.seconds:,.0f} s" if rung.seconds is not None else "",
        f"{report.heldout_loss.tuned:.3f}" if report else "",
        f"{main.tuned:.1f}" if main else "",
        f"{main.change.value:+.1f} [{main.change.low:+.1f}, {main.change.high:+.1f}]" if main else "",
        _change(report.general_loss) if report else "",
        verdict or f"{rung.status}: {rung.message}".removesuffix(": "),
    ]


def _memory(rung: Rung) -> str:
    if rung.peak_memory_bytes is None:
        return ""
    on_gpu = f" + {rung.gpu_peak_memory_bytes / 1e9:.2f} GB on the GPU" if rung.gpu_peak_memory_bytes else ""
    return f"{rung.peak_memory_bytes / 1e9:.2f} GB{on_gpu}"


def _change(figure: Compared) -> str:
    change = figure.change
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def verdicts(reports: Sequence[Report]) -> list[str]:
    """Whether each is better than its base, corrected for all of them: of many techniques that change nothing one looks
    better by luck. Says so where a technique stays at the base's level."""
    from tunelab.measure.statistics import ALPHA, holm

    found = []
    for report, p in zip(reports, holm([_p(report.main or report.heldout_loss) for report in reports]), strict=True):
        said = {
            "better": "better than the base",
            "worse": "worse than the base",
            "different": "different from the base",
            "not enough evidence": "not clearly different from the base",
        }[report.verdict]
        if report.verdict != "not enough evidence" and p > ALPHA:
            said = f"not clearly different from the base, as one of {len(reports)} judged at once"
        loss = report.heldout_loss.verdict
        found.append(said if loss == "better" else f"{said}; its held-out loss is not clearly lower")
    return found


def _p(figure: Compared) -> float:
    """Of no difference; where no test was made, what the interval says."""
    return figure.change.p if figure.change.p is not None else float(figure.verdict == "not enough evidence")


def _metric(rungs: Sequence[Rung]) -> str | None:
    return next((rung.report.main_metric for rung in rungs if rung.report), None)


def _metric_title(rungs: Sequence[Rung]) -> str | None:
    """The task's metric for people, with a capital where it is a word."""
    name = _metric(rungs)
    figure = next((rung.report.metrics[name] for rung in rungs if rung.report and name), None)
    title = titled(name, figure) if name and figure else None
    return f"{title[0].upper()}{title[1:]}" if title and title[1:2].islower() and title[:4] != "chrF" else title


def ladder_reading(ladder: Ladder) -> str:
    """How the table is read, and what its figures leave out."""
    return f"{READING} {_cut(ladder)}".strip()


def _cut(ladder: Ladder) -> str:
    """Whose answers were cut before their end, in a sentence; empty where none was."""
    rungs = [(rung, rung.report) for rung in ladder.rungs() if rung.report]
    counts = {f"base ({rung.base})": report.cut_answers.base for rung, report in rungs}
    counts |= {rung.title: report.cut_answers.tuned for rung, report in rungs}
    cut = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    length = ladder.config.max_new_tokens
    return f"Answers cut at {length} tokens, and scored as far as they go: {cut}." if cut else ""


def ladder_chart(ladder: Ladder) -> Markup:
    """The gain of every measured rung over its base with its interval, the base as the line at 0; an `<svg>`, or ""
    before there is anything."""
    rungs = [rung for rung in ladder.rungs() if rung.report]
    metric = _metric_title(rungs)
    if not rungs:
        return Markup("")
    figures = [(rung.title, report.main or report.heldout_loss) for rung in rungs if (report := rung.report)]
    rows = [(title, figure.change.value, figure.change.low, figure.change.high) for title, figure in figures]
    what = f"{metric}: gain" if metric else "Held-out loss: change"
    return interval_chart(rows, title=f"{what} over the base, with 95 % intervals", reference=0.0)


def ladder_body(ladder: Ladder) -> Markup:
    """Chart, table and how to read them: what the page and the app show of a ladder."""
    return render(
        __package__,
        "ladder.html",
        chart=ladder_chart(ladder),
        columns=ladder_columns(ladder),
        rows=ladder_table(ladder),
        reading=ladder_reading(ladder),
    )


def ladder_page(ladder: Ladder) -> Markup:
    """The ladder as one HTML file: what was asked, the chart, the table."""
    config = ladder.config
    rows = next((rung.report.rows for rung in ladder.rungs() if rung.report), config.rows)
    asked = (
        f"Every technique on the same rows: {config.data.title}, {config.steps} steps of {config.batch_size} rows, "
        f"seed {config.seed}, measured on {rows} held-out rows. Base: {config.model.repo_id}."
    )
    return render(__package__, "ladder_page.html", data=config.data.title, asked=asked, body=ladder_body(ladder))
