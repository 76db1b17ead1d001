"""Rows held out so that what belongs together stays together and every label keeps its share.

Groups (rows that ask the same, one patient, one document, one customer) go to one side as a whole. Among the ways to do
so the labels' shares decide: the idea of scikit-learn's `StratifiedGroupKFold`, for one division of any size.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from tunelab.data.doctor.labels import Labels
from tunelab.data.examples import Example
from tunelab.data.links import Links


def labels_of(examples: Iterable[Example]) -> list[str] | None:
    """The label of each row; None where answers are no labels, or all of them one."""
    seen, labels = Labels(), []
    for example in examples:
        seen.see(example)
        if not seen.possible:
            return None
        labels.append(example.answer)
    groups = seen.groups()
    name_of = {way: name for name, ways in groups.items() for way in ways}
    return [name_of.get(label, label) for label in labels] if len(groups) > 1 else None


def hold_out(
    groups: Sequence[Sequence[int]],
    labels: Sequence[Hashable] | None,
    amount: float,
    seed: int,
    together: Sequence[Hashable] | None = None,
) -> list[int]:
    """The rows to hold out, in ascending order; neither none nor all of them.

    groups: rows (counted from 0) that stay on one side; each row stands in one of them.
    labels: one for each row; None: labels don't matter.
    amount: a share below 1, or a number of rows.
    together: a value for each row, e.g. a customer; rows of equal values stay on one side too. None is no value.

    As many rows are held out as the groups allow without going above the amount; of each label as close to its share as
    can be, and a label that has several groups keeps one to train on.
    """
    count = sum(map(len, groups))
    merged = joined(groups, together) if together is not None else [list(group) for group in groups]
    assert len(merged) > 1, "one group can't be divided"
    target = min(max(1, round(amount * count) if amount < 1 else int(amount)), count - 1)
    of_row: Sequence[Hashable] = labels if labels is not None else [None] * count
    random.Random(seed).shuffle(merged)
    # a large group says little about other groups, so it is the last to be held out
    merged.sort(key=lambda group: len(group) > max(1, target // 10))
    taken = _take(merged, of_row, target) or [min(merged, key=len)]
    return sorted(row for group in taken for row in group)


def joined(groups: Sequence[Sequence[int]], together: Sequence[Hashable]) -> list[list[int]]:
    """Groups that share a value of `together`, as one."""
    links = Links(len(groups))
    seen: dict[Hashable, int] = {}
    for number, group in enumerate(groups):
        for row in group:
            if together[row] is not None:
                links.link(number, seen.setdefault(together[row], number))
    merged: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        merged.setdefault(links.first_of(number), []).extend(group)
    return list(merged.values())


def _take(groups: list[list[int]], labels: Sequence[Hashable], target: int) -> list[list[int]]:
    """Groups of at most `target` rows in all, of each label about its share, in the order of their turn."""
    held = [Counter(labels[row] for row in group) for group in groups]
    wanted = _shares(_sum(held), target)
    homes = Counter(label for one in held for label in one)  # groups of each label that are left to train on
    only = {label for label, count in homes.items() if count == 1}
    room, taken = target, set[int]()

    def useful(number: int) -> int:
        return sum(min(max(wanted[label], 0), rows) for label, rows in held[number].items())

    # first those that every label has room for, then those whose rows are mostly wanted, then whatever fits; labels
    # that have one group are held out when there is nothing else
    for least, spared in ((1.0, True), (0.5, True), (0.0, True), (0.0, False)):
        for number, group in enumerate(groups):
            if not room:
                break
            last = any(homes[label] < 2 and (spared or label not in only) for label in held[number])
            if number not in taken and len(group) <= room and not last and useful(number) >= least * len(group):
                taken.add(number)
                room -= len(group)
                wanted.subtract(held[number])
                homes.subtract(held[number].keys())
    return [groups[number] for number in sorted(taken)]


def _sum(counters: Iterable[Counter[Hashable]]) -> Counter[Hashable]:
    total: Counter[Hashable] = Counter()
    for one in counters:
        total.update(one)
    return total


def _shares(counts: Counter[Hashable], target: int) -> Counter[Hashable]:
    """How many rows of each label make `target`, in proportion (largest remainders: Hamilton's method)."""
    total = counts.total()
    exact = {label: count * target / total for label, count in counts.items()}
    wanted = Counter({label: math.floor(share) for label, share in exact.items()})
    by_rest = sorted(exact, key=lambda label: (-(exact[label] - wanted[label]), -counts[label], repr(label)))
    for label in by_rest[: target - wanted.total()]:
        wanted[label] += 1
    return wanted
