"""From rows to conversations: the shapes people have, detected from the column names, or named.

messages        OpenAI: [{"role": "user", "content": …}, …]
conversations   ShareGPT: [{"from": "human", "value": …}, …]
instruction, input, output                Alpaca
prompt, completion (question/answer, text/category, … : see PAIRS)
text            plain text, for a stage that learns from text
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from tunelab.data.examples import Example, Message, Role
from tunelab.data.readers import Row
from tunelab.errors import UserError, listed
from tunelab.spec import DataSpec

# column names for prompt and completion, the first pair that is there wins
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("question", "response"),
    ("input", "output"),
    ("source", "target"),
    ("text", "label"),
    ("text", "category"),
    ("text", "intent"),
    ("text", "output"),
    ("user", "assistant"),
    ("query", "response"),
)
ALPACA_ANSWERS = ("output", "response", "completion", "answer")
SPEAKERS: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "developer": "system",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
Parser = Callable[[Row, int], Example | None]


def to_examples(rows: list[Row], spec: DataSpec, learn: str, name: str) -> tuple[list[Example], list[str]]:
    """One example per row that has something to learn from, and notes for people.

    Raises:
        UserError: the columns are not there, a row has another shape, or no row has anything to learn from.
    """
    columns = list(dict.fromkeys(key for row in rows[:100] for key in row))
    parse, described = _parser(columns, spec, learn, name)
    examples, empty = [], []
    for number, row in enumerate(rows, 1):
        example = parse(row, number)
        examples.append(example) if example else empty.append(number)
    if not examples:
        raise UserError(
            f"{name}, row {empty[0]}: there is nothing to learn from (the answer is empty), and so in all "
            f"{len(empty)} rows. Fill the answers, or name another column: --columns completion=COLUMN."
        )
    notes = [described]
    if empty:
        shown = ", ".join(map(str, empty[:5])) + (", …" if len(empty) > 5 else "")
        rows_were = "1 row without an answer was" if len(empty) == 1 else f"{len(empty)} rows without an answer were"
        notes.append(f"{rows_were} left out (row {shown})")
    return examples, notes


def _parser(columns: list[str], spec: DataSpec, learn: str, name: str) -> tuple[Parser, str]:
    named = spec.columns or {}
    for role, column in named.items():
        if column not in columns:
            raise _missing(f"{name}: there is no column '{column}' (given for '{role}')", columns)
    at = {column.lower().strip(): column for column in columns}
    system = named.get("system") or at.get("system")
    if learn == "text":
        return _text_parser(named, at, columns, name)
    if not spec.template:
        for role, reader in (("messages", _openai_turns), ("conversations", _sharegpt_turns)):
            turns = named.get(role) or (at.get(role) if not named else None)
            if turns:
                return _turns_parser(turns, reader, spec.system, name), f"conversations in column '{turns}'"
    if "instruction" in at and not named and not spec.template:
        alpaca = next((at[a] for a in ALPACA_ANSWERS if a in at), None)
        if alpaca:
            return _alpaca_parser(at, alpaca, spec.system, system), (
                f"instruction ← {at['instruction']}, {'input ← ' + at['input'] + ', ' if 'input' in at else ''}"
                f"answer ← {alpaca}"
            )
    return _pair_parser(columns, at, named, spec, system, name)


def _pair_parser(
    columns: list[str], at: dict[str, str], named: dict[str, str], spec: DataSpec, system: str | None, name: str
) -> tuple[Parser, str]:
    answer: str | None
    prompt = named.get("prompt") or named.get("instruction") or named.get("input") or named.get("text")
    answer = named.get("completion") or named.get("output")
    detected = next(((at[p], at[a]) for p, a in PAIRS if p in at and a in at), (None, None))
    if answer is None:
        answer = detected[1] or next((at[a] for a in ALPACA_ANSWERS if a in at), None)
    if prompt is None and spec.template is None:
        prompt = detected[0]
    if answer is None or (prompt is None and spec.template is None):
        raise _missing(f"{name}: no columns to learn from were recognised", columns)
    fill = _template(spec.template, columns, name) if spec.template else lambda row: _cell(row, str(prompt))

    def parse(row: Row, number: int) -> Example | None:
        return _example(fill(row), _cell(row, answer), _cell(row, system) if system else spec.system, number)

    return parse, f"prompt ← {spec.template or prompt}, completion ← {answer}"


def _alpaca_parser(at: dict[str, str], answer: str, default_system: str | None, system: str | None) -> Parser:
    def parse(row: Row, number: int) -> Example | None:
        extra = _cell(row, at["input"]) if "input" in at else ""
        prompt = _cell(row, at["instruction"]) + (f"\n\n{extra}" if extra.strip() else "")
        return _example(prompt, _cell(row, answer), _cell(row, system) if system else default_system, number)

    return parse


def _turns_parser(column: str, read: Callable[[Any], Iterable[Message]], system: str | None, name: str) -> Parser:
    def parse(row: Row, number: int) -> Example | None:
        value = row.get(column)
        try:
            turns = tuple(read(json.loads(value) if isinstance(value, str) else value))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{name}, row {number}: '{column}' is not a list of turns ({error}). Each turn is "
                '{"role": "user", "content": "…"} with role system, user or assistant, '
                'or {"from": "human", "value": "…"} with human or gpt.'
            ) from None
        while turns and turns[-1].role == "assistant" and not turns[-1].content.strip():
            turns = turns[:-1]  # an answer without a word is none
        if system and (not turns or turns[0].role != "system"):
            turns = (Message("system", system), *turns)
        answered = any(m.role == "assistant" and m.content.strip() for m in turns)
        return Example(messages=turns, row=number) if answered else None

    return parse


def _openai_turns(turns: Any) -> Iterable[Message]:
    return [Message(_speaker(turn["role"]), _content(turn.get("content"))) for turn in turns]


def _sharegpt_turns(turns: Any) -> Iterable[Message]:
    if turns and "role" in turns[0]:
        return _openai_turns(turns)
    return [Message(_speaker(turn["from"]), _text(turn.get("value"))) for turn in turns]


def _speaker(name: str) -> Role:
    role = SPEAKERS.get(str(name).lower())
    if role is None:
        raise ValueError(f"there is no role '{name}'")
    return role


def _content(value: Any) -> str:
    """The text of a turn: a string, or OpenAI's list of parts, which must all be text."""
    if not isinstance(value, list):
        return _text(value)
    for part in value:
        if part.get("type") != "text":
            raise ValueError(f"a part of type '{part.get('type')}'; only text is learned")
    return "".join(part["text"] for part in value)


