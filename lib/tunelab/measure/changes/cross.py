"""Where the tuned model wins and where it loses, by what rows have in common: rows are chosen by a label, a length, a
rule or a word, and the counts of all the others follow.

    CrossFilter(rows, metric).look(filters) ──> the rows that remain, and every bar counted over them

A bar is counted over the rows that the choices of all *other* facets leave, so that its neighbours can be chosen too.
Verdicts (exact sign test of rows won against rows lost, Holm over all bars judged at once) are given only where rows
are chosen by what they are, not by how they were answered: that would choose the outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy

from tunelab.errors import UserError
from tunelab.measure.changes.ranking import overlap
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.measure.changes.rules import labels_of, rules, sides
from tunelab.measure.changes.slices import ALPHA, LEAST_ROWS, Slice, Verdict, by_column, by_label, by_length
from tunelab.measure.changes.wording import words
from tunelab.measure.changes.words import WordChanges, changed_words
from tunelab.measure.statistics import holm
from tunelab.measure.statistics.mcnemar import mcnemar_p

MOST_BARS = 100  # of one facet: more can't be read
Filters = Mapping[str, Collection[str]]  # by facet: its values that are chosen; a row has one of them
Order = Literal["improved", "worsened", "different", "given"]
OUTCOMES = ("tuned is better", "same score", "base is better", "no score")
WORDS = ("tuned-word", "base-word")
BY_ANSWERS = ("change", "tuned-rule", "base-rule", *WORDS)  # facets that choose rows by their answers


@dataclass(frozen=True)
class Bar:
    """The rows of one value, as far as the other choices leave them."""

    value: str
    title: str
    rows: int
    wins: int  # rows that the tuned model scores better on
    losses: int
    ties: int
    base: float | None  # mean score; None where no row has one
    tuned: float | None
    chosen: bool
    verdict: Verdict | None  # None: rows are chosen by their answers, or it is not judged


@dataclass(frozen=True)
class Facet:
    """What rows can be chosen by, and a bar for each of its values."""

    name: str
    title: str
    bars: tuple[Bar, ...]
    note: str = ""


@dataclass(frozen=True)
class Look:
    """What the choices leave."""

    rows: tuple[int, ...]  # their places in the rows given, in their order
    whole: Bar  # all of them together
    facets: tuple[Facet, ...]
    words: WordChanges | None  # of their answers; None where they hold no word
    by_answers: bool  # rows are chosen by their answers, so that no bar is judged
    judged: int  # bars that have rows enough for a verdict
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Kind:
    """A facet before anybody looks: its values, and which rows have each (values, rows)."""

    name: str
    title: str
    values: tuple[str, ...]
    titles: tuple[str, ...]
    has: numpy.ndarray
    note: str = ""


class CrossFilter:
    """Rows with everything they can be chosen by; looking is counting. What rules say of the answers can be chosen by
    once they were read (`read_rules`), which takes a millisecond an answer."""

    def __init__(self, rows: Sequence[AnsweredRow], metric: str, *, higher_is_better: bool = True) -> None:
        self.rows, self.metric = list(rows), metric
        self._places = {id(row): place for place, row in enumerate(self.rows)}
        self.base = _scores(row.base_scores.get(metric) for row in self.rows)
        self.tuned = _scores(row.tuned_scores.get(metric) for row in self.rows)
        gain = (self.tuned - self.base) * (1 if higher_is_better else -1)
        self.scored = numpy.isfinite(gain)
        self.gain = numpy.where(self.scored, gain, 0.0)
        self._ruled: list[_Kind] | None = None

    @property
    def rules_read(self) -> bool:
        return self._ruled is not None

    def read_rules(self) -> None:
        """Let rows be chosen by what rules say of their answers."""
        self._ruled = [kind for side in ("tuned", "base") if (kind := self._rules_of(side)) is not None]

    def look(self, filters: Filters | None = None) -> Look:
        """The rows that `filters` leave, and every bar over the rows that the filters of the other facets leave. Names
        and values that these rows do not have choose nothing."""
        known = self._known(filters or {})
        masks = {name: self._mask(name, values) for name, values in known.items()}
        left = self._left(masks)
        by_answers = any(name in BY_ANSWERS for name in known)
        facets = [self._facet(kind, known.get(kind.name, ()), self._left(masks, kind.name)) for kind in self._kinds]
        judged = 0
        if not by_answers:
            facets, judged = _judged(facets)
        places = tuple(numpy.flatnonzero(left).tolist())
        return Look(
            places,
            self._bar("", "all rows", left, chosen=False),
            tuple(facets),
            self._words(self._left(masks, *WORDS)),
            by_answers,
            judged,
            self._notes,
        )

    def ordered(self, places: Sequence[int], order: Order) -> list[int]:
        """Places in an order; rows that are equal in it stay as they stand."""
        if order == "different":
            return sorted(places, key=lambda place: self._overlaps[place])
        if order == "given":
            return list(places)
        sign = -1 if order == "improved" else 1
        return sorted(places, key=lambda place: sign * self.gain[place])

    # how rows are chosen

    def _known(self, filters: Filters) -> dict[str, frozenset[str]]:
        """The filters as far as these rows know them."""
        values = {kind.name: frozenset(kind.values) for kind in self._kinds}
        found = {}
        for name, chosen in filters.items():
            known = frozenset(chosen)
            if name not in WORDS:
                known &= values.get(name, frozenset())
            if known:
                found[name] = known
        return found

    def _mask(self, name: str, values: Collection[str]) -> numpy.ndarray:
        """Which rows have one of the values."""
        if name in WORDS:
            said = self._said[name]
            return numpy.fromiter((not said[place].isdisjoint(values) for place in range(len(self.rows))), bool)
        kind = next(one for one in self._kinds if one.name == name)
        chosen = numpy.zeros(len(self.rows), bool)
        for value in values:
            chosen |= kind.has[kind.values.index(value)]
        return chosen

    def _left(self, masks: Mapping[str, numpy.ndarray], *without: str) -> numpy.ndarray:
        left = numpy.ones(len(self.rows), bool)
        for name, mask in masks.items():
            if name not in without:
                left &= mask
        return left

    # what is counted

    def _facet(self, kind: _Kind, chosen: Collection[str], left: numpy.ndarray) -> Facet:
        bars = tuple(
            self._bar(value, title, has & left, chosen=value in chosen)
            for value, title, has in zip(kind.values, kind.titles, kind.has, strict=True)
        )
        return Facet(kind.name, kind.title, bars, kind.note)

    def _bar(self, value: str, title: str, rows: numpy.ndarray, *, chosen: bool) -> Bar:
        scored = rows & self.scored
        gain, count = self.gain[scored], int(scored.sum())
        wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
        base, tuned = (float(side[scored].mean()) if count else None for side in (self.base, self.tuned))
        return Bar(value, title, int(rows.sum()), wins, losses, count - wins - losses, base, tuned, chosen, None)

    def _words(self, left: numpy.ndarray) -> WordChanges | None:
        try:
            return changed_words([self.rows[place] for place in numpy.flatnonzero(left)])
        except UserError:  # no rows, or no word in their answers
            return None

    # what rows have, read once

    @property
    def _kinds(self) -> list[_Kind]:
        return [*self._plain, *(self._ruled or ())]

    @cached_property
    def _plain(self) -> list[_Kind]:
        """What rows can be chosen by without reading their answers."""
        labelled = any(row.label is not None for row in self.rows)
        found = [self._outcomes()]
        if labelled:
            found += self._sliced("label", "Label", by_label(self.rows), "label = ")
        for column in dict.fromkeys(name for row in self.rows for name in row.columns):
            found += self._sliced(f"column:{column}", column, by_column(self.rows, column), f"{column} = ")
        found += self._sliced("prompt-length", "Length of the prompt", by_length(self.rows), "prompt of ")
        if not labelled:
            by_reference = by_length(self.rows, "reference")
            found += self._sliced("reference-length", "Length of the reference", by_reference, "reference of ")
        return [kind for kind in found if len(kind.values) <= MOST_BARS]

    @cached_property
    def _notes(self) -> tuple[str, ...]:
        columns = dict.fromkeys(name for row in self.rows for name in row.columns)
        shown = {kind.name for kind in self._kinds}
        left_out = [name for name in columns if f"column:{name}" not in shown]
        labels = ["label"] if any(row.label for row in self.rows) and "label" not in shown else []
        return tuple(
            f"{name} has more than {MOST_BARS} different values, or one alone: no bars of it."
            for name in [*labels, *left_out]
        )

    def _outcomes(self) -> _Kind:
        better, same, worse = self.gain > 0, self.scored & (self.gain == 0), self.gain < 0
        every = dict(zip(OUTCOMES, (better, same, worse, ~self.scored), strict=True))
        there = {name: has for name, has in every.items() if has.any()}
        return _Kind(
            "change",
            "Outcome",
            tuple(there),
            tuple(there),
            numpy.array(list(there.values())).reshape(-1, len(self.rows)),
        )

    def _sliced(self, name: str, title: str, slices: Sequence[Slice], prefix: str) -> list[_Kind]:
        """A facet of slices; none where they part nothing."""
        if len(slices) < 2:
            return []
        has = numpy.zeros((len(slices), len(self.rows)), bool)
        for index, one in enumerate(slices):
            has[index, [self._places[id(row)] for row in one.rows]] = True
        values = tuple(one.title for one in slices)
        kind = _Kind(name, title, values, tuple(value.removeprefix(prefix) for value in values), has)
        return [self._weakest_first(kind) if name == "label" else kind]

    def _weakest_first(self, kind: _Kind) -> _Kind:
        """The values by the mean gain of their rows; those of few rows, of which little is known, behind the others."""
        counts = (kind.has & self.scored).sum(axis=1)
        gains = (kind.has * self.gain).sum(axis=1) / numpy.maximum(counts, 1)
        order = numpy.lexsort((gains, counts < LEAST_ROWS)).tolist()
        values, titles = (tuple(texts[index] for index in order) for texts in (kind.values, kind.titles))
        return _Kind(kind.name, kind.title, values, titles, kind.has[order], "the weakest first")

    def _rules_of(self, side: str) -> _Kind | None:
        """What rules say of a side's answers; None where they say nothing."""
        judges = rules()
        found = {rule.name: numpy.zeros(len(self.rows), bool) for rule in judges}
        for place, row in enumerate(self.rows):
            for name in labels_of(sides(row)[side == "tuned"], judges):
                found[name][place] = True
        there = {rule: found[rule.name] for rule in judges if found[rule.name].any()}
        if not there:
            return None
        who = "tuned answer" if side == "tuned" else "base's answer"
        names, titles = tuple(rule.name for rule in there), tuple(rule.title for rule in there)
        return _Kind(f"{side}-rule", f"The {who} …", names, titles, numpy.array(list(there.values())))

    @cached_property
    def _said(self) -> dict[str, list[frozenset[str]]]:
        """The words of each answer, by the facet that chooses by them."""
        return {
            "tuned-word": [frozenset(words(row.tuned)) for row in self.rows],
            "base-word": [frozenset(words(row.base)) for row in self.rows],
        }

    @cached_property
    def _overlaps(self) -> list[float]:
        """Of the two answers to each row; those that are the same stand behind all others."""
        return [2.0 if _folded(row.base) == _folded(row.tuned) else overlap(row.base, row.tuned) for row in self.rows]


def _judged(facets: Sequence[Facet]) -> tuple[list[Facet], int]:
    """The facets with verdicts on the bars that have rows enough, and how many those are."""
    asked = [
        bar
        for facet in facets
        if facet.name not in BY_ANSWERS
        for bar in facet.bars
        if bar.wins + bar.losses + bar.ties >= LEAST_ROWS
    ]
    corrected = holm([mcnemar_p(bar.wins, bar.losses) for bar in asked])
    p_of = {id(bar): p for bar, p in zip(asked, corrected, strict=True)}
    return [
        facet
        if facet.name in BY_ANSWERS
        else Facet(facet.name, facet.title, tuple(_said_of(bar, p_of.get(id(bar))) for bar in facet.bars), facet.note)
        for facet in facets
    ], len(asked)


def _said_of(bar: Bar, p: float | None) -> Bar:
    verdict: Verdict = "too few rows"
    if p is not None:
        verdict = "not enough evidence" if p > ALPHA else "better" if bar.wins > bar.losses else "worse"
    return Bar(**{**bar.__dict__, "verdict": verdict})


def _scores(values: Iterable[float | None]) -> numpy.ndarray:
    return numpy.array([numpy.nan if value is None else value for value in values], float)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
