"""Eight adapters on one base against eight processes: `python -m benchmarks.many_adapters [--json]`, two minutes.

The same prompt, 64 new tokens, greedy, answered by eight LoRA r16 adapters. One process holds the base once and answers
by all eight in one batch. Eight processes hold a base and an adapter each and answer at the same time, with one thread
each where there are fewer cores than processes. Memory is what a process holds at most, above what it held after its
imports, added up over the processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.report import Figure, run
from tunelab.machine import hardware, libraries

ADAPTERS, TOKENS = 8, 64
PROMPT = "What does `os.path.join` do?"


class Answering:
    """A process that answers with some of the adapters each time it is told to."""

    def __init__(self, adapters: list[int], threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.many_adapters", "--child", *map(str, adapters)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("answer\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, int]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    cores = hardware.physical_cores()
    one = [Answering(list(range(ADAPTERS)), cores)]
    eight = [Answering([adapter], max(1, cores // ADAPTERS)) for adapter in range(ADAPTERS)]
    seconds: dict[str, list[float]] = {"one": [], "eight": []}
    memory: dict[str, int] = {}
    try:
        for process in one + eight:
            process.hear()  # it is ready
        for turn in range(options.rounds + 1):
            for name, processes in (("one", one), ("eight", eight)):
                started = time.perf_counter()
                for process in processes:
                    process.tell()
                held = [process.hear() for process in processes]
                if turn:  # the first one makes what later ones reuse
                    seconds[name].append(time.perf_counter() - started)
                memory[name] = sum(h["peak"] - h["floor"] for h in held)
    finally:
        for process in one + eight:
            process.process.kill()
            process.process.wait()
    ratios = [a / b for a, b in zip(seconds["one"], seconds["eight"], strict=True)]
    yield Figure.of("time_over_processes", "x", ratios)
    yield Figure.once("memory_over_processes", "x", memory["one"] / memory["eight"])
    for name in seconds:
        yield Figure.of(f"seconds:{name}", "s", seconds[name])
        yield Figure.once(f"gigabytes_above_floor:{name}", "GB", memory[name] / 1e9)


def child(adapters: list[int], threads: int) -> None:
    """Answer once per line of stdin, and say what it cost."""
    import torch

    from benchmarks.generation import random_factors
    from tunelab import ModelSpec, load
    from tunelab.answer.generation import decode
    from tunelab.data import Message, encode_prompt
    from tunelab.fast.decode import FastDecoder
    from tunelab.fast.llama import FastLlama

    floor = hardware.resident_bytes()
    base = load(ModelSpec(repo_id="starter"))
    torch.set_num_threads(threads)
    factors = [random_factors(base, seed) for seed in adapters]
    llama = FastLlama(base.model, packed=True)
    ids = encode_prompt([Message("user", PROMPT)], base.tokenizer)
    print("{}", flush=True)
    for _line in sys.stdin:
        decoder = FastDecoder(llama, factors, len(ids) + TOKENS)
        steps = list(decode([decoder], [ids], end_ids=frozenset(), max_new_tokens=TOKENS))
        assert len(steps) == TOKENS
        assert len(steps[0]) == len(adapters)
        print(json.dumps({"floor": floor, "peak": hardware.peak_memory_bytes()}), flush=True)


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_adapters", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--child", type=int, nargs="+", metavar="SEED", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options, _others = parser.parse_known_args()
    if options.child:
        child(options.child, options.threads)
    else:
        run(measure, parser)


if __name__ == "__main__":
    main()
