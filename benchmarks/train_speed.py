"""Training speed and memory against TRL, and against the machine's limit: `python -m benchmarks.train_speed [--json]`.

QLoRA r16 on all linear layers, batch 8, 1,000 rows of python-docs, on the built-in model. The sides are processes that
take turns, a block of steps each, in one run (`sides.py`). About 15 minutes. `--workload` chooses one; TRL's default
takes part in the first.

`--device cuda` compares on a GPU: on random weights of published shapes (`--shape`), with TRL's default and with TRL
tuned (packing; Liger's kernels where they are installed), in tokens per second and memory of the GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import trl_side
from benchmarks.report import Figure, needs_gpu, run
from benchmarks.shapes import GPU_SHAPES, SCORED, SHAPES, save
from benchmarks.sides import Side, take_turns
from tunelab.machine import libraries

TUNED = ("ours", "trl-tuned")
GPU_SIDES = ("ours", "trl-default", "trl-tuned")
# quantization, dtype, words per answer (0: as they are), steps in a turn, sides
WORKLOADS = {
    "nf4": ("nf4", "bfloat16", 0, 5, ("ours", "trl-default", "trl-tuned")),
    "bf16": ("none", "bfloat16", 0, 5, TUNED),
    "long": ("nf4", "bfloat16", 320, 2, TUNED),
    "fp32": ("none", "float32", 0, 2, TUNED),
}
BODY, HEAD, ADAPTER = 106.2e6, 28.3e6, 4.88e6  # parameters of the starter's body, tied head and r16 adapter
# on a GPU, steps in a turn, about as long for each side; and before, where ours records what it replays later
GPU_STEPS = {"ours": 40, "trl-default": 8, "trl-tuned": 16}
GPU_FIRST = {"ours": 125, "trl-default": 2, "trl-tuned": 4}  # 125 are an epoch


def flops_per_token(scored: float = SCORED) -> float:
    """What training needs at least: frozen weights need no weight gradient, so 4 N and not 6 N."""
    return 4 * BODY + 4 * HEAD * scored + 6 * ADAPTER


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    if options.device == "cuda":
        needs_gpu("--device cuda compares on one. Leave it out to compare on the CPU")
        yield from _on_gpu(options)
        return
    if options.shape:
        sys.exit("--shape is for --device cuda. On the CPU `python -m benchmarks.families --shape …` compares shapes.")
    for name in options.workload or WORKLOADS:
        yield from _workload(name, options.rounds)


def _on_gpu(options: argparse.Namespace) -> Iterator[Figure]:
    for module, package in trl_side.EXTRAS.items():
        there = trl_side.installed(module)
        yield Figure.once(f"trl_tuned_with:{package}", "yes or no", float(there))
        if not there:
            print(f"{package} is not installed, so trl-tuned runs without it: pip install {package}", file=sys.stderr)
    sides = [side for side in GPU_SIDES if side != "trl-default" or not options.without_default]
    for shape in options.shape or GPU_SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            save(SHAPES[shape], Path(folder), "cuda")
            for name in options.workload or ["nf4"]:
                yield from _on_shape(shape, folder, name, options.rounds, sides)


def _on_shape(shape: str, folder: str, name: str, rounds: int, sides: Sequence[str]) -> Iterator[Figure]:
    quantization, dtype, words, _steps, _sides = WORKLOADS[name]
    dtype = of_card(dtype)
    label = f":{shape}" if name == "nf4" else f"_{name}:{shape}"
    given: dict[str, Any] = {
        "model": folder,
        "quantization": quantization,
        "dtype": dtype,
        "device": "cuda",
        "words": words,
    }
    turns = take_turns([Side(side, **given) for side in sides], GPU_STEPS, rounds, dtype, GPU_FIRST)
    yield from (Figure.of(f"tokens_per_second{label}:{side}", "tokens/s", turns.speeds(side)) for side in sides)
    first = turns.first["ours"]
    yield Figure.once(f"tokens_per_second{label}:ours, first epoch", "tokens/s", first["tokens"] / first["seconds"])
    for side in sides[1:]:
        yield Figure.of(f"speed_over_{side}{label}".replace("trl-", "trl_"), "x", turns.ratios(side))
    yield from turns.costs(label, "gpu_gigabytes")


def of_card(dtype: str) -> str:
    """The half precision that the card has instructions for, where half precision is asked for."""
    from tunelab import ModelSpec
    from tunelab.model.load import choose_device, choose_dtype

    if dtype == "float32":
        return dtype
    spec = ModelSpec(repo_id="starter", device="cuda")
    return str(choose_dtype(spec, choose_device(spec))).removeprefix("torch.")


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
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--shape", nargs="+", choices=sorted(SHAPES), help=f"on a GPU; default: {', '.join(GPU_SHAPES)}"
    )
    parser.add_argument("--rounds", type=int, default=6, help="turns of each side")
    parser.add_argument("--without-default", action="store_true", help="on a GPU: TRL's default does not take part")
    run(measure, parser)


if __name__ == "__main__":
    main()
