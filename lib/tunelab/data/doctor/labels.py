"""Answers that are labels: how even they are, which are rare, which are one label written in two ways, and numbers that
stand for words."""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tunelab.data.doctor.finding import FIXES, MOST_SHOWN, Finding, Shown, counted
from tunelab.data.doctor.personal import masked
from tunelab.data.examples import Example
from tunelab.errors import listed

LONGEST_LABEL, MOST_LABELS = 60, 2000  # characters, different answers
FEW_ROWS = 30  # below, half as many labels as rows are allowed, above a third
RARE, USUAL = 3, 10  # rows: a label is rare with RARE where half of the others have USUAL
MAJORITY, UNEVEN = 0.8, 20  # share of the largest label; how many times the rows of the smallest it has
MOST_NUMBERS = 20  # different numbers that may stand for classes
SLIP = 0.25  # of the rows of the other: a label that rare, and a letter apart, is a slip
NUMBER = re.compile(r"-?\d+(?:\.0+)?")


def spelling(label: str) -> str:
    """A label as it counts: case, spaces, underscores, hyphens between words and punctuation at its ends are no
    difference. A sign is one: -1 is not 1, B- is not B, and .5 is not 5."""
    plain = unicodedata.normalize("NFKC", label).casefold()
    plain = re.sub(r"(?<=\w)-+(?=\w)", " ", re.sub(r"[\s_]+", " ", plain).strip())
    return re.sub(r"^[ .,;:!'\"]+(?!\d)|[ .,;:!'\"]+$", "", plain) or plain


