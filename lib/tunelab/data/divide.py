"""Rows into training and held-out, so that nothing that is learned stands on both sides.

Rows form a group that stays on one side when they ask the same, or when a turn that is learned (everything before an
answer, and the answer) stands in both: also when one conversation is the beginning of another; and when the data says
that they belong together (one customer, one document). Groups are held out in an order that follows from the seed, as
many as come closest to what was asked; where answers are labels, of every label its share (`strata.py`).
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunelab.data.content import DIGEST_BYTES, lesson
from tunelab.data.examples import Example
from tunelab.data.links import Links
from tunelab.data.store import pick
from tunelab.data.strata import hold_out, joined, labels_of
from tunelab.errors import UserError
from tunelab.spec import DataSpec

if TYPE_CHECKING:
    import numpy

Sides = tuple[Sequence[Example], Sequence[Example], list[str]]
Group = Sequence[int]  # indices of rows that stay on one side
CLOSE = 2  # rows by which the held-out ones may miss what was asked without a word
AUTO = 0.1  # the share that is held out where the data has no test part
ASKED, ANSWERED, ON_THE_WAY = 0, 1, 2  # what a digest is of


def divide(examples: Sequence[Example], spec: DataSpec) -> Sides:
    """Rows to train on, held-out rows, and notes; both shuffled by the seed.

    Raises:
        UserError: a side would be empty.
    """
    if examples[0].text is not None:
        return _divide_text(list(examples), spec)
    groups, notes = _kept_together(examples)
    amount = amount_of(spec)
    target = max(1, round(amount * len(examples))) if amount < 1 else int(amount)
    if len(examples) == 1 or (amount >= 1 and target >= len(examples)):
        raise _one_side_is_empty(spec, len(examples))
    target = min(target, len(examples) - 1)
    if len(groups) == 1:
        raise UserError(
            f"{spec.title}: all {len(examples)} rows ask the same or share a turn that is learned, or a group "
            f"(e.g. rows {_rows(examples, groups[0])}), so none can be held out that is not trained on as well. Give "
            "held-out rows of their own (heldout: FILE), or rows that ask different things."
        )
    labels = labels_of(examples)
    train, heldout = _in_strata(groups, labels, target, spec.seed) if labels else _take(groups, target, spec.seed)
    notes = _count_note(examples, groups, target, len(heldout)) + notes
    return pick(examples, train), pick(examples, heldout), notes


def _kept_together(examples: Sequence[Example]) -> tuple[list[Group], list[str]]:
    """Rows that stay on one side, by what they ask and answer, and by what the data says they are of; and notes."""
    named: list[str | None] = []

    def seen() -> Iterator[Example]:
        for example in examples:  # once: rows on the disk take time to read
            named.append(example.group or None)
            yield example

    groups = groups_of(seen())
    return (groups, []) if not any(named) else (list(joined(groups, named)), _group_note(named))


def _in_strata(groups: list[Group], labels: list[str], target: int, seed: int) -> tuple[list[int], list[int]]:
    """As `_take`, of every label its share; where large groups leave too few rows for that, the shares give way."""
    held = hold_out(groups, labels, target, seed)
    if target - len(held) > CLOSE:
        return _take(groups, target, seed)
    out = set(held)
    train = [row for group in groups for row in group if row not in out]
    for side in (train, held):
        random.Random(seed).shuffle(side)  # files are often sorted by label
    return train, held


def _group_note(named: Sequence[str | None]) -> list[str]:
    without = named.count(None)
    alone = "1 row names none, and stands alone" if without == 1 else f"{without:,} rows name none, and stand alone"
    missing = f"; {alone}" if without else ""
    return [f"rows of one group stay on one side: {len(set(named) - {None}):,} groups{missing}"]


def amount_of(spec: DataSpec) -> float:
    """The share or the number of rows that are drawn to be held out."""
    return AUTO if spec.heldout == "auto" else float(spec.heldout)


def groups_of(examples: Iterable[Example]) -> list[Group]:
    """The groups, each in the order of its rows, by their first rows."""
    import numpy

    digests, kinds, counts = bytearray(), bytearray(), array("L")
    for example in examples:
        one = lesson(example)
        on_the_way = one.prompts[:-1]
        digests += b"".join((one.asked, *one.pairs, *on_the_way))
        kinds += bytes((ASKED, *(ANSWERED,) * len(one.pairs), *(ON_THE_WAY,) * len(on_the_way)))
        counts.append(1 + len(one.pairs) + len(on_the_way))
    rows = numpy.repeat(numpy.arange(len(counts)), numpy.asarray(counts, numpy.int64))
    digest = numpy.frombuffer(digests, f"<u{DIGEST_BYTES}").astype(numpy.uint64)
    first = _first_rows(len(counts), digest, rows, numpy.frombuffer(kinds, numpy.uint8))
    order = numpy.argsort(first, kind="stable")
    starts = numpy.flatnonzero(numpy.diff(first[order], prepend=-1)).tolist()
    places = order.tolist()
    return [tuple(places[start:stop]) for start, stop in itertools.pairwise([*starts, len(places)])]


def _first_rows(count: int, digests: numpy.ndarray, rows: numpy.ndarray, kinds: numpy.ndarray) -> Any:
    """Of each row the first one of its group (count,), from digests with their rows and kinds: rows that ask the same
    or share a turn belong together, and one that asks on the way what another asks at last."""
    import numpy

    links = Links(count)
    order = numpy.argsort(digests, kind="stable")
    same = numpy.diff(digests[order], prepend=digests[order][:1] + 1) == 0  # as the one before it
    starts = numpy.flatnonzero(~same)
    stops = numpy.append(starts[1:], len(order))
    for start, stop in zip(starts[stops - starts > 1].tolist(), stops[stops - starts > 1].tolist(), strict=True):
        members = order[start:stop]
        asked = bool((kinds[members] == ASKED).any())
        joined = rows[members[(kinds[members] != ON_THE_WAY) | asked]].tolist()
        for row in joined[1:]:
            links.link(joined[0], row)
    return numpy.array(links.firsts())


def _take(groups: list[Group], target: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of rows to train on and of held-out rows: as close to `target` as the groups allow, one group at least on
    each side."""
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
    train = [row for index in order if index not in held for row in groups[index]]
    return train, [row for index in chosen for row in groups[index]]


