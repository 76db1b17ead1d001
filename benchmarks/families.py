"""Training speed and memory against TRL on models of other families: `python -m benchmarks.families [--json]`.

As `train_speed`: QLoRA r16 on all linear layers, batch 8, rows of python-docs, sides that take turns, each a process.
Ours stands there twice: with the defaults, which unpack NF4 weights where there is room, and with weights that stay
packed.
Speed does not depend on what the weights are, so they are random, in the shapes of published models and with the
built-in model's tokenizer: the head is as wide as theirs, and only words of that tokenizer occur. About 40 minutes;
`--shape` chooses.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Figure, run
from benchmarks.shapes import CPU_SHAPES, SHAPES, save
from benchmarks.sides import Side, take_turns
from tunelab.machine import libraries

PACKED = "ours, packed"
SIDES = ("trl-tuned", "ours", PACKED)


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    for name in options.shape or CPU_SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            flops = save(SHAPES[name], Path(folder))
            yield from _compared(name, folder, flops, options.rounds)


def _compared(name: str, folder: str, flops: float, rounds: int) -> Iterator[Figure]:
    packed = Side("ours", model=folder, settings={"model": {"keep_dequantized": False}}, called=PACKED)
    sides = [*(Side(side, model=folder) for side in SIDES[:2]), packed]
    turns = take_turns(sides, SHAPES[name].steps, rounds, "bfloat16")
    for side in SIDES:
        yield Figure.of(f"share_of_limit:{name}:{side}", "of peak", turns.shares(side, flops))
    yield from (Figure.of(f"tokens_per_second:{name}:{side}", "tokens/s", turns.speeds(side)) for side in SIDES)
    for side in SIDES[1:]:
        label = f"speed_over_trl_tuned:{name}{side.removeprefix('ours')}"
        yield Figure.of(label, "x", turns.ratios("trl-tuned", side))
    yield from turns.costs(f":{name}")


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--shape", nargs="+", choices=CPU_SHAPES, help="default: all, one after the other")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side")
    run(measure, parser)


if __name__ == "__main__":
    main()
