"""Rows as digests: eight bytes each for what a row says in all and what it asks, so that a million rows are compared in
little memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunelab.data.content import digest, lesson
from tunelab.data.examples import Example

if TYPE_CHECKING:
    import numpy


class Digests(NamedTuple):
    """Of each row, uint64."""

    whole: numpy.ndarray  # case and white space are no difference
    asked: numpy.ndarray  # the same, of everything before the final answer
    trimmed: numpy.ndarray  # of what is asked, to the letter but for white space around each turn
    collapsed: numpy.ndarray  # the same, with all white space collapsed


def digests(rows: Sequence[Example], also: Callable[[int, Example], None] | None = None) -> Digests:
    """The digests of rows, and `also` is told each row on the way, with its place."""
    import numpy

    made = bytearray()
    for place, example in enumerate(rows):
        made += b"".join(_of_row(example))
        if also:
            also(place, example)
    table = numpy.frombuffer(made, "<u8").astype(numpy.uint64).reshape(-1, len(Digests._fields))
    return Digests(*table.T.copy())


def in_groups(keys: numpy.ndarray) -> list[numpy.ndarray]:
    """The places of equal keys, for each key that stands more than once, in the order of the first places."""
    import numpy

    order = numpy.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = numpy.flatnonzero(numpy.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else order
    sizes = numpy.diff(numpy.append(starts, len(keys)))
    groups = [order[start : start + size] for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True)]
    return sorted(groups, key=lambda group: int(group[0]))


def repeated(keys: numpy.ndarray) -> numpy.ndarray:
    """Whether the same key stands before, for each place."""
    import numpy

    again = numpy.ones(len(keys), bool)
    again[numpy.unique(keys, return_index=True)[1]] = False
    return again


def _of_row(example: Example) -> tuple[bytes, bytes, bytes, bytes]:
    one = lesson(example)
    turns = [(m.role, m.content) for m in example.asked] if example.text is None else [("", example.text)]
    return (
        one.pairs[-1] if one.pairs else one.asked,
        one.asked,
        digest("\0".join(f"{role}\0{content.strip()}" for role, content in turns)),
        digest("\0".join(f"{role}\0{' '.join(content.split())}" for role, content in turns)),
    )
