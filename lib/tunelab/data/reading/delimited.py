"""CSV and TSV as rows: the delimiter, the header and the quotes found out, cells left as they are written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from tunelab.data.reading.checks import MAX_COLUMNS, MAX_ROW_CHARACTERS
from tunelab.data.reading.table import Bad, Row
from tunelab.errors import UserError, listed, shortened

DELIMITERS = ",;\t|"
SAMPLE_LINES = 200
LONGEST_HEADING = 60  # characters; what is longer is a sentence
# names that columns have; a first line with one of them is a header
HEADINGS = frozenset(
    "id index text label labels category class intent sentiment topic prompt completion instruction input output "
    "response "
    "answer answers question context system system_prompt messages conversations source target title query user "
    "assistant "
    "message content summary chosen rejected sentence review body subject date name number split language score rating "
    "description".split()
)
NUMBER = re.compile(r"\s*[-+]?[\d.,]+\s*%?\s*")


@dataclass(frozen=True)
class Layout:
    """How a file is written."""

    delimiter: str
    quoted: bool
    header: list[str]
    has_header: bool


def delimited_rows(
    open_text: Callable[[], IO[str]], name: str, suffix: str, header: str
) -> Iterator[tuple[str, Row | Bad]]:
    """The rows of a CSV or TSV file with their places. `header`: 'auto', 'first row' or 'none' (the columns are then
    called column1, column2, …).

    Raises:
        UserError: there is no header, a column stands twice, or a quote is never closed.
    """
    layout = _layout(open_text, name, suffix, header)
    with open_text() as file:
        records = _records(file, layout.delimiter, layout.quoted, name)
        if layout.has_header:
            next(records)
        for line, cells in records:
            where = f"line {line}"
            if isinstance(cells, Bad):
                yield where, cells
            elif any(cell.strip() for cell in cells):
                yield where, _row(cells, layout, where)


def _row(cells: list[str], layout: Layout, where: str) -> Row | Bad:
    header = layout.header
    if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
        return Bad(
            where,
            f"{len(cells)} cells, but there are {len(header)} columns ({listed(header, 4)}); put cells that contain "
            f"{_named(layout.delimiter)} into double quotes",
        )
    cells = cells[: len(header)] + [""] * (len(header) - len(cells))
    return {column: cell for column, cell in zip(header, cells, strict=True) if column}


def _layout(open_text: Callable[[], IO[str]], name: str, suffix: str, header: str) -> Layout:
    with open_text() as file:
        sample = list(islice(_lines(file, name), SAMPLE_LINES))
    if not any(line.strip() for line in sample):
        raise UserError(f"{name} is empty. Give a file with a header and at least two rows.")
    delimiter = "\t" if suffix == ".tsv" and any("\t" in line for line in sample) else _delimiter(sample)
    quoted = delimiter != "\t" or _is_quoted(open_text, name)
    records = [
        cells
        for _line, cells in _records(iter(sample), delimiter, quoted, name, sampled=True)
        if isinstance(cells, list)
    ]
    records = [cells for cells in records if any(cell.strip() for cell in cells)]
    if not records:
        raise UserError(f"{name}: no line of it can be read as cells. Check its quotes.")
    first = [cell.strip() for cell in records[0]]
    has_header = header != "none"
    if not has_header:
        width = max(len(cells) for cells in records)
        return Layout(delimiter, quoted, [f"column{place}" for place in range(1, width + 1)], False)
    if header == "auto" and (reason := _like_data(first, records[1:])):
        raise UserError(
            f"{name} seems to have no header: the first line, {shortened(delimiter.join(first), 60)}, {reason}. Add a "
            "line with "
            "the columns' names, or say header: none (--header none) and name column1, column2, …; if it is a header, "
            "say header: first row."
        )
    _check_columns(first, records, name)
    return Layout(delimiter, quoted, first, True)


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
    if any(re.sub(r"[\s-]+", "_", cell.lower()) in HEADINGS for cell in names):
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
        records = [cells for _line, cells in _records(iter(sample), delimiter, True, "", sampled=True)]
        counts = [len(cells) for cells in records if isinstance(cells, list) and any(cells)]
        if not counts or counts[0] < 2:
            return 0.0, 0
        return sum(count == counts[0] for count in counts) / len(records), counts[0]

    return max(DELIMITERS, key=score)


def _is_quoted(open_text: Callable[[], IO[str]], name: str) -> bool:
    """Whether quotes in a file with tabs are those of a table: they stand around cells, or lines would be cut apart
    without them. Most such files are written without: there a quote is a quote."""
    with open_text() as file:
        lines = (line.rstrip("\r\n") for line in _lines(file, name))
        width, whole, around = None, True, 0
        for line in lines:
            cells = line.split("\t")
            width = width or len(cells)
            whole &= len(cells) == width or not line.strip()
            for cell in cells:
                if cell.startswith('"') or cell.endswith('"'):
                    if len(cell) > 1 and re.fullmatch(r'"(?:[^"]|"")*"', cell):
                        around += 1
                    elif whole:
                        return False  # a cell with a quote of its own, in a line that is whole
    if whole:
        return around > 0
    try:
        with open_text() as file:
            counts = {
                len(cells)
                for _line, cells in _records(file, "\t", True, name)
                if isinstance(cells, list) and any(cells)
            }
    except UserError:
        return False
    return len(counts) == 1


def _records(
    lines: Iterable[str], delimiter: str, quoted: bool, name: str, sampled: bool = False
) -> Iterator[tuple[int, list[str] | Bad]]:
    """The line on which each record begins, and its cells. After one that is broken, reading goes on.

    Raises:
        UserError: a quote is never closed, or swallows too much.
    """
    if not quoted:
        for number, line in enumerate(_lines(lines, name), 1):
            yield number, line.rstrip("\r\n").split(delimiter)
        return
    csv.field_size_limit(MAX_ROW_CHARACTERS)
    source = _lines(lines, name)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    begins = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field larger" in str(error):
                if sampled:
                    return
                raise UserError(
                    f"{name}, line {begins}: a double quote opens a cell here and is never closed. Close it; a quote "
                    "within a "
                    'cell is written twice ("").'
                ) from None
            yield begins, Bad(f"line {begins}", f"{error}; check the quotes in this line")
            begins = reader.line_num + 1
            continue
        yield begins, cells
        begins = reader.line_num + 1


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


def cells_as_rows(cells: Iterable[list[Any]], name: str, header: str) -> Iterator[tuple[str, Row | Bad]]:
    """Rows of a sheet, whose cells are there already."""
    records = [[_cell(value) for value in row] for row in cells]
    buffer = io.StringIO()
    csv.writer(buffer).writerows(row for row in records if any(cell.strip() for cell in row))
    text = buffer.getvalue()
    if not text.strip():
        raise UserError(f"{name} is empty. Give a sheet with a header and at least two rows.")
    yield from delimited_rows(lambda: io.StringIO(text, newline=""), name, ".csv", header)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a sheet knows no whole numbers
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)
