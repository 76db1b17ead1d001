"""Sets of prompts: what somebody pasted or uploaded, as a list of texts. Knows nothing of Gradio."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tunelab import UserError
from tunelab.data.reading import Bad, Table, bad_rows_note, read_pasted, read_table
from tunelab.errors import listed, shown_name

MOST_PROMPTS = 500
TEXTS = (".txt", ".md", ".markdown")
JSON = re.compile(r'\s*(\[\s*\{|\{\s*")')  # a list of objects or an object; `{{name}}` begins a prompt
NAMES = ("prompt", "question", "instruction", "input", "query", "text")  # of the column with the prompts


@dataclass(frozen=True)
class Prompts:
    """What is asked, and what there is to know of how it was read."""

    prompts: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_prompts(written: str, upload: str | None) -> Prompts:
    """The prompts of a file, or of what was written: one a line, or a table or JSON with a column of prompts.

    Raises:
        UserError: there are none, or no column holds them.
    """
    if upload:
        path = Path(upload)
        table = read_table(path)
        notes = ["the file is asked, not what is written beside it"] if written.strip() else []
        if path.suffix.lower() in TEXTS:
            text = "\n".join(str(row["text"]) for row in table.rows if isinstance(row, dict))
            return _capped(_lines(text), [*table.notes, *notes])
        prompts, more = _of_table(table)
        return _capped(prompts, [*more, *notes])
    if not written.strip():
        raise UserError("There are no prompts. Write one a line, or give a file with a column called prompt.")
    if JSON.match(written) or _has_header(written):
        return _capped(*_of_table(read_pasted(written)))
    return _capped(_lines(written), [])


def _has_header(written: str) -> bool:
    """Whether a table was pasted: its first line names a column of prompts beside another one."""
    first, _, rest = written.strip().partition("\n")
    for delimiter in (",", ";", "\t"):
        cells = [cell.strip(' "').lower() for cell in first.split(delimiter)]
        if len(cells) > 1 and rest and not set(NAMES).isdisjoint(cells):
            return True
    return False


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _of_table(table: Table) -> tuple[list[str], list[str]]:
    rows = list(table.rows)
    bad = [row for row in rows if isinstance(row, Bad)]
    good = [row for row in rows if not isinstance(row, Bad)]
    notes = [*table.notes, *([bad_rows_note(bad, len(good), table.name)] if bad else [])]
    columns = list(dict.fromkeys(name for row in good for name in row))
    by_name = {name.strip().lower(): name for name in columns}
    column = next((by_name[name] for name in NAMES if name in by_name), None)
    if column is None:
        shown = ", ".join(columns[:8])
        raise UserError(f"{table.name} has no column called {', '.join(NAMES[:-1])} or {NAMES[-1]}; it has: {shown}.")
    if table.heldout is not None:
        notes.append("its test part is not read")
    if others := [name for name in columns if name != column]:
        notes.append(f"the column {shown_name(column)} is asked; not read: {listed(map(shown_name, others), 8)}")
    values = [row.get(column) for row in good]
    texts = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    if empty := len(values) - len(texts):
        notes.append(f"{empty:,} {'row has' if empty == 1 else 'rows have'} no text in the column {column}")
    return texts, notes


def _capped(texts: list[str], notes: list[str]) -> Prompts:
    if not texts:
        raise UserError("There are no prompts in it. Write one a line, or give a file with a column called prompt.")
    distinct = list(dict.fromkeys(texts))
    if twice := len(texts) - len(distinct):
        notes.append(f"{twice:,} {'prompt was' if twice == 1 else 'prompts were'} there already, asked once")
    if len(distinct) > MOST_PROMPTS:
        notes.append(f"the first {MOST_PROMPTS:,} of {len(distinct):,} prompts are asked")
    return Prompts(tuple(distinct[:MOST_PROMPTS]), tuple(notes))
