"""What to do about columns that are not recognised: errors that name some which would work."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable

from tunelab.data.columns import SCALAR, Column
from tunelab.data.names import (
    ANSWERS,
    ANSWERS_LAST,
    ASKED,
    ASKED_BY_TEXT,
    IDS,
    LABELS,
    SYSTEMS,
    TEXTS,
    TOGETHER,
    is_never,
)
from tunelab.errors import UserError, listed, shortened

Columns = dict[str, Column]


class ColumnError(UserError):
    """A column that is not there, or none that is recognised: for those who show it beside the choice it is about.

    problem: the sentence's beginning, without its full stop; columns: those there are; role: the one it was given for;
    advised: roles and columns that would do.
    """

    def __init__(
        self, message: str, problem: str, columns: Iterable[str], advised: dict[str, str], role: str | None = None
    ) -> None:
        super().__init__(message)
        self.problem, self.columns, self.advised, self.role = problem, tuple(columns), dict(advised), role


MOST_ADVICE = 170  # characters of a command and of the same in Python: of longer ones the command alone is said


def no_pair(found: Columns, name: str) -> UserError:
    """The error for a table of which nothing is known."""
    texts = [column for column in found.values() if column.filled and column.is_text and column.key not in IDS]
    if len(texts) == 1 and (texts[0].key in TEXTS or len(found) == 1):
        return UserError(
            f"{name}: column {shortened(texts[0].name)} is plain text, and no column holds answers. Choose learn = "
            "text for this "
            "stage (--learn text), or add a column with the answers and name both."
        )
    return missing(f"{name}: no columns to learn from were recognised", found)


def missing(problem: str, found: Columns, role: str = "prompt", **known: str) -> ColumnError:
    """The error for columns that are not there or not recognised, with those that could be meant; `known`: roles that
    are clear."""
    columns = f"{problem}. Columns there: {listed(map(repr, found), 6) or 'none'}."
    named = known if len(known) > 1 else advised(found, role, **known)
    if not named:
        texts = [column.name for column in found.values() if column.filled and column.is_text and not _is_out(column)]
        only = f"Only {shortened(texts[0], 40)} holds text" if texts else "None of them holds text"
        said = f"{columns} {only}: add a column with the answers, or choose learn = text (--learn text)."
        return ColumnError(said, problem, found, {})
    typed = flags(named)
    python = f", in Python with columns={named}" if len(typed) + len(str(named)) < MOST_ADVICE else ""
    said = f"{columns} Name them, e.g. in the app in its room Data, on the command line with {typed}{python}."
    return ColumnError(said, problem, found, named)


def not_there(problem: str, found: Columns, role: str, given: str) -> ColumnError:
    """The error for a column that somebody named and that is not there, with the one whose name is nearest."""
    by_case = {name.casefold(): name for name in reversed(list(found)) if name}
    near = difflib.get_close_matches(given.casefold(), by_case, 1)
    if not near:
        error = missing(problem, found, "text" if role == "text" else "prompt")
        return ColumnError(str(error), problem, found, error.advised, role)
    named = {role: by_case[near[0]]}
    said = f"{problem}. Columns there: {listed(map(repr, found), 6)}. The nearest: {flags(named)}."
    return ColumnError(said, problem, found, named, role)


def flags(named: dict[str, str]) -> str:
    """Roles and columns as they are typed in a shell."""
    return " ".join(("--columns", *(shlex.quote(f"{role}={column}") for role, column in named.items())))


def either(name: str, asked: Column, label: str, text: str) -> UserError:
    """The error for two columns that could be the answer."""
    named = {"prompt": asked.name} if asked.key not in TOGETHER else {}  # those are found together
    named["completion"] = text
    return UserError(
        f"{name}: the answer may be {shortened(text, 40)}, which is text, or {shortened(label, 40)}, which holds "
        f"labels or numbers. Name the one to learn: {flags(named)}, or {shlex.quote('completion=' + label)}."
    )


def advised(found: Columns, role: str = "prompt", **known: str) -> dict[str, str]:
    """Columns, or templates over what they hold, that could be asked and answered; none where there are too few."""
    able = [column for column in found.values() if column.filled and column.name and not _is_out(column)]
    able = [column for column in able if column.name not in known.values()]
    texts = [column for column in able if column.is_text and not column.is_address]
    varied = [column for column in texts if not column.is_constant]
    texts = varied if len(varied) > 1 else texts
    clear = [column for column in texts if not column.is_id]
    if role == "text":
        order = sorted(clear or texts, key=lambda column: -column.length)
        return {"text": order[0].name} if order else {}
    others = [*clear, *(column for column in texts if column.is_id)]
    asked = known.get("prompt") or _asked(others)
    together = asked in found and found[asked].key in TOGETHER  # these are found together, and none of them answers
    left = [c for c in others if c.name != asked and not (together and c.key in TOGETHER)]
    answer = known.get("completion") or _answer(left)
    if together and answer and "prompt" not in known:
        return {"completion": answer}
    spare = iter([path for column in able if column not in texts for path in _paths(column)])
    asked = asked or next(spare, None)
    answer = answer or next(spare, None)
    return {"prompt": asked, "completion": answer} if asked and answer else {}


def another_answer(found: Columns, taken: Iterable[str]) -> str | None:
    """A column that could be learned instead of those that are taken."""
    able = [c for c in found.values() if c.filled and c.is_text and not c.is_id and not _is_out(c)]
    return _answer([column for column in able if column.name not in set(taken)])


def _asked(texts: list[Column]) -> str | None:
    able = [column for column in texts if not column.is_numeric and not column.is_address] or texts
    able = [column for column in able if column.key not in (*ANSWERS, *ANSWERS_LAST, *LABELS) and not _is_label(column)]
    known = [column.name for key in (*ASKED, *ASKED_BY_TEXT) for column in able if column.key == key]
    prose = [column.name for column in able if column.is_prose and not column.is_id]  # what is asked stands first
    return next(iter([*known, *prose, *(c.name for c in _longest([c for c in able if not c.is_id] or able))]), None)


def _answer(texts: list[Column]) -> str | None:
    known = [column for key in (*ANSWERS, *ANSWERS_LAST, *LABELS) for column in texts if column.key == key]
    few = [column for column in texts if _is_label(column)]
    return next((column.name for column in [*known, *few, *_longest(texts)]), None)


def _is_label(column: Column) -> bool:
    return column.is_few and len(column.values) > 1


def _longest(columns: list[Column]) -> list[Column]:
    return sorted(columns, key=lambda column: (column.is_id, -column.length))


def _is_out(column: Column) -> bool:
    return column.key in (*IDS, *SYSTEMS) or column.key.endswith("_id") or is_never(column)


def _paths(column: Column) -> list[str]:
    """Templates that write what a column of lists or objects holds."""
    if set(column.name) & set("{}"):
        return []
    texts = [key for key, kinds in column.inner.items() if kinds <= SCALAR and not set(key) & set("{}.")]
    if column.kinds == {"object"} and len(texts) > 1:
        return [f"{{{column.name}.{key}}}" for key in texts[:2]]
    if column.kinds == {"object"}:
        return [f"{{{column.name}:json}}"]
    return [f"{{{column.name}}}"] if column.kinds == {"list"} and column.items <= SCALAR else []
