"""Parquet files and Excel sheets as rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunelab.data.reading.delimited import cells_as_rows
from tunelab.data.reading.jsons import Placed
from tunelab.data.reading.opening import Member
from tunelab.errors import UserError, listed
from tunelab.spec import plain_rows

AT_ONCE = 1000  # rows
MAX_SHEET_BYTES = 100_000_000
MAX_ROW_GROUP_BYTES = 4_000_000_000


def parquet_rows(path: Path, name: str) -> Iterator[Placed]:
    """The rows of a Parquet file.

    Raises:
        UserError: it is none, or unpacks to too much.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = (file.metadata.row_group(place).total_byte_size for place in range(file.metadata.num_row_groups))
            if max(groups, default=0) > MAX_ROW_GROUP_BYTES:
                raise UserError(
                    f"{name} unpacks to more than {MAX_ROW_GROUP_BYTES / 1e9:.0f} GB at once. Take a part of it."
                )
            names = file.schema_arrow.names
            if doubled := next((column for column in names if names.count(column) > 1), None):
                raise UserError(f"{name}: the column '{doubled}' stands twice. Give each column its own name.")
            number = 0
            for batch in file.iter_batches(batch_size=AT_ONCE):
                for row in _plain(batch.to_pylist()):
                    number += 1
                    yield f"row {number}", row
    except UserError:
        raise
    except Exception as error:  # of its values, too: times beyond any calendar, unknown zones
        raise UserError(
            f"{name} can't be read as Parquet: {_first_line(error)}. Write it again, or save it as JSONL."
        ) from None


def _plain(rows: list[Any]) -> list[Any]:
    """Rows of what JSON knows. Bytes stay none: a picture's are named by their column, where rows are refused."""
    return list(plain_rows([_without_bytes(row) for row in rows]))


def _without_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"({len(value)} bytes)"
    if isinstance(value, dict):
        return {key: _without_bytes(item) for key, item in value.items()}
    return [_without_bytes(item) for item in value] if isinstance(value, list) else value


def sheet_rows(member: Member, header: str) -> tuple[list[Placed], list[str]]:
    """The rows of the first sheet that holds any, and a note on the others.

    Raises:
        UserError: it is no Excel file, or has no rows.
    """
    import io

    import python_calamine

    with member.open() as file:
        data = file.read(MAX_SHEET_BYTES + 1)
    if len(data) > MAX_SHEET_BYTES:
        raise UserError(f"{member.name} has more than {MAX_SHEET_BYTES / 1e6:.0f} MB. Save the sheet as CSV.")
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = [(title, book.get_sheet_by_name(title).to_python(skip_empty_area=True)) for title in book.sheet_names]
    except Exception as error:  # whatever its reader says of a broken file
        raise UserError(
            f"{member.name} can't be read as an Excel file: {_first_line(error)}. Save it again, or as CSV."
        ) from None
    filled = [(title, rows) for title, rows in sheets if any(any(str(cell).strip() for cell in row) for row in rows)]
    if not filled:
        raise UserError(f"{member.name} holds no rows. Give a sheet with a header and at least two rows.")
    notes = (
        [f"the sheet '{filled[0][0]}' is read, {listed(title for title, _rows in filled[1:])} not"]
        if len(filled) > 1
        else []
    )
    return list(cells_as_rows(filled[0][1], member.name, header)), notes


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:150].rstrip(".")
