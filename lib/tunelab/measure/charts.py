"""Charts as SVG text: for the app, notebooks and reports, without a plotting library. What is drawn where is worked
out here; `templates/*.svg` write it.

Colours come from the page (`currentColor`, and two accents that are readable on light and dark); series differ by line
style and carry their name at their end, so that nothing is told by colour alone. What a smoothed line was made of is
faint and carries none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from tunelab.measure.curves import Lines, Points, last_step, losses, measured_beside, stage_marks
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup

    from tunelab.config import RunConfig
    from tunelab.run.progress import Progress

WIDTH, HEIGHT, LOW_HEIGHT = 720, 300, 210
PICTURE_HEIGHT, HALF_WIDTH, HALF_HEIGHT = 260, 420, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 112, 28, 54
NAMES, LETTER = 190, 6.5  # at least so wide are the names of an interval chart; a letter's mean width
GREY = "#94a3b8"
# (colour, width, dashes) of the first, second, … series, and from the start again: their names tell them apart
STYLES = ((GREY, 1.5, ""), ("#ea580c", 2.5, ""), ("#0d9488", 2.5, "7 4"), ("#7c3aed", 2.5, "2 4"))
FAINT = (GREY, 0.7, "")
# how these are drawn in a chart of nothing else
ROLES = {
    "train": STYLES[0],
    "smoothed": (GREY, 2.5, ""),
    "held-out": STYLES[1],
    "tuned": STYLES[1],
    "base": STYLES[2],
}


def loss_chart(progress: Progress, config: RunConfig | None = None) -> Markup:
    """Train and held-out loss of a run over its steps, the base's held-out loss on each stage's rows as a level line.

    With the configuration of a run of several stages, each stage is marked where it begins, by its name.
    """
    return _over_steps(losses(progress, config), progress, config, HEIGHT)


def training_charts(progress: Progress, config: RunConfig | None = None) -> Markup:
    """`loss_chart` and below it, where they were measured, the metric of the answers and the loss on general
    instructions, each beside the base's."""
    from markupsafe import Markup

    beside = [_over_steps(lines, progress, config, LOW_HEIGHT) for lines in measured_beside(progress, config)]
    return Markup("").join([loss_chart(progress, config), *beside])


def training_picture(progress: Progress, config: RunConfig | None = None) -> list[Markup]:
    """The charts of `training_charts` for a page: the loss wide and low, the others half as wide, each with the values
    that a pointer on it shows."""
    size = {"width": WIDTH, "height": PICTURE_HEIGHT, "values": True}
    charts = [_over_steps(losses(progress, config), progress, config, **size)]
    beside = {"width": HALF_WIDTH, "height": HALF_HEIGHT, "values": True}
    return charts + [_over_steps(lines, progress, config, **beside) for lines in measured_beside(progress, config)]


def _over_steps(lines: Lines, progress: Progress, config: RunConfig | None, height: int, **more: Any) -> Markup:
    limits, marks = (0, last_step(progress)), stage_marks(config)
    return line_chart(
        lines.series,
        title=lines.title,
        x_title="step",
        x_limits=limits,
        y_limits=lines.limits,
        marks=marks,
        height=height,
        **more,
    )


def line_chart(
    series: Mapping[str, Points],
    *,
    title: str,
    x_title: str = "",
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    height: int = HEIGHT,
    width: int = WIDTH,
    values: bool = False,
) -> Markup:
    """An `<svg>` with one line per series; points that are not finite are left out. `marks` are named places on the
    x axis. With `values` they stand in it, as JSON, for a page that shows those under a pointer."""
    finite = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    lines = {name: points for name, points in finite.items() if points}
    points = [p for line in lines.values() for p in line]
    x = _Axis(ticks(*(x_limits or _range([x for x, _ in points]))), LEFT, width - RIGHT)
    y = _Axis(ticks(*(y_limits or _range([y for _, y in points]))), height - BOTTOM, TOP)
    styles = {name: style for name, style in _styles(list(finite)).items() if name in lines}
    words = [_in_words(name, line) for name, line in lines.items()]
    pointed = json.dumps(_under_pointer(lines, x, x_title)) if values and lines else ""
    return render(
        __package__,
        "lines.svg",
        **_frame(height, LEFT, title, words, width) | {"values": pointed},
        x_title=x_title,
        levels=y.numbers,
        columns=x.numbers,
        marks=[(x.at(place), name) for place, name in marks],
        lines=_drawn({name: [(x.at(a), y.at(b)) for a, b in lines[name]] for name in styles}, styles),
    )


def _styles(names: Sequence[str]) -> dict[str, tuple[str, float, str]]:
    """How each line is drawn: in all charts of a run what is of one kind is alike, elsewhere one after the other."""
    if all(name in ROLES for name in names):
        return {name: FAINT if name == "train" and "smoothed" in names else ROLES[name] for name in names}
    return dict(zip(names, cycle(STYLES), strict=False))


