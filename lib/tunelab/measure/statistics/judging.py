"""Better, worse, or not enough evidence: one sentence per figure, all figures judged at once.

"Better" takes three things: the p-value, corrected for all that is judged at once (Holm), the interval at the same
level, and at least `FEWEST_ROWS` rows. The interval shown is the one the verdict was reached by, so the two never
contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

from tunelab.measure.statistics.bootstrap import DRAWS
from tunelab.measure.statistics.difference import ALPHA, Evidence, weigh
from tunelab.measure.statistics.holm import holm, holm_steps
from tunelab.measure.statistics.sums import Paired, Value, mean, scored
from tunelab.measure.statistics.swapping import SWAPS
from tunelab.measure.statistics.verdict import Baseline, Decision, Standing, Verdict
from tunelab.run.reports import Interval


@dataclass(frozen=True, eq=False)
class Measured:
    """One figure of base and tuned side over the same rows.

    base_sums, tuned_sums: what each row adds (n, k), as `Metric.sums` gives it.
    value: `Metric.value`.
    higher_is_better: None where neither is.
    baselines: by name, what the rows add of answers that need no tuning (nearest neighbour, naive Bayes, …).
    cut: share of the tuned side's answers cut at the length limit, 0 to 1; None: not known.
    runs: the tuned side's columns in further runs, trained with other seeds.
    """

    title: str
    unit: str
    base_sums: numpy.ndarray
    tuned_sums: numpy.ndarray
    value: Value
    higher_is_better: bool | None = True
    baselines: Mapping[str, numpy.ndarray] = field(default_factory=dict)
    cut: float | None = None
    runs: Sequence[numpy.ndarray] = ()

    @classmethod
    def of_scores(cls, title: str, unit: str, base: Sequence[float], *runs: Sequence[float], **others: Any) -> Measured:
        """A figure that is the mean of one score per row: the base's, and the tuned side's in each run, one at least.
        `others` are further fields."""
        first, *more = [scored(run) for run in runs]
        return cls(title, unit, scored(base), first, mean, runs=more, **others)

    def against(self, sums: numpy.ndarray, draws: int, swaps: int, seed: int) -> Evidence:
        """How the tuned side's runs differ from the base, or from a baseline."""
        paired = Paired.of(sums, [self.tuned_sums, *self.runs], self.value)
        return weigh(paired, 100.0 if self.unit == "%" else None, draws=draws, swaps=swaps, seed=seed)


@numpy.errstate(all="ignore")  # figures may be infinite
def judge_all(
    measured: Sequence[Measured], *, alpha: float = ALPHA, draws: int = DRAWS, swaps: int = SWAPS, seed: int = 0
) -> list[Verdict]:
    """A verdict on each figure, corrected for all of them: with nothing changed, any of them is "better" or "worse" in
    at most `alpha` of cases. The more is judged, the further out the bootstrap's tails are looked at, and the more
    draws are made.

    Raises:
        ValueError: a figure has no rows, or its sides have not the same.
    """
    draws *= min(4, 1 + len(measured) // 10)
    weighed = [one.against(one.base_sums, draws, swaps, seed) for one in measured]
    decided = _decided(weighed, alpha)
    baselines = _baselines(measured, alpha, draws, swaps, seed)
    return [
        _verdict(one, evidence, change, p, level, len(measured), found)
        for one, evidence, (change, p, level), found in zip(measured, weighed, decided, baselines, strict=True)
    ]


def _decided(weighed: Sequence[Evidence], alpha: float) -> list[tuple[Interval, float, float]]:
    """The interval of each, its corrected p-value and the level it is judged at.

    Source of intervals at the levels of Holm's steps: Serlin 1993, "Confidence Intervals and the Scientific Method: A
    Case for Holm on the Range".
    """
    raw = [evidence.p for evidence in weighed]
    levels = [alpha / step for step in holm_steps(raw)]
    corrected = holm(raw)
    return [
        (evidence.interval(level, counts=p <= alpha), p, level)
        for evidence, p, level in zip(weighed, corrected, levels, strict=True)
    ]


def _verdict(
    one: Measured,
    evidence: Evidence,
    change: Interval,
    p: float,
    level: float,
    judged: int,
    baselines: tuple[Baseline, ...],
) -> Verdict:
    before, *after = (float(figure) for figure in evidence.paired.figures)
    return Verdict(
        title=one.title,
        unit=one.unit,
        higher_is_better=one.higher_is_better,
        decision=_decision(change, one.higher_is_better),
        base=before,
        tuned=sum(after) / len(after),
        change=change,
        p=p,
        test=evidence.test,
        judged=judged,
        runs=tuple(after),
        smallest=evidence.smallest(level),
        baselines=baselines,
        cut=one.cut,
    )


def _decision(change: Interval, higher_is_better: bool | None) -> Decision:
    if not (change.low > 0 or change.high < 0):  # nan is no evidence either
        return "not enough evidence"
    if higher_is_better is None:
        return "different"
    return "better" if (change.low > 0) == higher_is_better else "worse"


def _baselines(
    measured: Sequence[Measured], alpha: float, draws: int, swaps: int, seed: int
) -> list[tuple[Baseline, ...]]:
    """The baselines of each figure. A claim that has to hold against the base and against each baseline needs no
    correction for how many those are (Berger 1982); one that is made of several figures does."""
    found: list[list[Baseline]] = [[] for _one in measured]
    for name in dict.fromkeys(name for one in measured for name in one.baselines):
        places = [place for place, one in enumerate(measured) if name in one.baselines]
        weighed = [measured[place].against(measured[place].baselines[name], draws, swaps, seed) for place in places]
        for place, evidence, (change, p, _level) in zip(places, weighed, _decided(weighed, alpha), strict=True):
            decision = _decision(change, measured[place].higher_is_better)
            standing: Standing = (
                "worse" if decision in ("better", "different") else "better" if decision == "worse" else "as good"
            )
            value = float(evidence.paired.figures[0])
            found[place].append(Baseline(name=name, value=value, change=change, p=p, standing=standing))
    return [tuple(some) for some in found]
