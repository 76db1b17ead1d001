"""Where a tuning helps and where it hurts: rows in groups, each judged by itself.

    by_column(), by_label(), by_length()  rows → slices      judge()  slices → win rates, differences, verdicts

The more slices are looked at, the more of them look changed by luck: all that are judged in one call are corrected
together (Holm). A slice of few rows is listed with its figures and not judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

from tunelab.errors import UserError, listed
from tunelab.measure.changes.rows import AnsweredRow, changes, unscored_note
from tunelab.measure.metrics.text import folded
from tunelab.measure.statistics import holm, paired_mean, sign_flip_p, wilson

LEAST_ROWS = 20
ALPHA = 0.05
QUANTILES = 4
MOST_VALUES = 12  # different numbers in a column; where there are more, they are put into quantiles
Verdict = Literal["better", "worse", "not enough evidence", "too few rows"]


class Slice(NamedTuple):
    """Some of the rows, and what they have in common, as people read it: 'topic = refund'."""

    title: str
    rows: list[AnsweredRow]


def by_label(rows: Sequence[AnsweredRow]) -> list[Slice]:
    """The rows of each label, the most frequent one first; rows without a label last. Labels that differ in case or in
    outer white space alone are one, as they are to the metrics.

    Raises:
        UserError: no row has a label.
    """
    if all(row.label is None for row in rows):
        raise UserError(f"None of the {len(rows):,} rows has a label. Slice them by a column or by length.")
    spelt = Counter(row.label.strip() for row in rows if row.label and row.label.strip())
    usual: dict[str, str] = {}  # how a label is spelt most often
    for label, _count in spelt.most_common():
        usual.setdefault(folded(label), label)
    return _by_value(rows, "label", lambda row: usual.get(folded(row.label or "")))


def by_column(rows: Sequence[AnsweredRow], column: str, quantiles: int = QUANTILES) -> list[Slice]:
    """The rows of each value of a column, the most frequent one first; rows without a value last. A column of many
    different numbers is cut into quantiles.

    Raises:
        UserError: no row has such a column, or `quantiles` is out of its range.
    """
    _check_quantiles(quantiles)
    if not any(column in row.columns for row in rows):
        known = sorted({name for row in rows for name in row.columns})
        raise UserError(
            f"column = {column!r}: no row has it. " + (f"There are {listed(known)}." if known else "There are none.")
        )
    written = {row.columns[column].strip() for row in rows if row.columns.get(column, "").strip()}
    numbers = {text: number for text in written if (number := _number(text)) is not None}
    if len(set(numbers.values())) <= MOST_VALUES or len(numbers) < len(written):
        return _by_value(rows, column, lambda row: row.columns.get(column, "").strip() or None)
    with_number = [row for row in rows if row.columns.get(column, "").strip()]
    without = [row for row in rows if not row.columns.get(column, "").strip()]
    found = _by_quantile(with_number, lambda row: numbers[row.columns[column].strip()], quantiles, f"{column} ", "")
    return [*found, Slice(f"{column} is empty", without)] if without else found


def by_length(
    rows: Sequence[AnsweredRow], of: Literal["prompt", "reference"] = "prompt", quantiles: int = QUANTILES
) -> list[Slice]:
    """The rows by the length of their prompt, or of the answer they should have, in characters: so many slices of about
    the same size, the shortest first. Rows of one length are never parted, so there can be fewer. (By the length of
    what a model answered, rows would be chosen by the very thing that is judged.)

    Raises:
        UserError: `of` or `quantiles` is out of its range.
    """
    _check_quantiles(quantiles)
    if of not in ("prompt", "reference"):
        raise UserError(f"of = {of!r}: allowed are 'prompt' and 'reference'.")
    return _by_quantile(rows, lambda row: len(getattr(row, of)), quantiles, f"{of} of ", " characters")


@dataclass(frozen=True)
class SliceResult:
    """How base and tuned differ on one slice."""

    title: str
    n: int  # rows with a score on both sides
    base: float  # mean score
    tuned: float
    difference: float  # mean of tuned - base
    interval: tuple[float, float] | None  # 95 % of that difference, of this slice alone; None: too little to tell
    wins: int  # rows that the tuned model scores better on
    losses: int
    ties: int
    win_rate: float | None  # wins among rows that are not ties; None where all are
    win_interval: tuple[float, float]  # 95 %, Wilson
    p: float | None  # of "nothing changed", corrected for all slices judged with it; None: not judged
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if not self.n:
            return f"{self.title}: no row has a score on both sides."
        span = f" (95 % interval {self.interval[0]:+.1f} to {self.interval[1]:+.1f})" if self.interval else ""
        won = f"{self.wins} of {self.wins + self.losses} rows that differ won"
        if self.win_rate is None:
            won = "no row differs"
        return f"{self.title}: {self.verdict}: {self.difference:+.1f}{span}, {won}, {self.n:,} rows."


@dataclass(frozen=True)
class Slices:
    """Slices judged together."""

    metric: str
    results: tuple[SliceResult, ...]  # in the order given
    judged: int
    notes: tuple[str, ...]


def judge(
    slices: Sequence[Slice],
    metric: str,
    *,
    least_rows: int = LEAST_ROWS,
    alpha: float = ALPHA,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Slices:
    """Each slice's figures, and a verdict on those of at least `least_rows` rows: "better" or "worse" where swapping
    base and tuned at random makes so large a mean difference too seldom, corrected for all slices (Holm), so that with
    nothing changed any verdict appears in at most `alpha` of cases. Slices of several kinds can be judged together.

    Raises:
        UserError: there are no slices, no row has scores of this metric, or a setting is out of its range.
    """
    if least_rows < 2:
        raise UserError(f"least_rows = {least_rows}: at least 2 rows are needed to judge a slice.")
    if not 0 < alpha < 0.5:
        raise UserError(f"alpha = {alpha}: allowed is more than 0 and less than 0.5. Usual is 0.05.")
    _every, unscored = changes(list({id(row): row for one in slices for row in one.rows}.values()), metric)
    gains = [[change for row in one.rows if (change := row.change(metric)) is not None] for one in slices]
    judged = [index for index, gain in enumerate(gains) if len(gain) >= least_rows]
    corrected = holm([sign_flip_p(gains[index], seed) for index in judged])
    p_of = dict(zip(judged, corrected, strict=True))
    sign = 1 if higher_is_better else -1
    results = [
        _result(one, metric, gain, p_of.get(index), alpha, sign)
        for index, (one, gain) in enumerate(zip(slices, gains, strict=True))
    ]
    return Slices(metric, tuple(results), len(judged), (*unscored_note(unscored, metric), *_notes(results, least_rows)))


def _result(one: Slice, metric: str, gain: list[float], p: float | None, alpha: float, sign: int) -> SliceResult:
    wins, losses = (sum(sign * side * g > 0 for g in gain) for side in (1, -1))
    scored = [row for row in one.rows if row.change(metric) is not None]
    difference = fmean(gain) if gain else 0.0
    verdict: Verdict = "too few rows"
    if p is not None:
        verdict = "not enough evidence" if p > alpha else "better" if sign * difference > 0 else "worse"
    return SliceResult(
        title=one.title,
        n=len(gain),
        base=fmean(row.base_scores[metric] for row in scored) if scored else 0.0,
        tuned=fmean(row.tuned_scores[metric] for row in scored) if scored else 0.0,
        difference=difference,
        interval=paired_mean(gain),
        wins=wins,
        losses=losses,
        ties=len(gain) - wins - losses,
        win_rate=wins / (wins + losses) if wins + losses else None,
        win_interval=wilson(wins, wins + losses),
        p=p,
        verdict=verdict,
    )


def _notes(results: Sequence[SliceResult], least_rows: int) -> list[str]:
    notes = []
    if few := [result.title for result in results if result.verdict == "too few rows"]:
        are = "is" if len(few) == 1 else "are"
        notes.append(f"Of fewer than {least_rows} rows and not judged {are}: {listed(few, most=5)}.")
    if len(results) - len(few) > 1:
        notes.append(
            f"Verdicts are corrected for {len(results) - len(few)} slices judged at once; intervals are of each alone."
        )
    return notes


def _by_value(rows: Sequence[AnsweredRow], name: str, value: Callable[[AnsweredRow], str | None]) -> list[Slice]:
    groups: dict[str | None, list[AnsweredRow]] = {}
    for row in rows:
        groups.setdefault(value(row), []).append(row)
    without = groups.pop(None, [])
    found = [
        Slice(f"{name} = {key}", group)
        for key, group in sorted(groups.items(), key=lambda item: (-len(item[1]), str(item[0])))
    ]
    return [*found, Slice(f"{name} is empty", without)] if without else found


def _by_quantile(
    rows: Sequence[AnsweredRow], size: Callable[[AnsweredRow], float], quantiles: int, before: str, after: str
) -> list[Slice]:
    ordered = sorted(rows, key=size)
    groups: list[list[AnsweredRow]] = []
    start = 0
    for part in range(1, quantiles + 1):
        end = max(start, round(part * len(ordered) / quantiles))
        while 0 < end < len(ordered) and size(ordered[end]) == size(ordered[end - 1]):
            end += 1
        if end > start:
            groups.append(ordered[start:end])
        start = end
    return [Slice(f"{before}{_span(size(group[0]), size(group[-1]))}{after}", group) for group in groups]


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None  # nan is no number either


def _check_quantiles(quantiles: int) -> None:
    if not 2 <= quantiles <= 20:
        raise UserError(f"quantiles = {quantiles}: allowed are 2 to 20.")
