"""Line charts as SVG text: for the app, notebooks and reports, without a plotting library.

Colours come from the page (`currentColor`, and two accents that are readable on light and dark); series differ by line
style and carry their name at their end, so that nothing is told by colour alone.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunelab.config import RunConfig
    from tunelab.run.progress import Progress

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 112, 28, 54
# on a phone the drawing is less than half as wide: its letters must not shrink as much
# names of series may cross other lines: the page's own background keeps them apart
STYLE = (
    ".grid{stroke:currentColor;stroke-opacity:.15}"
    ".name{paint-order:stroke;stroke-width:4px;stroke:var(--body-background-fill,var(--jp-layout-color0,transparent))}"
    "@media(max-width:700px){svg[role=img] text{font-size:24px}}"
)
# (colour, width, dashes) of the first, second, … series
STYLES = (("#94a3b8", 1.5, ""), ("#ea580c", 2.5, ""), ("#0d9488", 2.5, "7 4"), ("#7c3aed", 2.5, "2 4"))


def loss_chart(progress: Progress, config: RunConfig | None = None) -> str:
    """Train and held-out loss of a run over its steps, the base's held-out loss on each stage's rows as a level line.

    With the configuration of a run of several stages, each stage is marked where it begins, by its name.
    """
    last = progress.steps_total or (progress.steps[-1].step if progress.steps else 1)
    starts = _stage_starts(config) if config else [(0.0, "")]
    ends = [*(start for start, _name in starts[1:]), float(last)]
    series: dict[str, Points] = {
        "train": [(e.step, e.loss) for e in progress.steps],
        "held-out": [(e.step, e.heldout_loss) for e in progress.evaluations],
    }
    base: list[tuple[float, float]] = []
    for e in progress.evaluations:
        if e.base_loss is not None and e.stage < len(starts):
            base += [(starts[e.stage][0], e.base_loss), (ends[e.stage], e.base_loss)]
    if base:
        series["base"] = base
    marks = starts if len(starts) > 1 else []
    return line_chart(series, title="Loss per scored token (nats)", x_title="step", x_limits=(0, last), marks=marks)


def _stage_starts(config: RunConfig) -> list[tuple[float, str]]:
    """The step before each stage's first one, and the stage's name."""
    starts, step = [], 0.0
    for number, stage in enumerate(config.stages, 1):
        starts.append((step, stage.name or f"stage {number}"))
        step += stage.training.steps
    return starts


def line_chart(
    series: Mapping[str, Points],
    *,
    title: str,
    x_title: str = "",
    x_limits: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """An `<svg>` with one line per series; points that are not finite are left out. `marks` are named places on the
    x axis."""
    lines = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    points = [p for line in lines.values() for p in line]
    xs = ticks(*(x_limits or _range([x for x, _ in points])))
    ys = ticks(*_range([y for _, y in points]))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - ys[0]) / (ys[-1] - ys[0]) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<text x="{LEFT}" y="16" font-weight="600">{html.escape(title)}</text>']
    for y in ys:
        left, level = place(xs[0], y)
        parts.append(f'<line x1="{left:.1f}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}" class="grid"/>')
        if points:
            parts.append(f'<text x="{left - 8:.1f}" y="{level + 4:.1f}" text-anchor="end">{_number(y)}</text>')
    for x in xs if points else ():
        parts.append(
            f'<text x="{place(x, ys[0])[0]:.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{_number(x)}</text>'
        )
    for x, name in marks:
        at = place(x, ys[0])[0]
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{at + 5:.1f}" y="{TOP + 12}" opacity=".7">{html.escape(name)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{html.escape(x_title)}</text>')
    if not points:
        parts.append(f'<text x="{middle}" y="{HEIGHT / 2}" text-anchor="middle" opacity=".6">nothing yet</text>')
    taken: list[float] = []
    names = []  # above every line
    for (name, line), (colour, width, dashes) in zip(lines.items(), STYLES, strict=False):
        if line:
            stroke = f'stroke="{colour}" stroke-width="{width}"'
            *drawn, named = _line(name, [place(*p) for p in line], stroke, dashes, taken)
            parts += drawn
            names.append(named)
    label = html.escape(title + ": " + "; ".join(_in_words(name, line) for name, line in lines.items() if line))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" font-size="12" fill="currentColor" '
        'font-family="system-ui, sans-serif" style="width:100%;height:auto">'
        f"<style>{STYLE}</style>" + "".join(parts + names) + "</svg>"
    )


def _line(name: str, places: Points, stroke: str, dashes: str, taken: list[float]) -> list[str]:
    """A polyline, a dot where it is short, and its name beside its end, moved until it covers no other."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" {stroke} stroke-dasharray="{dashes}" stroke-linejoin="round"/>']
    if len(places) < 20:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="none" {stroke}/>' for x, y in places]
    x, y = places[-1]
    while any(abs(y - other) < 20 for other in taken):
        y -= 20
    taken.append(y)
    return [*parts, f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" class="name">{html.escape(name)}</text>']


def interval_chart(
    rows: Sequence[tuple[str, float, float, float]], *, title: str, reference: float, reference_name: str = "base"
) -> str:
    """An `<svg>` with a dot and its interval (name, value, low, high) per row, and a line for what all are compared
    with. The value stands beside the dot in figures."""
    left, row_height = 190, 30
    height = TOP + BOTTOM + row_height * max(1, len(rows))
    xs = ticks(*_range([reference, *(x for row in rows for x in row[1:])]))

    def across(x: float) -> float:
        return left + (x - xs[0]) / (xs[-1] - xs[0]) * (WIDTH - left - RIGHT)

    parts = [f'<text x="8" y="16" font-weight="600">{html.escape(title)}</text>']
    for x in xs:
        parts.append(
            f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{TOP}" y2="{height - BOTTOM}" class="grid"/>'
        )
        parts.append(f'<text x="{across(x):.1f}" y="{height - 20}" text-anchor="middle">{_number(x)}</text>')
    at = across(reference)
    parts.append(
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{height - BOTTOM}" stroke="#0d9488" stroke-dasharray="7 4" '
        f'stroke-width="2"/><text x="{at:.1f}" y="{height - 4}" text-anchor="middle">{html.escape(reference_name)}'
        "</text>"
    )
    for index, (name, value, low, high) in enumerate(rows):
        y = TOP + row_height * (index + 0.5)
        parts.append(f'<text x="8" y="{y + 4:.1f}">{html.escape(name)}</text>')
        ends = f'x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line {ends} stroke="#ea580c" stroke-width="2"/>')
        parts.append(f'<circle cx="{across(value):.1f}" cy="{y:.1f}" r="5" fill="#ea580c"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{y + 4:.1f}">{value:+.3g}</text>')
    words = "; ".join(f"{name} {value:.3g} ({low:.3g} to {high:.3g})" for name, value, low, high in rows)
    label = html.escape(f"{title}: {reference_name} {reference:.3g}; {words}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}" font-size="12" fill="currentColor" '
        'font-family="system-ui, sans-serif" style="width:100%;height:auto">'
        f"<style>{STYLE}</style>" + "".join(parts) + "</svg>"
    )


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


def _number(value: float) -> str:
    return f"{value:g}"


def _in_words(name: str, line: Points) -> str:
    return f"{name} from {line[0][1]:.3g} to {line[-1][1]:.3g}" if len(line) > 1 else f"{name} {line[0][1]:.3g}"
