"""Training speed and memory against TRL, and against the machine's limit: `python -m benchmarks.train_speed [--json]`.

QLoRA r16 on all linear layers, batch 8, 1,000 rows of python-docs, on the built-in model. The sides are processes that
take turns, a block of steps each, in one run (`sides.py`). About 15 minutes. `--workload` chooses one; TRL's default
takes part in the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from benchmarks.report import Figure, run
from benchmarks.sides import Side
from tunelab.machine import hardware, libraries

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
    import torch

    quantization, dtype, words, steps, sides = WORKLOADS[name]
    label = "" if name == "nf4" else f"_{name}"
    children = {side: Side(side, quantization=quantization, dtype=dtype, words=words) for side in sides}
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    computed: list[float] = []  # positions per second that ours really computed
    peaks: list[float] = []
    try:
        for child in children.values():
            child.ask("steps 1")  # the first step makes what later ones reuse
        for _ in range(rounds):
            for side, child in children.items():
                block = child.ask(f"steps {steps}")
                speeds[side].append(block["tokens"] / block["seconds"])
                if side == "ours":
                    computed.append(block["computed"] / block["seconds"])
            peaks.append(hardware.gemm_gflops(getattr(torch, dtype), budget_seconds=0.3) * 1e9)
        memory = {side: child.ask("memory") for side, child in children.items()}
        losses = {side: child.ask("heldout")["loss"] for side, child in children.items()}
    finally:
        for child in children.values():
            child.end()
    yield from (Figure.of(f"tokens_per_second{label}:{side}", "tokens/s", speeds[side]) for side in sides)
    for side in sides[1:]:
        ratios = [a / b for a, b in zip(speeds["ours"], speeds[side], strict=True)]
        yield Figure.of(f"speed_over_{side}{label}".replace("-", "_"), "x", ratios)
    if not words:
        for figure, rates in (("mfu", speeds["ours"]), ("mfu_computed", computed)):
            shares = [rate * flops_per_token() / peak for rate, peak in zip(rates, peaks, strict=True)]
            yield Figure.of(f"{figure}{label}", "of peak", shares)
    above = {side: (memory[side]["peak"] - memory[side]["floor"]) / 1e9 for side in sides}
    yield from (Figure.once(f"gigabytes_above_floor{label}:{side}", "GB", above[side]) for side in sides)
    yield Figure.once(f"memory_over_trl_tuned{label}", "x", above["ours"] / above["trl-tuned"])
    yield from (Figure.once(f"heldout_loss{label}:{side}", "nats", losses[side]) for side in sides)


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_speed", description=__doc__)
    parser.add_argument("--workload", nargs="+", choices=sorted(WORKLOADS), help="default: all, one after the other")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each side")
    run(measure, parser)


if __name__ == "__main__":
    main()
