"""Rows that are nearly equal, found without comparing every row with every other.

A text is the set of its windows of five characters. Two texts are near when their sets have a Jaccard similarity of at
least `NEAR`. A MinHash signature (Broder 1997) keeps 128 values of a set, and of each only eight bits (b-bit minwise
hashing: Li and König 2010): equal values are as frequent as the sets are similar. Rows whose signatures agree in one
of 21 bands are compared (locality-sensitive hashing: Indyk and Motwani 1998); a pair of similarity 0.8 meets in one
with a probability of 0.998.

Two things keep rows apart that only look alike. What every tenth row says (a template around the prompt, a long system
text) does not count. And numbers and short answers have to be the same: "12 + 13" is not nearly "14 + 13".
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tunelab.data.content import digest, folded, hashed_windows
from tunelab.data.examples import Example
from tunelab.data.links import Links

if TYPE_CHECKING:
    import numpy

NEAR = 0.8
WINDOW = 5  # characters
VALUES, PER_BAND = 128, 6
BANDS = VALUES // PER_BAND
AT_ONCE, CHARACTERS_AT_ONCE = 2000, 1 << 20  # rows, and what they may hold
MOST_COMPARED = 100_000  # characters of a row: what stands behind them is not looked at
OFTEN, ALWAYS = 0.1, 0.95  # of the rows that say it
LEAST_OFTEN, LEAST_ALWAYS, FRAME_SAMPLE = 50, 10, 2000  # different rows from which it is told
LEAST_OWN = 16  # windows that a row has to have beside what rows often say, or that counts as well
FRAME_BITS = 20
SHORT_ANSWER = 60  # characters
CANDIDATES = 4  # rows of another side that a row is compared with, in each band
SEED = 1
NUMBER = re.compile(r"\d+")


class Signatures(NamedTuple):
    values: numpy.ndarray  # (rows, 128), uint8
    exact: numpy.ndarray  # (rows,), uint64: of what has to be the same, numbers and a short answer


class Near(NamedTuple):
    """A text to compare, and what has to be the same."""

    text: str
    exact: str


def whole_row(example: Example) -> Near:
    answer = folded(example.answer[:MOST_COMPARED])
    return _near(said(example), answer if len(answer) <= SHORT_ANSWER else "")


def asked_row(example: Example) -> Near:
    """What a row asks; plain text asks itself."""
    return _near("\n".join(m.content for m in example.asked) if example.text is None else example.text, "")


def said(example: Example) -> str:
    """All words of a row."""
    return "\n".join(example.texts)


def _near(text: str, answer: str) -> Near:
    text = folded(text[:MOST_COMPARED])
    return Near(text, "\0".join([answer, *NUMBER.findall(text)]))


def frame_of(rows: Sequence[Example], how: Callable[[Example], Near], seed: int) -> numpy.ndarray | None:
    """Which windows every tenth row says, told from a sample: 1 in a table by the first bits of their hashes, and 2
    where all rows do. None: there are too few different rows to tell."""
    import numpy

    places = sorted(random.Random(seed).sample(range(len(rows)), min(FRAME_SAMPLE, len(rows))))
    texts = list(dict.fromkeys(how(rows[place]).text for place in places))
    if len(texts) < LEAST_ALWAYS:
        return None
    counts = numpy.zeros(1 << FRAME_BITS, numpy.int32)
    for text in texts:
        hashes, _offsets = _windows([text])
        counts[numpy.unique(hashes >> numpy.uint64(64 - FRAME_BITS)).astype(numpy.int64)] += 1
    often = OFTEN if len(texts) >= LEAST_OFTEN else ALWAYS
    return (counts >= often * len(texts)).astype(numpy.uint8) + (counts >= ALWAYS * len(texts))


class Signer:
    """Makes the signatures of `count` rows, given one after the other."""

    def __init__(self, count: int, frame: numpy.ndarray | None) -> None:
        import numpy

        self.frame = frame
        self._values = numpy.empty((count, VALUES), numpy.uint8)
        self._exact = numpy.empty(count, numpy.uint64)
        self._waiting: list[Near] = []
        self._characters = self._done = 0

    def add(self, row: Near) -> None:
        self._waiting.append(row)
        self._characters += len(row.text)
        if len(self._waiting) == AT_ONCE or self._characters >= CHARACTERS_AT_ONCE:
            self._sign()

    def signatures(self) -> Signatures:
        """Of all rows, when all were given."""
        if self._waiting:
            self._sign()
        assert self._done == len(self._exact), f"{self._done} rows instead of {len(self._exact)}"
        return Signatures(self._values, self._exact)

    def _sign(self) -> None:
        import numpy
        from rensa import RMinHash

        hashes, offsets = _windows([row.text for row in self._waiting])
        if self.frame is not None:
            hashes, offsets = _without_frame(hashes, offsets, self.frame)
        made = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, VALUES, SEED).to_rows()
        end = self._done + len(self._waiting)
        self._values[self._done : end] = numpy.array(made, numpy.uint32) & numpy.uint32(0xFF)
        self._exact[self._done : end] = [int.from_bytes(digest(row.exact), "little") for row in self._waiting]
        self._waiting, self._characters, self._done = [], 0, end


def signatures(rows: Iterable[Near], count: int, frame: numpy.ndarray | None) -> Signatures:
    """The signatures of `count` rows."""
    signer = Signer(count, frame)
    for row in rows:
        signer.add(row)
    return signer.signatures()


def first_of_each(rows: Signatures, left_out: numpy.ndarray | None = None) -> numpy.ndarray:
    """For each row the first one of its cluster: rows that are near each other, or linked by such. Rows that are
    `left_out` (a truth value for each) stand for themselves."""
    import numpy

    first = numpy.arange(len(rows.exact))
    left = first if left_out is None else numpy.flatnonzero(~left_out)  # of each cluster so far the first row
    while len(pairs := _pairs(rows, left)):
        first = _joined(pairs, len(first))[first]
        left = left[first[left] == left]
    return first


def nearest(rows: Signatures, among: Signatures) -> numpy.ndarray:
    """For each row the index of one that it is near to among others, -1 where there is none."""
    import numpy

    found = numpy.full(len(rows.exact), -1)
    if not len(among.exact):
        return found
    for band in range(BANDS):
        keys, others = _keys(rows, band), _keys(among, band)
        order = numpy.argsort(others, kind="stable")
        place = numpy.searchsorted(others[order], keys)
        for step in range(CANDIDATES):
            at = numpy.minimum(place + step, len(order) - 1)
            open_rows = numpy.flatnonzero((found < 0) & (others[order[at]] == keys))
            candidates = order[at[open_rows]]
            near = _similar(rows, open_rows, among, candidates)
            found[open_rows[near]] = candidates[near]
    return found


def _windows(texts: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The hashes (uint64) of all windows, text after text, and where each text begins and the last one ends."""
    import numpy

    padded = [text.ljust(WINDOW) for text in texts]
    data = numpy.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), numpy.uint32)
    hashes = hashed_windows(data, WINDOW)
    hashes ^= hashes >> numpy.uint64(29)
    hashes *= numpy.uint64(0xBF58476D1CE4E5B9)
    lengths = numpy.array([len(text) for text in padded])
    ends = numpy.cumsum(lengths)
    across = (ends[:-1, None] - numpy.arange(1, WINDOW)).ravel()  # windows that reach into the next text
    offsets = numpy.concatenate([[0], numpy.cumsum(lengths - WINDOW + 1)])
    return numpy.delete(hashes, across), offsets.astype(numpy.uint64)


