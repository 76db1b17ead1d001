"""A user's own metric: a Python file with a function `score(prediction, reference)`, or with a `Metric`.

The file is run, so it is named on the command line or in a notebook and never comes from a browser. What it can say of
its figure beside the function: `title`, `unit`, `range = (low, high)`, `higher_is_better`.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

from tunelab.errors import UserError, listed, shortened, shown_name
from tunelab.measure.metrics.protocol import UNBOUNDED, Metric, Reference, RowMetric

FORM = "a function score(prediction, reference) that returns a number, or a class derived from Metric or RowMetric"
DEFAULTS: dict[str, Any] = {"unit": "", "range": UNBOUNDED, "higher_is_better": True, "source": "the user's own"}
MOST_NAMED = 3  # rows that a note names with what was raised


def load_metric(path: str | Path) -> Metric:
    """The metric that a Python file defines, under the file's name.

    Raises:
        UserError: there is no such file, it fails, or it defines none or several metrics.
    """
    path = Path(path)
    module = _run(path)
    found = [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Metric) and one.__module__ == module.__name__
    ]
    bases = {base for one in found for base in one.__mro__[1:]}
    classes = [one for one in found if one not in bases]
    score = getattr(module, "score", None)
    if len(classes) + callable(score) != 1:
        names = [*(["score"] if callable(score) else []), *(one.__name__ for one in classes)]
        has = f"has several: {listed(names)}" if names else "has none"
        raise UserError(f"{_name(path)} {has}. A file with a metric holds one: {FORM}.")
    return _of_class(classes[0], path) if classes else _of_function(score, module, path)


@dataclass(frozen=True)
class Scored:
    """What each row adds to a metric, for answers of several sides to the same rows."""

    sums: tuple[numpy.ndarray, ...]  # (rows kept, k) of each side
    rows: tuple[int, ...]  # the rows kept, counted from 0
    notes: tuple[str, ...]  # what was left out, a sentence each


def score_sides(metric: Metric, sides: Sequence[Sequence[str]], references: Sequence[Reference]) -> Scored:
    """The sums of every side over the same rows. A row on which the metric raises is left out of all sides, and named.

    Raises:
        UserError: it raises on every row, or a reference does not fit a metric of this library.
        ValueError: there are no rows, or the sides are not of one length.
    """
    if not references or any(len(side) != len(references) for side in sides):
        raise ValueError(f"paired rows are needed: {len(references)} references, {[len(side) for side in sides]}")
    if type(metric).__module__.startswith(__package__) and not isinstance(metric, Custom):
        return Scored(tuple(metric.sums(side, references) for side in sides), tuple(range(len(references))), ())
    kept: list[list[numpy.ndarray]] = []
    rows, failed = [], dict[int, str]()
    for row, reference in enumerate(references):
        try:
            kept.append([_finite(metric.sums([side[row]], [reference])) for side in sides])
            rows.append(row)
        except Exception as error:
            failed[row] = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if not rows:
        first = shortened(failed[0], 120)
        raise UserError(
            f"The metric {shown_name(metric.name)} raises on all {len(references):,} rows; on row 1: {first}. "
            "Try its function on this row by itself."
        )
    sums = tuple(numpy.concatenate([row[side] for row in kept]) for side in range(len(sides)))
    return Scored(sums, tuple(rows), (_left_out(metric, failed, len(references)),) if failed else ())


class Custom(RowMetric):
    """The mean of what a user's function returns for each row."""

    def __init__(self, function: Callable[[str, str], Any]) -> None:
        self.function = function

    def score(self, prediction: str, reference: str) -> float:
        """Raises: ValueError where the function returns anything but a finite number."""
        value = self.function(prediction, reference)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, str) or not math.isfinite(number):
            raise ValueError(f"it returned {shortened(value)}, which is no finite number")
        return number


def _run(path: Path) -> ModuleType:
    if not path.is_file() or path.suffix != ".py":
        what = "is no Python file (.py)" if path.exists() else "is not there"
        raise UserError(f"{_name(path)} {what}. A metric of your own is {FORM}, in a file named here.")
    name = f"tunelab_metric_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None, path
    assert specification.loader is not None, path
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = getattr(error, "lineno", None)
        where = f" in line {line}" if line else ""
        raise UserError(
            f"{_name(path)} can't be run{where}: {type(error).__name__}: {shortened(str(error), 160)}. Mend the file; "
            f"`python {_name(path)}` shows where it stops."
        ) from None
    return module


def _of_function(score: Any, module: ModuleType, path: Path) -> Metric:
    try:
        inspect.signature(score).bind("prediction", "reference")
    except TypeError as error:
        raise UserError(f"score in {_name(path)} can't be called with (prediction, reference): {error}.") from None
    said = {name: vars(module)[name] for name in ("title", *DEFAULTS) if name in vars(module)}
    named = {"name": path.stem, "title": path.stem.replace("_", " "), **DEFAULTS, **said}
    return type("Custom", (Custom,), named)(score)


def _of_class(one: type[Metric], path: Path) -> Metric:
    """An instance, with what the class doesn't say of itself filled in."""
    if inspect.isabstract(one):
        missing = listed(sorted(one.__abstractmethods__))
        raise UserError(f"{one.__name__} in {_name(path)} lacks {missing}. A metric defines them; see RowMetric.")
    for name, value in {"name": path.stem, "title": path.stem.replace("_", " "), **DEFAULTS}.items():
        if not hasattr(one, name):
            setattr(one, name, value)
    try:
        return one()
    except Exception as error:
        raise UserError(
            f"{one.__name__}() in {_name(path)} fails: {type(error).__name__}: {shortened(str(error), 160)}. A metric "
            "named by its file is made without arguments."
        ) from None


def _finite(sums: numpy.ndarray) -> numpy.ndarray:
    sums = numpy.asarray(sums, dtype=float)
    if sums.ndim != 2 or len(sums) != 1 or not numpy.isfinite(sums).all():
        raise ValueError(f"sums() of one row must be (1, k) finite numbers, not {shortened(sums.tolist())}")
    return sums


def _left_out(metric: Metric, failed: dict[int, str], rows: int) -> str:
    named = [f"row {row + 1} ({shortened(why, 100)})" for row, why in list(failed.items())[:MOST_NAMED]]
    more = f" and {len(failed) - MOST_NAMED:,} more" if len(failed) > MOST_NAMED else ""
    return (
        f"The metric {shown_name(metric.name)} raised on {len(failed):,} of {rows:,} rows, which are left out of all "
        f"sides: {', '.join(named)}{more}."
    )


def _name(path: Path) -> str:
    return shown_name(path.name)
