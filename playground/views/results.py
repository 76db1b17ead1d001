"""What was measured of a run: the verdict, who answers how well, forgetting, luck and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from playground.english import measure as say
from playground.views.texts import without_flags
from tunelab import Run, Sweep, read_report
from tunelab.errors import UserError
from tunelab.measure.answered import rows_of
from tunelab.measure.markup import render
from tunelab.measure.sides_compared import compare_runs
from tunelab.measure.sweep import figure_of, verdicts
from tunelab.run.public import public_report
from tunelab.run.report_words import ability_in_words, limits_in_words, memorised_in_words, titled
from tunelab.run.reports import REPORT_FILE, Compared, Interval, Report

if TYPE_CHECKING:
    from markupsafe import Markup

    from playground.jobs import Jobs

PICTURE = (4.0, 176.0)  # from where to where intervals are drawn, in the units of their picture


@dataclass(frozen=True)
class Picture:
    """An interval on the scale that it shares with others, as places in its picture, and in words."""

    zero: float
    low: float
    value: float
    high: float
    words: str


@dataclass(frozen=True)
class Answerer:
    """One line of the table: who answers, a figure per metric, and what tuned gains over them."""

    name: str
    figures: tuple[str, ...]
    picture: Picture | None = None
    gain: str = ""
    verdict: str = ""
    note: str = ""
    is_tuned: bool = False


@dataclass(frozen=True)
class Figure:
    """One metric of base and tuned."""

    title: str
    base: str
    tuned: str
    picture: Picture
    change: str
    verdict: str


def result_html(jobs: Jobs, run: Run | None) -> Markup:
    """The result of a run, or what is needed to have one."""
    kept = read_report(run.path) if run else None
    if run is None or kept is None:
        return render("playground", "not_measured.html", say=say, words=_why_not(run), run=run)
    report = public_report(kept, run)
    headline, _colon, details = (report.sentence or report.verdict).partition(": ")
    return render(
        "playground",
        "result.html",
        say=say,
        run=run,
        report=report,
        headline=_capital(headline),
        details=details,
        sign=say.VERDICT_SIGNS[report.verdict],
        tiles=_tiles(report),
        columns=[_capital(titled(name, figure)) for name, figure in report.metrics.items()],
        answerers=_answerers(jobs, run, report),
        figures=_figures(report),
    )


def _why_not(run: Run | None) -> str:
    """Why there is no result of a run."""
    if run is None:
        return say.NO_RUN
    if (run.path / REPORT_FILE).exists():
        return say.OTHER_VERSION
    if not run.has_adapter:
        return say.NOT_READY.format(name=run.name, status=run.status)
    return say.NOT_MEASURED_WORDS


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:4] != "chrF" else text


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """The few figures that stand beside the verdict: what, base to tuned, and the change."""
    found = []
    if report.main and report.main_metric:
        found.append((_capital(titled(report.main_metric, report.main)), *_moved(report.main, 1)))
    found.append(("Held-out loss, nats per token", *_moved(report.heldout_loss, 3)))
    found.append(("General loss (up: forgotten)", *_moved(report.general_loss, 3)))
    if report.ability:
        before, after = report.ability.before, report.ability.after
        found.append(("General questions right, %", f"{before:.1f} → {after:.1f}", f"{after - before:+.1f}"))
    return found


def _moved(figure: Compared, digits: int) -> tuple[str, str]:
    return f"{figure.base:.{digits}f} → {figure.tuned:.{digits}f}", _interval(figure.change, digits)


def _interval(change: Interval, digits: int) -> str:
    return f"{change.value:+.{digits}f} [{change.low:+.{digits}f}, {change.high:+.{digits}f}]"


def _answerers(jobs: Jobs, run: Run, report: Report) -> list[Answerer]:
    """Everybody who answered the rows, the tuned model last; other runs measured beside it behind it."""
    if report.main_metric is None:
        return []
    names = list(report.metrics)
    others: dict[str, dict[str, Compared]] = {say.BASE: dict(report.metrics)}
    others |= {one.name: dict(one.metrics) for one in report.baselines}
    beside = {other.name: figures for other in _beside(jobs, report) if (figures := _against(run, other))}
    every = [
        found[report.main_metric].change
        for found in (*others.values(), *beside.values())
        if report.main_metric in found
    ]
    scale = _Scale(every)

    def line(who: str, found: dict[str, Compared]) -> Answerer:
        values = tuple(f"{found[name].base:.1f}" if name in found else "–" for name in names)
        main = found.get(str(report.main_metric))
        if main is None:
            return Answerer(who, values)
        verdict = report.verdict if who == say.BASE else main.verdict
        gain = _interval(main.change, 1)
        return Answerer(
            who, values, scale.picture(main.change, f"tuned gains {gain} over {who}"), gain, say.GAIN_WORDS[verdict]
        )

    values = tuple(f"{one.tuned:.1f}" for one in report.metrics.values())
    tuned = Answerer(say.TUNED, values, note=run.name, is_tuned=True)
    return [
        *(line(who, found) for who, found in others.items()),
        tuned,
        *(line(who, found) for who, found in beside.items()),
    ]


def _beside(jobs: Jobs, report: Report) -> list[Run]:
    """The runs that were measured on the same rows, as far as they are still there."""
    found = [jobs.find(identity) for identity in report.asked.get("against", "").split()]
    return [run for run in found if run is not None and run.readable]


def _against(run: Run, other: Run) -> dict[str, Compared]:
    """What the run gains over another one on the rows that both answered; empty where they share none."""
    return _compared(run.path, other.path, _stamp(run), _stamp(other))


@lru_cache(maxsize=16)
def _compared(run: Path, other: Path, _of_run: int, _of_other: int) -> dict[str, Compared]:
    try:
        report = read_report(run)
        return compare_runs(rows_of(Run(other)), rows_of(Run(run)), report.metrics if report else {})
    except UserError:
        return {}


def _stamp(run: Run) -> int:
    """Another number whenever the run was measured anew."""
    report = run.path / REPORT_FILE
    return report.stat().st_mtime_ns if report.exists() else 0


class _Scale:
    """One scale for several intervals, 0 among what it shows."""

    def __init__(self, changes: Sequence[Interval]) -> None:
        low, high = min(0.0, *(one.low for one in changes)), max(0.0, *(one.high for one in changes))
        span = (high - low) or 1.0
        self.low, self.span = low, span

    def at(self, value: float) -> float:
        start, end = PICTURE
        return round(start + (value - self.low) / self.span * (end - start), 1)

    def picture(self, change: Interval, words: str) -> Picture:
        return Picture(self.at(0.0), self.at(change.low), self.at(change.value), self.at(change.high), words)


def _figures(report: Report) -> list[Figure]:
    """Every metric and loss of base and tuned, each on a scale of its own."""
    every = [(titled(name, figure), figure, 1) for name, figure in report.metrics.items()]
    every += [("held-out loss, nats per token", report.heldout_loss, 3)]
    every += [(f"loss on {report.probe_rows} general instructions", report.general_loss, 3)]
    return [
        Figure(
            _capital(title) + say.DIRECTIONS[figure.higher_is_better],
            f"{figure.base:.{digits}f}",
            f"{figure.tuned:.{digits}f}",
            _Scale([figure.change]).picture(figure.change, f"{title}: {_interval(figure.change, digits)}"),
            _interval(figure.change, digits),
            say.GAIN_WORDS[figure.verdict],
        )
        for title, figure, digits in every
    ]


def beside_html(run: Run | None, sweep: Sweep | None) -> Markup:
    """What stands beside the verdict: forgetting, luck between seeds, memorisation and safety, limits."""
    kept = read_report(run.path) if run else None
    if run is None or kept is None:
        return render("playground", "nothing.html")
    report = public_report(kept, run)
    drift = [*memorised_in_words(report), *([f"{report.safety.sentence}."] if report.safety else [])]
    limits = [*limits_in_words(report)]
    return render(
        "playground",
        "beside.html",
        say=say,
        report=report,
        forgetting=say.FORGETTING_LOSS[report.general_loss.verdict].format(n=report.probe_rows),
        general=_moved(report.general_loss, 3),
        ability=[_capital(line) for line in ability_in_words(report)],
        sweep=sweep,
        can_sweep=run.status == "finished" and not run.imported_from,
        seeds=_seeds(sweep) if sweep else None,
        drift=[line.strip() for line in drift],
        limits=[without_flags(line) for line in limits],
    )


@dataclass(frozen=True)
class Seeds:
    """A sweep over seeds: each run's figure, and the verdict over all of them."""

    title: str
    runs: tuple[tuple[str, str, str, float], ...]  # name, status, figure and where that stands, 0 to 100
    sentence: str
    count: int
    done: int
    settings: int  # that are compared, each with every seed


