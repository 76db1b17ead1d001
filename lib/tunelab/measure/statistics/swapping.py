"""Could base and tuned be swapped in any row? The paired randomisation test, of any function of sums over rows.

If nothing changed, each row's two answers may as well stand on the other side. So sides are swapped at random, row by
row, and the p-value is how often the difference is then as large as the one seen. Nothing is assumed of how scores are
distributed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy

from tunelab.measure.statistics.bootstrap import AT_ONCE
from tunelab.measure.statistics.mcnemar import mcnemar_p
from tunelab.measure.statistics.sums import Paired

SWAPS = 20_000
EXACT_ROWS = 14  # 2 ** 14 ways to swap are looked at one by one


def swap_p(paired: Paired, swaps: int = SWAPS, seed: int = 0) -> float:
    """The two-sided p-value of "nothing changed". Of several runs, all are swapped with the base in the same rows.

    Source: Fisher 1935, "The Design of Experiments", section 21; for metrics of language models Yeh 2000, "More
    accurate tests for the statistical significance of result differences". Drawn swaps count the observed one as one of
    them (Phipson and Smyth 2010, "Permutation P-values Should Never Be Zero"), so that p is never 0.
    """
    columns = paired.columns
    to_base = columns[:, 1:] - columns[:, :1]  # (n, runs, k): what a swap adds to the base, and takes from a run
    to_base = to_base[(to_base != 0).any(axis=(1, 2))]
    if not len(to_base):
        return 1.0
    base, tuned = columns[:, :1].sum(axis=0), columns[:, 1:].sum(axis=0)
    seen = abs(paired.gain) * (1 - 1e-9)
    exact = len(to_base) <= EXACT_ROWS
    as_far = done = 0
    for swapped in every_way(len(to_base)) if exact else drawn_ways(len(to_base), swaps, seed):
        moved = (swapped @ to_base.reshape(len(to_base), -1)).reshape(len(swapped), *to_base.shape[1:])
        differences = (paired.value(tuned - moved) - paired.value(base + moved)).mean(-1)
        as_far += int((numpy.abs(differences) >= seen).sum())
        done += len(swapped)
    return as_far / done if exact else (as_far + 1) / (done + 1)


def every_way(rows: int) -> Iterator[numpy.ndarray]:
    """All ways to swap some of so many rows, (2 ** rows, rows) of 0 and 1."""
    yield ((numpy.arange(2**rows)[:, None] >> numpy.arange(rows)) & 1).astype(float)


def drawn_ways(rows: int, swaps: int, seed: int) -> Iterator[numpy.ndarray]:
    """Random ways to swap them (some, rows), in parts that need little memory."""
    generator = numpy.random.default_rng(seed)
    at_once = max(1, AT_ONCE // rows)
    for start in range(0, swaps, at_once):
        size = min(at_once, swaps - start)
        bits = numpy.unpackbits(numpy.frombuffer(generator.bytes(size * -(-rows // 8)), numpy.uint8))
        yield bits.reshape(size, -1)[:, :rows].astype(float)


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """The p-value of "nothing changed" for the mean of paired differences. Where all that are not 0 are of one size, as
    those of right and wrong answers are, it is McNemar's exact test.

    Raises:
        ValueError: a difference is not finite.
    """
    found = [difference for difference in differences if difference]
    if not all(math.isfinite(difference) for difference in found):
        raise ValueError("a difference is not finite")
    if len({abs(difference) for difference in found}) <= 1:
        return mcnemar_p(sum(d > 0 for d in found), sum(d < 0 for d in found))
    return swap_p(Paired.of_scores([0.0] * len(found), found), seed=seed)
