"""From rows to examples, by a mapping of their columns (`mapping.py`). What is left out is counted and said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tunelab.data.advice import advised, another_answer, flags
from tunelab.data.cells import cell, fields_of, filled, is_template, says_yes, written
from tunelab.data.choosing import reader_of_choices
from tunelab.data.columns import kind_of
from tunelab.data.examples import Example, Message
from tunelab.data.mapping import Mapping, propose
from tunelab.data.names import IMAGES
from tunelab.data.reading import Bad, Row, bad_rows_note
from tunelab.data.reading.checks import Unreadable
from tunelab.data.reading.unfolding import unfolded
from tunelab.data.transcripts import without_label
from tunelab.data.turns import asked_turns, history_of, turns_of, words_of
from tunelab.errors import UserError, shortened
from tunelab.spec import DataSpec

Rows = Iterable[Row | Bad]
# why a row is not learned from: said in a note of "3 rows …", and in the error where there are no others
REASONS = {
    "empty": "without an answer",
    "unwanted": "whose label is false (an answer not to learn)",
    "nothing to learn": "without an answer that is to be learned (weight 0)",
    "calls": "without an answer but calls of tools (turns with calls are read, not learned)",
}


@dataclass
class Reader:
    """Examples of rows, and what happened on the way. `notes` are complete when all rows have been gone through."""

    mapping: Mapping
    spec: DataSpec
    name: str
    bad: list[Bad] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    openings: int = 0  # conversations that the assistant begins
    turn_keys: set[str] = field(default_factory=set)  # of turns, that are not read
    transcripts: int = 0  # prompts that are a conversation, written down
    several: int = 0  # rows with several answers, of which the first is learned
    good: int = 0

    def examples(self, rows: Rows) -> Iterator[Example]:
        """One example per row that has something to learn from."""
        parse, group = self._parser(), self.mapping.roles.get("group")
        for number, row in unfolded(rows):
            try:
                if isinstance(row, Bad):
                    self.bad.append(row)
                    continue
                if picture := self._picture(row):
                    raise Unreadable(
                        f"holds an image (column {shortened(picture, 40)}); only text is learned{self._text_alone()}"
                    )
                example = parse(row, number)
            except Unreadable as problem:
                self.bad.append(Bad(f"row {number}", str(problem)[:200]))
                continue
            if isinstance(example, Example):
                self.good += 1
                yield replace(example, group=written(row.get(group)).strip()) if group else example
            else:
                self.left_out.setdefault(example, []).append(number)

    def notes(self) -> list[str]:
        """What to know of the rows.

        Raises:
            UserError: none has anything to learn from, or more of them can't be read than can.
        """
        if not self.good and not self.bad:
            raise self._nothing()
        notes = list(self.mapping.notes)
        if self.bad:
            notes.append(bad_rows_note(self.bad, self.good + sum(map(len, self.left_out.values())), self.name))
        if not self.good:
            raise self._nothing()
        for reason, rows in self.left_out.items():
            shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
            were = "1 row {} was" if len(rows) == 1 else f"{len(rows):,} rows {{}} were"
            notes.append(f"{were.format(REASONS[reason])} left out (row {shown})")
        if self.openings:
            begin = "1 conversation begins" if self.openings == 1 else f"{self.openings:,} conversations begin"
            notes.append(f"{begin} with a turn of the assistant that nobody asked for: that first turn is left out")
        if self.transcripts:
            are = (
                "1 prompt is a transcript" if self.transcripts == 1 else f"{self.transcripts:,} prompts are transcripts"
            )
            notes.append(f"{are} (as in 'Human: … Assistant: …'): read as turns")
        if self.several:
            give = "1 row gives" if self.several == 1 else f"{self.several:,} rows give"
            notes.append(f"{give} several answers: the first one is learned")
        if self.turn_keys:
            notes.append(f"not used of the turns: {', '.join(sorted(self.turn_keys)[:8])}")
        return notes

    def _nothing(self) -> UserError:
        if not self.left_out:
            return _no_rows(self.name)
        reason, rows = max(self.left_out.items(), key=lambda one: len(one[1]))
        count = sum(map(len, self.left_out.values()))
        why = "the answer is empty" if reason == "empty" else f"it is a row {REASONS[reason]}"
        if reason == "calls":
            return UserError(
                f"{self.name}, row {rows[0]}: there is nothing to learn from ({why}), and so in all {count} rows. Give "
                "conversations that go on to an answer in words."
            )
        return UserError(
            f"{self.name}, row {rows[0]}: there is nothing to learn from ({why}), and so in all {count} rows. "
            f"{self._instead()}"
        )

    def _instead(self) -> str:
        """What to do where all answers are empty."""
        roles = self.mapping.roles
        other = another_answer(self.mapping.columns, roles.values()) if self.mapping.shape == "pair" else None
        if other is None:
            return "Fill the answers."
        named = {role: column for role, column in roles.items() if role in ("prompt", "input", "context")}
        return f"Fill the answers, or name another column: {flags(named | {'completion': other})}."

    def _picture(self, row: Row) -> str | None:
        if self.spec.columns or self.spec.template:
            return None  # somebody has chosen what is read
        return next((key for key, value in row.items() if key.lower() in IMAGES and kind_of(value)), None)

    def _text_alone(self) -> str:
        """How to learn rows with pictures without them."""
        columns = {name: column for name, column in self.mapping.columns.items() if column.key not in IMAGES}
        named = advised(columns)
        return f"; to learn the text without it: {flags(named)}" if named else ""

    def _parser(self) -> Callable[[Row, int], Example | str]:
        return {"turns": self._turns, "pair": self._pair, "choices": self._choices, "text": self._text}[
            self.mapping.shape
        ]()

    def _text(self) -> Callable[[Row, int], Example | str]:
        text = self._cell("text")

        def parse(row: Row, number: int) -> Example | str:
            found = text(row).strip()
            return Example(text=found, row=number) if found else "empty"

        return parse

    def _turns(self) -> Callable[[Row, int], Example | str]:
        roles = self.mapping.roles
        column = roles["messages" if "messages" in roles else "conversations"]
        system, ending, wanted = self._system(), roles.get("completion"), roles.get("label")

        def parse(row: Row, number: int) -> Example | str:
            if wanted and says_yes(row.get(wanted)) is False:
                return "unwanted"
            if not kind_of(row.get(column)):
                return "empty"
            try:
                turns = self._turns_in(row[column])
                if ending:
                    turns = _ended(turns, self._ending(row.get(ending)))
            except Unreadable as problem:
                raise Unreadable(f"'{column}' {problem}") from None
            return self._conversation(_with_system(system(row), turns), number)

        return parse

    def _turns_in(self, value: Any) -> list[Message]:
        """Turns, or texts of which the user says the first."""
        if isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(one, str) for one in value):
            return history_of(value)
        return turns_of(value, self.turn_keys)

    def _ending(self, value: Any) -> list[Message]:
        """The last answer, which stands in a column of its own: text, a turn, or turns."""
        kind = kind_of(value)
        if kind == "turns":
            return turns_of(value, self.turn_keys)
        if kind == "list":
            raise _list_of_answers()
        return [Message("assistant", tidy(written(value)))] if kind else []

    def _conversation(self, turns: list[Message], number: int) -> Example | str:
        first = next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))
        asked = next((place for place, turn in enumerate(turns) if turn.role == "user"), len(turns))
        if asked > first and asked < len(turns):
            self.openings += 1
            turns = turns[:first] + turns[asked:]
        while turns and turns[-1].role == "assistant" and not turns[-1].content.strip() and not turns[-1].extra:
            turns = turns[:-1]  # an answer without a word is none
        if not any(turn.is_answer for turn in turns):
            answers = [turn for turn in turns if turn.role == "assistant"]
            if any(turn.extra for turn in answers):
                return "calls"
            return "nothing to learn" if any(turn.content.strip() for turn in answers) else "empty"
        return Example(messages=tuple(turns), row=number)

    def _pair(self) -> Callable[[Row, int], Example | str]:
        roles = self.mapping.roles
        asked = [self._cell(role) for role in ("prompt", "input", "context") if role in roles]
        answer, system = self._answer(), self._system()
        history, wanted = roles.get("history"), roles.get("label")

        def parse(row: Row, number: int) -> Example | str:
            if wanted and says_yes(row.get(wanted)) is False:
                return "unwanted"
            parts = [text for part in asked if (text := part(row)).strip()]
            prompt, said = "\n\n".join(map(tidy, parts)), tidy(answer(row))
            if not prompt or not said:
                return "empty"
            if len(parts) == 1 and not history and (earlier := asked_turns(parts[0])):
                self.transcripts += 1
                answered = tidy(said.removeprefix(prompt))  # which may hold the question again
                return self._conversation(_with_system(system(row), [*earlier, Message("assistant", answered)]), number)
            before = history_of(row.get(history)) if history and kind_of(row.get(history)) else []
            first = [Message("system", text)] if (text := system(row)) else []
            turns = (*first, *before, Message("user", prompt), Message("assistant", said))
            return Example(turns, row=number)

        return parse

    def _answer(self) -> Callable[[Row], str]:
        """The answer of a row: text, or a single object's; a label in the words that the user gave for it."""
        column = self.mapping.roles["completion"]
        given, labels, fixed = self._cell("completion"), self.spec.labels, self._is_template("completion")

        def answer(row: Row) -> str:
            value = row.get(column)
            kind = "text" if fixed else kind_of(value)
            if kind in ("list", "object", "turns"):
                text, several = _only_answer(value, column)
                self.several += several
                return text
            text = given(row)
            if labels and text.strip():
                if text.strip() not in labels:
                    raise Unreadable(f"the label {shortened(text.strip(), 40)} has no word in labels")
                return labels[text.strip()]
            return text

        return answer

    def _choices(self) -> Callable[[Row, int], Example | str]:
        roles = self.mapping.roles
        asked = [self._cell(role) for role in ("prompt", "input", "context") if role in roles]
        read, system = reader_of_choices(roles, self.mapping.columns), self._system()

        def parse(row: Row, number: int) -> Example | str:
            question = "\n\n".join(text for part in asked if (text := tidy(part(row))))
            if not question or not kind_of(row.get(roles["completion"])):
                return "empty"
            shown, letter = read(row)
            first = [Message("system", text)] if (text := system(row)) else []
            turns = (*first, Message("user", f"{question}\n\n{shown}"), Message("assistant", letter))
            return Example(turns, row=number)

        return parse

    def _system(self) -> Callable[[Row], str]:
        own, default = self.mapping.roles.get("system"), (self.spec.system or "").strip()
        given = self._cell("system", words_of) if own else None
        return lambda row: (without_label(given(row)).strip() if given else "") or default

    def _cell(self, role: str, write: Callable[[Any], str] = cell) -> Callable[[Row], str]:
        column = self.mapping.roles[role]
        if self._is_template(role):
            return self._template(role, column)
        return lambda row: write(row.get(column))

    def _template(self, role: str, template: str) -> Callable[[Row], str]:
        """A template as a function of a row; one that nobody wrote says nothing where all that it names is empty."""
        columns = list(self.mapping.columns)
        text = filled(template, columns)
        if self.spec.template or role in (self.spec.columns or {}):
            return text
        parts = filled("".join(f"{{{field}}}" for field in fields_of(template)), columns)
        return lambda row: text(row) if parts(row).strip() else ""

    def _is_template(self, role: str) -> bool:
        return is_template(self.mapping.roles[role], list(self.mapping.columns))


