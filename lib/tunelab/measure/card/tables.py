"""A card's facts as tables of text, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tunelab.measure.card.facts import Changed, Cost, RunCard, Setting, StageData, Trained
from tunelab.measure.card.shown import sentence
from tunelab.measure.metrics import NAMED
from tunelab.measure.units import duration, size
from tunelab.run.report_words import ability_in_words, memorised_in_words, titled
from tunelab.run.reports import Compared, Report


class Table(NamedTuple):
    """A table as it stands on the page; the first cell of a row names it."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    ends_in_words: bool = False  # the last column is no figure


FIGURES = ["Base", "Tuned", "Change", "95 % interval", "Verdict"]


STANDING = {
    "better": "tuned is better",
    "worse": "tuned is worse",
    "different": "tuned is different",
    "not enough evidence": "not enough evidence",
}


def key_figures(card: RunCard) -> list[tuple[str, str]]:
    """The few figures that stand beside the result."""
    report, cost = card.report, card.cost
    found = []
    if report and (main := report.main) and report.main_metric:
        name = titled(report.main_metric, main).removesuffix(", %")
        found.append((f"{name}, base → tuned", f"{main.base:.1f} → {main.tuned:.1f}"))
    if report:
        loss, general = report.heldout_loss, report.general_loss.change
        found.append(("held-out loss, base → tuned", f"{loss.base:.3f} → {loss.tuned:.3f}"))
        found.append(("forgetting, nats per token", f"{general.value:+.3f}"))
    elif card.trained.heldout_loss is not None:
        found.append(("held-out loss while training", f"{card.trained.heldout_loss:.3f}"))
    found += [
        ("training", _time(cost.training_seconds)),
        ("peak memory", _bytes(cost.peak_memory_bytes)),
        ("size of the result", _bytes(cost.result_bytes)),
    ]
    return [(name, value) for name, value in found if value]


def metrics(report: Report) -> Table:
    """Every metric, base against tuned; the loss last."""
    rows = [
        _figure_row(_named(titled(name, figure), name == report.main_metric), figure, 1, _direction(name, figure))
        for name, figure in report.metrics.items()
    ]
    for row, name in zip(rows, report.metrics, strict=True):
        if name == report.main_metric:  # also where it was corrected for other runs judged at once
            row[-1] = str(report.verdict)
    loss = _figure_row("held-out loss, nats per token", report.heldout_loss, 3, "lower is better")
    return Table(f"Base and tuned model on the same {report.rows:,} rows", ["Metric", *FIGURES], [*rows, loss], True)


def _named(title: str, main: bool) -> str:
    return f"{title} (the task's metric)" if main else title


def _direction(name: str, figure: Compared) -> str:
    """What is to be known of a metric's direction; empty where more is better."""
    metric = NAMED.get(name)
    if figure.higher_is_better is None or (metric is not None and metric.higher_is_better is None):
        return "neither is better"
    return "" if figure.higher_is_better else "lower is better"


def _figure_row(name: str, figure: Compared, digits: int, direction: str) -> list[str]:
    change = figure.change
    verdict = figure.verdict
    if direction == "neither is better":
        verdict_said = "no clear change" if verdict == "not enough evidence" else "changed"
    else:
        verdict_said = verdict
    return [
        f"{name} ({direction})" if direction else name,
        f"{figure.base:.{digits}f}",
        f"{figure.tuned:.{digits}f}",
        f"{change.value:+.{digits}f}",
        f"{change.low:+.{digits}f} to {change.high:+.{digits}f}",
        verdict_said,
    ]


def baselines(report: Report) -> Table | None:
    """Who else answered the same rows, and what tuned gains over them."""
    name = report.main_metric
    if name is None or not report.baselines:
        return None
    main = report.metrics[name]
    rows = [["tuned model", f"{main.tuned:.1f}", "", "", ""]]
    for who, figure in [("base", main), *((o.name, o.metrics[name]) for o in report.baselines if name in o.metrics)]:
        change = figure.change
        rows.append(
            [
                who,
                f"{figure.base:.1f}",
                f"{change.value:+.1f}",
                f"{change.low:+.1f} to {change.high:+.1f}",
                STANDING[report.verdict if figure is main else figure.verdict],
            ]
        )
    title = titled(name, main)
    columns = ["Who answers", title[:1].upper() + title[1:], "Tuned gains", "95 % interval", "Verdict"]
    return Table(f"The same {report.rows:,} rows, answered by others", columns, rows, True)


def forgetting(report: Report) -> list[Table]:
    """General ability before and after."""
    name = f"loss on {report.probe_rows} general instructions"
    loss = _figure_row(name, report.general_loss, 3, "a rise is forgetting")
    found = [Table("General instructions, nats per token", ["What", *FIGURES], [loss], True)]
    categories = report.ability.categories if report.ability else {}
    rows = [[name, f"{one.questions}", f"{one.before:.0f}", f"{one.after:.0f}"] for name, one in categories.items()]
    if rows:
        found.append(Table("General questions, % right", ["Category", "Questions", "Base", "Tuned"], rows))
    return found


def forgetting_in_words(report: Report) -> list[str]:
    """What questions, training rows and harmful requests say, a sentence each."""
    lines = [*ability_in_words(report), *memorised_in_words(report)]
    lines += [report.safety.sentence] if report.safety else []
    return [sentence(line) for line in lines]


