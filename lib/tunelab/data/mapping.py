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
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from tunelab.data.cells import column_of, fields_of, is_template
from tunelab.data.columns import Column, columns_of
from tunelab.data.reading import Row
from tunelab.data.transcripts import begins_like_one
from tunelab.errors import UserError, listed, shortened
from tunelab.spec import DataSpec

TURNS = ("messages", "conversations", "conversation", "items", "dialogue", "dialog", "turns", "chat")
ASKED = ("instruction", "prompt", "question", "query", "user", "human", "problem", "request", "goal", "ctx")
ASKED_BY_TEXT = (
    "input",
    "source",
    "text",
    "sentence",
    "utterance",
    "message",
    "review",
    "content",
    "document",
    "article",
)
ANSWERS = ("completion", "response", "output", "answer", "answers", "chosen", "target", "assistant", "gpt", "reply")
ANSWERS_LAST = ("solution", "summary", "highlights", "sql")
LABELS = ("label", "labels", "label_text", "intent", "category", "class", "sentiment", "topic")
BESIDE = ("input", "context", "text", "passage", "paragraph", "document", "article", "story", "background")
SYSTEMS = ("system", "system_prompt", "systemprompt", "system_message")
CHOICES = ("choices", "options", "endings")
LETTERS = tuple("abcdefgh")
RIGHT = (
    "answer",
    "answerkey",
    "answer_key",
    "label",
    "answer_idx",
    "answer_index",
    "correct",
    "correct_answer",
    "gold",
    "target",
)
IMAGES = ("image", "images", "img", "picture", "image_path", "image_url", "pixel_values")
IDS = ("id", "index", "ind", "idx", "no", "nr", "uid", "uuid", "guid", "row", "key", "unnamed: 0", "")
TEXTS = ("text", "content", "document", "article", "body", "markdown", "code", "page")
SHOWN_NAMES = 8


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
        said = [f"{', '.join(parts)} ({self.reason})"]
        if self.unused:
            said.append(f"not used: {listed(self.unused, SHOWN_NAMES)}")
        return [*said, *self.warnings]


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
    group = {role: named.pop(role) for role in ("group",) if role in named}
    filled = {column.key: column.name for column in reversed(found.values()) if column.filled}
    if learn == "text":
        roles, reason = _text(named, filled, found, name)
    else:
        of_several = _turns(named, filled, found, spec) or _choices(named, filled, found)
        roles, reason = of_several or _pair(named, filled, found, rows, name)
    system = named.get("system") or _first(SYSTEMS, filled)
    if learn != "text" and system:
        roles = {"system": system, **roles}
    roles = {**roles, **group}
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
            raise missing(f"{name}: there is no column {shortened(column)} (given for '{role}')", found)
        for part in fields_of(column):
            if column_of(part, list(found)) is None:
                raise missing(f"{name}: the template names {shortened('{' + part + '}')}, which is no column", found)


def _shape(roles: dict[str, str], learn: str) -> Shape:
    if learn == "text":
        return "text"
    return "turns" if roles.keys() & {"messages", "conversations"} else "choices" if "choices" in roles else "pair"


Found = tuple[dict[str, str], str]


def _text(named: dict[str, str], filled: dict[str, str], found: dict[str, Column], name: str) -> Found:
    if "text" in named:
        return {"text": named["text"]}, "as named"
    known = _first(TEXTS, filled)
    texts = [column.name for column in found.values() if column.filled and column.kinds == {"text"}]
    if known is None and len(texts) != 1:
        raise missing(f"{name}: no column with plain text was recognised", found, role="text")
    return {"text": known or texts[0]}, "plain text"


def _turns(named: dict[str, str], filled: dict[str, str], found: dict[str, Column], spec: DataSpec) -> Found | None:
    """Turns, and what ends them where the last answer stands in a column of its own."""
    if spec.template:
        return None
    for role in ("messages", "conversations"):
        if role in named:
            return _conversation(role, named[role], named, filled, found), "as named"
    if named.keys() & {"prompt", "completion", "instruction", "output", "input"}:
        return None
    with_turns = [column.name for column in found.values() if "turns" in column.kinds]
    known = [filled[key] for key in TURNS if key in filled]
    column = next((name for name in known if name in with_turns or found[name].key in TURNS[:3]), None)
    if column is None and not any(key in filled for key in (*ANSWERS, *ANSWERS_LAST, *LABELS)):
        column = next(
            (filled[key] for key in (*TURNS, "text") if key in filled and _are_transcripts(found[filled[key]])), None
        )
    if column is None and filled.get("prompt") in with_turns:
        column = filled["prompt"]
    if (
        column is None
        and "chosen" in filled
        and (filled["chosen"] in with_turns or _is_transcript(found[filled["chosen"]]))
    ):
        if any(key in filled for key in ASKED):
            return None
        return {"messages": filled["chosen"]}, "whole conversations with the answer that was chosen"
    if column is None:
        rest = [name for name in with_turns if found[name].key not in ("chosen", "rejected", "history", "completion")]
        column = rest[0] if len(rest) == 1 else None
    if column is None:
        return None
    return _conversation("messages", column, named, filled, found), "a list of turns"