@dataclass(frozen=True)
class _Axis:
    """Values laid out from one place of the drawing to another; the ticks are the values that are written beside it."""

    ticks: Sequence[float]
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value stands."""
        first, last = self.ticks[0], self.ticks[-1]
        return self.start + (value - first) / (last - first) * (self.end - self.start)

    @property
    def numbers(self) -> list[tuple[float, str]]:
        """The ticks: where each stands, and what is written there."""
        return [(self.at(value), f"{value:g}") for value in self.ticks]


@dataclass(frozen=True)
class _Line:
    """A line as it is drawn, with a dot at every point where it is short."""

    name: str
    colour: str
    width: float
    dashes: str
    points: str
    dots: Points
    end: tuple[float, float]  # where its name stands


def _drawn(lines: Mapping[str, Points], styles: Mapping[str, tuple[str, float, str]]) -> list[_Line]:
    """The lines, each with its name beside its end, moved up until it covers no other. A faint one has no name."""
    drawn: list[_Line] = []
    for name, places in lines.items():
        x, y = places[-1]
        while any(abs(y - other.end[1]) < 20 for other in drawn if other.name):
            y -= 4
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        is_faint = styles[name] == FAINT
        dots = places if len(places) < 20 and not is_faint else ()
        drawn.append(_Line("" if is_faint else name, *styles[name], points, dots, (x, y)))
    return drawn


@dataclass(frozen=True)
class _Pair:
    """A row of a paired chart: where it stands, and where its two values do."""

    x: float
    before: float
    after: float


def paired_chart(
    pairs: Sequence[tuple[float, float]], *, title: str, names: tuple[str, str] = ("base", "tuned"), x_title: str = ""
) -> Markup:
    """An `<svg>` with two dots for each row, (before, after), joined by a line: hollow before, filled after. Rows stand
    in the order of what they were before, so that it is seen whom the change reached; one that is not finite is left
    out."""
    known = sorted(pair for pair in pairs if all(map(math.isfinite, pair)))
    bottom = HEIGHT - BOTTOM // 2  # rows have no numbers
    y = _Axis(ticks(*_range([value for pair in known for value in pair])), bottom, TOP)
    step = (WIDTH - RIGHT - LEFT) / max(1, len(known))
    lower, higher = (sum(sign * (after - before) > 0 for before, after in known) for sign in (-1, 1))
    words = [f"{len(known)} rows", f"{names[1]} lower in {lower}, higher in {higher}"]
    return render(
        __package__,
        "pairs.svg",
        **_frame(HEIGHT, LEFT, title, words),
        x_title=x_title or f"{len(known)} rows, in the order of {names[0]}",
        levels=y.numbers,
        names=names,
        pairs=[_Pair(LEFT + step * (i + 0.5), y.at(before), y.at(after)) for i, (before, after) in enumerate(known)],
    )


@dataclass(frozen=True)
class _Row:
    """A row of an interval chart: its name, where its dot and its interval stand, and the value in figures."""

    name: str
    y: float
    value: float
    low: float
    high: float
    figure: str


def interval_chart(
    rows: Sequence[tuple[str, float, float, float]], *, title: str, reference: float, reference_name: str = "base"
) -> Markup:
    """An `<svg>` with a dot and its interval (name, value, low, high) per row, and a line for what all are compared
    with. The value stands beside the dot in figures."""
    left, row_height = (
        max(NAMES, min(WIDTH // 2, round(LETTER * max((len(row[0]) for row in rows), default=0)) + 24)),
        30,
    )
    x = _Axis(ticks(*_range([reference, *(x for row in rows for x in row[1:])])), left, WIDTH - RIGHT)
    words = [f"{name} {value:.3g} ({low:.3g} to {high:.3g})" for name, value, low, high in rows]
    return render(
        __package__,
        "intervals.svg",
        **_frame(
            TOP + BOTTOM + row_height * max(1, len(rows)), left, title, [f"{reference_name} {reference:.3g}", *words]
        ),
        columns=x.numbers,
        reference=x.at(reference),
        reference_name=reference_name,
        rows=[
            _Row(name, TOP + row_height * (index + 0.5), x.at(value), x.at(low), x.at(high), f"{value:+.3g}")
            for index, (name, value, low, high) in enumerate(rows)
        ],
    )


def _under_pointer(lines: Mapping[str, Points], x: _Axis, x_title: str) -> dict[str, Any]:
    """What a page needs to show the values of every line at a place: the axis, and the points in order."""
    axis = {"title": x_title, "first": x.ticks[0], "last": x.ticks[-1], "left": x.start, "right": x.end}
    figures = {name: [[a, float(f"{b:.4g}")] for a, b in points] for name, points in lines.items()}
    return {"axis": axis, "lines": figures}


def _frame(height: int, left: int, title: str, words: Sequence[str], width: int = WIDTH) -> dict[str, Any]:
    """Size, edges, title, and the words for those who can't see the drawing."""
    edges = {"left": left, "right": width - RIGHT, "top": TOP, "bottom": height - BOTTOM}
    return {
        "width": width,
        "values": "",
        "height": height,
        **edges,
        "title": title,
        "label": f"{title}: {'; '.join(words)}",
    }


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers that span low to high, about `count` of them: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / (count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _in_words(name: str, line: Points) -> str:
    return f"{name} from {line[0][1]:.3g} to {line[-1][1]:.3g}" if len(line) > 1 else f"{name} {line[0][1]:.3g}"
