"""How often a verdict is wrong where nothing changed, and how often it sees what did: `python -m benchmarks.verdict`
(about four minutes on one core).

Rows are real answers of two sides. Exact match: the action that a support ticket asks for, as nearest neighbour and
naive Bayes guess it. chrF: the first paragraph of a Python function's documentation, as nearest neighbour takes it from
one half of the other functions and from the other half. `--data` and `--heldout` name rows with labels instead, e.g.
banking77's train.csv and test.csv.

A trial draws n rows and swaps the two sides at random, row by row. Then neither side is better, and each "better" or
"worse" is a false call.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy

from benchmarks.report import Figure, run
from benchmarks.votes import share
from tunelab.data import read_data
from tunelab.data.builtin import BUILTIN
from tunelab.measure.builtin_sets import sides_of
from tunelab.measure.floors import naive_bayes, nearest_neighbour
from tunelab.measure.metrics import ChrF, ExactMatch, Metric
from tunelab.measure.statistics import Measured, Verdict, judge_all
from tunelab.spec import DataSpec

ROWS = (24, 60, 300)
MOST_ROWS = 300
RUNGS = 9
PLANTED, DISCORDANT = 10.0, 0.3  # points; share of rows on which the sides differ
RUNS, RUNS_DIFFER = 3, 0.07  # standard deviation of a run's chance to win a row on which the sides differ
# The test looks at 1 of 2,000 swaps and decides; the ends of an interval at 95 % lie in the 25th of 1,000 draws. Both
# are fewer than `judge_all` makes for one verdict, which is reached thousands of times here.
DRAWS, SWAPS = 1000, 2000


@dataclass(frozen=True, eq=False)
class Pool:
    """What rows add to a metric on two sides, and where an answer is the right one: (rows, k) each."""

    metric: Metric
    one: numpy.ndarray
    other: numpy.ndarray
    right: numpy.ndarray

    def measured(self, base: numpy.ndarray, *tuned: numpy.ndarray) -> Measured:
        """The first run of the tuned side, and its further ones."""
        metric = self.metric
        return Measured(metric.title, metric.unit, base, tuned[0], metric.value, runs=tuned[1:])

    def swapped(self, rows: int, sides: int, random: numpy.random.Generator) -> list[numpy.ndarray]:
        """So many sides of some rows, each with one of a row's two answers at random."""
        places = random.permutation(len(self.one))[:rows]
        return [self.taken(places, random.random(len(places)) < 0.5) for _ in range(sides)]

    def opposed(self, rows: int, random: numpy.random.Generator) -> list[numpy.ndarray]:
        """Two sides of some rows: where the first has one answer, the second has the other."""
        places = random.permutation(len(self.one))[:rows]
        swap = random.random(len(places)) < 0.5
        return [self.taken(places, swap), self.taken(places, ~swap)]

    def taken(self, places: numpy.ndarray, other: numpy.ndarray) -> numpy.ndarray:
        return numpy.where(other[:, None], self.other[places], self.one[places])


def pools(options: argparse.Namespace) -> dict[str, Pool]:
    """Rows for exact match and for chrF."""
    return {"exact_match": labels_of(options.data, options.heldout), "chrf": documentation()}


def labels_of(data: str | None, heldout: str | None) -> Pool:
    if data:
        split = read_data(DataSpec(source=data, **({"heldout": heldout} if heldout else {})))
        prompts, answers = [row.prompt for row in split.train], [row.answer for row in split.train]
        asked, wanted = [row.prompt for row in split.heldout], [row.answer for row in split.heldout]
    else:
        sides = sides_of(BUILTIN["support-tickets"])
        prompts, asked = sides.prompts, sides.heldout_prompts
        answers, wanted = ([json.loads(a)["action"] for a in some] for some in (sides.answers, sides.heldout_answers))
    guessed = [floor(prompts, answers, asked) for floor in (nearest_neighbour, naive_bayes)]
    return pool_of(ExactMatch(), guessed, wanted)


def documentation() -> Pool:
    sides = sides_of(BUILTIN["python-docs"])
    prompts, answers = sides.prompts + sides.heldout_prompts, sides.answers + sides.heldout_answers
    halves = [(prompts[start::3], answers[start::3]) for start in (1, 2)]
    guessed = [nearest_neighbour(*half, prompts[::3]) for half in halves]
    return pool_of(ChrF(), guessed, answers[::3])


