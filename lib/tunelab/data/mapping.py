"""Which column plays which role: proposed from all rows, with the reason; what the user names comes first.

messages, conversations   turns: OpenAI's, ShareGPT's and their dialects; `completion` or `chosen` may end them
prompt, input, context    what is asked; the parts stand under each other
choices                   answers to choose from, of which `completion` names one
completion, chosen        what is learned (never what was rejected)
system, history           what stands before
label                     whether the answer is one to learn (KTO)
text                      plain text, for a stage that learns from text
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from tunelab.data.advice import ColumnError, missing, not_there
from tunelab.data.cells import column_of, fields_of, is_template
from tunelab.data.choosing import columns_of_choices, found_choices, note_of_numbers
from tunelab.data.columns import Column, columns_of
from tunelab.data.conversing import refuse_rows_of_turns, turns_of_columns
from tunelab.data.names import LABELS, SYSTEMS, TEXTS, by_name, first
from tunelab.data.pairing import asked_of, asked_roles, pair_of_columns
from tunelab.data.reading import Row
from tunelab.errors import UserError, listed, shortened
from tunelab.spec import DataSpec

SHOWN_NAMES = 8
LEAST_SAME = 10  # rows with one answer, before that is told

Shape = Literal["turns", "pair", "choices", "text"]


@dataclass(frozen=True)
class Mapping:
    """Roles and their columns (or templates), why, and the columns that stand in none."""

    shape: Shape
    roles: dict[str, str]
    reason: str
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    columns: dict[str, Column] = field(default_factory=dict, repr=False, compare=False)

    @property
    def notes(self) -> list[str]:
        """What to say of it."""
        parts = [f"{role} ← {column}" for role, column in self.roles.items()]
        said = [f"{', '.join(parts)} ({self.reason})".replace("\n", "⏎")]
        if self.unused:
            said.append(f"not used: {listed(self.unused, SHOWN_NAMES)}")
        return [*said, *self.warnings, *self._blanks()]

    def _blanks(self) -> list[str]:
        """Cells that say in words that they are empty."""
        used = [column for column in self.columns.values() if column.blanks and column.name not in self.unused]
        return [
            f"{column.blanks:,} cells of {shortened(column.name, 40)} that say {listed(sorted(column.blank))} are read "
            "as empty"
            for column in used
        ]


def propose(rows: Iterable[Row], spec: DataSpec, learn: str, name: str, roles: dict[str, str] | None = None) -> Mapping:
    """The mapping of these rows, which are gone through once, and once more where a column may be a copy of others.
    `roles`: of a mapping that was made before, to be used again.

    Raises:
        UserError: a column that is named is not there, or none to learn from is recognised; the message names some that
            could be.
    """
    found = {column.name: column for column in columns_of(rows).values() if column.filled or column.key}
    if roles is not None:
        _check_roles(roles, found, name)
        return Mapping(
            _shape(roles, learn), roles, "as before", _unused(roles, found), _warnings(roles, found, spec), found
        )
    named = _named(spec, found, name)
    group = named.pop("group", None)  # no part of what is asked and learned
    filled = by_name(found.values())
    if learn == "text":
        roles, reason = _text(named, filled, found, name)
    else:
        of_several = (None if spec.template else turns_of_columns(named, filled, found)) or _choices(
            named, filled, found
        )
        if not named:
            refuse_rows_of_turns(filled, found, name)
        roles, reason = of_several or pair_of_columns(named, filled, found, rows, name)
    system = named.get("system") or first(SYSTEMS, filled)
    if learn != "text" and system:
        roles = {"system": system, **roles}
    if group:
        roles = {**roles, "group": group}
    return Mapping(_shape(roles, learn), roles, reason, _unused(roles, found), _warnings(roles, found, spec), found)


def _named(spec: DataSpec, found: dict[str, Column], name: str) -> dict[str, str]:
    """The roles that the user named; `template` is the prompt's."""
    named = dict(spec.columns or {})
    if spec.template:
        if not fields_of(spec.template):
            example = next(iter(found), "text")
            raise UserError(
                f"template = {shortened(spec.template)} names no column. Write e.g. 'Classify: {{{example}}}'."
            )
        named["prompt"] = spec.template
    _check_roles(named, found, name)
    return named