def _closest(groups: list[Group], order: list[int], target: int) -> list[int]:
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


def _count_note(examples: Sequence[Example], groups: list[Group], target: int, held: int) -> list[str]:
    if abs(held - target) <= CLOSE:
        return []
    largest = max(groups, key=len)
    return [
        f"{held} rows are held out instead of {target}: rows that ask the same or share a turn that is learned stay on "
        f"one side, {len(largest)} of them together (rows {_rows(examples, largest)})"
    ]


def _rows(examples: Sequence[Example], group: Group) -> str:
    return ", ".join(str(examples[row].row) for row in group[:3]) + (", …" if len(group) > 3 else "")


def _one_side_is_empty(spec: DataSpec, count: int) -> UserError:
    return UserError(
        f"{spec.title}: {count} rows and heldout = {amount_of(spec):g} leave 0 to train on and {count} held out; both "
        "need at least one. Add rows, or change heldout."
    )


# plain text


def _divide_text(examples: list[Example], spec: DataSpec) -> Sides:
    """Documents on either side. A share is one of the text: documents are long and short, and of one that would be too
    much the last part is held out."""
    places, notes = _kept_together(examples)
    groups = [[examples[row] for row in group] for group in places]
    amount = amount_of(spec)
    if amount >= 1 and len(groups) > 1 and amount < len(examples):
        train, heldout = (pick(examples, side) for side in _take(places, int(amount), spec.seed))
        return train, heldout, notes + _count_note(examples, places, int(amount), len(heldout))
    if amount >= 1:
        notes.append(f"there are not enough documents ({len(groups)}) to hold out {amount:.0f}: a tenth of the text is")
        amount = 0.1
    train, heldout, cut = _share_of_text(groups, amount, spec.seed)
    if not heldout:
        raise UserError(
            f"{spec.title}: the text is too short ({sum(map(_characters, groups)):,} characters) to hold out "
            f"heldout = {amount_of(spec):g} of it. Add text, or give held-out rows of their own."
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
