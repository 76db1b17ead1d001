"""CSV and TSV as rows: the delimiter, the header and the quotes found out, cells left as they are written."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, Any

from tunelab.data.reading.checks import MAX_COLUMNS, MAX_ROW_CHARACTERS
from tunelab.data.reading.headings import is_heading
from tunelab.data.reading.quoting import Record, quoted_records
from tunelab.data.reading.table import Bad, Row
from tunelab.errors import UserError, listed, shortened

DELIMITERS = ",;\t|"
SAMPLE_LINES = 200
LONGEST_HEADING = 60  # characters; what is longer is a sentence
NAMED_DELIMITER = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)  # a line that Excel reads
NUMBER = re.compile(r"\s*[-+]?[\d.,]+\s*%?\s*")


@dataclass(frozen=True)
class Layout:
    """How a file is written."""

    delimiter: str
    quoted: bool
    header: list[str]
    has_header: bool
    first_line: int = 1  # 2 where a line before the table names the delimiter


def delimited_rows(
    open_text: Callable[[], IO[str]], name: str, suffix: str, header: str, notes: list[str] | None = None
) -> Iterator[tuple[str, Row | Bad]]:
    """The rows of a CSV or TSV file with their places. `header`: 'auto', 'first row' or 'none' (the columns are then
    called column1, column2, …). To `notes` is added what may be read wrongly.

    Raises:
        UserError: there is no header, a column stands twice, or a quote is never closed.
    """
    layout = _layout(open_text, name, suffix, header)
    with open_text() as file:
        lines = islice(_lines(file, name), layout.first_line - 1, None)
        records = _records(lines, layout, name, notes)
        yield from _rows(((f"line {line}", cells) for line, cells in records), layout)


def cells_as_rows(cells: Iterable[list[Any]], name: str, header: str) -> Iterator[tuple[str, Row | Bad]]:
    """Rows of a sheet, whose cells are there already."""
    records = [[_cell(value) for value in row] for row in cells]
    filled = [row for row in records[:SAMPLE_LINES] if _is_filled(row)]
    if not filled:
        raise UserError(f"{name} is empty. Give a sheet with a header and at least two rows.")
    layout = Layout(",", True, *_header(filled, name, header, ","))
    yield from _rows(((f"line {number}", row) for number, row in enumerate(records, 1)), layout)


def _rows(records: Iterable[tuple[str, list[str] | Bad]], layout: Layout) -> Iterator[tuple[str, Row | Bad]]:
    """Records as rows, without the header and without those that are blank."""
    header_is_next = layout.has_header
    for where, cells in records:
        if isinstance(cells, Bad):
            yield where, cells
        elif _is_filled(cells):
            if not header_is_next:
                yield where, _row(cells, layout, where)
            header_is_next = False


def _is_filled(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def _row(cells: list[str], layout: Layout, where: str) -> Row | Bad:
    header = layout.header
    if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
        return Bad(
            where,
            f"{len(cells)} cells, but there are {len(header)} columns ({listed(header, 4)}); put cells that contain "
            f"{_named(layout.delimiter)} into double quotes",
        )
    cells = cells[: len(header)] + [""] * (len(header) - len(cells))
    for place, (column, cell) in enumerate(zip(header, cells, strict=True)):
        if place and not column and cell.strip():  # in the first place pandas writes its index
            return Bad(where, f"its cell {place + 1}, {shortened(cell, 30)}, stands in a column without a name")
    return {column: cell for column, cell in zip(header, cells, strict=True) if column}


def _layout(open_text: Callable[[], IO[str]], name: str, suffix: str, header: str) -> Layout:
    with open_text() as file:
        sample = list(islice(_lines(file, name), SAMPLE_LINES))
    if not any(line.strip() for line in sample):
        raise UserError(f"{name} is empty. Give a file with a header and at least two rows.")
    named = NAMED_DELIMITER.fullmatch(sample[0])
    first_line = 2 if named else 1
    sample = sample[first_line - 1 :]
    if named:
        delimiter = named[1]
    else:
        delimiter = "\t" if suffix == ".tsv" and any("\t" in line for line in sample) else _delimiter(sample)
    quoted = delimiter != "\t" or _is_quoted(open_text, name, first_line)
    written = Layout(delimiter, quoted, [], False, first_line)
    records = [cells for _line, cells in _records(sample, written, name, sampled=True)]
    filled = [cells for cells in records if isinstance(cells, Bad) or _is_filled(cells)]
    if not filled:
        raise UserError(f"{name}: no line of it can be read as cells. Check its quotes.")
    if isinstance(filled[0], Bad):
        raise UserError(f"{name}, {filled[0].where}, where the columns' names are expected: {filled[0].reason}.")
    names, has_header = _header([cells for cells in filled if isinstance(cells, list)], name, header, delimiter)
    return replace(written, header=names, has_header=has_header)


def _header(records: list[list[str]], name: str, header: str, delimiter: str) -> tuple[list[str], bool]:
    """The columns' names, and whether the first record holds them.

    Raises:
        UserError: there are none, or they can't be used.
    """
    if header == "none":
        width = max(len(cells) for cells in records)
        return [f"column{place}" for place in range(1, width + 1)], False
    first = [cell.strip() for cell in records[0]]
    if header == "auto" and (reason := _like_data(first, records[1:])):
        raise UserError(
            f"{name} seems to have no header: the first line, {shortened(delimiter.join(first), 60)}, {reason}. Add a "
            "line with "
            "the columns' names, or say header: none (--header none) and name column1, column2, …; if it is a header, "
            "say header: first row."
        )
    _check_columns(first, records, name)
    return first, True


def _check_columns(header: list[str], records: list[list[str]], name: str) -> None:
    if len(header) > MAX_COLUMNS:
        raise UserError(
            f"{name}, line 1: names {len(header):,} columns; at most {MAX_COLUMNS:,} are read. Leave the others out."
        )
    doubled = sorted({column for column in header if column and header.count(column) > 1})
    if doubled:
        raise UserError(
            f"{name}, line 1: the column {shortened(doubled[0])} stands twice. Give each column its own name."
        )
    for place, column in enumerate(header):
        filled = any(len(cells) > place and cells[place].strip() for cells in records[1:])
        if place and not column and filled:  # in the first place pandas writes its index
            raise UserError(f"{name}, line 1: column {place + 1} has no name, but cells below it. Give it one.")


def _like_data(first: list[str], rows: list[list[str]]) -> str | None:
    """Why a first line looks like a row and no header, as a clause."""
    names = [cell for cell in first if cell]
    if any(map(is_heading, names)):
        return None
    if number := next((cell for cell in names if NUMBER.fullmatch(cell)), None):
        return f"has a number in it ({number.strip()})"
    if long := next((cell for cell in names if len(cell) > LONGEST_HEADING or "\n" in cell), None):
        return f"has a sentence in it ({shortened(long, 30)})"
    for place, cell in enumerate(first):
        below = [row[place].strip() for row in rows if len(row) > place]
        if cell and below.count(cell) > 0:
            return f"has a cell that also stands below it ({shortened(cell, 30)})"
    if (
        len(first) > 1
        and sum(cell.rstrip().endswith((".", "!", "?")) for cell in names) > 0
        and any(" " in cell for cell in names)
    ):
        return "has a sentence in it"
    return None


def _delimiter(sample: list[str]) -> str:
    """The one that cuts most lines into as many cells as the first, more than one."""

    def score(delimiter: str) -> tuple[float, int]:
        records = [cells for _line, cells in _records(sample, Layout(delimiter, True, [], False), "", sampled=True)]
        counts = [len(cells) for cells in records if isinstance(cells, list) and any(cells)]
        if not counts or counts[0] < 2:
            return 0.0, 0
        return sum(count == counts[0] for count in counts) / len(records), counts[0]

    return max(DELIMITERS, key=score)


def _is_quoted(open_text: Callable[[], IO[str]], name: str, first_line: int) -> bool:
    """Whether quotes in a file with tabs are those of a table: they stand around the columns' names or around cells, or
    lines would be cut apart without them. Most such files are written without: there a quote is a quote."""
    with open_text() as file:
        lines = (line.rstrip("\r\n") for line in islice(_lines(file, name), first_line - 1, None))
        width, cut, around = None, 0, 0
        for line in lines:
            cells = line.split("\t")
            if width is None and all(re.fullmatch(r'"[^"]*"', cell) for cell in cells):
                return True
            width = width or len(cells)
            cut += len(cells) != width and bool(line.strip())
            for cell in cells:
                if cell.startswith('"') or cell.endswith('"'):
                    if len(cell) > 1 and re.fullmatch(r'"(?:[^"]|"")*"', cell):
                        around += 1
                    elif not cut:
                        return False  # a cell with a quote of its own, in a line that is whole
    if not cut:
        return around > 0
    try:
        with open_text() as file:
            again = islice(_lines(file, name), first_line - 1, None)
            records = [
                "Bad" if isinstance(cells, Bad) else len(cells)
                for _line, cells in _records(again, Layout("\t", True, [], False), name)
                if isinstance(cells, Bad) or any(cells)
            ]
    except UserError:
        return False
    return len({*records} - {"Bad"}) == 1 and records.count("Bad") < cut


def _records(
    lines: Iterable[str], layout: Layout, name: str, notes: list[str] | None = None, sampled: bool = False
) -> Iterator[Record]:
    """The line on which each record begins, and its cells; `lines` begin with the first line of the table.

    Raises:
        UserError: a quote is never closed.
    """
    if layout.quoted:
        return quoted_records(lines, layout.delimiter, name, layout.first_line, sampled, notes)
    numbered = enumerate(lines, layout.first_line)
    return ((number, line.rstrip("\r\n").split(layout.delimiter)) for number, line in numbered)


def _lines(file: Iterable[str], name: str) -> Iterator[str]:
    """Lines, none without end."""
    if isinstance(file, io.TextIOBase):
        while line := file.readline(MAX_ROW_CHARACTERS):
            if len(line) >= MAX_ROW_CHARACTERS:
                raise UserError(
                    f"{name} has a line of more than {MAX_ROW_CHARACTERS:,} characters. Cut it into several rows."
                )
            yield line
        return
    yield from file


def _named(delimiter: str) -> str:
    return {"\t": "a tab"}.get(delimiter, f"'{delimiter}'")


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a sheet knows no whole numbers
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)
