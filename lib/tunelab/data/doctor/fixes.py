"""What mends training rows: `apply` takes fixes by name and gives the rows as they are then, and a record for the run.

Rows are left out or seen through a change, never copied: a million of them stay where they are. Fixes go round until
none of them finds anything to do, so applying them twice is applying them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tunelab.data.control import control_tokens
from tunelab.data.doctor import near
from tunelab.data.doctor.answers import (
    Lengths,
    Openings,
    asks_or_answers_nothing,
    can_be_stripped,
    without_opening,
)
from tunelab.data.doctor.digests import digests, repeated
from tunelab.data.doctor.finding import FIXES, counted
from tunelab.data.doctor.injections import injection_in
from tunelab.data.doctor.labels import Labels, MergedLabels
from tunelab.data.doctor.markers import Markers
from tunelab.data.doctor.personal import without_personal_data
from tunelab.data.doctor.repeats import extra_conflicting, nearly_leaked
from tunelab.data.doctor.words import repaired_row
from tunelab.data.examples import Example
from tunelab.data.store import Picked, View
from tunelab.data.template import Template
from tunelab.errors import UserError, shortened

if TYPE_CHECKING:
    import numpy

Rows = Sequence[Example]
Change = Callable[[Example], Example]
MOST_RECORDED = 100  # numbers of rows in a record


class Changed(View):
    """The rows as a change makes them."""

    def __init__(self, rows: Rows, change: Change) -> None:
        self._rows, self._change = rows, change

    def __len__(self) -> int:
        return len(self._rows)

    def _at(self, index: int) -> Example:
        return self._change(self._rows[index])

    def __iter__(self) -> Iterator[Example]:
        return map(self._change, self._rows)


def apply(
    fixes: Iterable[str], examples: Rows, heldout: Rows = (), *, tokenizer: Any = None, seed: int = 0
) -> tuple[Rows, Mended]:
    """The training rows after these fixes, in their order, and the record of what was done.

    Held-out rows are compared with (`drop-leaked`) and never changed. `tokenizer`: whose control tokens `strip-control`
    takes out beside those of widespread templates. The order of the names does not matter.

    Raises:
        UserError: there is no such fix, it lacks held-out rows, or no row is left.
    """
    names = _in_turn(fixes, heldout)
    rows = examples
    done: dict[str, _Done] = {name: _Done() for name in names}
    context = _Context(heldout, tokenizer, seed)
    going = True
    while going and names:
        going = False
        for name in names:
            before, rows = rows, _STEPS[name](context, rows, done[name])
            going = going or rows is not before
            if not len(rows):
                raise UserError(f"--fix {name} leaves no row to train on. Leave this fix out, or add rows.")
    return rows, Mended(len(examples), len(rows), {name: one.counts() for name, one in done.items()})


def _in_turn(fixes: Iterable[str], heldout: Rows) -> list[str]:
    """The names in the order in which they are applied: leaks, then what changes text, then what leaves rows out."""
    given = set(fixes)
    for name in sorted(given):
        if name not in FIXES:
            raise UserError(f"--fix {shortened(name)}: there is no such fix. Allowed: {', '.join(FIXES)}.")
    if (leaks := sorted(given & {"drop-leaked", "drop-near-leaked"})) and not len(heldout):
        raise UserError(f"--fix {leaks[0]} compares with held-out rows, and there are none. Give --heldout FILE.")
    return [name for name in FIXES if name in given]


@dataclass(frozen=True)
class Did:
    """What one fix did: rows that it changed and dropped, and the numbers of some of them in their source."""

    changed: int
    dropped: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Mended:
    """The record of fixes."""

    rows_before: int
    rows_after: int
    fixes: dict[str, Did]

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON knows it."""
        return asdict(self)

    @property
    def sentences(self) -> list[str]:
        """A sentence for each fix."""
        return [f"{name}: {_in_words(did)}" for name, did in self.fixes.items()]


def _in_words(did: Did) -> str:
    counts = {"changed": did.changed, "dropped": did.dropped}
    done = [f"{counted(count, 'row')} {what}" for what, count in counts.items() if count]
    if not done:
        return "nothing to do"
    return f"{', '.join(done)} (row {', '.join(map(str, did.rows[:5]))}{', …' if len(did.rows) > 5 else ''})"


