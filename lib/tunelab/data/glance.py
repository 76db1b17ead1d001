"""A first look at rows, before all of them are read: which columns there are, and how the first rows are taken."""

from __future__ import annotations

from itertools import islice

from tunelab.data.columns import Column, columns_of
from tunelab.data.examples import DataSplit
from tunelab.data.reading import Bad, Row
from tunelab.data.reading.unfolding import unfolded
from tunelab.data.split import read_data, table_of
from tunelab.spec import DataSpec

FIRST = 2000  # rows


def columns_there(spec: DataSpec, rows: int = FIRST) -> dict[str, Column]:
    """The columns of the first rows that hold something, in their order.

    Raises:
        UserError: the source can't be read.
    """
    first = islice((row for _number, row in unfolded(table_of(spec).rows) if not isinstance(row, Bad)), rows)
    return {column.name: column for column in columns_of(first).values() if column.filled}


def rows_there(spec: DataSpec, rows: int = 4) -> list[Row]:
    """The first rows as they stand in their source; those that can't be read are left out.

    Raises:
        UserError: the source can't be read.
    """
    return list(islice((row for _number, row in unfolded(table_of(spec).rows) if not isinstance(row, Bad)), rows))


def first_rows(spec: DataSpec, learn: str = "instructions", rows: int = FIRST) -> DataSplit:
    """The first rows alone as `read_data` gives them, undivided but for one, without fixes: what a large file begins
    with, in a second.

    Raises:
        UserError: as `read_data`; also where only the first rows are wrong.
    """
    good = tuple(row for row in islice(table_of(spec).rows, rows) if not isinstance(row, Bad))
    alone = {"source": None, "rows": good, "fixes": (), "limit": None, "heldout": 1.0, "header": "auto"}
    return read_data(DataSpec.model_validate({**spec.model_dump(exclude={"rows", "heldout_rows"}), **alone}), learn)
