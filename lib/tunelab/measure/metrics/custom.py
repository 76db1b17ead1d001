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
VALUE = "It gets sums (..., k) of one row or of many, and gives their figures: a mean is sums[..., 0] / sums[..., 1]."
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
    """The sums of every side over the same rows. A row on which a user's metric raises, or whose reference does not fit
    one of this library, is left out of all sides, and named.

    Raises:
        UserError: that is so of every row, or a user's metric is none (`_check_value`).
        ValueError: there are no rows, or the sides are not of one length.
    """
    if not references or any(len(side) != len(references) for side in sides):
        raise ValueError(f"paired rows are needed: {len(references)} references, {[len(side) for side in sides]}")
    if type(metric).__module__.startswith(__package__) and not isinstance(metric, Custom):
        return _score_fitting(metric, sides, references)
    kept: list[list[numpy.ndarray]] = []
    rows, failed = [], dict[int, str]()
    for row, reference in enumerate(references):
        try:
            kept.append([_finite(metric.sums([side[row]], [reference]), kept) for side in sides])
            rows.append(row)
        except (Exception, SystemExit) as error:
            failed[row] = _said(error)
    if not rows:
        first = shortened(failed[0], 120)
        raise UserError(
            f"The metric {shown_name(metric.name)} raises on all {len(references):,} rows; on row 1: {first}. "
            "Try its function on this row by itself."
        )
    sums = tuple(numpy.concatenate([row[side] for row in kept]) for side in range(len(sides)))
    if not isinstance(metric, Custom):
        _check_value(metric, sums[0])
    notes = (_left_out(f"{shown_name(metric.name)} raised on", failed, len(references)),) if failed else ()
    return Scored(sums, tuple(rows), notes)


def _score_fitting(metric: Metric, sides: Sequence[Sequence[str]], references: Sequence[Reference]) -> Scored:
    """By a metric of this library, on the rows whose reference fits it."""
    try:
        return Scored(tuple(metric.sums(side, references) for side in sides), tuple(range(len(references))), ())
    except UserError as error:
        failed = dict[int, str]()
        for row, reference in enumerate(references):
            try:
                metric.sums([""], [reference])
            except UserError as of_row:
                failed[row] = str(of_row).removeprefix("Row 1: ").partition(". ")[0]
        rows = tuple(row for row in range(len(references)) if row not in failed)
        if not rows or not failed:
            raise error from None
    fitting = [references[row] for row in rows]
    sums = tuple(metric.sums([side[row] for row in rows], fitting) for side in sides)
    return Scored(sums, rows, (_left_out(f"{metric.title} can't score", failed, len(references)),))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _check_value(metric: Metric, sums: numpy.ndarray) -> None:
    """
    Raises:
        UserError: the figure of many sums at once, by which a metric is resampled, is not that of each.
    """
    name = shown_name(metric.name)
    try:
        one_by_one = [float(metric.value(row)) for row in sums]
        at_once = numpy.asarray(metric.value(sums), dtype=float)
    except (Exception, SystemExit) as error:
        raise UserError(f"value() of the metric {name} raises: {shortened(_said(error), 120)}. {VALUE}") from None
    if at_once.shape != (len(sums),) or not numpy.allclose(at_once, one_by_one, equal_nan=True):
        raise UserError(
            f"value() of the metric {name} gives {shortened(at_once.tolist(), 60)} for {len(sums):,} rows at once, and "
            f"{shortened(one_by_one, 60)} for one after the other. {VALUE}"
        )


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
    made = type("Custom", (Custom,), named)
    _check_described(made, path)
    return made(score)


def _of_class(one: type[Metric], path: Path) -> Metric:
    """An instance, with what the class doesn't say of itself filled in."""
    if inspect.isabstract(one):
        missing = listed(sorted(one.__abstractmethods__))
        raise UserError(f"{one.__name__} in {_name(path)} lacks {missing}. A metric defines them; see RowMetric.")
    for name, value in {"name": path.stem, "title": path.stem.replace("_", " "), **DEFAULTS}.items():
        if not hasattr(one, name):
            setattr(one, name, value)
    _check_described(one, path)
    try:
        return one()
    except Exception as error:
        raise UserError(
            f"{one.__name__}() in {_name(path)} fails: {type(error).__name__}: {shortened(str(error), 160)}. A metric "
            "named by its file is made without arguments."
        ) from None


def _finite(sums: numpy.ndarray, before: Sequence[Sequence[numpy.ndarray]]) -> numpy.ndarray:
    sums = numpy.asarray(sums, dtype=float)
    if sums.ndim != 2 or len(sums) != 1 or not numpy.isfinite(sums).all():
        raise ValueError(f"sums() of one row must be (1, k) finite numbers, not {shortened(sums.tolist())}")
    if before and before[0][0].shape != sums.shape:
        raise ValueError(f"sums() gave {before[0][0].shape[1]} numbers of the rows before, and {sums.shape[1]} here")
    return sums


def _left_out(what: str, failed: dict[int, str], rows: int) -> str:
    named = [f"row {row + 1} ({shortened(why, 100)})" for row, why in list(failed.items())[:MOST_NAMED]]
    more = f" and {len(failed) - MOST_NAMED:,} more" if len(failed) > MOST_NAMED else ""
    return (
        f"The metric {what} {len(failed):,} of {rows:,} rows, which are left out of all sides: "
        f"{', '.join(named)}{more}."
    )


def _check_described(metric: type[Metric], path: Path) -> None:
    """
    Raises:
        UserError: what a metric says of itself is of another kind than it has to be.
    """
    wrong: list[tuple[str, str]] = [
        (name, "a text") for name in ("name", "title", "unit", "source") if not isinstance(getattr(metric, name), str)
    ]
    if not (metric.higher_is_better is None or isinstance(metric.higher_is_better, bool)):
        wrong.append(("higher_is_better", "True, False or None (neither)"))
    ends = metric.range
    if not (isinstance(ends, tuple | list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends)):
        wrong.append(("range", "two numbers, the lowest and the highest value"))
    for name, allowed in wrong:
        raise UserError(f"{_name(path)}: {name} = {shortened(getattr(metric, name))}, but it has to be {allowed}.")


def _name(path: Path) -> str:
    return shown_name(path.name)
