"""What generated sets are made of: the sentences in the .txt files beside this one, and seeded choices among them.

Every fourth entry of a family is kept for held-out rows, so that no sentence, name or place of a held-out row was ever
trained on.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

Part = Literal["train", "heldout"]
Families = Mapping[str, tuple[str, ...]]
T = TypeVar("T")
EVERY = 4


@functools.cache
def read_frames(name: str) -> Families:
    """The entries of a file by family: a family is a line that is not indented, its entries are the lines below it."""
    families: dict[str, list[str]] = {}
    family = ""
    for line in Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            families[family].append(line.strip())
        elif line:
            family = line
            families[family] = []
    return {family: tuple(entries) for family, entries in families.items()}


def of_part(entries: Sequence[T], part: Part) -> tuple[T, ...]:
    """The entries that rows of this part are made of."""
    kept = EVERY - 1
    return tuple(e for place, e in enumerate(entries) if (place % EVERY == kept) == (part == "heldout"))


def families_of_part(name: str, part: Part) -> Families:
    """`read_frames` with the entries of this part alone."""
    return {family: of_part(entries, part) for family, entries in read_frames(name).items()}


class Draw:
    """Random choices made of `random.Random.random` alone: Python promises its sequence for a seed, but not that of
    `choice` or `shuffle`."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, share: float) -> bool:
        """True in this share of the draws."""
        return self._random() < share

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self._random() * (high - low + 1))

    def one(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.number(0, len(items) - 1)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in another order (Fisher and Yates)."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = self.number(0, last)
            order[last], order[other] = order[other], order[last]
        return order
