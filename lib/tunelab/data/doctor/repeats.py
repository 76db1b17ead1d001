"""Rows that repeat each other: equal, nearly equal, one prompt with several answers, and training rows that ask what
held-out rows ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunelab.data.doctor.digests import Digests, in_groups, repeated
from tunelab.data.doctor.finding import FIXES, MOST_SHOWN, Finding, Shown, counted, shown
from tunelab.data.doctor.near import Signatures, nearest
from tunelab.data.examples import Example

if TYPE_CHECKING:
    import numpy

Rows = Sequence[Example]


def extra_conflicting(made: Digests) -> numpy.ndarray:
    """Whether a row answers otherwise than most rows with its prompt, for each row. Among answers that are equally
    frequent the first one counts as most."""
    import numpy

    extra = numpy.zeros(len(made.whole), bool)
    for group in in_groups(made.collapsed):
        answers = made.whole[group]
        if (answers != answers[0]).any():
            kept = Counter(answers.tolist()).most_common(1)[0][0]
            extra[group[answers != kept]] = True
    return extra


def repeat_findings(rows: Rows, made: Digests, near: numpy.ndarray) -> list[Finding]:
    """Exact and near duplicates and conflicts; `near`: for each row the first one that it nearly repeats."""
    import numpy

    findings = []
    equal = repeated(made.whole)
    if equal.any():
        count = int(equal.sum())
        findings.append(
            Finding(
                "duplicates",
                f"{counted(count, 'row repeats', 'rows repeat')} an earlier row (but for case and spaces)",
                count,
                _pairs(rows, [tuple(group[:2].tolist()) for group in in_groups(made.whole)]),
                "Repeated rows weigh more in training than others, and are learned by heart first.",
                "medium",
                FIXES["drop-duplicates"],
            )
        )
    nearly = numpy.flatnonzero(near != numpy.arange(len(near)))
    if len(nearly):
        findings.append(
            Finding(
                "near-duplicates",
                f"{counted(len(nearly), 'row nearly repeats', 'rows nearly repeat')} an earlier row",
                len(nearly),
                _pairs(rows, [(int(near[row]), int(row)) for row in nearly[:MOST_SHOWN]]),
                "Rows that differ in a word or two say nothing new. Those with other numbers or another short answer "
                "don't count as near.",
                "medium",
                FIXES["drop-near-duplicates"],
            )
        )
    return findings + _conflicts(rows, made)


def _conflicts(rows: Rows, made: Digests) -> list[Finding]:
    extra = extra_conflicting(made)
    if not extra.any():
        return []
    count = int(extra.sum())
    groups = [group for group in in_groups(made.collapsed) if extra[group].any()]
    prompts = counted(len(groups), "prompt has", "prompts have")
    return [
        Finding(
            "conflicts",
            f"{prompts} different answers: {counted(count, 'row')} beyond the rows with the most frequent one",
            count,
            _pairs(rows, [(int(group[~extra[group]][0]), int(group[extra[group]][0])) for group in groups]),
            "A model that is taught two answers to one prompt learns to guess between them. Where a prompt is meant to "
            "have several good answers, such as a request for a story, leave them.",
            "high",
            FIXES["drop-conflicts"],
        )
    ]


def _pairs(rows: Rows, pairs: Sequence[tuple[int, ...]]) -> tuple[Shown, ...]:
    """Both rows of each pair, as many as are shown."""
    places = [place for pair in pairs[:MOST_SHOWN] for place in pair][: MOST_SHOWN - MOST_SHOWN % 2]
    return tuple(shown(rows[place]) for place in places)


def leak_findings(heldout: Rows, train: Digests, held: Digests, near: numpy.ndarray) -> list[Finding]:
    """Held-out rows that training rows give away; `near`: for each the place of a training row that asks nearly the
    same, or -1."""
    import numpy

    trimmed = numpy.isin(held.trimmed, train.trimmed)
    collapsed = trimmed | numpy.isin(held.collapsed, train.collapsed)
    exact = collapsed | numpy.isin(held.asked, train.asked)
    steps = [f"{trimmed.sum():,} after trimming", f"{collapsed.sum():,} after collapsing spaces"]
    if exact.sum() > collapsed.sum():
        steps.append(f"{exact.sum():,} in any case")
    return [
        *_leak(
            heldout,
            exact,
            "leakage",
            f"{{asks}} what training rows ask: {', '.join(steps)}",
            "What was trained on is no measure of new prompts: scores on these rows come out too high. The fix leaves "
            "out training rows; held-out rows stay as they are.",
        ),
        *_leak(
            heldout,
            (near >= 0) & ~exact,
            "near-leakage",
            "{nearly} what training rows ask",
            "Prompts that differ in a word or two are hardly new to the model: scores on these rows come out high.",
        ),
    ]


def _leak(heldout: Rows, which: numpy.ndarray, kind: str, title: str, why: str) -> list[Finding]:
    places = which.nonzero()[0].tolist()
    if not places:
        return []
    asks = counted(len(places), "held-out row asks", "held-out rows ask")
    nearly = counted(len(places), "held-out row nearly asks", "held-out rows nearly ask")
    exact = kind == "leakage"
    return [
        Finding(
            kind,
            title.format(asks=asks, nearly=nearly),
            len(places),
            tuple(shown(heldout[place], heldout=True) for place in places[:MOST_SHOWN]),
            why,
            "high" if exact else "medium",
            FIXES["drop-leaked" if exact else "drop-near-leaked"],
        )
    ]


def nearly_leaked(train: Signatures, heldout: Signatures) -> numpy.ndarray:
    """Whether a training row asks nearly what a held-out row asks, for each training row; found from both sides."""
    found = nearest(train, heldout) >= 0
    back = nearest(heldout, train)
    found[back[back >= 0]] = True
    return found