def _check_roles(roles: dict[str, str], found: dict[str, Column], name: str) -> None:
    """
    Raises:
        UserError: a role's column is not there, or one that its template names.
    """
    for role, column in roles.items():
        if column in found or (role == "choices" and set(column.split(",")) <= found.keys()):
            continue
        if not is_template(column, list(found)):
            raise not_there(f"{name}: there is no column {shortened(column)} (given for '{role}')", found, role, column)
        for part in fields_of(column):
            if column_of(part, list(found)) is None:
                problem = f"{name}: the template names {shortened('{' + part + '}')}, which is no column"
                error = missing(problem, found)
                raise ColumnError(str(error), problem, found, error.advised, role)


def _shape(roles: dict[str, str], learn: str) -> Shape:
    if learn == "text":
        return "text"
    return "turns" if roles.keys() & {"messages", "conversations"} else "choices" if "choices" in roles else "pair"


Found = tuple[dict[str, str], str]


def _text(named: dict[str, str], filled: dict[str, str], found: dict[str, Column], name: str) -> Found:
    if "text" in named:
        return {"text": named["text"]}, "as named"
    known = first(TEXTS, filled)
    texts = [column.name for column in found.values() if column.filled and column.kinds == {"text"}]
    if known is None and len(texts) != 1:
        raise missing(f"{name}: no column with plain text was recognised", found, role="text")
    return {"text": known or texts[0]}, "plain text"


def _choices(named: dict[str, str], filled: dict[str, str], found: dict[str, Column]) -> Found | None:
    right = found_choices(named, filled, found)
    if right is None:
        return None
    choices, answer = right
    taken = {answer, choices, *columns_of_choices(choices, found)}
    free = {key: name for key, name in filled.items() if name not in taken}
    asked = named.get("prompt") or asked_of(free, found)
    if asked is None:
        return None
    roles = asked_roles(asked, free, found, named, together=True)
    return roles | {"choices": choices, "completion": answer}, "a question, choices, and which is right"


def _unused(roles: dict[str, str], found: dict[str, Column]) -> tuple[str, ...]:
    used = {*roles.values(), *roles.get("choices", "").split(",")}
    for value in roles.values():
        used |= (
            {column_of(part, list(found)) or "" for part in fields_of(value)}
            if is_template(value, list(found))
            else set()
        )
    return tuple(column.name for column in found.values() if column.filled and column.name and column.name not in used)


def _warnings(roles: dict[str, str], found: dict[str, Column], spec: DataSpec) -> tuple[str, ...]:
    answer = found.get(roles.get("completion", ""))
    if answer is None or spec.labels:
        return ()
    if "choices" in roles:
        return note_of_numbers(answer, columns_of_choices(roles["choices"], found), found)
    numbers = sorted(answer.values, key=lambda value: (len(value), value))
    are_labels = answer.key in LABELS or (len(numbers) <= 20 and answer.filled >= 10 * len(numbers))
    if are_labels and 1 < len(numbers) <= 100 and all(re.fullmatch(r"-?\d+(\.0)?", value.strip()) for value in numbers):
        shown = ", ".join(numbers[:3]) + (", …" if len(numbers) > 3 else "")
        return (
            f"the labels are numbers ({shown}); words would be learned better: give them as labels, e.g. "
            f"{{'{numbers[0]}': 'a word', '{numbers[1]}': 'another'}}",
        )
    return _of_answers(answer)


def _of_answers(answer: Column) -> tuple[str, ...]:
    """What to say of answers that teach little: all are the same, or they are measured numbers."""
    if answer.is_constant and answer.filled >= LEAST_SAME:
        shown = shortened(answer.opening or "", 40)
        return (f"warning: the answer is the same in all {answer.filled:,} rows ({shown}): nothing else is learned",)
    fractions = sorted(value for value in answer.values if not re.fullmatch(r"-?\d+(\.0)?", value))
    if answer.kinds == {"number"} and fractions:
        shown = f"{fractions[0]}, …" if len(fractions) > 1 else fractions[0]
        return (
            f"the answers are numbers ({shown}): they are learned as text, in which a near miss is as wrong as any",
        )
    return ()
