"""What is linked, directly or by others, as one."""

from __future__ import annotations


class Links:
    """Things numbered from 0 that are linked to each other; each knows the first one of those that it is linked to
    (union-find with path halving: Tarjan 1975; Tarjan and van Leeuwen 1984)."""

    def __init__(self, count: int) -> None:
        self._first = list(range(count))

    def first_of(self, one: int) -> int:
        """The smallest number that this one is linked to; its own where there is none."""
        first = self._first
        while first[one] != one:
            first[one] = one = first[first[one]]
        return one

    def link(self, one: int, other: int) -> None:
        one, other = self.first_of(one), self.first_of(other)
        self._first[max(one, other)] = min(one, other)

    def firsts(self) -> list[int]:
        """`first_of` each."""
        return [self.first_of(one) for one in range(len(self._first))]
