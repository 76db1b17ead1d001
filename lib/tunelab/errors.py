"""What goes wrong in words a user can act on.

A `UserError` is shown exactly as it stands, in the browser and on the command line: it names the field or row, the
value, what is allowed and the next step. `explain()` turns the failures of a machine (full disk, no memory) and of a
configuration into the same kind of sentence. Everything else is a bug and keeps its traceback in the log.
"""

from __future__ import annotations

import errno

from pydantic import ValidationError

EXIT_FAILED = 1  # the machine or a bug
EXIT_USER_ERROR = 2  # something the user can put right
EXIT_INTERRUPTED = 130  # Ctrl-C: stopped as asked, the adapter is kept


class UserError(Exception):
    """A mistake or a limit the user can act on; the message is shown as is."""


def explain(error: BaseException) -> str | None:
    """One sentence for a failure whose cause is known, `None` for anything else (a bug)."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ValidationError):
        return "\n".join(_explain_field(problem) for problem in error.errors())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return (
            f"The disk is full{where}. What was saved before is intact: free some space, "
            "then resume the run (`tunelab resume RUN`)."
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"No permission to write {error.filename}. Choose another directory with --runs DIR or TUNELAB_HOME."
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return (
            "Not enough memory. Halve batch_size and double gradient_accumulation_steps (the result stays the same), "
            "shorten max_length, or choose quantization nf4."
        )
    return None


def _explain_field(problem) -> str:  # problem: pydantic_core.ErrorDetails
    field = ".".join(str(part) for part in problem["loc"]) or "configuration"
    value = problem.get("input")
    shown = "" if isinstance(value, dict) or value is None else f" = {value!r}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "there is no such setting here"
    return f"{field}{shown}: {message[0].lower()}{message[1:]}."
