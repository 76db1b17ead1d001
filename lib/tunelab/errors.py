"""What goes wrong in words a user can act on.

A `UserError` is shown exactly as it stands, in the browser and on the command line: it names the field or row, the
value, what is allowed and the next step. `explain()` turns the failures of a machine (full disk, no memory) and of a
configuration into the same kind of sentence. Everything else is a bug and keeps its traceback in the log.
"""

from __future__ import annotations

import errno
from typing import Any

from pydantic import ValidationError

EXIT_FAILED = 1  # a bug
EXIT_USER_ERROR = 2  # something the user can put right: a mistake, a full disk, too little memory
EXIT_INTERRUPTED = 130  # Ctrl-C: stopped as asked, the adapter is kept


class UserError(Exception):
    """A mistake or a limit the user can act on; the message is shown as is."""


def explain(error: BaseException) -> str | None:
    """One sentence for a failure whose cause is known, `None` for anything else (a bug)."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ValidationError):
        return "\n".join(_explain_fields(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return (
            f"The disk is full{where}. What was saved before is intact: free some space, "
            "then resume the run (`tunelab resume RUN`)."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"No permission to write {error.filename}. Choose another directory with --runs DIR or TUNELAB_HOME."
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return f"{error.filename} can't be made: a file stands where a directory is needed. Choose another --runs DIR."
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
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
        shown = f" = {value!r}" if isinstance(value, (str, int, float)) else ""
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
