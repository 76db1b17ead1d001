"""How often a class that watches is misled, and how soon it sees a real difference: `python -m benchmarks.votes`
(about five minutes).

A class is 30 voters who each vote once on 20 ballots. It looks after every vote, and calls a winner the first time the
interval of `win_rate` leaves 50 %. Under the null tuned and base are equally good on average; ballots and voters may
still lean to one side, by a normal log-odds of so much standard deviation.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy

from benchmarks.report import Figure, run
from tunelab.measure.statistics import wilson
from tunelab.measure.votes.winrate import anytime_interval

VOTERS, BALLOTS = 30, 20
Order = Literal["mixed", "ballot by ballot", "voter by voter"]


@dataclass(frozen=True)
class Classes:
    """What a simulated class is like."""

    rate: float = 0.5
    ballots_lean: float = 0.0  # standard deviation of the log-odds
    voters_lean: float = 0.0
    ties: float = 0.0  # their share
    order: Order = "mixed"


NULL = {
    "alike": Classes(),
    "ties": Classes(ties=0.3),
    "ballots_lean": Classes(ballots_lean=1.0),
    "voters_lean": Classes(voters_lean=1.0),
    "both_lean": Classes(ballots_lean=1.0, voters_lean=1.0),
    "both_lean_ballot_by_ballot": Classes(ballots_lean=1.0, voters_lean=1.0, order="ballot by ballot"),
    "both_lean_voter_by_voter": Classes(ballots_lean=1.0, voters_lean=1.0, order="voter by voter"),
}
TRUE = {
    "alike": Classes(rate=0.65),
    "both_lean": Classes(rate=0.65, ballots_lean=0.5, voters_lean=0.5),
}


def called_after(one: Classes, random: numpy.random.Generator, voters: int = VOTERS, ballots: int = BALLOTS) -> int:
    """After how many votes a class that looks after each of them calls a winner; 0: never."""
    of_voter, of_ballot = (grid.ravel() for grid in numpy.indices((voters, ballots)))
    lean = random.normal(0, one.ballots_lean, ballots)[of_ballot] + random.normal(0, one.voters_lean, voters)[of_voter]
    chance = 1 / (1 + numpy.exp(-math.log(one.rate / (1 - one.rate)) - lean))
    scores = (random.random(len(chance)) < chance).astype(float)
    scores[random.random(len(chance)) < one.ties] = 0.5
    by_chance = random.random(len(chance))
    first = {"mixed": by_chance, "ballot by ballot": of_ballot, "voter by voter": of_voter}[one.order]
    order = numpy.lexsort((by_chance, first))
    scores, by, on = scores[order], of_voter[order], of_ballot[order]
    for votes in range(1, len(scores) + 1):
        _mean, low, high, _count = anytime_interval(scores[:votes], on[:votes], by[:votes])
        if low > 0.5 or high < 0.5:
            return votes
    return 0


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    for name, one in NULL.items():
        random = numpy.random.default_rng(options.seed)
        calls = [called_after(one, random) > 0 for _ in range(options.classes)]
        yield share(f"false_calls:{name}", calls)
    for name, one in TRUE.items():
        random = numpy.random.default_rng(options.seed)
        after = [called_after(one, random) for _ in range(options.classes // 5)]
        yield share(f"power_at_65:{name}", [votes > 0 for votes in after])
        if any(after):
            yield Figure.of(f"votes_to_a_call:{name}", "votes", [votes for votes in after if votes])


def share(name: str, happened: list[bool]) -> Figure:
    """A share with Wilson's 95 % interval."""
    n, count = len(happened), sum(happened)
    low, high = wilson(count, n)
    return Figure(name, 100 * count / n, "%", 100 * low, 100 * high, n)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.votes", description=__doc__)
    parser.add_argument("--classes", type=int, default=500, help="simulated classes of each kind")
    parser.add_argument("--seed", type=int, default=0)
    run(measure, parser)


if __name__ == "__main__":
    main()
