"""What each switch of the fast path buys and costs, and what it buys each technique: `python -m benchmarks.switches
[--json]` (about fifteen minutes).

On the built-in model, batch 8, 80 rows of python-docs, so that rows come back every ten steps. Of the switches each
side is ours with QLoRA r16 and one setting changed; the sides take turns, and each is compared with the defaults in the
same turn. Of the techniques the two sides are its fast path and its plain one, with the technique's defaults, on NF4
where it can be trained there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from benchmarks.report import Figure, run
from benchmarks.sides import Side
from tunelab.machine import libraries

ROWS = 80
Settings = dict[str, dict[str, Any]]
UPPER = {"technique": {"layers": list(range(15, 30))}}
PLAIN = {"training": {"fast": False}}
SWITCHES: dict[str, Settings] = {
    "plain_path": PLAIN,
    "no_length_buckets": {"training": {"length_buckets": False}},
    "weights_kept_in_4_bits": {"model": {"keep_dequantized": False}},
    "upper_half": UPPER,
    "upper_half_without_cache": UPPER | {"training": {"cache_frozen": False}},
}
TECHNIQUES: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "full": {"kind": "full"},
    "ia3": {"kind": "ia3"},
    "prefix": {"kind": "prefix"},
    "prompt": {"kind": "prompt"},
    "bottleneck": {"kind": "bottleneck"},
}


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    if "switches" in options.only:
        yield from _switches(options.rounds)
    for name in TECHNIQUES:
        if name in options.only:
            yield from _technique(name, options.rounds)


def _switches(rounds: int) -> Iterator[Figure]:
    sides = {"default": Side("ours", rows=ROWS)}
    sides |= {name: Side("ours", rows=ROWS, settings=settings) for name, settings in SWITCHES.items()}
    seconds, above = _turns(sides, rounds)
    for name in SWITCHES:
        yield Figure.of(f"time_over_default:{name}", "x", _ratios(seconds[name], seconds["default"]))
        yield Figure.once(f"memory_over_default:{name}", "x", above[name] / above["default"])
    yield Figure.of("seconds_per_step:default", "s", [s / (ROWS // 8) for s in seconds["default"]])
    yield Figure.once("gigabytes_above_floor:default", "GB", above["default"] / 1e9)


def _technique(name: str, rounds: int) -> Iterator[Figure]:
    """Time and memory of a technique's fast path over those of its plain one."""
    technique = TECHNIQUES[name]
    quantization = "none" if technique.get("kind") == "full" else "nf4"
    settings: Settings = {"technique": technique}
    sides = {
        "fast": Side("ours", rows=ROWS, quantization=quantization, settings=settings),
        "plain": Side("ours", rows=ROWS, quantization=quantization, settings=settings | PLAIN),
    }
    seconds, above = _turns(sides, rounds)
    yield Figure.of(f"time_over_plain:{name}", "x", _ratios(seconds["fast"], seconds["plain"]))
    yield Figure.once(f"memory_over_plain:{name}", "x", above["fast"] / above["plain"])
    yield Figure.of(f"seconds_per_step:{name}", "s", [s / (ROWS // 8) for s in seconds["fast"]])
    yield Figure.once(f"gigabytes_above_floor:{name}", "GB", above["fast"] / 1e9)


def _turns(sides: dict[str, Side], rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each turn of each side, and its memory above the imports; the sides are ended then."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    try:
        for side in sides.values():
            side.ask(f"steps {ROWS // 8}")  # every row once
        for _ in range(rounds):
            for name, side in sides.items():
                seconds[name].append(side.ask(f"steps {ROWS // 8}")["seconds"])
        memory = {name: side.ask("memory") for name, side in sides.items()}
    finally:
        for side in sides.values():
            side.end()
    return seconds, {name: held["peak"] - held["floor"] for name, held in memory.items()}


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def main() -> None:
    libraries.prepare()
    every = ["switches", *TECHNIQUES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switches", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--only", nargs="+", choices=every, default=every, help="the switches, or some techniques")
    run(measure, parser)


if __name__ == "__main__":
    main()
