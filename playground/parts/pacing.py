"""How often a page hears of answers that grow: ten times a second is as good as at every token, and costs less."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tunelab import Comparison

EVERY_SECONDS = 0.1


def paced(
    growing: Iterator[Comparison], every: float = EVERY_SECONDS, clock: Callable[[], float] = time.monotonic
) -> Iterator[Comparison]:
    """What grows, but not more often than this; the first and the last one always."""
    told = float("-inf")
    for one in growing:
        if one.done or clock() - told >= every:
            told = clock()
            yield one