def _text_parser(named: dict[str, str], at: dict[str, str], columns: list[str], name: str) -> tuple[Parser, str]:
    column = named.get("text") or at.get("text") or at.get("content") or (columns[0] if len(columns) == 1 else None)
    if column is None:
        raise _missing(f"{name}: no column with plain text was recognised", columns, role="text")

    def parse(row: Row, number: int) -> Example | None:
        text = _cell(row, column).strip()
        return Example(text=text, row=number) if text else None

    return parse, f"plain text ← {column}"


def _template(template: str, columns: list[str], name: str) -> Callable[[Row], str]:
    used = re.findall(r"\{([^{}]+)\}", template)
    if not used:
        raise UserError(f"template = '{template}' names no column. Write e.g. 'Classify: {{{columns[0]}}}'.")
    for column in used:
        if column not in columns:
            raise _missing(f"{name}: the template names '{{{column}}}', which is no column", columns)
    return lambda row: re.sub(r"\{([^{}]+)\}", lambda match: _cell(row, match[1]), template)


def _example(prompt: str, answer: str, system: str | None, number: int) -> Example | None:
    if not answer.strip() or not prompt.strip():
        return None
    first = (Message("system", system),) if system and system.strip() else ()
    return Example((*first, Message("user", prompt.strip()), Message("assistant", answer.strip())), row=number)


def _cell(row: Row, column: str) -> str:
    return _text(row.get(column))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _missing(problem: str, columns: list[str], role: str = "prompt") -> UserError:
    # a number of the row is hardly what to learn from
    likely = [c for c in columns if c.lower().strip() not in ("id", "index", "ind", "no", "nr")] or ["COLUMN"]
    named = {role: likely[0]} if role == "text" else {"prompt": likely[0], "completion": (*likely, "COLUMN")[1]}
    flags = " ".join(f"{key}={value}" for key, value in named.items())
    return UserError(
        f"{problem}. Columns there: {listed(columns) or 'none'}. Name them, e.g. in the app under 'Columns and "
        f"held-out rows', on the command line with --columns {flags}, in Python with columns={named}."
    )
