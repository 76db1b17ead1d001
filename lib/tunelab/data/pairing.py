"""Which columns are asked and which one answers, where each row is one question and one answer.

Names propose, contents decide: numbers, labels and ids give way to text that answers, an address or a person's name is
not asked, a constant instruction is asked with the question beside it. What can't be told is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from tunelab.data.advice import either, missing, no_pair
from tunelab.data.cells import says_yes
from tunelab.data.columns import SCALAR, Column
from tunelab.data.names import (
    ANSWERS,
    ANSWERS_LAST,
    ASKED,
    ASKED_BY_TEXT,
    BESIDE,
    LABELS,
    SYSTEMS,
    TOGETHER,
    WITHIN,
    first,
    goes_by,
    is_about,
    is_never,
)
from tunelab.data.reading import Row
from tunelab.errors import shortened

Columns = dict[str, Column]
Found = tuple[dict[str, str], str]
SENTENCE = 25  # characters: shorter text beside a text with a label is no answer
COMPARED = 100  # rows in which a column may be a copy
COPY = 12  # characters that are no copy by chance


def pair_of_columns(
    named: dict[str, str], filled: dict[str, str], found: Columns, rows: Iterable[Row], name: str
) -> Found:
    """
    Raises:
        UserError: none is recognised, or several could be meant.
    """
    asked = named.get("prompt") or named.get("instruction") or named.get("input") or named.get("text")
    answer = named.get("completion") or named.get("output") or named.get("chosen")
    why = "as named" if asked and answer else "by the names of the columns"
    asked = asked or asked_of({key: column for key, column in filled.items() if column != answer}, found)
    if answer is None:
        answer = _answer_of({key: column for key, column in filled.items() if column != asked}, asked, found, name)
    if asked is None or answer is None or asked == answer:
        raise no_pair(found, name)
    free = {key: column for key, column in filled.items() if column != answer and f"{{{column}." not in answer}
    weak = answer in found and (_is_weak(found[answer]) or found[answer].is_few)
    belongs = asked in found and found[asked].key in TOGETHER
    roles = asked_roles(asked, free, found, named, together=weak or belongs)
    if "prompt" not in named:
        roles = {
            role: column
            for role, column in roles.items()
            if role in (*named, "prompt") or not _is_copy(column, asked, answer, rows)
        }
        roles |= _what_varies(roles, answer, free, found, name)
    if history := (named.get("history") or filled.get("history")):
        roles["history"] = history
    roles |= whether_wanted(named, filled, found, {*roles.values(), answer})
    return roles | {"completion": answer}, why


def asked_of(filled: dict[str, str], found: Columns) -> str | None:
    """The column that is asked, by its name, of those whose cells can be asked."""
    able = {key: name for key, name in filled.items() if found[name].is_text and not found[name].is_number}
    better = {key: name for key, name in able.items() if not found[name].is_address}
    able = better or {key: name for key, name in able.items() if key != "source"}
    if "query" in able and found[able["query"]].is_sql:
        able = {key: name for key, name in able.items() if key != "query" or len(able) == 1}
    if "source" in able and (found[able["source"]].is_constant or found[able["source"]].is_few):
        able.pop("source")
    order: list[str] = [*ASKED, *ASKED_BY_TEXT]
    late: list[str] = [key for key in ("user", "human") if key in able and _is_person(found[able[key]], filled)]
    order = [key for key in order if key not in late] + late
    if "target" in filled and "source" in able:
        order.insert(0, "source")
    return first([*order, *TOGETHER], _own_names_first(able, order, found))


def _own_names_first(able: dict[str, str], keys: Iterable[str], found: Columns) -> dict[str, str]:
    """Without columns that only hold one of these names in theirs, where another has one as its own: beside `query`,
    `original_question` is not what is asked."""
    names = {column.key for column in found.values()}
    own = {key: name for key, name in able.items() if key in names}
    return own if own.keys() & {*keys} else able


def _is_person(column: Column, filled: dict[str, str]) -> bool:
    """Whether `user` names somebody: nobody answers, or it is single words."""
    if filled.keys() & {"assistant", "gpt", "bot", "ai"}:
        return False
    return not filled.keys() & set(ANSWERS) or column.spaced * 2 <= column.filled


def asked_roles(
    asked: str, free: dict[str, str], found: Columns, named: dict[str, str], *, together: bool
) -> dict[str, str]:
    """The roles of what is asked. `together`: columns that belong together stand in the prompt under their names."""
    roles = {"prompt": asked, **{role: named[role] for role in ("input", "context") if named.get(role, asked) != asked}}
    if "prompt" in named:
        return roles
    template = _together(asked, free, found) if together and len(roles) == 1 and asked in found else None
    if template:
        free = {key: name for key, name in free.items() if f"{{{name}}}" not in template}
        return {"prompt": template} | _beside(free, found, set(), {})
    if "input" not in roles and asked in found and (other := _other_question(asked, free, found)):
        roles["input"] = other
    return roles | _beside(free, found, {asked, *roles.values()}, roles)


def _together(asked: str, free: dict[str, str], found: Columns) -> str | None:
    """The prompt of columns that are asked together."""
    own = [name for key, name in free.items() if key in TOGETHER and found[name].key == key and found[name].is_text]
    parts = [name for name in found if name == asked or name in own]
    if len(parts) < 2 or any(set(name) & set("{}") for name in parts):
        return None
    return "\n".join(f"{name}: {{{name}}}" for name in parts)


def _other_question(asked: str, free: dict[str, str], found: Columns) -> str | None:
    """The question that an instruction is about."""
    if found[asked].key not in ("instruction", "prompt"):
        return None
    able = {key: name for key, name in free.items() if name != asked and found[name].is_text and found[name].varies}
    return first(("question", "query", "problem", "request"), able)


def _beside(free: dict[str, str], found: Columns, taken: set[str], roles: dict[str, str]) -> dict[str, str]:
    """Text that belongs to what is asked: Alpaca's input, Dolly's context, a passage; two columns at most."""
    roles = {role: column for role, column in roles.items() if role in ("input", "context")}
    for key in BESIDE:
        column = free.get(key)
        places = ("input", "context") if key == "input" else ("context", "input")
        place = next((role for role in places if role not in roles), None)
        if column and place and column not in (*taken, *roles.values()) and found[column].is_text:
            roles[place] = column
    return roles


def _what_varies(roles: dict[str, str], answer: str, free: dict[str, str], found: Columns, name: str) -> dict[str, str]:
    """The text beside an instruction that is the same in every row.

    Raises:
        UserError: several could be meant.
    """
    asked = [found[column] for column in roles.values() if column in found]
    if len(asked) < len(roles) or not all(column.is_constant for column in asked) or "input" in roles:
        return {}
    left = [found[column] for column in dict.fromkeys(free.values()) if column not in roles.values()]
    texts = [c for c in left if c.is_text and c.varies and not c.is_numeric and not c.is_few and not is_about(c)]
    texts = [column for column in texts if column.key not in (*ANSWERS, *ANSWERS_LAST, *LABELS, *SYSTEMS)]
    texts = [column for column in texts if not column.is_id] or texts
    if len(texts) > 1:
        known = {"prompt": roles["prompt"], "input": texts[0].name, "completion": answer}
        raise missing(f"{name}: {shortened(roles['prompt'], 40)} is the same in every row", found, **known)
    return {"input": texts[0].name} if texts else {}


def _answer_of(free: dict[str, str], asked: str | None, found: Columns, name: str) -> str | None:
    """The column that answers, or a template for what stands in its objects.

    Raises:
        UserError: it holds objects of an unknown kind, or something else could be meant as well.
    """
    able = {key: role for key, column in free.items() if (role := _can_answer(found[column])) is not None}
    labels = sorted(LABELS, key=lambda key: key in able and able[key] in found and found[able[key]].is_numeric)
    answer = first((*ANSWERS, *ANSWERS_LAST, *labels), _own_names_first(able, ANSWERS, found))
    if answer is None and "query" in able and found[free["query"]].is_sql:
        return able["query"]
    if answer is None:
        return _unable(free, asked, found, name)
    return _contest(answer, asked, able, found, name) if answer in found else answer


def _can_answer(column: Column) -> str | None:
    """The column, or the template that takes the words out of its objects; None where it holds none."""
    if column.is_text or "turns" in column.kinds:
        return column.name
    if column.kinds != {"object"} or set(column.name) & set("{}"):
        return column.name if column.kinds == {"list"} and _lists_words(column) else None
    if "list" in column.inner.get("text", ()):
        return column.name
    key = next((key for key in WITHIN if column.inner.get(key, {"list"}) <= SCALAR), None)
    return f"{{{column.name}.{key}}}" if key else None


def _lists_words(column: Column) -> bool:
    """Whether it is a list of one: a text, or an object with one."""
    return column.longest <= 1


def _unable(free: dict[str, str], asked: str | None, found: Columns, name: str) -> str | None:
    """An answer of which the rows say why it can't be learned: one that is empty, or a list.

    Raises:
        UserError: it holds objects.
    """
    left = first((*ANSWERS, *ANSWERS_LAST, *LABELS), free)
    if left and "object" in found[left].kinds:
        clear = {"prompt": asked} if asked else {}
        template = {"completion": f"{{{left}:json}}"} if asked and not set(left) & set("{}") else {}
        problem = f"{name}: {shortened(left, 40)} holds objects, of which no text is known to be the answer"
        raise missing(problem, found, **clear, **template)
    return left or first(ANSWERS, {column.key: column.name for column in found.values() if not column.filled})


def _is_weak(column: Column) -> bool:
    """Whether a column answers in numbers or labels."""
    return column.is_numeric or (column.key in LABELS and not column.is_prose)


def _contest(answer: str, asked: str | None, able: dict[str, str], found: Columns, name: str) -> str:
    """The answer, or where it is numbers, labels or ids the text that stands beside it.

    Raises:
        UserError: the text has a name that says nothing.
    """
    said = found[answer]
    by_last = answer not in [able[key] for key in ANSWERS if key in able]
    if not (_is_weak(said) or (by_last and (said.is_few or said.is_id))):
        return answer
    texts = [found[column] for column in dict.fromkeys(able.values()) if column in found and column != asked]
    texts = [column for column in texts if column.length > said.length and not column.is_numeric]
    better = [column.name for column in texts if goes_by(column, (*ANSWERS, *ANSWERS_LAST)) and not is_never(column)]
    if better:
        return better[0]
    least = SENTENCE if asked is None or found[asked].key in ASKED_BY_TEXT or not by_last else 0
    rivals = [c for c in texts if c.name not in (asked, answer) and c.is_prose and c.length > max(least, said.length)]
    rivals = [
        c for c in rivals if not is_about(c) and c.key not in (*ASKED, *ASKED_BY_TEXT, *BESIDE, *TOGETHER, *SYSTEMS)
    ]
    if rivals and asked in found and not found[asked].is_constant:
        raise either(name, found[asked], answer, rivals[0].name)
    return answer


def whether_wanted(named: dict[str, str], filled: dict[str, str], found: Columns, taken: set[str]) -> dict[str, str]:
    """The column that says whether an answer is one to learn: named, or a label of yes and no beside an answer."""
    column = named.get("label") or filled.get("label")
    if column is None or column in taken:
        return {}
    said = found[column].values
    if "label" in named or (said and all(says_yes(value) is not None for value in said)):
        return {"label": column}
    return {}


def _is_copy(column: str, asked: str, answer: str, rows: Iterable[Row]) -> bool:
    """Whether a column holds question and answer again, as training text does (it would give the answer away), or is
    itself a part of what is asked."""
    seen = copies = 0
    for row in rows:
        texts = [str(row.get(name) or "").strip() for name in (column, asked, answer)]
        if texts[0] and texts[1]:
            seen += 1
            whole = bool(texts[2]) and texts[1] in texts[0] and texts[2] in texts[0]
            copies += whole or (len(texts[0]) >= COPY and texts[0] in texts[1])
        if seen == COMPARED:
            break
    return seen > 0 and copies > seen / 2
