"""The forecast of a run's memory and time over what it took: `python -m benchmarks.memory [--json]` (a quarter of an
hour).

Every technique of the ladder, in three shapes: short rows in batches of 8 (python-docs), the same in batches of 32, and
long rows (about 500 tokens) in batches of 4. Each is a run in a worker's process, six steps with evaluations and
checkpoints. Measured is the most memory that process held, above what libraries alone take in such a process; the time
of a step, the first one left out; and the time from the process's start to its end. Times mean something only on a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.report import Figure, run
from benchmarks.sides import lengthened
from tunelab import DataSpec, ModelSpec, Run, RunConfig, Stage, TrainConfig
from tunelab.machine import libraries
from tunelab.measure.ladder import RUNGS
from tunelab.run.events import Finished
from tunelab.train.memory import read_and_forecast

SHAPES = ("short", "wide", "long")


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    memory, step, total = [], [], []
    for name in options.technique or RUNGS:
        for shape in options.shape or SHAPES:
            one = _one(name, shape)
            memory.append(one.forecast_bytes / one.bytes)
            step.append(one.forecast_step / one.step)
            total.append(one.forecast_total / one.total)
            yield Figure.once(f"gigabytes:{name}:{shape}", "GB", one.bytes / 1e9)
            yield Figure.once(f"forecast_over_measured:{name}:{shape}", "x", memory[-1])
            yield Figure.once(f"seconds_per_step:{name}:{shape}", "s", one.step)
            yield Figure.once(f"seconds_over_measured:{name}:{shape}", "x", step[-1])
            yield Figure.once(f"total_over_measured:{name}:{shape}", "x", total[-1])
    yield Figure.of("forecast_over_measured", "x", memory)
    yield Figure.of("seconds_over_measured", "x", step)
    yield Figure.of("total_over_measured", "x", total)


def config_of(name: str, shape: str) -> RunConfig:
    """The run of a technique in one of the shapes."""
    technique, quantization = RUNGS[name]
    if shape == "long":
        train, held = lengthened(words=330, count=24)
        rows = [({"prompt": e.asked[-1].content, "completion": e.answer}) for e in (*train, *held)]
        data = DataSpec(rows=tuple(rows), heldout=8)
    else:
        data = DataSpec(source="python-docs", heldout=32)
    batch = {"short": 8, "wide": 32, "long": 4}[shape]
    training = TrainConfig(steps=6, batch_size=batch, eval_every=3, checkpoint_every=3)
    return RunConfig(
        model=ModelSpec(repo_id="starter", quantization=quantization, max_length=1024),
        technique=technique,
        stages=(Stage(data=data, training=training),),
    )


@dataclass(frozen=True)
class _Measured:
    """What a run was forecast to take and what it took: bytes without the libraries, seconds."""

    forecast_bytes: int
    bytes: int
    forecast_step: float
    step: float
    forecast_total: float
    total: float


def _one(name: str, shape: str) -> _Measured:
    config = config_of(name, shape)
    with tempfile.TemporaryDirectory() as root:
        made = Run.create(config, root)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tunelab.worker", str(made.path)], check=True)
        total = time.perf_counter() - began
        progress = made.progress()
    assert progress.started is not None
    assert isinstance(progress.ending, Finished)
    started, (_first, *steps) = progress.started, progress.steps
    # the batches of the steps left out and counted may differ in size
    seconds = sum(s.seconds for s in steps) / sum(s.tokens for s in steps)
    tokens = sum(s.tokens for s in progress.steps) / len(progress.steps)
    return _Measured(
        started.forecast_bytes - started.libraries_bytes,
        progress.ending.peak_memory_bytes - started.libraries_bytes,
        read_and_forecast(config).seconds_per_step,  # the worker's measurement is on disk
        seconds * tokens,
        started.forecast_seconds,
        total,
    )


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, help="default: all of them")
    parser.add_argument("--technique", nargs="+", choices=sorted(RUNGS), help="default: all of the ladder")
    run(measure, parser)


if __name__ == "__main__":
    main()