def to_examples(rows: Rows, spec: DataSpec, learn: str, name: str) -> tuple[list[Example], list[str]]:
    """One example per row that has something to learn from, and notes for people.

    Raises:
        UserError: the columns are not there, more rows can't be read than can, or none has anything to learn from.
    """
    reader = reader_of(rows, spec, learn, name)
    examples = list(reader.examples(rows))
    return examples, reader.notes()


def reader_of(rows: Rows, spec: DataSpec, learn: str, name: str, roles: dict[str, str] | None = None) -> Reader:
    """A reader with the mapping that is proposed for these rows.

    Raises:
        UserError: as `mapping.propose`; or there are none that can be read.
    """
    _check_some(rows, name)
    return Reader(propose(_Good(rows), spec, learn, name, roles), spec, name)


def _check_some(rows: Rows, name: str) -> None:
    bad: list[Bad] = []
    for row in rows:
        if not isinstance(row, Bad):
            return
        bad.append(row)
    if bad:
        bad_rows_note(bad, 0, name)
    raise _no_rows(name)


def _no_rows(name: str) -> UserError:
    return UserError(f"{name} holds no rows. Give a file with at least two rows: one to train, one to hold out.")


class _Good:
    """The rows that can be read, unfolded; to be gone through again and again."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        return (row for _number, row in unfolded(self._rows) if not isinstance(row, Bad))


def tidy(text: str) -> str:
    """Text without blank lines and spaces around it; the first indent of code is part of it."""
    text = text.rstrip()
    if not text[:1].isspace():  # as most is
        return text
    text = re.sub(r"\A(?:[^\S\n]*\n)+", "", text)
    return text[1:] if re.match(r" \S", text) else text


def _with_system(text: str, turns: list[Message]) -> list[Message]:
    """Turns that begin with a system text of their own, or with this one."""
    return turns if not text or any(turn.role == "system" for turn in turns[:1]) else [Message("system", text), *turns]


def _ended(turns: list[Message], ending: list[Message]) -> list[Message]:
    """Turns with the answer of another column, where they wait for one; where that column holds the whole conversation,
    that one."""
    if len(ending) > 1 and turns and ending[0] == turns[0]:
        return ending
    return turns if turns and turns[-1].role == "assistant" else turns + ending


def _only_answer(value: Any, column: str) -> tuple[str, bool]:
    """The text of an answer that is an object, and whether there are others: a turn, turns with one answer, a list of
    one, or SQuAD's list of texts, of which all say the same and the first is taken. Other objects, which somebody has
    named, are written as JSON."""
    kind = kind_of(value)
    if kind == "turns":
        words = [turn.content for turn in turns_of(value) if turn.role == "assistant"]
        if len(words) == 1:
            return words[0], False
        raise Unreadable(f"'{column}' holds {len(words)} turns of the assistant where one answer is expected")
    if isinstance(value, list) and all(not isinstance(one, dict | list) for one in value):
        texts: Any = [written(one) for one in value]
        if len(set(texts)) == 1:
            return texts[0], False
        raise _list_of_answers(column)
    texts = (
        value.get("text") if isinstance(value, dict) else [one.get("text") for one in value if isinstance(one, dict)]
    )
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        return texts[0], len(set(texts)) > 1
    if isinstance(value, dict):
        return ("" if isinstance(texts, list) else json.dumps(value, ensure_ascii=False)), False
    raise _list_of_answers(column)


def _list_of_answers(column: str = "completion") -> Unreadable:
    return Unreadable(
        f"'{column}' is a list of answers, of which none is said to be the right one; give one answer as text, or "
        f"learn all of them: completion='{{{column}}}'"
    )
