"""Rows token by token, and a drawing of how long rows are. Knows nothing of Gradio."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from playground.english import data as say
from playground.views.texts import counted
from tunelab.data.lengths import Lengths
from tunelab.data.pieces import Piece
from tunelab.data.previews import PreviewRow
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup

FIRST_SHOWN, LAST_SHOWN = 1500, 300  # tokens of a row that the page shows; how many stand between them is said
WIDTH, HEIGHT, SIDE, BASE, TOP = 720, 200, 24, 172, 52  # of the drawing

Run = tuple[str, list[Piece]]  # "learned", "read", "cut" or "left out", and the tokens


def runs(row: PreviewRow) -> list[Run]:
    """Tokens of one kind that follow each other; of a long row those in the middle are left out."""
    stop = max(FIRST_SHOWN, row.tokens - LAST_SHOWN)

    def kind(place: int) -> str:
        piece = row.pieces[place]
        if FIRST_SHOWN <= place < stop:
            return "left out"
        return "cut" if piece.cut else "learned" if piece.scored else "read"

    return [(name, [row.pieces[p] for p in places]) for name, places in groupby(range(len(row.pieces)), kind)]


@dataclass(frozen=True)
class _Bar:
    x: float
    y: float
    width: float
    height: float
    count: int
    is_beyond: bool  # longer than max_length
    words: str


def lengths_chart(lengths: Lengths) -> Markup:
    """An `<svg>` with a bar per bin, all of one width; rows that max_length cuts are hatched, behind a line."""
    count, most = len(lengths.counts), max(lengths.counts, default=0) or 1
    each = (WIDTH - 2 * SIDE) / max(1, count)
    bars = []
    for place, rows in enumerate(lengths.counts):
        low, high = lengths.edges[place], lengths.edges[place + 1]
        height = (BASE - TOP) * rows / most
        many = counted(rows, lengths.what)
        words = say.LENGTHS_BAR.format(many=many, low=f"{low + 1:,}", high=f"{high:,}")
        beyond = low >= lengths.max_length and lengths.what == "row"  # documents are cut into blocks, not cut off
        bars.append(_Bar(SIDE + each * place + 1, BASE - height, each - 2, height, rows, beyond, words))
    every = len(lengths.edges) // 12 + 1  # so that numbers do not stand in each other
    marks = [(SIDE + each * p, f"{lengths.edges[p]:,}") for p in range(0, count, every)]
    if count % every and len(marks) > 1:
        marks.pop()
    is_inside = lengths.max_length in lengths.edges
    many = counted(lengths.rows, lengths.what)
    title = say.LENGTHS.format(many=many, words=lengths.words.removeprefix("│ "))
    return render(
        "playground",
        "lengths.svg",
        width=WIDTH,
        height=HEIGHT,
        left=SIDE,
        base=BASE,
        title=title,
        label=f"{title}: {'; '.join(bar.words for bar in bars if bar.count)}",
        bars=bars,
        edges=[*marks, (SIDE + each * count, lengths.last_edge)],
        limit=say.LENGTHS_LIMIT.format(limit=f"{lengths.max_length:,}"),
        limit_x=SIDE + each * lengths.edges.index(lengths.max_length) if is_inside else None,
    )