def counts(changed: Changed) -> str:
    """How many rows rose, fell and stayed."""
    stayed = f"{changed.same:,} stayed the same"
    return f"By {changed.metric}, {changed.better:,} rows rose, {changed.worse:,} fell and {stayed}."


def slices(changed: Changed) -> Table | None:
    rows = [[s.title, f"{s.rows:,}", f"{s.base:.1f}", f"{s.tuned:.1f}", s.verdict] for s in changed.slices]
    columns = ["Rows", "How many", "Base", "Tuned", "Verdict"]
    return Table(f"Groups of rows by {changed.metric}", columns, rows, True) if rows else None


def words(changed: Changed) -> Table | None:
    each = [(one, "larger") for one in changed.more_said] + [(one, "smaller") for one in changed.less_said]
    rows = [[one.word, f"{one.base:,}", f"{one.tuned:,}", said] for one, said in each]
    columns = ["Word", "Base", "Tuned", "Share in the tuned answers"]
    return Table("Words with another share of all that is said", columns, rows, True) if rows else None


def labels(changed: Changed) -> Table | None:
    rows = [[one.title, f"{one.base:,}", f"{one.tuned:,}", f"{one.judged:,}"] for one in changed.labels]
    return Table("What rules find in the answers", ["Answers that", "Base", "Tuned", "Of"], rows) if rows else None


def data(stage: StageData) -> list[tuple[str, str]]:
    """What is known of a stage's rows, by name."""
    found = [("source", stage.source), ("learned as", stage.learn)]
    if stage.rows is not None and stage.heldout_rows is not None:
        found += [("rows trained on", f"{stage.rows:,}"), ("rows held out", f"{stage.heldout_rows:,}")]
    found.append(("held out by", stage.held_out_by))
    found += [("columns", ", ".join(f"{role} ← {column}" for role, column in stage.columns.items()))]
    found += [
        ("fixes", ", ".join(stage.fixes)),
        ("replay", stage.replay or ""),
        ("sha256 of all rows", stage.sha256 or ""),
    ]
    return [(name, value) for name, value in found if value]


def trained_rows(facts: Trained) -> list[tuple[str, str]]:
    """What was trained, by name."""
    share = ""
    if facts.trainable_parameters is not None and facts.total_parameters:
        of = facts.trainable_parameters / facts.total_parameters
        share = f"{facts.trainable_parameters:,} of {facts.total_parameters:,} ({of:.2%})"
    published = facts.base_published_as if facts.base_published_as != facts.base else None
    found = [
        ("technique", facts.method),
        ("base", f"{facts.base}, published as {published}" if published else facts.base),
        ("base holds", facts.base_note),
        ("revision", facts.revision),
        ("sha256 of the base", facts.base_sha256),
        ("base held in", facts.precision),
        ("trained parameters", share),
        ("optimiser steps", f"{facts.steps:,} of {facts.steps_total:,}" if facts.steps_total else None),
        ("learning rate", ", ".join(f"{rate:g}" for rate in facts.learning_rates)),
        ("held-out loss, nats per token", _loss(facts)),
        ("made elsewhere", facts.imported_from),
        ("started from", ", which started from ".join(facts.started_from)),
        ("machine", _machine(facts)),
    ]
    return [(name, value) for name, value in found if value]


def _loss(facts: Trained) -> str:
    """As it was measured while training."""
    if facts.heldout_loss is None:
        return ""
    base = f" (base: {facts.base_loss:.4f})" if facts.base_loss is not None else ""
    return f"{facts.heldout_loss:.4f}{base}"


def _machine(facts: Trained) -> str | None:
    if facts.device is None:
        return None
    threads = f", {facts.threads} thread{'s' * (facts.threads != 1)}" if facts.threads and facts.device == "cpu" else ""
    why = f" ({facts.why_plain})" if facts.why_plain else ""
    computed = "fast computation" if facts.fast else f"plain computation{why}"
    return f"{facts.device}{threads}, {computed}, attention: {facts.attention}"


def settings(every: Sequence[Setting]) -> list[tuple[str, list[Setting]]]:
    """Settings by group."""
    groups = dict.fromkeys(one.group for one in every)
    return [(group, [one for one in every if one.group == group]) for group in groups]


def cost(facts: Cost) -> Table | None:
    rows = [[name, value] for name, value in cost_rows(facts)]
    return Table("What the run took", ["What", "How much"], rows, True) if rows else None


def cost_rows(facts: Cost) -> list[tuple[str, str]]:
    """What a run took, by name."""
    found = [
        ("training", _time(facts.training_seconds)),
        ("measuring the held-out loss on the way", _time(facts.evaluating_seconds)),
        ("in all", _forecast(_time(facts.total_seconds), _time(facts.forecast_seconds))),
        ("tokens", f"{facts.tokens:,}" if facts.tokens else ""),
        ("tokens per second", f"{facts.tokens_per_second:,.0f}" if facts.tokens_per_second else ""),
        ("peak memory", _forecast(_bytes(facts.peak_memory_bytes), _bytes(facts.forecast_memory_bytes))),
        ("peak memory of the GPU", _bytes(facts.gpu_peak_memory_bytes)),
        ("size of the result", _bytes(facts.result_bytes)),
        ("measuring the result", _time(facts.measuring_seconds)),
    ]
    return [(name, value) for name, value in found if value]


def _forecast(value: str, forecast: str) -> str:
    return f"{value} (forecast: {forecast})" if value and forecast else value


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _bytes(count: int | None) -> str:
    return size(count) if count else ""