def _without_frame(hashes: Any, offsets: Any, frame: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The windows beside what rows often say; of rows that have hardly any, those beside what all rows say; of rows
    that have none at all, every one."""
    import numpy

    level = frame[(hashes >> numpy.uint64(64 - FRAME_BITS)).astype(numpy.int64)]
    starts = offsets[:-1].astype(numpy.int64)
    lengths = numpy.diff(offsets.astype(numpy.int64))
    own = numpy.add.reduceat(level < 1, starts, dtype=numpy.int64)
    beside = numpy.add.reduceat(level < 2, starts, dtype=numpy.int64)
    most = numpy.where(own >= LEAST_OWN, 0, numpy.where(beside > 0, 1, 2))
    kept = level <= numpy.repeat(most, lengths)
    counts = numpy.add.reduceat(kept, starts, dtype=numpy.int64)
    return hashes[kept], numpy.concatenate([[0], numpy.cumsum(counts)]).astype(numpy.uint64)


def _keys(rows: Signatures, band: int) -> numpy.ndarray:
    """What rows have to agree in to be compared in a band: its values, and what has to be the same."""
    import numpy

    keys = rows.exact.copy()
    for place in range(band * PER_BAND, (band + 1) * PER_BAND):
        keys *= numpy.uint64(0x100000001B3)
        keys ^= rows.values[:, place]
    return keys


def _pairs(rows: Signatures, left: numpy.ndarray) -> numpy.ndarray:
    """Pairs (n, 2) of near rows among those that are `left`: in every band each is compared with the first one of
    those that agree, and with the one before it."""
    import numpy

    pairs = [numpy.empty((0, 2), numpy.int64)]
    for band in range(BANDS):
        keys = _keys(rows, band)[left]
        order = numpy.argsort(keys, kind="stable")
        keys, places = keys[order], left[order]
        again = numpy.flatnonzero(keys[1:] == keys[:-1]) + 1
        row = places[again]
        for other in (places[numpy.searchsorted(keys, keys[again])], places[again - 1]):
            near = _similar(rows, row, rows, other)
            pairs.append(numpy.stack([other[near], row[near]], axis=1))
    return numpy.unique(numpy.concatenate(pairs), axis=0)


def _similar(some: Signatures, places: numpy.ndarray, others: Signatures, other: numpy.ndarray) -> numpy.ndarray:
    """Whether rows, by their places, are near; one value of 256 is equal by chance."""

    near = some.exact[places] == others.exact[other]
    for start in range(0, len(places), 1 << 16):
        part = slice(start, start + (1 << 16))
        equal = (some.values[places[part]] == others.values[other[part]]).mean(axis=1)
        near[part] &= (equal - 1 / 256) / (1 - 1 / 256) >= NEAR
    return near


def _joined(pairs: numpy.ndarray, count: int) -> numpy.ndarray:
    """For each of `count` rows the first one that it is linked to."""
    import numpy

    links = Links(count)
    for one, other in pairs.tolist():
        links.link(one, other)
    return numpy.array(links.firsts(), numpy.int64)
