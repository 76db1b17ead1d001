"""Read a `DataSpec`: its rows as examples, to train on and held out."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tunelab.data.builtin import BUILTIN, BuiltinSet
from tunelab.data.content import as_json, lesson
from tunelab.data.divide import Sides, divide
from tunelab.data.examples import Account, DataSplit, Example
from tunelab.data.hub import hub_table
from tunelab.data.mapping import Mapping
from tunelab.data.reading import SUFFIXES, Bad, Row, Table, bad_rows_note, read_table
from tunelab.data.reading.checks import checked
from tunelab.data.shapes import Reader, Rows, reader_of
from tunelab.data.store import Stored, collected
from tunelab.errors import UserError, shown_name
from tunelab.spec import DataSpec

Say = Callable[[str], None]
EVERY = 20_000  # rows between two messages
MOST_BAD = 20  # rows that can't be read, in an account
_Own = tuple[list[Example], list[str]]  # held-out rows that are not drawn from the others, and notes on them


@dataclass(frozen=True)
class _Read:
    """The rows of one side as examples."""

    examples: Sequence[Example]
    notes: list[str]
    mapping: Mapping
    bad: tuple[Bad, ...] = ()
    mended: tuple[str, ...] = ()

    @property
    def every_note(self) -> list[str]:
        return [*self.notes, *self.mended]


def _quietly(message: str) -> None:
    """Says nothing."""


def read_data(
    spec: DataSpec, learn: str = "instructions", roles: dict[str, str] | None = None, on_progress: Say = _quietly
) -> DataSplit:
    """The rows of `spec` as examples, divided; `learn` is `Stage.learn`. Rows that can't be divided are read all the
    same, to be looked at: `DataSplit.problem` says why nothing can be trained on them. `roles`: `DataSplit.columns` of
    a time before, to read the rows in the same way again, whatever would be proposed now. `on_progress` is told every
    `EVERY` rows; what it raises ends the reading.

    Raises:
        UserError: a file, a column or the division is wrong; the message says which and what to do.
    """
    read, own = _undivided(spec, learn, roles, on_progress)
    train, heldout, notes = _sides(read.examples, own, spec)
    used, unused = train[: spec.limit], train[spec.limit :] if spec.limit else []
    return DataSplit(
        spec.title,
        used,
        heldout,
        _sha256(used, heldout),
        (*read.every_note, *notes),
        unused,
        columns=dict(read.mapping.roles),
        account=_account(read, notes, drawn=own is None),
        problem=None if heldout else _one_row(spec),
    )


def _account(read: _Read, dividing: Sequence[str], *, drawn: bool) -> Account:
    mapping = read.mapping
    said = set(mapping.notes[: 1 + bool(mapping.unused)])  # roles, reason and unused columns stand for themselves
    if read.bad:
        said.add(bad_rows_note(read.bad, len(read.bad), ""))
    bad = tuple((one.where, one.reason) for one in read.bad[:MOST_BAD])
    reading = tuple(note for note in read.notes if note not in said)
    found = tuple(name for name in mapping.columns if name)
    return Account(
        mapping.reason, found, mapping.unused, bad, len(read.bad), reading, read.mended, tuple(dividing), drawn
    )


def read_undivided(
    spec: DataSpec, learn: str = "instructions", on_progress: Say = _quietly
) -> tuple[Sequence[Example], list[Example], list[str]]:
    """Every row of `spec`, mended, that is not held-out of its own; the held-out rows of their own; the notes.

    Raises:
        UserError: as `read_data`.
    """
    read, own = _undivided(spec, learn, None, on_progress)
    heldout, notes = own or ([], [])
    return read.examples, heldout, read.every_note + notes


_Undivided = tuple[_Read, _Own | None]
# the large file that was read last: people look at it, examine it and look again, and reading takes a minute
_last: tuple[object, _Undivided] | None = None


def _undivided(spec: DataSpec, learn: str, roles: dict[str, str] | None, on_progress: Say) -> _Undivided:
    """The rows, mended, and held-out rows of their own where there are some."""
    global _last
    asked = _identity(spec, learn, roles)
    if asked and _last and _last[0] == asked:
        return _last[1]
    found = _read_anew(spec, learn, roles, on_progress)
    if asked and isinstance(found[0].examples, Stored) and asked == _identity(spec, learn, roles):
        _last = asked, found
    return found


def _identity(spec: DataSpec, learn: str, roles: dict[str, str] | None) -> object:
    """What reading depends on: the files as they are now, and the settings; None: they are no files."""
    named = (spec.source, spec.heldout)
    if file_of(spec.source) is None or spec.heldout_rows is not None:
        return None
    stamps = stamps_of(named)
    if len(stamps) < sum(file_of(one) is not None for one in named):
        return None
    own = spec.heldout if isinstance(spec.heldout, str) else None  # how many are drawn is settled later
    return stamps, own, spec.model_dump(mode="json", exclude={"heldout", "limit"}), learn, roles


def _read_anew(spec: DataSpec, learn: str, roles: dict[str, str] | None, on_progress: Say) -> _Undivided:
    table = table_of(spec)
    read = _examples(_Told(table.rows, on_progress), spec, learn, table.name, roles)
    own = _own_examples(spec, table, learn, read.mapping)
    if spec.fixes:
        on_progress("mending the rows")
    examples, mended = _mended(read.examples, own, spec)
    return replace(read, examples=examples, notes=[*table.notes, *read.notes], mended=tuple(mended)), own


class _Told:
    """Rows that tell how far they have been gone through."""

    def __init__(self, rows: Rows, say: Say) -> None:
        self._rows, self._say = rows, say

    def __iter__(self) -> Iterator[Row | Bad]:
        for number, row in enumerate(self._rows):
            if number and number % EVERY == 0:
                self._say(f"read {number:,} rows")
            yield row


def _mended(examples: Sequence[Example], own: _Own | None, spec: DataSpec) -> tuple[Sequence[Example], list[str]]:
    """The rows after the fixes that the spec names, and what they did."""
    if not spec.fixes:
        return examples, []
    from tunelab.data.doctor import apply

    mended, record = apply(spec.fixes, examples, own[0] if own else (), seed=spec.seed)
    return collected(mended), record.sentences


def _own_examples(spec: DataSpec, table: Table, learn: str, mapping: Mapping) -> _Own | None:
    """Held-out rows that are not drawn from the others, with the notes on them; None: there are none."""
    own = _own_heldout(spec, table)
    if own is None:
        return None
    heldout, notes = _heldout_examples(own, spec, learn, mapping)
    random.Random(spec.seed).shuffle(heldout)  # files are often sorted, and evaluation takes the first rows
    return heldout, notes


def _sides(examples: Sequence[Example], own: _Own | None, spec: DataSpec) -> Sides:
    if own is not None:
        heldout, notes = own
        return examples, heldout, notes + _leaks(examples, heldout)
    if len(examples) == 1 and examples[0].text is None:
        return examples, [], ["there is one row: it can be looked at, and training needs two"]
    return divide(examples, spec)


def _one_row(spec: DataSpec) -> str:
    return (
        f"{spec.title} has one row: nothing can be held out to measure with. Add rows, or give held-out rows of "
        "their own (heldout: FILE)."
    )


def read_examples(spec: DataSpec, learn: str = "instructions") -> list[Example]:
    """Every row of `spec` as an example, mended and undivided: for rows that are only trained on, or only measured.

    Raises:
        UserError: as `read_data`.
    """
    table = table_of(spec)
    return list(_mended(_examples(table.rows, spec, learn, table.name).examples, None, spec)[0])


def absolute(spec: DataSpec) -> DataSpec:
    """The same with its files named from the root, so that they are found from any directory."""
    named = {"source": spec.source, "heldout": spec.heldout}
    files = {name: os.path.abspath(file) for name, value in named.items() if (file := file_of(value))}
    return spec.model_copy(update=files)


def file_of(source: str | float | None) -> Path | None:
    """The file that a `source` or a `heldout` names, there or not; None for anything else."""
    if not isinstance(source, str) or source in BUILTIN or source == "auto":
        return None
    path = Path(source)
    if source.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:  # nobody of that name
            return path
    return path if path.suffix.lower() in SUFFIXES or os.path.exists(path) else None


def stamps_of(named: Iterable[str | float | None]) -> tuple[tuple[str, int, int, int], ...]:
    """The files that are there among what is named, and how they stand: a file that has changed has another stamp."""
    found = []
    for file in filter(None, map(file_of, named)):
        with suppress(OSError):
            state = os.stat(file)
            found.append((str(file), state.st_ino, state.st_size, state.st_mtime_ns))
    return tuple(found)


def table_of(spec: DataSpec) -> Table:
    """The rows of `spec` as they stand in their source.

    Raises:
        UserError: it can't be read.
    """
    if spec.rows is not None:
        if not spec.rows:
            raise UserError("rows = []: there is nothing to learn from. Give at least two rows.")
        return _in_memory(spec.rows, spec.title)
    source = str(spec.source)
    if source in BUILTIN:
        return _built_in(BUILTIN[source])
    if file := file_of(source):
        return read_table(file, spec.header)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return hub_table(source, spec.subset, spec.split, spec.heldout == "auto", tuple(BUILTIN))
    raise UserError(
        f"source = '{shown_name(source)}' is neither a built-in set ({', '.join(BUILTIN)}), nor a file "
        f"({', '.join(SUFFIXES)}), nor a Hub data set (owner/name)."
    )


def _built_in(one: BuiltinSet) -> Table:
    table = _in_memory(one.rows(), one.name)
    return replace(table, heldout=_in_memory(one.heldout(), one.name).rows) if one.heldout else table


def _in_memory(rows: Sequence[dict[str, object]], name: str) -> Table:
    placed = ((f"row {number}", row) for number, row in enumerate(rows, 1))
    return Table(name, list(checked(placed, name)))


def _examples(rows: Rows, spec: DataSpec, learn: str, name: str, roles: dict[str, str] | None = None) -> _Read:
    reader = reader_of(rows, spec, learn, name, roles)
    return _read(reader, rows)


def _read(reader: Reader, rows: Rows) -> _Read:
    examples = collected(reader.examples(rows))
    return _Read(examples, reader.notes(), reader.mapping, tuple(reader.bad))


def _own_heldout(spec: DataSpec, table: Table) -> Table | None:
    """Held-out rows that are not drawn from the others: those in memory, of a file, or of the data's own test part."""
    if spec.heldout_rows is not None:
        return _in_memory(spec.heldout_rows, "held-out rows")
    if spec.heldout != "auto" and isinstance(spec.heldout, str):
        return read_table(spec.heldout, spec.header)
    if spec.heldout == "auto" and table.heldout is not None:
        return Table(f"the test part of {table.name}", table.heldout)
    return None


