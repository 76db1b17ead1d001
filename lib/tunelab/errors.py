"""What goes wrong in words a user can act on.

A `UserError` is shown exactly as it stands, in the browser and on the command line: it names the field or row, the
value, what is allowed and the next step. `explain()` turns the failures of a machine (full disk, no memory) and of a
configuration into the same kind of sentence. Everything else is a bug and keeps its traceback in the log.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import ValidationError

EXIT_FAILED = 1  # a bug
EXIT_USER_ERROR = 2  # something the user can put right: a mistake, a full disk, too little memory
EXIT_INTERRUPTED = 130  # Ctrl-C: stopped as asked, the adapter is kept


LONGEST = 400  # characters of a message: more is not read
LONGEST_VALUE = 80


class UserError(Exception):
    """A mistake or a limit the user can act on; the message is shown as is. Of one that is too long, as somebody's
    paths and names can make it, the middle is left out: it begins with what is wrong and ends with what to do."""

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST - 203]} … {message[-200:]}"
        super().__init__(message)


def shortened(value: object, length: int = LONGEST_VALUE) -> str:
    """A value as it stands in a message: `repr`, cut where it is long."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def shown_name(name: str, length: int = LONGEST_VALUE) -> str:
    """A file's name as it stands in a message: without letters that are not seen (such as those that turn the direction
    of writing), the middle left out where it is long."""
    seen = "".join(letter if letter.isprintable() else "�" for letter in name)
    return seen if len(seen) <= length else f"{seen[: length // 2]}…{seen[-(length // 2 - 1) :]}"


def listed(names: Iterable[object], most: int = 12) -> str:
    """Names as they stand in a message, separated by commas: the first ones, and how many more there are."""
    every = [text if len(text := str(name)) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…" for name in names]
    shown: list[str] = []
    left = LONGEST // 2
    for name in every[:most]:
        left -= len(name) + 2
        if shown and left < 0:
            break
        shown.append(name)
    more = [f"and {len(every) - len(shown):,} more"] if len(shown) < len(every) else []
    return ", ".join((*shown, *more))


Cause = Literal["", "memory", "disk"]  # what a machine lacked; "": nothing, or it is not known


def cause_of(error: BaseException) -> Cause:
    """What the machine lacked when this went wrong."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk"
    short = isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)
    return "memory" if short and not isinstance(error, UserError) else ""


def explain(error: BaseException) -> str | None:
    """One sentence for a failure whose cause is known, `None` for anything else (a bug)."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ValidationError):
        return str(UserError("\n".join(_explain_fields(error))))
    lacked = cause_of(error)
    if isinstance(error, OSError) and lacked == "disk":
        where = f" while writing {error.filename}" if error.filename else ""
        return (
            f"The disk is full{where}. What was saved before is intact: free some space, "
            "then resume the run (`tunelab resume RUN`)."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"No permission to write {error.filename}. Choose another directory with --runs DIR or TUNELAB_HOME."
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return f"{error.filename} can't be made: a file stands where a directory is needed. Choose another --runs DIR."
    if lacked == "memory":
        return (
            "Not enough memory. Halve batch_size and double gradient_accumulation_steps (the result stays the same), "
            "shorten max_length, or choose quantization nf4."
        )
    return None


def _explain_fields(error: ValidationError) -> list[str]:
    """One sentence per field that is wrong: its value, and what would be allowed."""
    by_field: dict[tuple[int | str, ...], list[Any]] = {}
    for problem in error.errors():
        by_field.setdefault(_field_of(problem["loc"]), []).append(problem)
    sentences = []
    for field, problems in by_field.items():
        if any(other[: len(field)] == field != other for other in by_field):
            continue  # wrong only because a part of it is, which has its own sentence
        value = problems[0].get("input")
        shown = f" = {shortened(value)}" if isinstance(value, (str, int, float)) else ""
        messages = [_message(problem) for problem in problems]
        # a field of several types has a message for each of them
        said = ", or ".join(dict.fromkeys(message[0].lower() + message[1:] for message in messages))
        sentences.append(f"{'.'.join(map(str, field)) or 'configuration'}{shown}: {said}.")
    return sentences


def _message(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "there is no such setting here"
    return str(problem["msg"]).removeprefix("Value error, ").partition(", unable to")[0]


def _field_of(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The field a problem belongs to, without the names pydantic gives to the types of a union."""
    types = ("float", "int", "str", "bool")
    return tuple(part for part in location if isinstance(part, int) or (part.isidentifier() and part not in types))
