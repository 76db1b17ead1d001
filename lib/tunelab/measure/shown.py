"""What a notebook shows of answers, runs and results: `tunelab.show`, as HTML that needs no server and no style sheet.

    show(comparison), show(comparisons, wanted=answers)    answers side by side
    show(run), show(report)                                the verdict as a card, curves, figures
    show(rows)                                             rows of `preview` token by token: the loss mask
    show(chart)                                            a chart of `tunelab.measure.charts`

It looks the same in JupyterLab, Colab and on a page made of the notebook. Where styles are taken away, as they are from
notebooks that nobody has trusted yet, tables, ticks and marks are left: nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tunelab.answer.question import Answer, Comparison
from tunelab.data.previews import PreviewRow
from tunelab.measure.card import tables
from tunelab.measure.card.facts import Headline
from tunelab.measure.card.page import baselines_chart, metrics_chart
from tunelab.measure.card.said import headline_of, verdict_of
from tunelab.measure.changes.diff import Piece, both_sides
from tunelab.measure.charts import training_charts
from tunelab.measure.markup import render
from tunelab.run.report_words import in_words
from tunelab.run.reports import Report, read_report
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.measure.card.tables import Table

CELL = "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere;"
COLOURS = {"better": "#0d9488", "worse": "#dc2626", "open": "#d97706", "none": "#64748b"}
AGAINST_WANTED = "✓: as wanted. Dotted or struck out: words that were not wanted."
AGAINST_FIRST = "Struck out: what only the first says. Underlined: what only the others say."


@dataclass(frozen=True)
class Shown:
    """Something as HTML, which a notebook shows by itself, and as text for a terminal."""

    html: Markup
    text: str

    def _repr_html_(self) -> str:  # asked for by every kind of notebook
        return str(self.html)

    def __repr__(self) -> str:
        return self.text


def show(what: Any, *, wanted: Sequence[str] | str | None = None) -> Shown:
    """A comparison or several, a run, a report, rows of `preview`, or a chart, for a notebook.

    `wanted`: of answers, the right ones, one for each prompt; every answer is then compared with it, and otherwise with
    the first column's.

    Raises:
        TypeError: it is something else.
        ValueError: there are not as many wanted answers as prompts.
    """
    if isinstance(what, Comparison):
        what = [what]
    if isinstance(what, Sequence) and what and all(isinstance(one, Comparison) for one in what):
        return _comparisons(what, [wanted] if isinstance(wanted, str) else wanted)
    if isinstance(what, Sequence) and what and all(isinstance(one, PreviewRow) for one in what):
        return _mask(what)
    return _shown(what)


@singledispatch
def _shown(what: Any) -> Shown:
    kind = type(what).__name__
    raise TypeError(f"show() takes comparisons, a run, a report, rows of preview() or a chart, not {kind}.")


@_shown.register
def _chart(what: Markup) -> Shown:
    return Shown(what, "(a chart; open the notebook in JupyterLab to see it)")


@_shown.register
def _report(what: Report) -> Shown:
    pictures = [chart for chart in (metrics_chart(what), baselines_chart(what)) if chart]
    found = [tables.metrics(what), *([others] if (others := tables.baselines(what)) else []), *tables.forgetting(what)]
    return _result(verdict_of(what), pictures, found, in_words(what))


@_shown.register
def _run(what: Run) -> Shown:
    progress, report = what.progress(), read_report(what.path)
    headline = headline_of(what, progress, report)
    pictures = [training_charts(progress, what.config)] if progress.steps else []
    found = [tables.metrics(report)] if report else []
    return _result(headline, pictures, found, f"{headline.words}. {headline.sentence}")


def _result(headline: Headline, pictures: Sequence[Markup], found: Sequence[Table], text: str) -> Shown:
    return Shown(
        render(
            __package__,
            "shown_result.html",
            headline=headline,
            colour=COLOURS[headline.tone],
            pictures=pictures,
            tables=found,
        ),
        text,
    )


def _comparisons(every: Sequence[Comparison], wanted: Sequence[str] | None) -> Shown:
    if wanted is not None and len(wanted) != len(every):
        raise ValueError(f"{len(wanted)} wanted answers for {len(every)} prompts: give one for each.")
    known = list(wanted) if wanted is not None else [None] * len(every)
    rows = [
        {"prompt": one.prompt, "answers": _sides(one, right), "wanted": right}
        for one, right in zip(every, known, strict=True)
    ]
    labels = [answer.label for answer in every[0].answers]
    html = render(
        __package__,
        "shown_answers.html",
        labels=labels,
        rows=rows,
        is_known=wanted is not None,
        reading=AGAINST_FIRST if wanted is None else AGAINST_WANTED,
        lines=list(dict.fromkeys(f"{a.label}: {a.provenance.text}" for one in every for a in one.answers)),
        cell=CELL,
    )
    return Shown(html, "\n\n".join(_as_text(one, right) for one, right in zip(every, known, strict=True)))


def _sides(one: Comparison, wanted: str | None) -> list[dict[str, object]]:
    """Each answer in pieces, those marked that it does not share with what was wanted, or with the first answer."""
    first = one.answers[0].text
    found = []
    for place, answer in enumerate(one.answers):
        if wanted is not None:
            pieces = both_sides(answer.text, wanted)[0]
        elif place:
            pieces = both_sides(first, answer.text)[1]
        else:
            pieces = both_sides(first, one.answers[1].text)[0] if len(one.answers) == 2 else [Piece("same", first)]
        found.append({"pieces": pieces, "is_right": _same(answer.text, wanted), "cut": _cut(answer)})
    return found


def _same(text: str, wanted: str | None) -> bool:
    return wanted is not None and text.strip() == wanted.strip()


def _cut(answer: Answer) -> str:
    """Why an answer is no whole one; empty where it is."""
    return f"cut at {answer.tokens} tokens" if answer.stop_reason == "length" else ""


def _as_text(one: Comparison, wanted: str | None) -> str:
    lines = [f"asked: {one.prompt}", *(f"{answer.label}: {answer.text}" for answer in one.answers)]
    return "\n".join([*lines, *([f"wanted: {wanted}"] if wanted is not None else [])])


def _mask(rows: Sequence[PreviewRow]) -> Shown:
    said = [
        {
            "pieces": row.pieces,
            "words": f"{row.tokens} tokens, {row.scored_tokens} of them learned (shaded)",
            "warnings": row.warnings,
        }
        for row in rows
    ]
    parts = ["".join(f"[{text}]" if learned else text for text, learned in row.segments) for row in rows]
    return Shown(render(__package__, "shown_mask.html", rows=said), "\n\n".join(parts))
