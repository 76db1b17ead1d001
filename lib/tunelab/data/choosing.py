"""Multiple choice: which columns hold what there is to choose from, and which of it is right.

Choices stand in one column (a list, also as text; an object by names) or in a series of columns: `A` … `D`, `option1`
…, `sol1` …, `answerA` …, `ending0` …; what is right is said by its letter, its number, its name or its words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tunelab.data.cells import list_in, written
from tunelab.data.columns import Column
from tunelab.data.names import CHOICES, RIGHT, first
from tunelab.data.reading import Row
from tunelab.data.reading.checks import Unreadable
from tunelab.errors import shortened

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SERIES = re.compile(r"(option|opt|op|choice|sol|solution|answer|ans|ending|candidate|alternative|)_?([a-h]|\d)")
Columns = dict[str, Column]


def found_choices(named: dict[str, str], known: dict[str, str], found: Columns) -> tuple[str, str] | None:
    """The column, or the columns with commas, of what there is to choose from, and the one that says what is right."""
    choices = named.get("choices") or first(CHOICES, known)
    if choices in found and "choices" not in named and not _holds_choices(found[choices]):
        choices = None
    choices = choices or _series(known)
    if choices is None:
        return None
    others = {key: name for key, name in known.items() if name not in (choices, *choices.split(","))}
    answer = named.get("completion") or first(RIGHT, others)
    return (choices, answer) if answer and answer != choices else None


def _holds_choices(column: Column) -> bool:
    return column.kinds <= {"list", "object"} or (column.kinds == {"text"} and column.lists_as_text == column.filled)


def _series(known: dict[str, str]) -> str | None:
    """Columns whose names are counted: with one stem, from A, 0 or 1 on."""
    stems: dict[str, dict[str, str]] = {}
    for key, name in known.items():
        if (match := SERIES.fullmatch(key)) and (match[1] or match[2].isalpha()):
            stems.setdefault(match[1], {})[match[2]] = name
    for marks in stems.values():
        for start in "a01":
            run: list[str] = []
            while (mark := chr(ord(start) + len(run))) in marks and mark.isalnum():
                run.append(marks[mark])
            if len(run) > 1 and not any("," in name for name in run):
                return ",".join(run)
    return None


def columns_of_choices(choices: str, found: Columns) -> list[str]:
    """The columns that a mapping names as choices."""
    return [choices] if choices in found else choices.split(",")


def counted_from(answers: Column, choices: list[str], found: Columns) -> tuple[int | None, bool]:
    """From which number choices are counted, and whether the numbers prove it; None where answers are other words.
    0 proves that they are counted from 0, the number of choices that they are counted from 1. Else columns that are
    counted themselves say it, and of others 0 is the guess."""
    texts = [value.strip().strip("().").removesuffix(".0") for value in answers.values]
    if not texts or not all(re.fullmatch(r"[0-9]{1,3}", text) for text in texts):
        return None, True
    count = len(choices) if len(choices) > 1 else found[choices[0]].longest
    places = {int(text) for text in texts}
    marks = [SERIES.fullmatch(found[name].key) for name in choices if name in found] if len(choices) > 1 else []
    own = int(marks[0][2]) if marks and marks[0] and marks[0][2].isdigit() else 0
    proved = 0 in places or count in places
    start = (0 if 0 in places else 1) if proved else own
    return (start if max(places) - start < count else None), proved


def note_of_numbers(answers: Column, choices: list[str], found: Columns) -> tuple[str, ...]:
    """What to say of answers that are numbers."""
    start, proved = counted_from(answers, choices, found)
    if start is None:
        return ()
    if proved:
        return (f"the answers are numbers: choices are counted from {start}",)
    count = len(choices) if len(choices) > 1 else found[choices[0]].longest
    if found[choices[0]].kinds == {"object"}:
        return (f"the answers are numbers: names of choices, or counted from {start} where none is called so",)
    return (
        f"the answers are numbers, and neither 0 nor {count} is among them: it is a guess that choices are counted "
        f"from {start}; write letters for the numbers if it is wrong",
    )


def reader_of_choices(roles: dict[str, str], found: Columns) -> Callable[[Row], tuple[str, str]]:
    """What there is to choose from in a row, with letters, and the letter of the right one."""
    columns = columns_of_choices(roles["choices"], found)
    answer = roles["completion"]
    start, _proved = counted_from(found[answer], columns, found)

    def read(row: Row) -> tuple[str, str]:
        texts, names = _options(row, columns)
        shown = "\n".join(f"{LETTERS[place]}. {text}" for place, text in enumerate(texts))
        return shown, _letter(row[answer], texts, names, start)

    return read


def _options(row: Row, columns: list[str]) -> tuple[list[str], list[set[str]]]:
    """The texts to choose from, and what each is called."""
    if len(columns) > 1:
        options = [
            (written(row.get(name)), _called(name, letter)) for name, letter in zip(columns, LETTERS, strict=False)
        ]
    else:
        options = [(text, {name.strip().lower()}) for text, name in _listed_options(row.get(columns[0]))]
    options = [(text, names) for text, names in options if text.strip()]
    if not 2 <= len(options) <= len(LETTERS):
        raise Unreadable(f"'{columns[0]}' holds no list of 2 to {len(LETTERS)} choices")
    return [text for text, _names in options], [names for _text, names in options]


def _called(column: str, letter: str) -> set[str]:
    """What a choice in a column of its own is called: by the column's name, and by a letter."""
    match = SERIES.fullmatch(Column(column).key)
    mark = match[2] if match else column.rpartition("_")[2].lower()
    return {column.lower(), letter.lower() if mark.isdigit() else mark}


def _listed_options(value: Any) -> list[tuple[str, str]]:
    if isinstance(value, str):
        value = list_in(value)
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        texts, names = value["text"], value.get("label")
        names = names if isinstance(names, list) and len(names) == len(texts) else LETTERS
        if len(texts) > len(names):
            return []
        return [(written(text), str(name)) for text, name in zip(texts, names, strict=False)]
    if isinstance(value, dict):
        return [(written(text), str(name)) for name, text in value.items()]
    if not isinstance(value, list) or len(value) > len(LETTERS):
        return []
    return [
        (written(one.get("text", one)), str(one.get("label", letter)))
        if isinstance(one, dict)
        else (written(one), letter)
        for one, letter in zip(value, LETTERS, strict=False)
    ]


def _letter(answer: Any, texts: list[str], names: list[set[str]], start: int | None) -> str:
    """The letter of the right choice, which is given by its name, by its number counted from `start`, or by its text
    where answers are no numbers (`start` None)."""
    said = written(answer).strip()
    bare = said.lower().strip("(.) ")
    by_name = [place for place, called in enumerate(names) if bare in called]
    by_text = [place for place, text in enumerate(texts) if text.strip() == said]
    place = next(iter([*by_name, *(by_text if start is None else [int(bare.removesuffix(".0")) - start])]), -1)
    if not 0 <= place < len(texts):
        raise Unreadable(f"the answer {shortened(said, 40)} is none of its {len(texts)} choices")
    return LETTERS[place]
