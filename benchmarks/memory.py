"""The forecast of a run's memory over what it took: `python -m benchmarks.memory [--json]` (about ten minutes).

Every technique of the ladder, in three shapes: short rows in batches of 8 (python-docs), the same in batches of 32, and
long rows (about 500 tokens) in batches of 4. Each is a run in a worker's process, four steps with evaluations and
checkpoints; measured is the most memory that process held, above what libraries alone take in such a process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.report import Figure, run
from benchmarks.sides import lengthened
from tunelab import DataSpec, ModelSpec, Run, RunConfig, Stage, TrainConfig
from tunelab.machine import libraries
from tunelab.measure.ladder import RUNGS
from tunelab.run.events import Finished

SHAPES = ("short", "wide", "long")


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    ratios = []
    for name in options.technique or RUNGS:
        for shape in SHAPES:
            forecast, measured = _one(name, shape)
            ratios.append(forecast / measured)
            yield Figure.once(f"gigabytes:{name}:{shape}", "GB", measured / 1e9)
            yield Figure.once(f"forecast_over_measured:{name}:{shape}", "x", ratios[-1])
    yield Figure.of("forecast_over_measured", "x", ratios)


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
    training = TrainConfig(steps=4, batch_size=batch, eval_every=2, checkpoint_every=2)
    return RunConfig(
        model=ModelSpec(repo_id="starter", quantization=quantization, max_length=1024),
        technique=technique,
        stages=(Stage(data=data, training=training),),
    )


def _one(name: str, shape: str) -> tuple[int, int]:
    """Bytes forecast and measured, libraries left out."""
    with tempfile.TemporaryDirectory() as root:
        made = Run.create(config_of(name, shape), root)
        subprocess.run([sys.executable, "-m", "tunelab.worker", str(made.path)], check=True)
        progress = made.progress()
        assert progress.started is not None
        assert isinstance(progress.ending, Finished)
        libraries_bytes = progress.started.libraries_bytes
        return progress.started.forecast_bytes - libraries_bytes, progress.ending.peak_memory_bytes - libraries_bytes


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--technique", nargs="+", choices=sorted(RUNGS), help="default: all of the ladder")
    run(measure, parser)


if __name__ == "__main__":
    main()
