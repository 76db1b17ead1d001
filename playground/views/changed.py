"""What a tuning changed, row by row: bars that choose rows, and the rows that are left. What is chosen stands in every
button as the whole of what it leads to (`Choice`), so the server remembers nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from playground.english import measure as say
from tunelab import Run, read_report
from tunelab.errors import UserError
from tunelab.measure.answered import read_rows
from tunelab.measure.changes.cross import WORDS, Bar, CrossFilter, Facet, Look, Order
from tunelab.measure.changes.diff import Piece, word_diff
from tunelab.measure.changes.ranking import overlap
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.measure.changes.slices import LEAST_ROWS
from tunelab.measure.changes.words import WordChange
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup

    from tunelab.run.reports import Report

ROWS, MOST_ROWS = 10, 200
LONGEST = 3000  # characters of a prompt or an answer
ALIKE = 0.34  # answers that share so much are shown as one text with its changes, others beside each other
WORDS_SHOWN = 10
RULES = ("tuned-rule", "base-rule")  # facets that say something with one bar as well


@dataclass(frozen=True)
class Choice:
    """What is looked at: by which metric, which rows, in which order, how many of them."""

    metric: str = ""
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    order: Order = "improved"
    rows: int = ROWS

    @classmethod
    def of(cls, written: str) -> Choice:
        """As a button has it; what is not understood is left out."""
        try:
            found = json.loads(written)
            filters = {str(name): tuple(map(str, values)) for name, values in dict(found.get("filters", {})).items()}
            order: Order = next((one for one in get_args(Order) if one == found.get("order")), "improved")
            rows = max(ROWS, min(MOST_ROWS, int(found.get("rows", ROWS))))
            return cls(str(found.get("metric", "")), filters, order, rows)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls()

    @property
    def written(self) -> str:
        """For a button."""
        told = {"metric": self.metric, "filters": self.filters, "order": self.order, "rows": self.rows}
        return json.dumps(told, ensure_ascii=False)

    def toggled(self, facet: str, value: str) -> Choice:
        """With that value chosen, or not any more."""
        chosen = self.filters.get(facet, ())
        values = tuple(one for one in chosen if one != value) if value in chosen else (*chosen, value)
        others = {name: those for name, those in self.filters.items() if name != facet}
        return replace(self, filters=others | ({facet: values} if values else {}), rows=ROWS)

    def change(self, **fields: Any) -> Choice:
        return replace(self, **fields)


@dataclass(frozen=True)
class ShownRow:
    """A row with both answers: as one text with its changes, or beside each other."""

    place: int
    row: AnsweredRow
    pieces: tuple[Piece, ...] | None
    base_score: float | None
    tuned_score: float | None
    gain: float


@dataclass(frozen=True)
class Chip:
    """A filter that is on."""

    title: str
    without: Choice


def rows_stamp(run: Run | None) -> tuple[Path, int, int] | None:
    """The file of a run's answered rows as it stands; None where there is none."""
    report = read_report(run.path) if run else None
    if run is None or report is None or report.answers_file is None:
        return None
    path = run.path / report.answers_file
    return (path, path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None


def rules_wait(run: Run | None, choice: Choice) -> bool:
    """Whether the rules have still to be read for a run: `changed_html` without them is quick."""
    try:
        cross = _cross_of(run, choice)[1] if run else None
    except UserError:
        return False
    return cross is not None and not cross.rules_read


def changed_html(run: Run | None, choice: Choice, *, rules: bool = True) -> Markup:
    """The bars and the rows that are left; with `rules` those that rules can tell are among the bars."""
    report = read_report(run.path) if run else None
    if run is None or report is None:
        return render("playground", "nothing.html")
    try:
        metric, cross = _cross_of(run, choice)
    except UserError as error:
        return render("playground", "no_rows.html", words=str(error))
    if cross is None:
        return render("playground", "no_rows.html", words=say.NO_METRIC if rows_stamp(run) else say.NO_ANSWERS)
    if rules and not cross.rules_read:
        cross.read_rules()
    return _page(cross, report, choice.change(metric=metric))


def row_of(run: Run, place: int) -> AnsweredRow | None:
    """A row by its place among the run's answered rows."""
    stamp = rows_stamp(run)
    rows = _rows(*stamp) if stamp else ()
    return rows[place] if 0 <= place < len(rows) else None


@lru_cache(maxsize=4)
def _rows(path: Path, _written: int, _size: int) -> tuple[AnsweredRow, ...]:
    return tuple(read_rows(path))


@lru_cache(maxsize=6)
def _cross(path: Path, written: int, size: int, metric: str, higher_is_better: bool) -> CrossFilter:
    return CrossFilter(_rows(path, written, size), metric, higher_is_better=higher_is_better)


def _cross_of(run: Run, choice: Choice) -> tuple[str, CrossFilter | None]:
    """The metric that counts, and the rows by it; None where no row has a score.

    Raises:
        UserError: the rows can't be read.
    """
    stamp, report = rows_stamp(run), read_report(run.path)
    if stamp is None or report is None:
        return "", None
    names = _metrics(_rows(*stamp), report)
    wanted = (choice.metric, report.main_metric, *names)
    metric = next((name for name in wanted if name in names), None)
    if metric is None:
        return "", None
    figure = report.metrics.get(metric)
    return metric, _cross(*stamp, metric, figure is None or figure.higher_is_better is not False)


def _metrics(rows: tuple[AnsweredRow, ...], report: Report) -> list[str]:
    """The metrics that rows have scores of, on both sides, and by which a row can be better or worse."""
    scored = dict.fromkeys(name for row in rows[:200] for name in row.tuned_scores if row.change(name) is not None)
    return [name for name in scored if report.has_direction(name)]


def _page(cross: CrossFilter, report: Report, choice: Choice) -> Markup:
    look = cross.look(choice.filters)
    places = cross.ordered(look.rows, choice.order)
    titles = {
        name: (report.metrics[name].title or name) if name in report.metrics else name
        for name in _metrics(tuple(cross.rows), report)
    }
    return render(
        "playground",
        "changed.html",
        say=say,
        choice=choice,
        look=look,
        total=len(cross.rows),
        stale=len(cross.rows) + report.too_long != report.rows and len(cross.rows) != report.rows,
        report=report,
        facets=[facet for facet in look.facets if len(facet.bars) > 1 or facet.name in RULES],
        chips=_chips(choice, look),
        titles=titles,
        rows=[_shown(cross, place) for place in places[: choice.rows]],
        more=len(places) > choice.rows and choice.rows < MOST_ROWS,
        rules_read=cross.rules_read,
        least=LEAST_ROWS,
        words=_words(look),
        width=_width,
        told=_told,
        cut=_cut,
    )


def _words(look: Look) -> list[tuple[str, str, tuple[WordChange, ...]]]:
    """The words said more often by one side: the facet that chooses by them, its title, the words."""
    if look.words is None:
        return []
    both = zip(WORDS, (say.WORDS_TUNED, say.WORDS_BASE), (look.words.tuned, look.words.base), strict=True)
    return [(facet, title, words[:WORDS_SHOWN]) for facet, title, words in both]


def _chips(choice: Choice, look: Look) -> list[Chip]:
    facets = {facet.name: facet for facet in look.facets}
    return [
        Chip(_chip_title(facets.get(name), name, value), choice.toggled(name, value))
        for name, values in choice.filters.items()
        for value in values
    ]


def _chip_title(facet: Facet | None, name: str, value: str) -> str:
    if facet is None:
        return f"{say.BASE if name == 'base-word' else say.TUNED} says “{value}”"
    title = next((bar.title for bar in facet.bars if bar.value == value), value)
    return f"{facet.title.rstrip(' …')}: {title}"


def _shown(cross: CrossFilter, place: int) -> ShownRow:
    row = cross.rows[place]
    alike = overlap(row.base, row.tuned) >= ALIKE
    pieces = word_diff(row.base[:LONGEST], row.tuned[:LONGEST]).pieces if alike else None
    scores = row.base_scores.get(cross.metric), row.tuned_scores.get(cross.metric)
    return ShownRow(place, row, pieces, *scores, float(cross.gain[place]))


def _width(count: int, bar: Bar) -> str:
    """A share of a bar, in per cent."""
    return f"{100 * count / max(1, bar.wins + bar.losses + bar.ties):.1f}%"


def _told(bar: Bar) -> str:
    """A bar in words."""
    tally = say.TALLY.format(wins=bar.wins, losses=bar.losses, ties=bar.ties)
    means = f"; mean score {bar.base:.1f} → {bar.tuned:.1f}" if bar.base is not None and bar.tuned is not None else ""
    return f"{bar.title}: {tally} of {bar.rows} rows{means}" + (f"; {bar.verdict}" if bar.verdict else "")


def _cut(text: str) -> str:
    """A text as it is shown: of a long one the beginning."""
    more = len(text) - LONGEST
    return text if more <= 0 else text[:LONGEST] + say.CUT.format(count=f"{more:,}")