def _conversation(
    role: str, column: str, named: dict[str, str], filled: dict[str, str], found: dict[str, Column]
) -> dict[str, str]:
    ending = _ending(named, filled, column)
    wanted = _whether_wanted(named, filled, found, {column, *ending.values()}) if ending or "label" in named else {}
    return {role: column} | ending | wanted


def _ending(named: dict[str, str], filled: dict[str, str], turns: str) -> dict[str, str]:
    """The column with the last answer, for turns that end with a question."""
    column = named.get("completion") or named.get("chosen")
    if column is None:
        asked = filled.get("prompt") == turns
        free = {key: name for key, name in filled.items() if name != turns}
        column = _first(("completion", "chosen", *(("response", "answer", "output") if asked else ())), free)
    return {"completion": column} if column and column != turns else {}


def _are_transcripts(column: Column) -> bool:
    return bool(column.values) and all(map(begins_like_one, column.values))


def _is_transcript(column: Column) -> bool:
    return any(map(begins_like_one, column.values))


def _choices(named: dict[str, str], filled: dict[str, str], found: dict[str, Column]) -> Found | None:
    choices = named.get("choices") or _first(CHOICES, filled)
    letters = [filled[letter] for letter in LETTERS if letter in filled]
    letters = letters or [filled[f"option_{letter}"] for letter in LETTERS if f"option_{letter}" in filled]
    if choices is None and len(letters) < 2:
        return None
    if choices is not None and "choices" not in named and not found[choices].kinds <= {"list", "object"}:
        return None
    answer = named.get("completion") or _first(RIGHT, filled)
    asked = named.get("prompt") or _first((*ASKED, *ASKED_BY_TEXT), filled)
    if answer is None or asked is None or answer == choices:
        return None
    roles = {"prompt": asked} | _beside(filled, found, {asked, answer, str(choices), *letters}, named)
    return roles | {
        "choices": choices or ",".join(letters),
        "completion": answer,
    }, "a question, choices, and which is right"


def _pair(
    named: dict[str, str],
    filled: dict[str, str],
    found: dict[str, Column],
    rows: Iterable[Row],
    name: str,
) -> Found:
    asked = named.get("prompt") or named.get("instruction") or named.get("input") or named.get("text")
    answer = named.get("completion") or named.get("output") or named.get("chosen")
    why = "as named" if asked and answer else ""
    if asked is None:
        able = {key: column for key, column in filled.items() if column != answer and _can_ask(found[column])}
        asked = _first((*ASKED, *ASKED_BY_TEXT), able)
    if answer is None:
        free = {key: column for key, column in filled.items() if column != asked}
        empty = {column.key: column.name for column in found.values() if not column.filled}
        answer = _first((*ANSWERS, *ANSWERS_LAST, *LABELS), free) or _first(ANSWERS, empty)
    if asked is None or answer is None or asked == answer:
        raise _no_pair(found, name)
    roles = {"prompt": asked, **{role: named[role] for role in ("input", "context") if named.get(role, asked) != asked}}
    if not named.keys() & {"prompt"}:
        roles |= _beside(filled, found, {asked, answer}, named)
        roles = {
            role: column
            for role, column in roles.items()
            if role == "prompt" or not _is_copy(column, asked, answer, rows)
        }
    if history := (named.get("history") or filled.get("history")):
        roles["history"] = history
    roles |= _whether_wanted(named, filled, found, {*roles.values(), answer})
    return roles | {"completion": answer}, why or "by the names of the columns"


def _whether_wanted(
    named: dict[str, str], filled: dict[str, str], found: dict[str, Column], taken: set[str]
) -> dict[str, str]:
    """The column that says whether an answer is one to learn: named, or a label of yes and no beside an answer."""
    column = named.get("label") or filled.get("label")
    if column is None or column in taken:
        return {}
    said = {value.strip().lower().removesuffix(".0") for value in found[column].values}
    if "label" in named or (said and said <= {"true", "false", "0", "1", "yes", "no"}):
        return {"label": column}
    return {}


def _first(keys: Iterable[str], columns: dict[str, str]) -> str | None:
    return next((columns[key] for key in keys if key in columns), None)


def _can_ask(column: Column) -> bool:
    return column.is_text and not column.is_number


