"""Rows into training and held-out, so that nothing that is learned stands on both sides.

Rows form a group that stays on one side when they ask the same, or when a turn that is learned (everything before an
answer, and the answer) stands in both: also when one conversation is the beginning of another. Groups are held out in
an order that follows from the seed, as many as come closest to what was asked.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from tunelab.data.content import lesson
from tunelab.data.examples import Example
from tunelab.errors import UserError
from tunelab.spec import DataSpec

Sides = tuple[list[Example], list[Example], list[str]]
CLOSE = 2  # rows by which the held-out ones may miss what was asked without a word


def divide(examples: list[Example], spec: DataSpec) -> Sides:
    """Rows to train on, held-out rows, and notes; both shuffled by the seed.

    Raises:
        UserError: a side would be empty.
    """
    if examples[0].text is not None:
        return _divide_text(examples, spec)
    groups = groups_of(examples)
    amount = float(spec.heldout)
    target = max(1, round(amount * len(examples))) if amount < 1 else int(amount)
    if len(examples) == 1 or (amount >= 1 and target >= len(examples)):
        raise _one_side_is_empty(spec, len(examples))
    target = min(target, len(examples) - 1)
    if len(groups) == 1:
        raise UserError(
            f"{spec.title}: all {len(examples)} rows ask the same or share a turn that is learned (e.g. rows "
            f"{_rows(groups[0])}), so none can be held out that is not trained on as well. Give held-out rows of "
            "their own (heldout: FILE), or rows that ask different things."
        )
    train, heldout = _take(groups, target, spec.seed)
    return train, heldout, _count_note(groups, target, len(heldout))


def groups_of(examples: list[Example]) -> list[list[Example]]:
    """The groups, each in the order of its rows, by their first rows."""
    lessons = [lesson(example) for example in examples]
    group = list(range(len(examples)))  # of each row an earlier one of its group, or itself (union-find: Tarjan 1975)

    def first_of(row: int) -> int:
        while group[row] != row:
            group[row] = row = group[group[row]]
        return row

    seen: dict[bytes, int] = {}

    def join(row: int, digests: Iterable[bytes]) -> None:
        for digest in digests:
            other = seen.setdefault(digest, row)
            if other != row:
                one, other = first_of(row), first_of(other)
                group[max(one, other)] = min(one, other)

    for row, one in enumerate(lessons):
        join(row, (one.asked, *one.pairs))
    asked = {one.asked for one in lessons}
    for row, one in enumerate(lessons):
        join(row, asked.intersection(one.prompts[:-1]))  # somebody asks this at last, and another on the way
    groups: dict[int, list[Example]] = {}
    for row, example in enumerate(examples):
        groups.setdefault(first_of(row), []).append(example)
    return list(groups.values())


def _take(groups: list[list[Example]], target: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Rows to train on and held-out rows: as close to `target` as the groups allow, one group at least on each side."""
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    # a prompt that many rows share says little about other prompts, so large groups are the last to be held out
    by_turn = order[::-1]
    by_turn.sort(key=lambda index: len(groups[index]) > max(1, target // 10))
    chosen, count = [], 0
    for index in by_turn:
        if count + len(groups[index]) <= target:
            chosen.append(index)
            count += len(groups[index])
    if not chosen or target - count > CLOSE:
        chosen = _closest(groups, by_turn, target)
    held = set(chosen)
    train = [example for index in order if index not in held for example in groups[index]]
    return train, [example for index in chosen for example in groups[index]]


def _closest(groups: list[list[Example]], order: list[int], target: int) -> list[int]:
    """Groups, the first ones of `order` among those of a size, whose rows come as close to `target` as any."""
    left = closest_sum(Counter(len(group) for group in groups), target)
    chosen = []
    for index in order:
        if left[len(groups[index])]:
            left[len(groups[index])] -= 1
            chosen.append(index)
    return chosen


def closest_sum(sizes: Counter[int], target: int) -> Counter[int]:
    """How many groups of each size make the sum that comes closest to `target`; neither none of them nor all.

    Bit t of `reached` says whether some of the groups seen so far have t rows in all (subset sum: Bellman 1957); groups
    of one size come as one, two, four, … of them at a time.
    """
    most = min(sum(size * count for size, count in sizes.items()) - 1, max(2 * target, min(sizes)))
    parts = [(size, part) for size, count in sorted(sizes.items()) for part in _powers(count)]
    reached, before = 1, []
    for size, part in parts:
        before.append(reached)
        reached |= (reached << size * part) & ((2 << most) - 1)
    sums = (t for distance in itertools.count() for t in (target - distance, target + distance))
    left = next(t for t in sums if 0 < t <= most and reached >> t & 1)
    chosen: Counter[int] = Counter()
    for (size, part), without in zip(reversed(parts), reversed(before), strict=True):
        if not without >> left & 1:
            left -= size * part
            chosen[size] += part
    return chosen


def _powers(count: int) -> Iterable[int]:
    """1, 2, 4, … and a rest, which make every number up to `count`."""
    part = 1
    while count > 0:
        yield min(part, count)
        count, part = count - part, 2 * part


def _count_note(groups: list[list[Example]], target: int, held: int) -> list[str]:
    if abs(held - target) <= CLOSE:
        return []
    largest = max(groups, key=len)
    return [
        f"{held} rows are held out instead of {target}: rows that ask the same or share a turn that is learned stay on "
        f"one side, {len(largest)} of them together (rows {_rows(largest)})"
    ]


def _rows(group: list[Example]) -> str:
    return ", ".join(str(example.row) for example in group[:3]) + (", …" if len(group) > 3 else "")


def _one_side_is_empty(spec: DataSpec, count: int) -> UserError:
    return UserError(
        f"{spec.title}: {count} rows and heldout = {spec.heldout:g} leave 0 to train on and {count} held out; both "
        "need at least one. Add rows, or change heldout."
    )


# plain text


def _divide_text(examples: list[Example], spec: DataSpec) -> Sides:
    """Documents on either side. A share is one of the text: documents are long and short, and of one that would be too
    much the last part is held out."""
    groups = groups_of(examples)
    amount, notes = float(spec.heldout), []
    if amount >= 1 and len(groups) > 1 and amount < len(examples):
        train, heldout = _take(groups, int(amount), spec.seed)
        return train, heldout, _count_note(groups, int(amount), len(heldout))
    if amount >= 1:
        notes.append(f"there are not enough documents ({len(groups)}) to hold out {amount:.0f}: a tenth of the text is")
        amount = 0.1
    train, heldout, cut = _share_of_text(groups, amount, spec.seed)
    if not heldout:
        raise UserError(
            f"{spec.title}: the text is too short ({sum(map(_characters, groups)):,} characters) to hold out "
            f"heldout = {spec.heldout:g} of it. Add text, or give held-out rows of their own."
        )
    return train, heldout, notes + cut


def _share_of_text(groups: list[list[Example]], share: float, seed: int) -> Sides:
    """Documents until the share is reached, those that would be too much left to train on; what is missing by more
    than a tenth then is cut off the longest of these."""
    order = list(groups)
    random.Random(seed).shuffle(order)
    target = round(share * sum(map(_characters, groups)))
    heldout, train, count = [], [], 0
    for group in reversed(order):
        if count + _characters(group) <= target:
            heldout += group
            count += _characters(group)
        else:
            train.append(group)
    train.reverse()
    if count >= 0.9 * target:
        return [example for group in train for example in group], heldout, []
    longest = max(train, key=lambda group: _characters(group[:1]))
    head, tail = _cut(longest[0], target - count)
    rows = [head if group is longest else example for group in train for example in group]
    note = f"the last {_characters([tail]):,} characters of the document in row {longest[0].row} are held out"
    return rows, [*heldout, tail], [note]


def _characters(group: list[Example]) -> int:
    return sum(len(example.text or "") for example in group)


def _cut(document: Example, length: int) -> tuple[Example, Example]:
    """A document and its end of about `length` characters, which begins at white space where there is some near."""
    text = document.text or ""
    place = max(1, len(text) - length)
    near = max(text.rfind(space, max(1, place - 1000), place + 1) for space in "\n ")
    place = len(text[: max(near, 0)].rstrip()) or place
    return replace(document, text=text[:place], whole=False), replace(document, text=text[place:])
