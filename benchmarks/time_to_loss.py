"""Seconds to the same held-out loss, against TRL tuned: `python -m benchmarks.time_to_loss [--json]`, ten minutes.

TRL trains so many steps, and the loss it then has on 64 held-out rows is the goal. Ours trains until it has it. Both
see the same rows at the same learning rate, in orders of their own; the sides take turns, a block of steps each, and
the seconds of measuring the loss count for neither.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from benchmarks.report import Figure, run
from benchmarks.sides import Side
from tunelab.machine import libraries

MOST = 3  # times the steps of TRL; ours gives up there


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    ratios, ours, theirs, steps, goals = [], [], [], [], []
    for seed in range(options.rounds):
        goal, their_seconds, our_steps, our_seconds = _race(options.steps, options.block, seed)
        ratios.append(their_seconds / our_seconds)
        ours.append(our_seconds)
        theirs.append(their_seconds)
        steps.append(our_steps)
        goals.append(goal)
    yield Figure.of("time_over_trl_tuned", "x", ratios)
    yield Figure.of("seconds:trl-tuned", "s", theirs)
    yield Figure.of("seconds:ours", "s", ours)
    yield Figure.of("steps:ours", "steps", steps)
    yield Figure.of("heldout_loss", "nats", goals)


def _race(steps: int, block: int, seed: int) -> tuple[float, float, int, float]:
    """The loss to reach, their seconds to it, our steps and seconds to it."""
    trl, ours = (Side(name, quantization="nf4", dtype="bfloat16", words=0, seed=seed) for name in ("trl-tuned", "ours"))
    try:
        seconds = {"trl": 0.0, "ours": 0.0}
        curve: list[tuple[int, float, float]] = []  # ours: steps, seconds, loss
        for done in range(block, steps + 1, block):
            seconds["trl"] += trl.ask(f"steps {block}")["seconds"]
            seconds["ours"] += ours.ask(f"steps {block}")["seconds"]
            curve.append((done, seconds["ours"], ours.ask("heldout")["loss"]))
        goal = trl.ask("heldout")["loss"]
        while (reached := next((point for point in curve if point[2] <= goal), None)) is None:
            done = curve[-1][0] + block
            assert done <= MOST * steps, f"no held-out loss of {goal:.4f} in {done} steps; the last is {curve[-1][2]}"
            seconds["ours"] += ours.ask(f"steps {block}")["seconds"]
            curve.append((done, seconds["ours"], ours.ask("heldout")["loss"]))
    finally:
        trl.end()
        ours.end()
    return goal, seconds["trl"], reached[0], reached[1]


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_loss", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="races, each with a seed of its own")
    parser.add_argument("--steps", type=int, default=100, help="steps of TRL")
    parser.add_argument("--block", type=int, default=10, help="steps in a turn")
    run(measure, parser)


if __name__ == "__main__":
    main()
