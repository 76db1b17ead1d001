"""Data sets of the Hugging Face Hub as tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from tunelab.data.reading import Bad, Row, Table
from tunelab.data.reading.checks import checked
from tunelab.data.reading.files import SUFFIXES, FileRows
from tunelab.data.reading.jsons import TEST, TRAIN
from tunelab.errors import UserError, listed
from tunelab.spec import plain_rows

AT_ONCE = 1000  # rows


def hub_table(name: str, subset: str | None, split: str | None, heldout: bool, builtin: tuple[str, ...]) -> Table:
    """A data set's rows, and those of its test part if `heldout` asks for one and no `split` is named.

    Raises:
        UserError: it can't be had, or has no such subset or split; with those that it has.
    """
    import datasets

    try:
        parts = datasets.load_dataset(name, subset)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise UserError(_why(name, subset, error, builtin)) from None
    wanted = split or _first(TRAIN, parts) or next(iter(parts))
    if wanted not in parts:
        raise UserError(f"split = '{wanted}': '{name}' has the splits {listed(parts)}. Choose one of them.")
    test = _first(TEST, [part for part in parts if part != wanted]) if heldout and not split else None
    unread = [part for part in parts if part not in (wanted, test)]
    notes = (f"read: {listed([wanted, *([test] if test else [])])}; not read: {listed(unread)}",) if unread else ()
    return Table(name, _rows(parts[wanted], name), _rows(parts[test], name) if test else None, notes)


def _first(names: tuple[str, ...], parts: Iterable[str]) -> str | None:
    """The part with the first of these names that there is."""
    by_name = {str(part).lower(): part for part in parts}
    return next((by_name[name] for name in names if name in by_name), None)


def _rows(part: Any, name: str) -> FileRows:
    def read() -> Iterator[Row | Bad]:
        for start in range(0, len(part), AT_ONCE):
            batch = part.select(range(start, min(start + AT_ONCE, len(part))))
            placed = ((f"row {start + place}", row) for place, row in enumerate(plain_rows(batch), 1))
            yield from checked(placed, name)

    return FileRows(read)


def _why(name: str, subset: str | None, error: Exception, builtin: tuple[str, ...]) -> str:
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:180]
    reason = "the Hub is switched off (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else said
    if "config name is missing" in str(error).lower():
        return f"'{name}' has several subsets: name one as subset. {str(error)[:250]}"
    where = f"'{name}'" + (f" with subset = '{subset}'" if subset else "")
    return (
        f"source = {where} can't be had from the Hugging Face Hub: {reason}. Connect, give a file "
        f"({', '.join(SUFFIXES[:5])}, …), or use a built-in set ({', '.join(builtin)})."
    )
