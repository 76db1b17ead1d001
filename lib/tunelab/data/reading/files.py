"""A path, or pasted text, as a table."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from tunelab.data.reading import jsons
from tunelab.data.reading.checks import checked, what_is_no_text
from tunelab.data.reading.delimited import delimited_rows
from tunelab.data.reading.encoding import encoding_of, open_text
from tunelab.data.reading.opening import Member, members
from tunelab.data.reading.sheets import parquet_rows, sheet_rows
from tunelab.data.reading.table import Bad, Row, Table
from tunelab.errors import UserError, listed, shown_name

TABLES, LINES, TEXTS = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".txt", ".md", ".markdown")
PLAIN = (*TABLES, ".json", *LINES, ".parquet", ".xlsx", *TEXTS)
SUFFIXES = (*PLAIN, ".gz", ".zip")
MAX_TEXT = 200_000_000  # characters of a document
IN_MEMORY = 20_000_000  # bytes; the rows of larger files are read anew each time they are gone through


class FileRows:
    """Rows that are read whenever they are gone through."""

    def __init__(self, read: Callable[[], Iterator[Row | Bad]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Row | Bad]:
        return self._read()


def read_table(path: str | Path, header: str = "auto") -> Table:
    """The rows of a file, or of the files in an archive.

    Raises:
        UserError: no such file, too large, of a kind that is not read, empty, or broken; with the place where it is.
    """
    path = Path(path)
    try:
        path = path.expanduser()
    except RuntimeError:
        raise UserError(
            f"There is no file {shown_name(str(path))}: that user has no home. Write the whole path."
        ) from None
    name = shown_name(path.name)
    found = members(path)
    if len(found) == 1:
        return _read(found[0], header)
    readable = [member for member in found if member.suffix in PLAIN]
    tables = [member for member in readable if member.suffix not in TEXTS] or readable
    if not tables:
        kinds = listed(sorted({member.suffix or "none" for member in found}))
        raise UserError(
            f"{name} holds no file that is read (its files end in: {kinds or 'nothing'}). Read are: {', '.join(PLAIN)}."
        )
    return _several(tables, name, header)


def _several(found: list[Member], name: str, header: str) -> Table:
    """The members of an archive as one table: a train and a test part, or documents."""
    if len(found) == 1:
        return _read(found[0], header)
    by_part = {part: [m for m in found if _part(m) == part] for part in ("train", "test")}
    train, test = by_part["train"], by_part["test"]
    if len(train) == 1:
        table = _read(train[0], header)
        own = _read(test[0], header) if test else None
        unread = [member.name.rpartition("/")[2] for member in found if member not in (train[0], *test[:1])]
        notes = [f"not read: {listed(unread)}"] if unread else []
        return Table(name, table.rows, own.rows if own else table.heldout, (*table.notes, *notes))
    if all(member.suffix in TEXTS for member in found):
        documents = [_read(member, header) for member in found]
        rows = list(itertools.chain.from_iterable(document.rows for document in documents))
        return Table(name, rows, None, tuple(note for document in documents for note in document.notes))
    names = listed(member.name.rpartition("/")[2] for member in found)
    raise UserError(
        f"{name} holds several files with rows: {names}. Give one of them, or call two of them train and test."
    )


def _part(member: Member) -> str | None:
    stem = member.name.rpartition("/")[2].rpartition(".")[0].lower()
    for part, names in (("train", jsons.TRAIN), ("test", jsons.TEST)):
        if any(name in stem.replace("-", "_").split("_") for name in names):
            return part
    return None


def _read(member: Member, header: str) -> Table:
    name = member.name
    if member.suffix == ".parquet":
        if member.path is None:
            raise UserError(f"{name}: a Parquet file is packed already. Give it unpacked.")
        path = member.path
        return _table(
            name, FileRows(lambda: checked(parquet_rows(path, name), name)), small=path.stat().st_size < IN_MEMORY // 10
        )
    if member.suffix == ".xlsx":
        rows, notes = sheet_rows(member, header)
        return Table(name, list(checked(rows, name)), None, tuple(notes))
    if member.suffix not in PLAIN:
        raise UserError(f"{name}: files of type '{member.suffix}' are not read. Allowed: {', '.join(SUFFIXES)}.")
    encoding, guessed = encoding_of(member)
    small = member.path is None or member.path.stat().st_size < IN_MEMORY
    return _read_text(
        lambda: open_text(member, encoding), name, member.suffix, header, [guessed] if guessed else [], small
    )


def read_pasted(text: str, header: str = "auto") -> Table:
    """Text that somebody pasted: JSON, JSONL, a table with a header, or plain text.

    Raises:
        UserError: it is empty, or looks like rows and is broken.
    """
    name, suffix = "the pasted text", pasted_suffix(text)
    return _read_text(lambda: io.StringIO(text, newline=""), name, suffix, header, [], True)


def pasted_suffix(text: str) -> str:
    """How a file that holds this text ends: '.json' (JSON, JSONL), '.csv' (tables of any delimiter) or '.txt'.

    Raises:
        UserError: it is empty.
    """
    start = text.lstrip()
    if not start:
        raise UserError("The pasted text is empty. Paste rows with a header, JSON, or plain text.")
    return ".json" if start.startswith(("{", "[{", "[\n", "[ ", "[[")) else ".csv" if _is_table(text) else ".txt"


def _is_table(text: str) -> bool:
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    return len(lines) > 1 and any(
        lines[0].count(delimiter) and all(line.count(delimiter) >= lines[0].count(delimiter) for line in lines)
        for delimiter in (",", ";", "\t", "|")
    )


def _read_text(
    opened: Callable[[], IO[str]], name: str, suffix: str, header: str, notes: list[str], small: bool
) -> Table:
    if suffix in TEXTS:
        return Table(name, [{"text": _document(opened, name)}], None, tuple(notes))
    if suffix in TABLES:
        rows = FileRows(lambda: checked(delimited_rows(opened, name, suffix, header, notes), name))
        return Table(name, list(rows) if small else rows, None, notes)  # reading adds to the notes
    if jsons.is_lines(opened, named_so=suffix in LINES):
        return _table(name, FileRows(lambda: checked(_unwrapped(jsons.json_lines(opened)), name)), notes, small)
    found, heldout, more = jsons.document(opened, name)
    own = list(checked(heldout, name)) if heldout is not None else None
    return Table(name, list(checked(found, name)), own, (*notes, *more))


def _unwrapped(rows: Iterable[jsons.Placed]) -> Iterator[jsons.Placed]:
    """Lines that are lists of turns, as rows."""
    for where, value in rows:
        turns = isinstance(value, list) and value and all(jsons.is_turn(turn) for turn in value)
        yield where, {"messages": value} if turns else value


def _document(opened: Callable[[], IO[str]], name: str) -> str:
    with opened() as file:
        text = file.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        raise UserError(
            f"{name} has more than {MAX_TEXT / 1e6:,.0f} million characters. Cut it into several documents."
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if wrong := re.search("[\ud800-\udfff]", text):
        line = text.count("\n", 0, wrong.start()) + 1
        raise UserError(f"{name}, line {line}: {what_is_no_text(wrong[0])}.")
    return text


def _table(name: str, rows: Any, notes: Iterable[str] = (), small: bool = True) -> Table:
    return Table(name, list(rows) if small else rows, None, tuple(notes))
