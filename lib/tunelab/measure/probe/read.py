"""The questions and instructions that general ability is measured by.

A question is a text that one of several endings continues, in the columns of HellaSwag (Zellers et al. 2019): `ctx`,
`endings`, `label` (the right ending, counted from 0), and here `category`. The project's own are 160 on everyday
knowledge, language, arithmetic and common sense. Instructions are 60 with long answers (letters, tables, plans, …),
unlike the short questions of the set `general` that is mixed into training rows: a probe written like the replay set
would show how well that was learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.data.examples import Example
from tunelab.data.reading import Bad, Row, bad_rows_note, read_table
from tunelab.data.sets.general import probe_choices, probe_instructions
from tunelab.data.shapes import to_examples
from tunelab.errors import UserError, listed, shortened, shown_name
from tunelab.spec import DataSpec

COLUMNS = ("ctx", "endings", "label")
BUILT_IN = "the built-in probe"
NO_CATEGORY = ""
MOST_CHOICES = 26


@dataclass(frozen=True)
class Question:
    """A text and its possible endings; `right` is the place of the right one."""

    context: str
    choices: tuple[str, ...]
    right: int
    category: str = NO_CATEGORY
    where: str = ""  # the line or row it was read from


@dataclass(frozen=True)
class Probe:
    """Questions, in the order of their file, and what there is to know about them."""

    name: str
    questions: tuple[Question, ...]
    notes: tuple[str, ...] = ()

    def first(self, count: int) -> Probe:
        """At most `count` of the questions, spread evenly over all of them (and so over categories that lie together).

        Raises:
            UserError: fewer than one is asked for.
        """
        if count < 1:
            raise UserError(f"questions = {count}: at least 1 is needed to measure anything.")
        total = len(self.questions)
        if count >= total:
            return self
        places = [index * total // count for index in range(count)]
        note = f"{count:,} of {total:,} questions of {self.name} are used"
        return Probe(self.name, tuple(self.questions[place] for place in places), (*self.notes, note))


def read_probe(source: str | Path | Sequence[Row] | None = None) -> Probe:
    """The probe of a file, or of rows in memory, in the columns of HellaSwag; None: the built-in one. Rows that can't
    be used are left out, and a note says which.

    Raises:
        UserError: the file can't be read, or more of its rows are unusable than usable.
    """
    if source is None:
        return _probe(BUILT_IN, probe_choices())
    if isinstance(source, (str, Path)):
        table = read_table(source)
        if table.heldout is not None:
            names = "a train and a test part"
            raise UserError(f"{table.name} holds {names}. A probe is one list of questions: give the part to measure.")
        read = _probe(table.name, table.rows)
        return Probe(read.name, read.questions, (*table.notes, *read.notes))
    return _probe("the rows given", source)


def instructions() -> list[Example]:
    """The general instructions with their answers, as examples: never train on them."""
    rows = probe_instructions()
    return to_examples(rows, DataSpec(rows=tuple(rows)), "instructions", "the probe's instructions")[0]


def _probe(name: str, rows: Iterable[Row | Bad]) -> Probe:
    read = [row if isinstance(row, Bad) else _question(row, f"row {n}") for n, row in enumerate(rows, 1)]
    good = [one for one in read if isinstance(one, Question)]
    bad = [one for one in read if isinstance(one, Bad)]
    if not read:
        raise UserError(f"{name} is empty. A probe needs rows with the columns {listed(COLUMNS)}.")
    notes = [bad_rows_note(bad, len(good), name)] if bad else []
    different = list(dict.fromkeys((one.context, one.choices) for one in good))
    if len(different) < len(good):
        notes.append(f"{len(good) - len(different):,} of the questions of {name} stand in it twice, and count twice")
    return Probe(shown_name(name), tuple(good), tuple(notes))


def _question(row: Row, where: str) -> Question | Bad:
    if missing := [column for column in COLUMNS if column not in row]:
        need = "a probe needs 'ctx' (a text), 'endings' (a list of texts) and 'label' (the right one's place, from 0)"
        return Bad(where, f"there is no '{missing[0]}' among its columns ({listed(row, 6)}); {need}")
    context, label = row["ctx"], row["label"]
    choices = _as_list(row["endings"])
    if not isinstance(context, str) or not context.strip():
        return Bad(where, f"ctx = {shortened(context)}: it has to be a text that is not empty")
    if choices is None or not 2 <= len(choices) <= MOST_CHOICES:
        allowed = f"2 to {MOST_CHOICES} texts, none of them empty"
        return Bad(where, f"endings = {shortened(row['endings'])}: it has to be a list of {allowed}")
    right = _as_place(label)
    if right is None or not 0 <= right < len(choices):
        return Bad(where, f"label = {shortened(label)}: it has to be a whole number from 0 to {len(choices) - 1}")
    if choices.count(choices[right]) > 1:
        return Bad(where, f"its right ending {shortened(choices[right])} stands among the wrong ones as well")
    category = row.get("category")
    return Question(context, tuple(choices), right, category if isinstance(category, str) else NO_CATEGORY, where)


def _as_list(value: Any) -> list[str] | None:
    """A list of texts that are not empty, also where a table's cell holds it as JSON; None: it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and one.strip() for one in value):
        return None
    return list(value)


def _as_place(value: Any) -> int | None:
    """A whole number, also where it was written as text."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
