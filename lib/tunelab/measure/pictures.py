"""Pictures for teaching, as SVG text: where in a block each technique sits, what a run is trained on stage by stage,
and trained numbers against loss.

Grey is what stays as it is, orange what is trained; words say the same, so that nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunelab.measure.charts import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, ticks
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup

NAMES, LETTER, LINE = 150, 6.5, 16  # a row's name, a letter's mean width, the height of a line of text
BAR, BETWEEN, STRIPE = 26, 14, 7
SHORTEST_NAMED = 40  # a part of a bar that is shorter carries no words
BLOCK_IN_WORDS = (
    "A transformer block and where each technique sits. Full fine-tuning: every weight. LoRA: beside each linear "
    "layer. Bottleneck adapter: behind attention and behind the MLP. Prefix tuning: keys and values before the text, "
    "in every block. Prompt tuning: embeddings before the text, once. IA³: factors on keys, values and inside the MLP."
)


def block_picture() -> Markup:
    """An `<svg>` of a transformer block, with what each technique trains."""
    return render(__package__, "block.svg", **_frame(WIDTH, 330, BLOCK_IN_WORDS))


@dataclass(frozen=True)
class Part:
    """A stage of a run: its name, its steps, and which share of its rows is replayed."""

    name: str
    steps: int
    replayed: float = 0.0


@dataclass(frozen=True)
class _Drawn:
    name: str
    x: float
    width: float
    replayed: float  # how much of the width

    @property
    def stripes(self) -> list[float]:
        """Where the stripes of what is replayed stand, at the end of the part."""
        count = round(self.replayed / STRIPE)
        return [self.x + self.width - STRIPE * (place + 0.5) for place in range(count)]

    @property
    def words(self) -> str:
        return self.name if self.width >= SHORTEST_NAMED else ""


def stages_picture(runs: Mapping[str, Sequence[Part]]) -> Markup:
    """An `<svg>` with a bar for each run, a part of it for each stage, as long as it has steps; striped is what is
    replayed. Runs that share their first stages begin alike."""
    longest = max(sum(part.steps for part in parts) for parts in runs.values())
    scale = (WIDTH - NAMES - LEFT) / longest
    rows = [
        (name, TOP + number * (BAR + BETWEEN), _laid_out(parts, scale))
        for number, (name, parts) in enumerate(runs.items())
    ]
    words = "; ".join(f"{name}: {', then '.join(map(_in_words, parts))}" for name, parts in runs.items())
    height = TOP + len(runs) * (BAR + BETWEEN) + 24
    return render(
        __package__, "stages.svg", **_frame(WIDTH, height, words), rows=rows, bar=BAR, left=NAMES, below=height - 8
    )


def _laid_out(parts: Sequence[Part], scale: float) -> list[_Drawn]:
    drawn, x = [], float(NAMES)
    for part in parts:
        width = part.steps * scale
        drawn.append(_Drawn(f"{part.name}, {part.steps} steps", x, width, width * part.replayed))
        x += width
    return drawn


def _in_words(part: Part) -> str:
    replayed = f", {part.replayed:.0%} of the rows replayed" if part.replayed else ""
    return f"{part.steps} steps of {part.name}{replayed}"


def dots_chart(
    dots: Mapping[str, tuple[float, float]],
    *,
    title: str,
    x_title: str,
    levels: Mapping[str, float] | None = None,
) -> Markup:
    """An `<svg>` with a named dot at each place (x, y), x above zero and in powers of ten. `levels`: named level lines,
    such as what no training reaches."""
    levels = levels or {}
    first = math.floor(min(math.log10(x) for x, _ in dots.values()))
    last = max(first + 1, math.ceil(max(math.log10(x) for x, _ in dots.values())))
    heights = [y for _, y in dots.values()] + list(levels.values())
    low, high = min(heights), max(heights)
    numbers = ticks(low, high) if high > low else ticks(low - 0.5, high + 0.5)
    right, bottom = WIDTH - LEFT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + (math.log10(x) - first) / (last - first) * (right - LEFT)

    def up(y: float) -> float:
        return bottom - (y - numbers[0]) / (numbers[-1] - numbers[0]) * (bottom - TOP)

    places = {name: (across(x), up(y)) for name, (x, y) in dots.items()}
    labels = _labels(places, right)
    words = "; ".join(f"{name} {y:.3g} at {x:,.0f}" for name, (x, y) in dots.items())
    return render(
        __package__,
        "dots.svg",
        **_frame(WIDTH, HEIGHT, f"{title}: {words}"),
        title=title,
        x_title=x_title,
        left=LEFT,
        right=right,
        top=TOP,
        bottom=bottom,
        columns=[(across(10.0**power), f"{10**power:,}") for power in range(first, last + 1)],
        rows=[(up(number), f"{number:g}") for number in numbers],
        levels=[
            (up(y), LEFT + 6 + place * (right - LEFT) / len(levels), name)
            for place, (name, y) in enumerate(levels.items())
        ],
        dots=[(*place, *labels[name], name) for name, place in places.items()],
    )


def _labels(places: Mapping[str, tuple[float, float]], right: float) -> dict[str, tuple[float, float, str]]:
    """Where each dot's name stands and to which side it is written: none over another."""
    found: dict[str, tuple[float, float, str]] = {}
    taken: list[tuple[float, float, float]] = []  # from, to, height
    for name, (x, y) in sorted(places.items(), key=lambda item: -item[1][1]):
        width = LETTER * len(name)
        is_left = x + 10 + width > right
        start = x - 10 - width if is_left else x + 10
        while any(abs(y - other) < LINE and start < end and begin < start + width for begin, end, other in taken):
            y -= LINE
        taken.append((start, start + width, y))
        found[name] = (x - 10 if is_left else x + 10, y + 4, "end" if is_left else "start")
    return found


def _frame(width: int, height: int, words: str) -> dict[str, object]:
    return {"width": width, "height": height, "label": words, "values": ""}
