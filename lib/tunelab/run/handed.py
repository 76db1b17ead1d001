"""Rows handed over from a notebook to the app: files beside the runs, named by their content, so that what a run
learned from stays as it was.

    RUNS_ROOT/handed/DIGEST/NAME.jsonl      the rows
    RUNS_ROOT/handed/DIGEST/handed.json     {"name", "rows", "columns"}
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.errors import UserError, shortened
from tunelab.machine.files import replacing, write_atomically
from tunelab.run.run import runs_root
from tunelab.spec import plain_rows

NAME = re.compile(r"[^\W_][\w .()+-]{0,59}")  # a file's name everywhere, without a path in it
ABOUT = "handed.json"


@dataclass(frozen=True)
class Handed:
    """Rows that were handed over: `path` is a `DataSpec.source`."""

    name: str
    path: Path
    rows: int
    columns: tuple[str, ...]
    seconds: float  # since the epoch, when they were handed over last

    def __str__(self) -> str:
        return f"{self.name}: {self.rows:,} rows for the app's room Data, in {self.path}"


def hand_over(rows: Any, name: str, root: str | Path | None = None) -> Handed:
    """Rows from a notebook, for the app that shows the same runs: a list of dicts, a pandas DataFrame or a
    `datasets.Dataset`. They stand in its room Data under `name`; the same rows under the same name stand there once.

    root: where runs live, as for `list_runs`.

    Raises:
        UserError: the name can't be that of a file, or these are no rows.
    """
    if not NAME.fullmatch(name.rstrip()) or name != name.strip():
        raise UserError(
            f"name = {shortened(name)}: allowed are up to 60 letters, digits, spaces and . _ - + ( ), a letter or "
            "digit first. Write e.g. tunelab.hand_over(frame, 'tickets')."
        )
    plain = _checked(rows)
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in plain).encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(name.encode() + b"\0" + lines).hexdigest()[:12]
    folder = runs_root(root) / "handed" / digest
    about = {"name": name, "rows": len(plain), "columns": list(dict.fromkeys(key for row in plain for key in row))}
    with replacing(folder) as new:
        (new / f"{name}.jsonl").write_bytes(lines)
        write_atomically(new / ABOUT, json.dumps(about, ensure_ascii=False))
    return _read(folder)


def list_handed(root: str | Path | None = None) -> list[Handed]:
    """What was handed over, the newest first. What is damaged is left out: it is there again when it is handed over
    again."""
    found: list[Handed] = []
    for path in (runs_root(root) / "handed").glob(f"*/{ABOUT}"):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            found.append(_read(path.parent))
    return sorted((one for one in found if one.path.is_file()), key=lambda one: (-one.seconds, one.name))


def _read(folder: Path) -> Handed:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    made = (folder / ABOUT).stat().st_mtime
    name = str(about["name"])
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of rows")
    return Handed(name, folder / f"{name}.jsonl", int(about["rows"]), tuple(map(str, about["columns"])), made)


def _checked(rows: Any) -> list[dict[str, Any]]:
    try:
        plain = plain_rows(rows)
    except ValueError as error:
        raise UserError(f"These rows can't be handed over: {error}.") from None
    if not isinstance(plain, list | tuple) or not all(isinstance(row, dict) for row in plain):
        raise UserError(
            f"rows = {shortened(repr(rows), 60)}: allowed are a list of dicts, a pandas DataFrame or a "
            "datasets.Dataset. Write e.g. tunelab.hand_over(frame, 'tickets')."
        )
    if not plain:
        raise UserError("There are no rows to hand over. Give at least two: one to train on, one to hold out.")
    return list(plain)
