"""Which columns of joined result files are scores, and what each row adds to them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy

from tunelab.errors import UserError, listed, shortened
from tunelab.measure.statistics.joining import Joined
from tunelab.measure.statistics.sums import Value, mean

RIGHT = dict.fromkeys(("true", "yes", "right", "correct", "pass", "passed"), 1.0)
WRONG = dict.fromkeys(("false", "no", "wrong", "incorrect", "fail", "failed"), 0.0)
EMPTY = ("", "nan", "na", "n/a", "none", "null", "-")
# words in the names of columns
SCORES = frozenset(
    "score scores correct right acc accuracy match em f1 precision recall rouge rougel rouge1 rouge2 bleu sacrebleu "
    "chrf ter meteor pass passed loss perplexity ppl nll wer cer reward rating grade brier win bits error errors mae "
    "mse rmse toxicity".split()
)
LOWER = frozenset("loss perplexity ppl nll wer cer ter brier bits error errors mae mse rmse toxicity distance".split())
NO_SCORES = frozenset("id ids index idx row seed number count tokens length seconds time date epoch step".split())
# pairs of (log-likelihood, how many words or bytes) in logs of lm-evaluation-harness, and their figure
RATES: dict[str, Value] = {
    "word_perplexity": lambda sums: numpy.exp(-mean(sums)),
    "byte_perplexity": lambda sums: numpy.exp(-mean(sums)),
    "bits_per_byte": lambda sums: -mean(sums) / math.log(2),
}
Cell = tuple[float, float]  # what a row adds: score and 1, or the two of a rate


@dataclass(frozen=True, eq=False)
class Scored:
    """A column that is a score, on the rows that have it in every file."""

    column: str
    unit: str  # '%' for right and wrong
    sums: list[numpy.ndarray]  # of each file (n, 2)
    value: Value
    higher_is_better: bool
    whole_name: bool = False  # another column ends with the same word

    @property
    def title(self) -> str:
        return (self.column if self.whole_name else self.column.rpartition(".")[2]).replace("_", " ")


def scores_of(joined: Joined, named: Sequence[str] = (), lower: Sequence[str] = ()) -> tuple[list[Scored], list[str]]:
    """The columns named, or those whose names are of scores, or else every column of numbers or of right and wrong that
    differs anywhere; and notes.

    lower: columns whose smaller values are better, beside those known by their name (loss, error, …).

    Raises:
        UserError: no such column, one that is no score, or there is none.
    """
    _check_named(joined, [*named, *lower])
    chosen = dict.fromkeys([*named, *lower]) if named else {}
    notes: list[str] = []
    found = [_scored(joined, column, lower) for column in chosen]
    if not found:
        found, notes = _proposed(joined, lower)
    if not found:
        raise UserError(
            f"No column is a score in all files. All have: {listed(joined.columns) or 'none'}. A score is a number, or "
            "right and wrong (true/false, 1/0), under one name in every file: --score COLUMN names it."
        )
    titles = Counter(one.title for one in found)
    found = [replace(one, whole_name=titles[one.title] > 1) for one in found]
    for one in found:
        left_out = len(joined.rows) - len(one.sums[0])
        if left_out:
            rows = "1 row has" if left_out == 1 else f"{left_out:,} rows have"
            notes.append(f"{one.column}: {rows} no value in one of the files and count for nothing")
    return found, notes


def _check_named(joined: Joined, named: Sequence[str]) -> None:
    if unknown := [name for name in named if name not in joined.columns]:
        raise UserError(
            f"column = {shortened(unknown[0])}: not all files have it. All have: {listed(joined.columns) or 'none'}."
        )


def _proposed(joined: Joined, lower: Sequence[str]) -> tuple[list[Scored], list[str]]:
    readable, unreadable = dict[str, Scored](), dict[str, UserError]()
    for column in joined.columns:
        if _words(column) & NO_SCORES and column not in lower:
            continue
        try:
            readable[column] = _scored(joined, column, lower)
        except UserError as error:
            if _is_named_so(column, lower):
                unreadable[column] = error
    known = [column for column in readable if _is_named_so(column, lower)]
    if known:
        return [readable[column] for column in known], [
            f"{column} is not judged: {str(error).partition('. ')[0]}" for column, error in unreadable.items()
        ]
    if unreadable:
        raise next(iter(unreadable.values()))
    differ = [column for column, one in readable.items() if any((side != one.sums[0]).any() for side in one.sums[1:])]
    if not differ:
        return [], []
    return [readable[column] for column in differ], [
        f"taken for scores: {listed(differ)}, the columns of numbers that differ; --score COLUMN names others"
    ]


def _is_named_so(column: str, lower: Sequence[str]) -> bool:
    """Whether a column is a score by its name."""
    return bool(_words(column) & SCORES or column in lower or _rate(column))


def _scored(joined: Joined, column: str, lower: Sequence[str]) -> Scored:
    rate = _rate(column)
    rows = []
    for number, row in enumerate(joined.rows, 1):
        cells = [_cell(side.get(column), rate is not None, column, number) for side in row]
        if all(cell is not None for cell in cells):
            rows.append(cells)
    if not rows:
        raise UserError(f"{column} has no value in any row that all files have. Name another column with --score.")
    columns = numpy.array(rows, dtype=float)  # (n, files, 2)
    higher = not (column in lower or _words(column) & LOWER or rate)
    values = set(numpy.unique(columns[..., 0]))
    share = rate is None and values <= {0.0, 1.0}
    if share:
        columns[..., 0] *= 100
    unit = "%" if share or (values <= {0.0, 100.0} and rate is None) else ""
    return Scored(column, unit, list(numpy.moveaxis(columns, 1, 0)), rate or mean, higher)


def _cell(value: object, pair: bool, column: str, row: int) -> Cell | None:
    """What a cell adds; None where it is empty.

    Raises:
        UserError: it is no score.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in EMPTY):
        return None
    if pair and isinstance(value, list | tuple) and len(value) == 2:
        first, second = (_number(one) for one in value)
        if first is not None and second:
            return first, second
    number = None if pair else _number(value)
    if number is None:
        raise UserError(
            f"{column}, row {row} of those joined: {shortened(value, 40)} is no score. Allowed are numbers, and right "
            "and wrong (true/false, 1/0). Mend it, or name another column with --score."
        )
    return (number, 1.0) if math.isfinite(number) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool | int | float):
        try:
            return float(value)
        except OverflowError:  # a whole number beyond them
            return math.inf if value > 0 else -math.inf
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if (word := {**RIGHT, **WRONG}.get(text)) is not None:
        return word
    if re.fullmatch(r"[-+]?\d+,\d+", text):  # 0,85 as German tables write it
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return None


def _rate(column: str) -> Callable[[numpy.ndarray], numpy.ndarray] | None:
    return RATES.get(column.partition(" (")[0])


def _words(column: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower()))
