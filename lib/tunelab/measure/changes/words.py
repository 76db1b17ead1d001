"""Which words the tuned model says more often than the base, and which less.

The log of the odds of a word in one side's answers over those in the other's, each pulled towards how often the word
is said at all by a Dirichlet prior, over its standard error: z. Without the prior rare words win, with plain
differences "the" does.

Source: Monroe, Colaresi and Quinn 2008, "Fightin' Words: Lexical Feature Selection and Evaluation for Identifying the
Content of Political Conflict", equations 15, 16, 18, 20 and 22.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tunelab.errors import UserError
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.measure.changes.wording import words

MOST = 20
PRIOR_WORDS = 500.0
LEAST_ANSWERS = 3  # a word of one answer that repeats itself is no habit
ALPHA = 0.05


@dataclass(frozen=True)
class WordChange:
    """One word: how often each side says it, in how many answers, and how far that is from chance."""

    word: str
    base: int  # times said
    tuned: int
    base_answers: int
    tuned_answers: int
    log_odds: float  # positive: the tuned model says it more often
    z: float  # log_odds over its standard error


@dataclass(frozen=True)
class WordChanges:
    """Words said more often by one side than by the other, the surest first."""

    tuned: tuple[WordChange, ...]
    base: tuple[WordChange, ...]
    compared: int  # different words
    least_z: float  # below it, a word is not listed
    notes: tuple[str, ...]


def changed_words(
    rows: Sequence[AnsweredRow],
    *,
    most: int = MOST,
    background: Iterable[str] = (),
    prior_words: float = PRIOR_WORDS,
    least_z: float | None = None,
) -> WordChanges:
    """The words of tuned against base answers. The prior is how often a word stands in both sides' answers and in the
    `background` texts, and weighs as much as `prior_words` words. `least_z` None: so high that of words that are as
    frequent on both sides hardly any is listed (0.05 over the number of words).

    Raises:
        UserError: there are no rows, neither side says a word, or a setting is out of its range.
    """
    if most < 1:
        raise UserError(f"most = {most}: at least 1 word has to be shown.")
    if not 0 < prior_words < math.inf:
        raise UserError(f"prior_words = {prior_words}: allowed is any number above 0. Usual is {PRIOR_WORDS:g}.")
    base, tuned = [words(row.base) for row in rows], [words(row.tuned) for row in rows]
    said_base, said_tuned = _said(base), _said(tuned)
    if not said_base and not said_tuned:
        raise UserError(f"There is no word in the answers to {len(rows):,} rows. Look whether the run answers at all.")
    everything = said_base + said_tuned + _said(words(text) for text in background)
    in_base, in_tuned = (Counter(word for answer in side for word in set(answer)) for side in (base, tuned))
    found = [
        WordChange(word, said_base[word], said_tuned[word], in_base[word], in_tuned[word], *figures)
        for word, figures in log_odds(said_base, said_tuned, everything, prior_words).items()
        if word in said_base or word in said_tuned
    ]
    limit = NormalDist().inv_cdf(1 - ALPHA / 2 / len(found)) if least_z is None else least_z
    sides = ([one for one in found if sign * one.z >= max(limit, 1e-12)] for sign in (1, -1))
    more_tuned, more_base = (sorted(side, key=lambda one: (-abs(one.z), one.word)) for side in sides)
    lists = (
        [one for one in more_tuned if one.tuned_answers >= LEAST_ANSWERS],
        [one for one in more_base if one.base_answers >= LEAST_ANSWERS],
    )
    dropped = len(more_tuned) + len(more_base) - sum(map(len, lists))
    notes = [f"{dropped} left out that stand in fewer than {LEAST_ANSWERS} answers."] if dropped else []
    if beyond := sum(max(0, len(one) - most) for one in lists):
        notes.append(f"{beyond} more are not shown.")
    return WordChanges(tuple(lists[0][:most]), tuple(lists[1][:most]), len(found), limit, tuple(notes))


def log_odds(
    base: Counter[str], tuned: Counter[str], everything: Counter[str], prior_words: float
) -> dict[str, tuple[float, float]]:
    """Of each word of `everything` the log-odds-ratio of tuned over base, and its z; both pulled towards `everything`,
    which weighs `prior_words` words."""
    total = everything.total()
    totals = base.total() + prior_words, tuned.total() + prior_words
    figures = {}
    for word, count in everything.items():
        prior = prior_words * count / total
        before, after = base[word] + prior, tuned[word] + prior
        if before >= totals[0] or after >= totals[1]:  # the only word there is
            figures[word] = (0.0, 0.0)
            continue
        ratio = math.log(after / (totals[1] - after)) - math.log(before / (totals[0] - before))
        figures[word] = (ratio, ratio / math.sqrt(1 / after + 1 / before))
    return figures


def _said(answers: Iterable[list[str]]) -> Counter[str]:
    said: Counter[str] = Counter()
    for answer in answers:
        said.update(answer)
    return said
