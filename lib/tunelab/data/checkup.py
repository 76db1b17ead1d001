"""`examine`: what there is to know about rows before they are trained on, wherever they come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from tunelab.data.doctor import Examination, examine_rows
from tunelab.data.doctor.examination import Say
from tunelab.data.examples import DataSplit, Example
from tunelab.data.split import read_undivided
from tunelab.errors import UserError, shortened
from tunelab.spec import DataSpec, ModelSpec, Stage


def examine(
    data: Any,
    *,
    learn: Literal["instructions", "text"] = "instructions",
    model: ModelSpec | None = None,
    sample: int = 20_000,
    on_progress: Say = lambda message: None,
) -> Examination:
    """What the data doctor finds in rows: a `DataSpec`, a `Stage`, a file, a built-in name or a Hub id, or rows in
    memory (a list of dicts, a DataFrame, a `datasets.Dataset`), or what `read_data` gives. Rows that are held out by a
    part or a file of their own are compared with the others; where held-out rows are drawn from the data, all of it is
    examined. Rows are mended first where the data names fixes; the notes begin with those of the reader.

    model: whose tokenizer tells which answers `max_length` tokens cut; without one that is not checked.
    sample: rows that are read word by word, chosen by the data's seed.

    Raises:
        UserError: the rows can't be read, or there are none, or `data` is none of these.
    """
    train, heldout, notes, seed = _sides(data, learn, on_progress)
    tokenizer, max_length = tokenizer_and_limit(model)
    examination = examine_rows(
        train,
        heldout,
        tokenizer=tokenizer,
        max_length=max_length,
        seed=seed,
        sample=sample,
        on_progress=on_progress,
    )
    return replace(examination, notes=(*notes, *examination.notes))


def _sides(data: Any, learn: str, on_progress: Say) -> tuple[Sequence[Example], Sequence[Example], Sequence[str], int]:
    """Rows, held-out rows, notes, and the seed that chooses a sample."""
    if isinstance(data, DataSplit):
        return data.train, data.heldout, data.notes, 0
    if isinstance(data, Stage):
        learn, data = data.learn, data.data
    elif isinstance(data, str | os.PathLike):
        data = DataSpec(source=os.fspath(data))
    elif not isinstance(data, DataSpec):
        try:
            data = DataSpec(rows=data)
        except ValidationError:
            raise UserError(
                f"examine takes rows (a list of objects, a DataFrame, a data set), a file's name or a DataSpec; "
                f"this is {shortened(repr(data), 60)}. Give e.g. tunelab.examine('rows.jsonl')."
            ) from None
    return *read_undivided(data, learn, on_progress), data.seed


def tokenizer_and_limit(model: ModelSpec | None) -> tuple[Any, int]:
    """The tokenizer of a model and how many tokens a row may have; without a model none, and the usual number."""
    from tunelab.model.load import find, load_tokenizer
    from tunelab.model.positions import row_limit

    if model is None:
        return None, ModelSpec(repo_id="starter").max_length
    return load_tokenizer(model), row_limit(find(model), model).tokens
