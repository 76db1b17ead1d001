"""How sure small groups of rows are: intervals of a share and of a paired mean, tests of both, Holm's correction.

Slices have few rows, so the test makes no assumption about how differences are distributed: under "nothing changed"
base and tuned could be swapped in any row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

import numpy

DRAWS = 20_000  # of signs, where there are too many patterns to look at each
EXACT_ROWS = 14  # 2 ** 14 patterns of signs are looked at one by one


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: the shares p from which successes / n is no further than z standard errors of
    p away. Nothing is known of no rows: (0, 1).

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    assert 0 <= successes <= n, (successes, n)
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, middle = successes / n, (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(n * share * (1 - share) + z * z / 4)
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def paired_mean(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of paired differences; None where they are all the same or fewer than two, which
    says nothing about how far the mean may lie from theirs.

    Source: the quantile of t is Cornish and Fisher's expansion (Abramowitz and Stegun 1964, 26.7.5), right to three
    digits from 10 rows on.
    """
    n = len(differences)
    if n < 2 or min(differences) == max(differences):
        return None
    half = _t_quantile(0.5 + confidence / 2, n - 1) * stdev(differences) / math.sqrt(n)
    mean = fmean(differences)
    return mean - half, mean + half


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """How often a mean at least as far from 0 comes about when base and tuned are swapped at random in every row: the
    two-sided p-value of "nothing changed". Of right and wrong answers it is McNemar's exact test.

    Source: Fisher 1935, "The Design of Experiments", section 21; drawn signs count the observed ones as one of the
    draws (Phipson and Smyth 2010), so that p is never 0.
    """
    sizes = numpy.abs(numpy.asarray([d for d in differences if d], dtype=float))
    if not len(sizes):
        return 1.0
    if numpy.all(sizes == sizes[0]):
        return sign_test_p(sum(d > 0 for d in differences), sum(d < 0 for d in differences))
    seen = abs(math.fsum(differences)) * (1 - 1e-9)
    if len(sizes) <= EXACT_ROWS:
        patterns = (numpy.arange(2 ** len(sizes))[:, None] >> numpy.arange(len(sizes))) & 1
        return float(numpy.mean(numpy.abs((2 * patterns - 1) @ sizes) >= seen))
    generator = numpy.random.default_rng(seed)
    as_far = 0
    for _part in range(20):
        signs = generator.integers(0, 2, (DRAWS // 20, len(sizes)), dtype=numpy.int8) * 2 - 1
        as_far += int((numpy.abs(signs @ sizes) >= seen).sum())
    return (as_far + 1) / (DRAWS + 1)


def sign_test_p(wins: int, losses: int) -> float:
    """The two-sided p-value of so many wins and losses where both are as likely; exact."""
    n, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many are judged at once, in the order given: below α, a difference counts, and the
    chance that any counts wrongly stays below α.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def fisher_p(first: int, of_first: int, second: int, of_second: int) -> float:
    """The two-sided p-value of two shares being one: the probability of all tables with these sums that are no more
    likely than this one.

    Source: Fisher 1934, "Statistical Methods for Research Workers", section 21.02.
    """
    total, every = first + second, math.comb(of_first + of_second, first + second)
    ways = [math.comb(of_first, k) * math.comb(of_second, total - k) for k in range(total + 1)]
    return sum(way for way in ways if way <= ways[first]) / every


def _t_quantile(probability: float, degrees: int) -> float:
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )
