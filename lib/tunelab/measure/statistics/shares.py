"""Intervals and tests of few rows: of a share, of two shares, of a mean."""

from __future__ import annotations

from collections.abc import Sequence


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: the shares p from which successes / n is no further than z standard errors of
    p away. Nothing is known of no rows: (0, 1).

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    # rounding leaves 1e-17 where the end is 0
    return (0.0 if successes == 0 else float(interval.low)), (1.0 if successes == n else float(interval.high))


def fisher_p(first: int, of_first: int, second: int, of_second: int) -> float:
    """The two-sided p-value of two shares being one: the probability of all tables with these sums that are no more
    likely than this one.

    Source: Fisher 1934, "Statistical Methods for Research Workers", section 21.02.
    """
    from scipy.stats import fisher_exact

    return float(fisher_exact([[first, of_first - first], [second, of_second - second]]).pvalue)


def paired_mean(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of paired differences; None where they are all the same or fewer than two, which
    says nothing about how far the mean may lie from theirs."""
    from scipy.stats import ttest_1samp

    if len(differences) < 2 or min(differences) == max(differences):
        return None
    interval = ttest_1samp(differences, 0.0).confidence_interval(confidence)
    return float(interval.low), float(interval.high)