class Labels:
    """The answers of all rows, as long as they can be labels."""

    def __init__(self) -> None:
        self.rows = 0
        self.counts: Counter[str] = Counter()  # of each answer as it is written
        self.first: dict[str, int] = {}  # the row where it stands first
        self.possible = True

    def see(self, example: Example) -> None:
        if not self.possible or example.text is not None:
            self.possible = False
            return
        answer = example.answer
        if not answer.strip():
            return
        if len(answer) > LONGEST_LABEL or "\n" in answer.strip() or len(self.counts) > MOST_LABELS:
            self.possible = False
        self.rows += 1
        self.counts[answer] += 1
        self.first.setdefault(answer, example.row)

    def groups(self) -> dict[str, list[str]]:
        """The ways each label is written, the most frequent first; nothing where answers are no labels."""
        found: dict[str, list[str]] = {}
        if not self.possible or not self.rows:
            return found
        for answer in sorted(self.counts, key=lambda a: (-self.counts[a], self.first[a], a)):
            found.setdefault(spelling(answer), []).append(answer)
        most = max(2, self.rows // (2 if self.rows < FEW_ROWS else 3))
        return found if self.rows >= 4 and len(found) <= most else {}

    def merged(self) -> dict[str, str]:
        """For each way of writing that is not its label's most frequent one, that one."""
        return {other: ways[0] for ways in self.groups().values() for other in ways[1:]}

    def findings(self) -> list[Finding]:
        groups = self.groups()
        if not groups:
            return []
        sizes = {name: sum(self.counts[way] for way in ways) for name, ways in groups.items()}
        return [
            *self._spellings(groups),
            *self._similar(groups, sizes),
            *self._balance(groups, sizes),
            *self._numbers(groups),
        ]

    def _shown(self, labels: Iterable[str]) -> tuple[Shown, ...]:
        return tuple(
            Shown(self.first[label], f"{masked(label)!r}: {counted(self.counts[label], 'row')}")
            for label, _turn in zip(labels, range(MOST_SHOWN), strict=False)
        )

    def _spellings(self, groups: dict[str, list[str]]) -> Iterator[Finding]:
        several = [ways for ways in groups.values() if len(ways) > 1]
        if several:
            count = sum(self.counts[way] for ways in several for way in ways[1:])
            yield Finding(
                "label-spellings",
                f"{counted(len(several), 'label is', 'labels are')} written in several ways: {counted(count, 'row')} "
                "other than the most frequent one",
                count,
                self._shown(way for ways in several for way in ways),
                "To the model each way of writing is another label: it learns to guess between them, and half of its "
                "right answers count as wrong.",
                "high",
                FIXES["merge-labels"],
            )

    def _similar(self, groups: dict[str, list[str]], sizes: dict[str, int]) -> Iterator[Finding]:
        pairs = sorted({tuple(sorted(pair, key=lambda n: -sizes[n])) for pair in _a_letter_apart(sizes)})
        pairs = [(much, little) for much, little in pairs if _is_plural(much, little) or _is_slip(much, little, sizes)]
        if pairs:
            yield Finding(
                "similar-labels",
                f"{counted(len(pairs), 'pair')} of labels differ in a letter: "
                + listed((f"{groups[one][0]!r} and {groups[other][0]!r}" for one, other in pairs), most=3),
                sum(sizes[little] for _much, little in pairs),
                self._shown(groups[name][0] for pair in pairs for name in pair),
                "One of them may be a slip of the other. Where they mean the same, write them alike in the file; this "
                "is not done for you, because they may not.",
                "medium",
            )

    def _balance(self, groups: dict[str, list[str]], sizes: dict[str, int]) -> Iterator[Finding]:
        by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
        most, least = sizes[by_size[0]], sizes[by_size[-1]]
        usual = statistics.median(sizes.values())
        rare = [name for name in reversed(by_size) if sizes[name] <= RARE and usual >= USUAL]
        if rare:
            yield Finding(
                "rare-labels",
                f"{counted(len(rare), 'label has', 'labels have')} at most {RARE} rows, where half of the others have "
                f"{usual:.0f} or more",
                sum(sizes[name] for name in rare),
                self._shown(groups[name][0] for name in rare),
                "A label of a few rows is hardly learned, and may have none held out that measures it. Add rows, or "
                "join it with another.",
                "medium",
            )
        share = most / self.rows
        if len(sizes) > 1 and self.rows >= FEW_ROWS and (share >= MAJORITY or most >= UNEVEN * least):
            yield Finding(
                "label-balance",
                f"labels are uneven: ‘{groups[by_size[0]][0]}’ has {share:.0%} of the rows, the rarest of "
                f"{len(sizes)} has {counted(least, 'row')}",
                most,
                self._shown(groups[name][0] for name in (by_size[0], by_size[-1])),
                f"Always answering ‘{groups[by_size[0]][0]}’ is right in {share:.0%} of the rows already: compare with "
                "that, and look at each label's own score.",
                "medium" if share >= MAJORITY else "low",
            )

    def _numbers(self, groups: dict[str, list[str]]) -> Iterator[Finding]:
        if len(groups) <= MOST_NUMBERS and all(
            NUMBER.fullmatch(way.strip()) for ways in groups.values() for way in ways
        ):
            numbers = sorted((ways[0].strip() for ways in groups.values()), key=lambda number: float(number))
            yield Finding(
                "number-labels",
                f"the labels are numbers: {listed(numbers)}",
                self.rows,
                self._shown(ways[0] for ways in groups.values()),
                "If they stand for names, a language model learns and explains the names better: write ‘negative’ for "
                "0. Leave them where the answer is a count or a rating.",
                "low",
            )


class MergedLabels:
    """Writes each label as `Labels.merged` says."""

    def __init__(self, merged: dict[str, str]) -> None:
        self.merged = merged

    def __call__(self, example: Example) -> Example:
        label = self.merged.get(example.answer)
        if label is None or example.text is not None:
            return example
        last = max(place for place, m in enumerate(example.messages) if m.role == "assistant")
        messages = list(example.messages)
        messages[last] = replace(messages[last], content=label)
        return replace(example, messages=tuple(messages))


def _a_letter_apart(names: Iterable[str]) -> set[tuple[str, str]]:
    """Pairs of names that are equal when one letter is left out of one or both."""
    shorter: dict[str, list[str]] = {}
    for name in sorted(names):
        for key in {name, *(name[:i] + name[i + 1 :] for i in range(len(name)))}:
            shorter.setdefault(key, []).append(name)
    return {(one, other) for near in shorter.values() for one in near for other in near if one < other}


def _different_words(one: str, other: str) -> tuple[str, str] | None:
    """The only word in which two names differ; None where it is no word or not the only one."""
    ones, others = one.split(), other.split()
    if len(ones) != len(others):
        return None
    ((a, b), *more) = [pair for pair in zip(ones, others, strict=True) if pair[0] != pair[1]]
    return None if more or not (a.isalpha() and b.isalpha()) else (a, b)


def _is_plural(one: str, other: str) -> bool:
    words = _different_words(one, other)
    if words is None:
        return False
    short, long = sorted(words, key=len)
    return len(short) >= 4 and long in (f"{short}s", f"{short}e", f"{short}n")


def _is_slip(much: str, little: str, sizes: dict[str, int]) -> bool:
    words = _different_words(much, little)
    return words is not None and min(map(len, words)) >= 4 and sizes[little] <= SLIP * sizes[much]
