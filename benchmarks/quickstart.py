"""The first ten minutes of a new user, measured: `python -m benchmarks.quickstart [--json]` (about six minutes).

The quick adapter is trained exactly as the app's button does it: a run is queued, a worker process trains it. Its
answers to 200 held-out rows are compared with the base's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Figure, run
from benchmarks.startup import app_ready_seconds, import_seconds
from tunelab.machine import libraries

libraries.prepare()

from playground.jobs import Jobs  # noqa: E402
from playground.owners import Caller  # noqa: E402
from playground.rooms.train import quick_config  # noqa: E402
from tunelab import Comparer, Run, read_data  # noqa: E402
from tunelab.run.events import Finished  # noqa: E402

HELDOUT = 200
LONGEST_ANSWER = 64


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    yield Figure.of("import_seconds", "s", [import_seconds() for _ in range(5)])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        yield Figure.of("app_ready_seconds", "s", [app_ready_seconds() for _ in range(3)])
        run, seconds = _quick_adapter(root / "runs")
        ending = run.progress().ending
        assert isinstance(ending, Finished)
        yield Figure.once("quick_adapter_seconds", "s", seconds)
        yield Figure.once("first_step_seconds", "s", _first_step_seconds(run))
        yield Figure.once("worker_peak_gigabytes", "GB", ending.peak_memory_bytes / 1e9)
        yield from _quality(run)


def _quick_adapter(root: Path) -> tuple[Run, float]:
    """The run, and the seconds from pressing the button to the saved adapter."""
    jobs = Jobs(root)
    started = time.perf_counter()
    run = jobs.start(quick_config(), Caller.server())
    while run.status in ("running", "queued"):
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    assert run.status == "finished", run.progress().message
    return run, seconds


def _first_step_seconds(run: Run) -> float:
    """From the start of the worker's process to its first finished step."""
    queued = (run.path / "config.json").stat().st_mtime
    return run.progress().steps[0].time_unix_seconds - queued


def _quality(run: Run) -> Iterator[Figure]:
    """Loss of the completions and chrF of the answers, tuned against base, over the held-out rows."""
    from tunelab.measure.evaluation import heldout_losses
    from tunelab.measure.metrics import ChrF
    from tunelab.measure.statistics import bootstrap_ratio, paired_bootstrap

    stage = run.config.stages[0]
    rows = read_data(stage.data, stage.learn).heldout[:HELDOUT]
    losses = heldout_losses(run, rows)
    ratio = bootstrap_ratio([row.tuned for row in losses], [row.base for row in losses])
    yield Figure("heldout_loss_ratio", ratio.value, "tuned/base", ratio.low, ratio.high, ratio.n)
    with Comparer(run.root) as comparer:
        answers = comparer.answers([run], [row.asked for row in rows], max_new_tokens=LONGEST_ANSWER)
    references = [row.answer for row in rows]
    base, tuned = (ChrF().rows([a[column] for a in answers], references) for column in (0, 1))
    gain = paired_bootstrap(base, tuned)
    yield Figure("chrf_gain", gain.value, "points", gain.low, gain.high, gain.n)


if __name__ == "__main__":
    run(measure, argparse.ArgumentParser(prog="python -m benchmarks.quickstart", description=__doc__))
