"""Records of a table whose cells may be quoted, and what becomes of those around a quote that is not closed.

A quote that somebody forgot runs on to the next one in the file, and every row between them is inside a cell then. So
records over several lines are looked at, where they end badly, never, or with too many cells. Lines in them that are
like rows are read as rows; the text around the quote is one `Bad` with the numbers of its lines.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator

from tunelab.data.reading.checks import MAX_ROW_CHARACTERS
from tunelab.data.reading.table import Bad
from tunelab.errors import UserError

Record = tuple[int, list[str] | Bad]  # the line on which it begins, and its cells
OPEN = 'a double quote opens a cell and is not closed where the cell ends; within a cell, write it twice ("")'
DOUBT, SHOWN_DOUBTS = "warning: a quoted cell goes on", 3
LIKE_ROWS = 0.8  # of a record's lines that are like rows; from here on they may be rows


def quoted_records(
    lines: Iterable[str],
    delimiter: str,
    name: str,
    first: int = 1,
    sampled: bool = False,
    notes: list[str] | None = None,
) -> Iterator[Record]:
    """The records, the first line being number `first`. `sampled`: the lines end anywhere. To `notes` is added what may
    be read wrongly.

    Raises:
        UserError: a quote is never closed, and no rows are seen behind it.
    """
    csv.field_size_limit(MAX_ROW_CHARACTERS)
    return _Records(_Source(lines, first), delimiter, name, sampled, notes).read()


class _Source:
    """Lines for a reader of records, some of which are given back and read again; `alone`: so many of these are ends of
    records, whatever their quotes say."""

    def __init__(self, lines: Iterable[str], first: int) -> None:
        self._lines, self._back = iter(lines), deque[str]()
        self._alone, self._size = 0, 0
        self.taken: list[str] = []
        self.next_line = first
        self.is_alone = False

    def begin(self) -> int:
        """Begin a record; the number of its first line."""
        self.taken, self._size = [], 0
        self.is_alone = self._alone > 0
        return self.next_line

    def give_back(self, lines: list[str], alone: int) -> None:
        self._back.extendleft(reversed(lines))
        self._alone += alone
        self.next_line -= len(lines)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.taken and (self.is_alone or self._size > MAX_ROW_CHARACTERS):
            raise StopIteration
        line = self._back.popleft() if self._back else next(self._lines)
        self._alone = max(0, self._alone - 1)
        self.taken.append(line)
        self._size += len(line)
        self.next_line += 1
        return line


class _Records:
    """One pass over the lines. Behind a quote that is not closed, a record counts only if nothing about it is doubtful:
    others are pieces of the text that the quote began."""

    def __init__(self, source: _Source, delimiter: str, name: str, sampled: bool, notes: list[str] | None) -> None:
        self._source, self._reader = source, csv.reader(source, delimiter=delimiter, strict=True)
        self._delimiter, self._name, self._sampled, self._notes = delimiter, name, sampled, notes
        self._width = 0  # of the first record
        self._spaced = False  # it has spaces behind delimiters
        self._broken: tuple[int, int] | None = None  # the first and the last of the lines that are being left out
        self._open = False  # the text of the last of them may go on
        self._doubt = 0  # the last line of those that a quote swallowed

    def read(self) -> Iterator[Record]:
        while True:
            begins = self._source.begin()
            try:
                cells = next(self._reader)
            except StopIteration:
                break
            except csv.Error as error:
                if self._is_cut(error):
                    break
                yield from self._broken_at(begins, error)
                continue
            if cells:
                yield from self._whole(begins, cells)
        if self._open and self._width == 1 and self._broken and not self._sampled:
            raise self._never_closed(self._broken[0])
        yield from self._flush()

    def _whole(self, begins: int, cells: list[str]) -> Iterator[Record]:
        """A record without an error in it."""
        if not self._width:
            self._width, self._spaced = len(cells), f"{self._delimiter} " in self._source.taken[0]
        if (self._open or begins <= self._doubt) and not self._is_sure(cells):
            yield from self._leave_out(begins, self._source.next_line - 1)
            self._open = not self._ends_here()
        elif self._has_swallowed(cells):
            yield from self._split(begins)
        else:
            yield from self._flush()
            self._open = False
            if len(self._source.taken) > 2 and self._notes is not None:
                self._note(begins, self._notes)
            yield begins, cells

    def _broken_at(self, begins: int, error: csv.Error) -> Iterator[Record]:
        """A record whose quote is closed within a cell, or never.

        Raises:
            UserError: it is never closed, and no rows are seen behind it.
        """
        source = self._source
        if len(source.taken) == 1:
            if _is_never(error) and not source.is_alone:
                raise self._never_closed(begins)
            yield from self._leave_out(begins, begins)
            self._open = source.taken[0].count('"') % 2 == 1
        elif _is_never(error) and not self._are_rows(source.taken[1:]):
            raise self._never_closed(begins)
        else:
            yield from self._split(begins, of_them_alone=len(source.taken) - (1 if _is_never(error) else 2))

    def _split(self, begins: int, of_them_alone: int | None = None) -> Iterator[Record]:
        """Leave out the line on which the quote opens, and read those behind it again: as rows, if they are like rows;
        else only the last one, on which it is closed."""
        behind = self._source.taken[1:]
        alone = len(behind) - 1 if of_them_alone is None else of_them_alone
        rows = behind if self._are_rows(behind[:alone]) or not alone else behind[-1:]
        self._doubt = max(self._doubt, self._source.next_line - 1)
        self._source.give_back(rows, alone if rows is behind else 0)
        yield from self._leave_out(begins, self._source.next_line - 1)
        self._open = True

    def _leave_out(self, first: int, last: int) -> Iterator[Record]:
        """Lines that are no row: a row of their own that is broken, or more of what is left out already."""
        if self._broken and (not self._open or self._is_row(self._source.taken[0])):
            yield from self._flush()
        self._broken = (self._broken[0] if self._broken else first, last)

    def _flush(self) -> Iterator[Record]:
        if self._broken:
            first, last = self._broken
            upto = f" (left out up to line {last})" if last > first else ""
            yield first, Bad(f"line {first}", OPEN + upto)
        self._broken = None

    def _is_cut(self, error: csv.Error) -> bool:
        """Whether a sample ends within this record."""
        cut = self._sampled and _is_never(error) and not self._source.is_alone
        return cut and not self._are_rows(self._source.taken[1:])

    def _is_sure(self, cells: list[str]) -> bool:
        """Whether a record behind a broken one is a row, and no piece of its text."""
        text = "".join(self._source.taken)
        if self._width < 2 or len(cells) != self._width or text.count('"') % 2:
            return False
        return '"' in text or self._is_row(text)

    def _ends_here(self) -> bool:
        """Whether a quote in a piece of text closes it; of one column nothing else can tell."""
        return self._width == 1 and "".join(self._source.taken).count('"') % 2 == 1

    def _is_row(self, line: str) -> bool:
        """Whether a line is like a row of this table, its quotes aside."""
        if self._width < 2 or line[:1].isspace() or line.count(self._delimiter) != self._width - 1:
            return False
        return self._spaced or f"{self._delimiter} " not in line

    def _are_rows(self, lines: list[str]) -> bool:
        filled = [line for line in lines if line.strip()]
        return sum(map(self._is_row, filled)) > len(filled) / 2

    def _has_swallowed(self, cells: list[str]) -> bool:
        """Whether lines of this record are rows of their own."""
        if len(self._source.taken) < 2:
            return False
        lines = [line for line in self._source.taken if line.strip()]
        if len(cells) > self._width:
            return self._are_rows(lines[1:-1]) or all(map(self._is_row, lines))
        ends_like_one_begins = any("\n" in cell and cell.endswith(self._delimiter) for cell in cells)
        return ends_like_one_begins and self._is_like_rows(lines)

    def _note(self, begins: int, notes: list[str]) -> None:
        """Say of a record, which is read as it is quoted, that its lines may be rows. The first few are said."""
        if not self._is_like_rows([line for line in self._source.taken if line.strip()]):
            return
        last = self._source.next_line - 1
        note = (
            f"{DOUBT} from line {begins} to line {last}, and its lines are like rows; if they are, a quote is missing "
            "there"
        )
        if note not in notes and sum(one.startswith(DOUBT) for one in notes) < SHOWN_DOUBTS:
            notes.append(note)

    def _is_like_rows(self, lines: list[str]) -> bool:
        likeness = [self._is_row(line) for line in lines]
        return likeness[0] and likeness[-1] and sum(likeness) >= LIKE_ROWS * len(lines)

    def _never_closed(self, line: int) -> UserError:
        return UserError(
            f"{self._name}, line {line}: a double quote opens a cell here and is never closed. Close it; a quote "
            'within a cell is written twice ("").'
        )


def _is_never(error: csv.Error) -> bool:
    return "unexpected end" in str(error) or "field larger" in str(error)