def _beside(filled: dict[str, str], found: dict[str, Column], taken: set[str], named: dict[str, str]) -> dict[str, str]:
    """Text that belongs to what is asked: Alpaca's input, Dolly's context, a passage; two columns at most."""
    roles: dict[str, str] = {
        role: named[role] for role in ("input", "context") if role in named and named[role] not in taken
    }
    for key in BESIDE:
        column = filled.get(key)
        places = ("input", "context") if key == "input" else ("context", "input")
        free = next((role for role in places if role not in roles), None)
        if column and free and column not in (*taken, *roles.values()) and found[column].is_text:
            roles[free] = column
    return roles


def _is_copy(column: str, asked: str, answer: str, rows: Iterable[Row]) -> bool:
    """Whether a column holds question and answer again, as training text does: it would give the answer away."""
    seen = copies = 0
    for row in rows:
        texts = [str(row.get(name) or "").strip() for name in (column, asked, answer)]
        if all(texts):
            seen += 1
            copies += texts[1] in texts[0] and texts[2] in texts[0]
        if seen == 100:
            break
    return seen > 0 and copies > seen / 2


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
        longest = max([len(roles["choices"].split(",")), *(found[c].longest for c in [roles["choices"]] if c in found)])
        start = counted_from(answer, longest)
        return () if start is None else (f"the answers are numbers: choices are counted from {start}",)
    numbers = sorted(answer.values, key=lambda value: (len(value), value))
    are_labels = answer.key in LABELS or (len(numbers) <= 20 and answer.filled >= 10 * len(numbers))
    if are_labels and 1 < len(numbers) <= 100 and all(re.fullmatch(r"-?\d+(\.0)?", value.strip()) for value in numbers):
        shown = ", ".join(numbers[:3]) + (", …" if len(numbers) > 3 else "")
        return (
            f"the labels are numbers ({shown}); words would be learned better: give them as labels, e.g. "
            f"{{'{numbers[0]}': 'a word', '{numbers[1]}': 'another'}}",
        )
    return ()


def counted_from(answers: Column, longest: int) -> int | None:
    """From which number choices are counted, of which there are up to `longest`; None where answers are other words."""
    texts = [value.strip().removesuffix(".0") for value in answers.values]
    if not texts or not all(re.fullmatch(r"[0-9]{1,3}", text) for text in texts):
        return None
    places = {int(text) for text in texts}
    start = 1 if 0 not in places and longest in places else 0
    return start if max(places) - start < longest else None


def _no_pair(found: dict[str, Column], name: str) -> UserError:
    texts = [column for column in found.values() if column.filled and column.is_text and column.key not in IDS]
    if len(texts) == 1 and (texts[0].key in TEXTS or len(found) == 1):
        return UserError(
            f"{name}: column {shortened(texts[0].name)} is plain text, and no column holds answers. Choose learn = "
            "text for this "
            "stage (--learn text), or add a column with the answers and name both."
        )
    return missing(f"{name}: no columns to learn from were recognised", found)


def missing(problem: str, found: dict[str, Column], role: str = "prompt") -> UserError:
    """The error for columns that are not there or not recognised, with those that could be meant."""
    likely = likely_columns(found)
    if role == "text":
        named = {"text": likely[0] if likely else "COLUMN"}
    else:
        named = {"prompt": likely[0] if likely else "COLUMN", "completion": (*likely, "COLUMN", "COLUMN")[1]}
    flags = " ".join(shlex.quote(f"{key}={value}") for key, value in named.items())
    return UserError(
        f"{problem}. Columns there: {listed(map(repr, found), 6) or 'none'}. Name them, e.g. in the app under "
        "'Columns and "
        f"held-out rows', on the command line with --columns {flags}, in Python with columns={named}."
    )


def likely_columns(found: dict[str, Column]) -> list[str]:
    """Columns that could be asked and answered, in this order: text, no ids, no lists, nothing that was rejected."""
    texts = [
        column
        for column in found.values()
        if column.filled
        and column.is_text
        and column.name
        and column.key not in (*IDS, "rejected")
        and not _is_id(column)
    ]
    labels = [column for column in texts if column.key in (*ANSWERS, *ANSWERS_LAST, *LABELS)]
    few = [column for column in texts if 1 < len(column.values) <= column.filled / 3]
    answer = next(iter([*labels, *few]), None)
    rest = sorted(
        (column for column in texts if column is not answer), key=lambda column: -column.characters / column.filled
    )
    order = [*rest[:1], *([answer] if answer else []), *rest[1:]]
    return [column.name for column in order]


def _is_id(column: Column) -> bool:
    """Whether every cell is another short code or number."""
    short = column.characters <= 40 * column.filled
    codes = all(re.fullmatch(r"[\w.:/-]*\d[\w.:/-]*", value.strip()) for value in column.values)
    return column.filled > 1 and short and codes and len(column.values) >= min(column.filled, 200)
