"""How long rows are, in tokens, against how long they may be."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BINS = 10  # up to max_length, or up to the longest row where none is longer than that
BLOCKS = "▁▂▃▄▅▆▇█"
NONE = "·"


@dataclass(frozen=True)
class Lengths:
    """A histogram: `counts[i]` rows have more than `edges[i]` and at most `edges[i + 1]` tokens. Where rows are longer
    than `max_length`, that is an edge, so that no bin holds rows that are cut beside rows that are not."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]
    max_length: int
    what: str = "row"  # or "document": those are cut into blocks, and nothing of them is lost

    @property
    def rows(self) -> int:
        return sum(self.counts)

    @property
    def longer(self) -> int:
        """Rows of more than `max_length` tokens."""
        return sum(count for edge, count in zip(self.edges, self.counts, strict=False) if edge >= self.max_length)

    @property
    def last_edge(self) -> str:
        """The last edge as it is written: behind dots where the last bin is wider than the others."""
        widths = [high - low for low, high in pairwise(self.edges)]
        return f"{'… ' if widths[-1] > max(widths[:-1], default=widths[-1]) else ''}{self.edges[-1]:,}"

    @property
    def text(self) -> str:
        """One line for a terminal, a block a bin; a bar stands where `max_length` is."""
        most = max(self.counts, default=0)
        blocks = [BLOCKS[math.ceil(len(BLOCKS) * count / most) - 1] if count else NONE for count in self.counts]
        if self.longer:
            blocks.insert(self.edges.index(self.max_length), "│")
        return f"lengths in tokens: 0 {''.join(blocks)} {self.last_edge} ({self.words})"

    @property
    def words(self) -> str:
        """What there is to see, in words."""
        many = f"{self.longer:,} {self.what}{'s' if self.longer != 1 else ''}"
        limit = f"max_length = {self.max_length:,}"
        if not self.longer:
            return f"{limit}: no {self.what} is longer"
        return f"│ {limit}: {many} longer"


def lengths_of(tokens: Sequence[int], max_length: int, what: str = "row") -> Lengths:
    """The histogram of rows with so many tokens each."""
    edges = _edges(max(tokens, default=0), max_length)
    counts = [0] * (len(edges) - 1)
    for count in tokens:
        counts[max(0, bisect_left(edges, count) - 1)] += 1
    return Lengths(tuple(edges), tuple(counts), max_length, what)


def _edges(longest: int, limit: int) -> list[int]:
    if longest <= limit:
        step = _round(max(1, longest) / BINS)
        return [*range(0, max(1, longest), step), min(limit, step * math.ceil(max(1, longest) / step))]
    bins = min(BINS, limit)
    up_to = [limit * place // bins for place in range(bins + 1)]
    # as many again behind the limit; what is longer still stands in the last one
    beyond = [limit + edge for edge in up_to[1:-1] if limit + edge < longest]
    return [*up_to, *beyond, longest]


def _round(step: float) -> int:
    """The next whole number of the form 1, 2 or 5 times a power of ten."""
    power = 10 ** max(0, math.floor(math.log10(step))) if step > 1 else 1
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step)
