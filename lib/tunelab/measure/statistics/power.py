"""What rows can show at all: a difference below it stays unseen more often than it should, however real it is."""

from __future__ import annotations

import math
from statistics import NormalDist

from tunelab.measure.statistics.mcnemar import least_discordant
from tunelab.measure.statistics.seeds import Spread

POWER = 0.8


def smallest_difference(spread: Spread, alpha: float = 0.05, power: float = POWER) -> float:
    """The smallest difference that is called one in `power` of cases, given a gain's standard error.

    Source: Lachin 1981, "Introduction to Sample Size Determination and Power Analysis for Clinical Trials", equation 2;
    of language models Card et al. 2020, "With Little Power Comes Great Responsibility".
    """
    return spread.reach(alpha) + NormalDist().inv_cdf(power) * spread.error


def smallest_share(rows: int, alpha: float = 0.05) -> float:
    """The smallest difference of right rows, 0 to 1, that McNemar's exact test can call one: as many rows as it needs,
    all to one side."""
    return min(1.0, least_discordant(alpha) / rows)


def rows_needed(difference: float, discordant: float, alpha: float = 0.05, power: float = POWER) -> int:
    """How many rows show a difference of right answers.

    difference, discordant: in per cent of the rows, the latter those on which exactly one side is right.

    Source: Connor 1987, "Sample Size for Testing Differences in Proportions for the Paired-Sample Design".

    Raises:
        ValueError: the difference is 0, or larger than the share of rows that differ.
    """
    delta, differing = abs(difference) / 100, discordant / 100
    if not 0 < delta <= differing <= 1:
        raise ValueError(f"0 < |difference| <= discordant <= 100 is needed, got {difference} and {discordant}")
    normal = NormalDist()
    reach = normal.inv_cdf(1 - alpha / 2) * math.sqrt(differing)
    reach += normal.inv_cdf(power) * math.sqrt(differing - delta**2)
    return math.ceil((reach / delta) ** 2)