def _heldout_examples(table: Table, spec: DataSpec, learn: str, mapping: Mapping) -> tuple[list[Example], list[str]]:
    """Held-out rows, read as the training rows are where they have the same columns."""
    if table.heldout is not None:  # a file with parts: its test part is meant
        table = Table(table.name, table.heldout, None, table.notes)
    reader = reader_of(table.rows, spec, learn, table.name)
    if set(mapping.columns) & set(reader.mapping.columns) >= {
        c for c in mapping.roles.values() if c in mapping.columns
    }:
        reader.mapping = mapping
    read = _read(reader, table.rows)
    known = set(mapping.notes)
    more = [f"held-out rows: {note}" for note in [*table.notes, *read.notes] if note not in known]
    return list(read.examples), [] if table.name == "held-out rows" and not more else [f"held out: {table.name}", *more]


def _leaks(train: Sequence[Example], heldout: Sequence[Example]) -> list[str]:
    """Warnings of held-out rows that ask or answer what is trained on."""
    asked: set[bytes] = set()
    answered: set[bytes] = set()
    for example in train:
        one = lesson(example)
        asked.update(one.prompts)
        answered.update(one.pairs)
    rows: dict[str, list[int]] = {}
    for example in heldout:
        one = lesson(example)
        if one.asked in asked and (not one.pairs or one.pairs[-1] in answered):
            rows.setdefault("are also training rows", []).append(example.row)
        elif answered.intersection(one.pairs):
            rows.setdefault("hold a turn that is also learned from training rows", []).append(example.row)
        elif one.asked in asked:
            rows.setdefault("ask what training rows ask", []).append(example.row)
    return [
        f"warning: {len(found)} held-out rows {what} (held-out row {', '.join(map(str, found[:5]))}): their score says "
        "nothing about new prompts"
        for what, found in rows.items()
    ]


def _sha256(*sides: Sequence[Example]) -> str:
    """Over the rows of both sides as one JSON list, made a row at a time."""
    digest = hashlib.sha256()
    for place, side in enumerate(sides):
        digest.update(b", [" if place else b"[[")
        for number, example in enumerate(side):
            digest.update((", " if number else "").encode() + json.dumps(as_json(example)).encode())
        digest.update(b"]")
    digest.update(b"]")
    return digest.hexdigest()