def pool_of(metric: Metric, guessed: Sequence[Sequence[str]], wanted: Sequence[str]) -> Pool:
    return Pool(metric, *(metric.sums(answers, wanted) for answers in (*guessed, wanted)))


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    found = pools(options)
    for name, pool in found.items():
        for rows in ROWS:
            drawn = _trials(options.trials, options.seed, partial(unchanged, pool, rows))
            yield share(f"false_calls:{name}:{rows}_rows", [called(one) for one in drawn])
        planted = list(_trials(options.trials, options.seed, partial(better, pool, MOST_ROWS)))
        yield share(f"found:{name}:+{PLANTED:.0f}_points", [one[0].decision == "better" for one in planted])
        yield Figure.of(f"planted:{name}", "points", [one[0].change.value for one in planted])
        drawn = _trials(options.trials // 2, options.seed, partial(rungs, pool, MOST_ROWS))
        yield share(f"false_calls:{name}:{RUNGS}_rungs", [called(one) for one in drawn])
    yield from _of_runs(options, found["exact_match"])


def _of_runs(options: argparse.Namespace, pool: Pool) -> Iterator[Figure]:
    """Runs differ, and none is better on average: false calls by one of them, and by all; and runs that are better."""
    for name, runs in (("one_run_of_several", 1), (f"{RUNS}_runs", RUNS)):
        drawn = _trials(options.trials, options.seed, partial(runs_that_differ, pool, MOST_ROWS, runs, 0.0))
        yield share(f"false_calls:exact_match:{name}", [called(one) for one in drawn])
    drawn = _trials(options.trials, options.seed, partial(runs_that_differ, pool, MOST_ROWS, RUNS, PLANTED))
    found = [one[0].decision == "better" for one in drawn]
    yield share(f"found:exact_match:+{PLANTED:.0f}_points:{RUNS}_runs", found)


def _trials(
    trials: int, seed: int, drawn: Callable[[numpy.random.Generator], list[Measured]]
) -> Iterator[list[Verdict]]:
    random = numpy.random.default_rng(seed)
    for trial in range(trials):
        yield judge_all(drawn(random), draws=DRAWS, swaps=SWAPS, seed=trial)


def called(verdicts: Sequence[Verdict]) -> bool:
    """Whether any of them says that something changed."""
    return any(verdict.decision != "not enough evidence" for verdict in verdicts)


def unchanged(pool: Pool, rows: int, random: numpy.random.Generator) -> list[Measured]:
    """Two sides, swapped at random row by row."""
    return [pool.measured(*pool.opposed(rows, random))]


def better(pool: Pool, rows: int, random: numpy.random.Generator) -> list[Measured]:
    """A base, and a side that is better by `PLANTED` points."""
    return [pool.measured(*with_gain(pool, rows, random))]


def rungs(pool: Pool, rows: int, random: numpy.random.Generator) -> list[Measured]:
    """The rungs of a ladder on one base; every side has one of each row's two answers at random."""
    base, *tuned = pool.swapped(rows, 1 + RUNGS, random)
    return [pool.measured(base, one) for one in tuned]


def with_gain(pool: Pool, rows: int, random: numpy.random.Generator) -> list[numpy.ndarray]:
    """A base and a tuned side that is better by about so many points: both have the same answers except in the share
    of rows that differ, where one of them has the right one, the tuned side more often."""
    wrong = numpy.flatnonzero((pool.one != pool.right).any(axis=1))
    same = (
        random.permutation(len(pool.one))[:rows] if len(pool.one) >= rows else random.integers(0, len(pool.one), rows)
    )
    differing = random.random(rows) < DISCORDANT
    places = numpy.where(differing, random.choice(wrong, rows), same)
    worth = pool.metric.value(pool.right[wrong].sum(axis=0)) - pool.metric.value(pool.one[wrong].sum(axis=0))
    won = random.random(rows) < 0.5 + PLANTED / float(worth) / DISCORDANT / 2
    base, right = pool.one[places], pool.right[places]
    return [
        numpy.where((differing & ~won)[:, None], right, base),
        numpy.where((differing & won)[:, None], right, base),
    ]


def runs_that_differ(pool: Pool, rows: int, runs: int, gain: float, random: numpy.random.Generator) -> list[Measured]:
    """A base and runs on the same rows, better by so many points on average; where a row's two answers differ, the base
    has the better one in half of cases, and each run with a chance of its own."""
    places = random.permutation(len(pool.one))[:rows]
    one, other = (pool.metric.value(side[places]) for side in (pool.one, pool.other))
    mean = 0.5 + gain / float(numpy.abs(one - other).mean())
    base, *tuned = (
        pool.taken(places, (random.random(rows) < chance) == (one < other))
        for chance in (0.5, *numpy.clip(random.normal(mean, RUNS_DIFFER, runs), 0, 1))
    )
    return [pool.measured(base, *tuned)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="of each kind; of ladders half as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", metavar="FILE", help="rows with labels, in place of the support tickets")
    parser.add_argument("--heldout", metavar="FILE", help="those of them that are asked")
    run(measure, parser)


if __name__ == "__main__":
    main()
