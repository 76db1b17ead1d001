"""A verdict, typed and in words: "better: +31 points exact match, 95 % interval 25 to 37, 300 rows, 3 runs"."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tunelab.run.reports import FEWEST_ROWS, Interval

MOST_DIGITS = 6  # behind the point
Decision = Literal["better", "worse", "different", "not enough evidence"]
Standing = Literal["better", "as good", "worse"]


class Baseline(BaseModel):
    """What needs no tuning, and how it stands against the tuned side: "as good" where the rows do not show that the
    tuned side is better."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")
    name: str
    value: float
    change: Interval  # tuned - baseline
    p: float  # corrected for all figures that have this baseline
    standing: Standing


class Verdict(BaseModel):
    """Whether the tuned side is better than the base in one figure, as far as rows and runs can tell."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")
    title: str
    unit: str
    higher_is_better: bool | None
    decision: Decision
    base: float
    tuned: float  # mean of the runs
    change: Interval  # tuned - base, at 95 % for all that was judged at once
    p: float  # corrected (Holm); `change.p` is the one of this figure alone
    test: str
    judged: int  # how many figures at once
    runs: tuple[float, ...]  # the tuned side's figure in each run
    smallest: float | None  # the smallest difference that so many rows and runs would show; None: not known
    baselines: tuple[Baseline, ...] = ()
    cut: float | None = None

    @property
    def rows(self) -> int:
        return self.change.n

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return sentence(self)


def sentence(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    facts = ", ".join((figure(verdict), _rows(verdict.rows), _runs(len(verdict.runs))))
    more = [*_limits(verdict), *_cut(verdict)]
    return "; ".join((f"{_head(verdict)}: {facts}", *more))


def figure(verdict: Verdict) -> str:
    """The change and its interval: "+31 points exact match, 95 % interval 25 to 37"."""
    change = verdict.change
    if not all(math.isfinite(one) for one in (change.value, change.low, change.high)):
        return f"{verdict.title}: the difference is no finite number"
    digits = digits_of(change)
    unit = "points" if verdict.unit == "%" else verdict.unit
    gain = number(change.value, digits)
    gain = f"+{gain}" if change.value > 0 and float(gain) else gain
    value = " ".join(part for part in (gain, unit, verdict.title) if part)
    together = f" (corrected for {verdict.judged} judged at once)" if verdict.judged > 1 else ""
    return f"{value}, 95 % interval {number(change.low, digits)} to {number(change.high, digits)}{together}"


def number(value: float, digits: int) -> str:
    """A number with so many digits behind the point, without "-0"; one that is too small for as many as there can be
    is written with a power of ten."""
    if value and digits == MOST_DIGITS and round(value, digits) == 0:
        return f"{value:.1e}"
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown


def digits_of(change: Interval) -> int:
    """Digits behind the point: as many as the width of the interval is worth, and enough that an end which is not 0 is
    not shown as 0 where that decides."""
    width = change.high - change.low
    if width <= 1e-9 * abs(change.value):  # none but for rounding
        width = abs(change.value) or 1.0
    digits = min(MOST_DIGITS, max(0, math.ceil(0.5 - math.log10(width))))
    decided = [end for end in (change.low, change.high) if end and (change.low > 0 or change.high < 0)]
    while digits < MOST_DIGITS and any(round(end, digits) == 0 for end in decided):
        digits += 1
    return digits


def _head(verdict: Verdict) -> str:
    if verdict.decision != "better":
        return verdict.decision
    ahead = [one.name for one in verdict.baselines if one.standing == "better"]
    level = [one.name for one in verdict.baselines if one.standing == "as good"]
    if not ahead and not level:
        return "better"
    names, does = (ahead, "better") if ahead else (level, "as well")
    return f"better than the base, but {_joined(names)} {'does' if len(names) == 1 else 'do'} {does}"


def _limits(verdict: Verdict) -> list[str]:
    """What so many rows could show at all, where they show nothing."""
    if verdict.decision != "not enough evidence":
        return []
    if verdict.rows < FEWEST_ROWS:
        return [f"with fewer than {FEWEST_ROWS} rows no difference is called real"]
    if verdict.smallest is None:
        return []
    who = f"{_rows(verdict.rows)} and {len(verdict.runs)} runs" if len(verdict.runs) > 1 else _rows(verdict.rows)
    digits = min(MOST_DIGITS, max(0, math.ceil(0.5 - math.log10(verdict.smallest))))
    unit = "points" if verdict.unit == "%" else verdict.unit
    return [f"{who} would show only differences above {number(verdict.smallest, digits)} {unit}".rstrip()]


def _cut(verdict: Verdict) -> list[str]:
    if not verdict.cut:
        return []
    share = 100 * verdict.cut
    shown = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
    return [f"{shown} % of the answers were cut at the length limit"]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs"


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