class _Done:
    """What a fix did so far."""

    def __init__(self) -> None:
        self.changed = self.dropped = 0
        self.rows: list[int] = []

    def counts(self) -> Did:
        return Did(self.changed, self.dropped, tuple(sorted(self.rows)))

    def tell(self, example: Example) -> None:
        if len(self.rows) < MOST_RECORDED:
            self.rows.append(example.row)


class _Context:
    """What fixes are told beside the rows."""

    def __init__(self, heldout: Rows, tokenizer: Any, seed: int) -> None:
        self.heldout, self.seed = heldout, seed
        self.markers = Markers(control_tokens(tokenizer, Template(tokenizer)) if tokenizer is not None else None)


def _change(change: Change, rows: Rows, done: _Done) -> Rows:
    found = False
    for example in rows:
        if change(example) != example:
            found = True
            done.changed += 1
            done.tell(example)
    return Changed(rows, change) if found else rows


def _drop(out: numpy.ndarray, rows: Rows, done: _Done) -> Rows:
    import numpy

    if not out.any():
        return rows
    places = numpy.flatnonzero(out)
    done.dropped += len(places)
    for place in places[:MOST_RECORDED].tolist():
        done.tell(rows[place])
    return Picked(rows, numpy.flatnonzero(~out))


def _drop_each(unwanted: Callable[[Example], Any], rows: Rows, done: _Done) -> Rows:
    import numpy

    return _drop(numpy.fromiter((bool(unwanted(example)) for example in rows), bool, len(rows)), rows, done)


def _merge_labels(_context: _Context, rows: Rows, done: _Done) -> Rows:
    labels = Labels()
    for example in rows:
        labels.see(example)
    return _change(MergedLabels(labels.merged()), rows, done)


def _strip_openings(_context: _Context, rows: Rows, done: _Done) -> Rows:
    openings = Openings()
    for example in rows:
        openings.see(example)
    found = openings.shared()
    if not found or not can_be_stripped(found[0]):
        return rows
    return _change(partial(without_opening, opening=found[0]), rows, done)


def _drop_short(_context: _Context, rows: Rows, done: _Done) -> Rows:
    import numpy

    lengths = Lengths(len(rows))
    for place, example in enumerate(rows):
        lengths.see(place, example)
    out = numpy.zeros(len(rows), bool)
    if rows[0].text is None:
        out[lengths.short()] = True
    return _drop(out, rows, done)


def _drop_leaked(context: _Context, rows: Rows, done: _Done) -> Rows:
    import numpy

    return _drop(numpy.isin(digests(rows).asked, digests(context.heldout).asked), rows, done)


def _drop_near_leaked(context: _Context, rows: Rows, done: _Done) -> Rows:
    frame = near.frame_of(rows, near.asked_row, context.seed)
    train, heldout = (near.signatures(map(near.asked_row, side), len(side), frame) for side in (rows, context.heldout))
    return _drop(nearly_leaked(train, heldout), rows, done)


def _drop_near_duplicates(context: _Context, rows: Rows, done: _Done) -> Rows:
    import numpy

    signed = near.signatures(map(near.whole_row, rows), len(rows), near.frame_of(rows, near.whole_row, context.seed))
    return _drop(near.first_of_each(signed) != numpy.arange(len(rows)), rows, done)


_STEPS: dict[str, Callable[[_Context, Rows, _Done], Rows]] = {
    "repair-text": lambda _context, rows, done: _change(repaired_row, rows, done),
    "strip-control": lambda context, rows, done: _change(context.markers.stripped, rows, done),
    "mask-personal-data": lambda _context, rows, done: _change(without_personal_data, rows, done),
    "strip-openings": _strip_openings,
    "merge-labels": _merge_labels,
    "drop-empty": lambda _context, rows, done: _drop_each(asks_or_answers_nothing, rows, done),
    "drop-short": _drop_short,
    "drop-injections": lambda _context, rows, done: _drop_each(injection_in, rows, done),
    "drop-leaked": _drop_leaked,
    "drop-near-leaked": _drop_near_leaked,
    "drop-duplicates": lambda _context, rows, done: _drop(repeated(digests(rows).whole), rows, done),
    "drop-conflicts": lambda _context, rows, done: _drop(extra_conflicting(digests(rows)), rows, done),
    "drop-near-duplicates": _drop_near_duplicates,
}
assert _STEPS.keys() == FIXES.keys()
