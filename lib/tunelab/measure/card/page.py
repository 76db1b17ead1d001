"""A card as one HTML page without scripts and without anything from elsewhere: `templates/card.html` writes it.

Whatever a run, its rows and its notes say is text there: the templates escape every value.
"""

from __future__ import annotations

import time

from markupsafe import Markup

from tunelab.measure.card import tables
from tunelab.measure.card.facts import Curve, RunCard
from tunelab.measure.changes.diff import both_sides
from tunelab.measure.charts import interval_chart, line_chart
from tunelab.measure.markup import render
from tunelab.run.report_words import titled
from tunelab.run.reports import Compared, Report

GENERATOR = "tunelab run card"
SAME_SCALE = ("%", "points")  # figures of 0 to 100, which one axis can hold


def page_of(card: RunCard) -> Markup:
    """The whole page."""
    return render(
        __package__,
        "card.html",
        generator=GENERATOR,
        card=card,
        date=_date(card.trained.started_unix_seconds or card.written_unix_seconds),
        written=_date(card.written_unix_seconds),
        key_figures=tables.key_figures(card),
        metrics=tables.metrics(card.report) if card.report else None,
        metrics_chart=metrics_chart(card.report) if card.report else "",
        baselines=tables.baselines(card.report) if card.report else None,
        baselines_chart=baselines_chart(card.report) if card.report else "",
        losses_chart=losses_chart(card.report) if card.report else "",
        forgetting=tables.forgetting(card.report) if card.report else (),
        forgetting_said=tables.forgetting_in_words(card.report) if card.report else (),
        changed=_changed(card),
        data=[(stage, tables.data(stage)) for stage in card.stages],
        trained=tables.trained_rows(card.trained),
        settings=tables.settings(card.settings),
        curves=[(curve_chart(curve), curve.said) for curve in card.curves],
        cost=tables.cost(card.cost),
        shows_rows=shows_rows(card),
    )


def shows_rows(card: RunCard) -> bool:
    """Whether rows of the data stand on the card."""
    findings = [found for stage in card.stages if stage.examined for found in stage.examined.findings]
    changed = card.changed
    return any(found.examples for found in findings) or bool(changed and (changed.improved or changed.worsened))


def _date(unix_seconds: float) -> str:
    at = time.gmtime(unix_seconds)  # a day without a 0 before it is no format on Windows
    return f"{at.tm_mday} {time.strftime('%B %Y', at)}" if unix_seconds else ""


def metrics_chart(report: Report) -> Markup:
    """What each metric gained over the base, with its interval; "" where nothing was answered."""
    figures = [(name, figure) for name, figure in report.metrics.items() if figure.unit in SAME_SCALE]
    rows = [_interval(titled(name, figure).removesuffix(", %"), figure) for name, figure in figures]
    if not rows:
        return Markup("")
    return interval_chart(rows, title="Gain over the base in points, with 95 % intervals", reference=0.0)


def baselines_chart(report: Report) -> Markup:
    """What tuned gains over each of those who answered the same rows."""
    name = report.main_metric
    others = [(one.name, one.metrics[name]) for one in report.baselines if name in one.metrics] if name else []
    if not others or name is None:
        return Markup("")
    main = report.metrics[name]
    rows = [_interval(f"over {who}", figure) for who, figure in (("the base", main), *others)]
    title = f"{titled(name, main)}: what tuned gains over others, with 95 % intervals"
    return interval_chart(rows, title=title, reference=0.0, reference_name="as good")


def losses_chart(report: Report) -> Markup:
    """What the loss did on held-out rows and on general instructions."""
    rows = [
        _interval("held-out rows", report.heldout_loss),
        _interval("general instructions", report.general_loss),
    ]
    title = "Change of the loss per token in nats, with 95 % intervals: left is learned, right is forgotten"
    return interval_chart(rows, title=title, reference=0.0)


def _interval(name: str, figure: Compared) -> tuple[str, float, float, float]:
    return (name, figure.change.value, figure.change.low, figure.change.high)


def curve_chart(curve: Curve) -> Markup:
    """A curve as an `<svg>`."""
    return line_chart(
        curve.series,
        title=curve.title,
        x_title="step",
        x_limits=(0, curve.last_step),
        y_limits=curve.limits,
        marks=curve.stages,
    )


def _changed(card: RunCard) -> dict[str, object] | None:
    changed = card.changed
    if changed is None:
        return None
    return {
        "counts": tables.counts(changed),
        "improved": [(row, both_sides(row.base, row.tuned)) for row in changed.improved],
        "worsened": [(row, both_sides(row.base, row.tuned)) for row in changed.worsened],
        "slices": tables.slices(changed),
        "words": tables.words(changed),
        "labels": tables.labels(changed),
        "notes": changed.notes,
    }
