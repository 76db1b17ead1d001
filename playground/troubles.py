"""What is wrong with the choice of rows, and beside which choice of the form that is told. Knows no
page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from playground.english import data as say
from tunelab import DataSpec, Stage, UserError, read_data
from tunelab.data.advice import ColumnError
from tunelab.data.glance import columns_there
from tunelab.errors import explain, listed

# fields of a data set that a number or a word of the form can make wrong, and beside which choice that is told
OF_FIELD = {"heldout": "heldout", "seed": "heldout", "limit": "limit", "template": "template", "labels": "labels"}


@dataclass(frozen=True)
class Trouble:
    """What is wrong, and with which choice: 'source', 'learn', 'header', 'template', 'labels', 'heldout', 'fixes', or a
    role. `use`: choices that would do, by name."""

    where: str
    words: str
    use: dict[str, str] = field(default_factory=dict)


class WrongChoice(UserError):
    """A choice that can't be read; `where`: which."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(message)
        self.where = where


def where_wrong(error: Exception) -> str:
    """The choice of the form that a failure is about: its name, as its trouble is called; 'source' where none is."""
    if isinstance(error, WrongChoice):
        return error.where
    if isinstance(error, ValidationError):
        fields = {part for problem in error.errors() for part in problem["loc"]}
        return next((OF_FIELD[name] for name in OF_FIELD if name in fields), "source")
    return "source"


def trouble_of(stage: Stage, error: Exception) -> Trouble:
    """Which choice a failure to read is about: the one without which the rows can be read."""
    data, words = stage.data, explain(error) or str(error)
    if isinstance(error, ColumnError):
        role = error.role or ("text" if stage.learn == "text" else "prompt")
        where = "template" if role == "prompt" and data.template else role
        there = say.COLUMNS_THERE.format(columns=listed(map(repr, error.columns), 12))
        return Trouble(where, f"{error.problem}. {there}" if error.columns else words, error.advised)
    changes: tuple[tuple[str, Any, dict[str, str]], ...] = (
        ("fixes", (), {}),
        ("heldout", "auto", {}),
        ("labels", None, {}),
        ("header", "none", {"header": "none"}),
    )
    for name, plain, use in changes:
        other = data.model_copy(update={name: plain})
        if getattr(data, name) != plain and (
            _reads(stage, other) or (name == "header" and _has_columns(other) and not _has_columns(data))
        ):
            return Trouble(name, words, use)
    if stage.learn != "text" and _reads(stage.model_copy(update={"learn": "text"}), data):
        return Trouble("learn", words, {"learn": "text"})
    return Trouble("source", words)


def _reads(stage: Stage, data: DataSpec) -> bool:
    try:
        read_data(data, stage.learn)
    except Exception as error:
        if explain(error) is None:
            raise
        return False
    return True


def _has_columns(data: DataSpec) -> bool:
    """Whether there are columns, be it said or not which is which."""
    try:
        return bool(columns_there(data))
    except Exception as error:
        if explain(error) is None:
            raise
        return False
