"""Training speed and memory against TRL, and against the machine's limit: `python -m benchmarks.train_speed [--json]`.

QLoRA r16 on all linear layers, batch 8, 1,000 rows of python-docs, on the built-in model. The sides are processes that
take turns, a block of steps each, in one run (`sides.py`). About 15 minutes. `--workload` chooses one; TRL's default
takes part in the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from benchmarks.report import Figure, run
from benchmarks.sides import Side, take_turns
from tunelab.machine import libraries

TUNED = ("ours", "trl-tuned")
# quantization, dtype, words per answer (0: as they are), steps in a turn, sides
WORKLOADS = {
    "nf4": ("nf4", "bfloat16", 0, 5, ("ours", "trl-default", "trl-tuned")),
    "bf16": ("none", "bfloat16", 0, 5, TUNED),
    "long": ("nf4", "bfloat16", 320, 2, TUNED),
    "fp32": ("none", "float32", 0, 2, TUNED),
}
BODY, HEAD, ADAPTER = 106.2e6, 28.3e6, 4.88e6  # parameters of the starter's body, tied head and r16 adapter
SCORED = 0.26  # share of scored tokens in python-docs


def flops_per_token(scored: float = SCORED) -> float:
    """What training needs at least: frozen weights need no weight gradient, so 4 N and not 6 N."""
    return 4 * BODY + 4 * HEAD * scored + 6 * ADAPTER


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    for name in options.workload or WORKLOADS:
        yield from _workload(name, options.rounds)


def _workload(name: str, rounds: int) -> Iterator[Figure]:
    quantization, dtype, words, steps, sides = WORKLOADS[name]
    label = "" if name == "nf4" else f"_{name}"
    children = [Side(side, quantization=quantization, dtype=dtype, words=words) for side in sides]
    turns = take_turns(children, steps, rounds, dtype)
    yield from (Figure.of(f"tokens_per_second{label}:{side}", "tokens/s", turns.speeds(side)) for side in sides)
    for side in sides[1:]:
        yield Figure.of(f"speed_over_{side}{label}".replace("-", "_"), "x", turns.ratios(side))
    if not words:
        for figure, counted in (("mfu", "tokens"), ("mfu_computed", "computed")):
            yield Figure.of(f"{figure}{label}", "of peak", turns.shares("ours", flops_per_token(), counted))
    yield from turns.costs(label)


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_speed", description=__doc__)
    parser.add_argument("--workload", nargs="+", choices=sorted(WORKLOADS), help="default: all, one after the other")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each side")
    run(measure, parser)


if __name__ == "__main__":
    main()
