"""What reading gives: rows that can be gone through again and again, and what there is to know about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunelab.errors import UserError

Row = dict[str, Any]
SHOWN_BAD = 3  # rows that could not be read, named in a note


@dataclass(frozen=True)
class Bad:
    """A row that can't be read, or must not be learned from; `where` is its line or its number."""

    where: str
    reason: str  # a clause


@dataclass(frozen=True)
class Table:
    """Rows, in order, each a `Row` or `Bad`. Those of a large file are read anew each time they are gone through."""

    name: str
    rows: Iterable[Row | Bad]
    heldout: Iterable[Row | Bad] | None = None  # the file's own test part
    notes: Sequence[str] = ()  # complete when all rows have been gone through


def bad_rows_note(bad: Sequence[Bad], good: int, name: str) -> str:
    """The sentence that says which rows are left out.

    Raises:
        UserError: there are more of them than good ones.
    """
    if len(bad) > good:
        more = f" ({len(bad):,} of {len(bad) + good:,} rows can't be read)" if len(bad) > 1 else ""
        raise UserError(f"{name}, {bad[0].where}: {bad[0].reason}{more}.")
    shown = "; ".join(f"{one.where}: {one.reason}" for one in bad[:SHOWN_BAD])
    rows = "1 row can't be read and is" if len(bad) == 1 else f"{len(bad):,} rows can't be read and are"
    return f"warning: {rows} left out ({shown}{'; …' if len(bad) > SHOWN_BAD else ''})"
