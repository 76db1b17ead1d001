"""What each switch of the fast path buys and costs: `python -m benchmarks.switches [--json]` (about four minutes).

QLoRA r16 on the built-in model, batch 8, 80 rows of python-docs, so that rows come back every ten steps. Each side is
ours with one setting changed; the sides take turns, and each is compared with the defaults in the same turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from benchmarks.report import Figure, run
from benchmarks.sides import Side
from tunelab.machine import libraries

ROWS = 80
UPPER = {"technique": {"layers": list(range(15, 30))}}
SWITCHES: dict[str, dict[str, dict[str, Any]]] = {
    "plain_path": {"training": {"fast": False}},
    "no_length_buckets": {"training": {"length_buckets": False}},
    "weights_kept_in_4_bits": {"model": {"keep_dequantized": False}},
    "upper_half": UPPER,
    "upper_half_without_cache": UPPER | {"training": {"cache_frozen": False}},
}


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    sides = {"default": Side("ours", rows=ROWS)}
    sides |= {name: Side("ours", rows=ROWS, settings=settings) for name, settings in SWITCHES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    try:
        for side in sides.values():
            side.ask(f"steps {ROWS // 8}")  # every row once
        for _ in range(options.rounds):
            for name, side in sides.items():
                seconds[name].append(side.ask(f"steps {ROWS // 8}")["seconds"])
        memory = {name: side.ask("memory") for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.end()
    above = {name: held["peak"] - held["floor"] for name, held in memory.items()}
    for name in SWITCHES:
        ratios = [a / b for a, b in zip(seconds[name], seconds["default"], strict=True)]
        yield Figure.of(f"time_over_default:{name}", "x", ratios)
        yield Figure.once(f"memory_over_default:{name}", "x", above[name] / above["default"])
    yield Figure.of("seconds_per_step:default", "s", [s / (ROWS // 8) for s in seconds["default"]])
    yield Figure.once("gigabytes_above_floor:default", "GB", above["default"] / 1e9)


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switches", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    run(measure, parser)


if __name__ == "__main__":
    main()