def _seeds(sweep: Sweep) -> Seeds:
    rungs = sweep.rungs()
    figures = {rung.name: figure_of(rung.report) for rung in rungs if rung.report}
    tuned = [value for _title, _base, value in figures.values()]
    low, span = (min(tuned), max(tuned) - min(tuned) or 1.0) if tuned else (0.0, 1.0)
    runs = tuple(
        (
            rung.title.removeprefix("as configured "),
            rung.status,
            f"{figures[rung.name][2]:.2f}",
            100 * (figures[rung.name][2] - low) / span,
        )
        if rung.name in figures
        else (rung.title.removeprefix("as configured "), rung.status, "", 0.0)
        for rung in rungs
    )
    title = next((title for title, _base, _tuned in figures.values()), "")
    return Seeds(
        title, runs, _over_seeds(sweep, tuple(sorted(figures))), len(rungs), len(figures), len(sweep.config.settings)
    )


@lru_cache(maxsize=8)
def _verdict_over(path: Path, root: Path, _done: tuple[str, ...]) -> str:
    try:
        found = verdicts(Sweep(path, root))
    except UserError as error:
        return str(error)
    return " ".join(f"{_capital(one.verdict.sentence)}." for one in found if one.verdict)


def _over_seeds(sweep: Sweep, done: tuple[str, ...]) -> str:
    """The verdict over all seeds that are measured; nothing of one alone."""
    return _verdict_over(sweep.path, sweep.root, done) if len(done) > 1 else ""
