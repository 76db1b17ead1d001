"""How long runs that wait for their turn will take: by their own steps, by what was forecast, or by a run like them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

from tunelab.machine.files import write_atomically
from tunelab.run.events import Finished, Resumed
from tunelab.run.run import Run
from tunelab.run.settings import config_diff

EXPECTED_FILE = "expected_seconds"
# settings that change what is learned, and not how long a step takes
AS_LONG = {"name", "steps", "seed", "split_seed", "learning_rate", "warmup_steps", "schedule", "weight_decay"}


def expect(run: Run, seconds: float) -> None:
    """Note how long a run was forecast to take, before it starts and can tell itself."""
    write_atomically(run.path / EXPECTED_FILE, f"{seconds:.1f}")


def seconds_left(run: Run, others: Sequence[Run] = ()) -> float | None:
    """Seconds that a run needs to its end, once its turn has come or from now on where it trains; None: not known.
    `others`: runs to find a finished one like it among."""
    progress = run.progress()
    if progress.seconds_left is not None:
        return progress.seconds_left
    started, steps = progress.started, progress.steps
    if steps and started:  # it goes on where it stopped
        last = steps[-10:]
        return (started.steps_total - progress.step) * sum(one.seconds for one in last) / len(last)
    if started and started.forecast_seconds:
        return started.forecast_seconds
    noted = _noted(run)
    return _by_example(run, others) if noted is None else noted


def _noted(run: Run) -> float | None:
    with suppress(OSError, ValueError):
        seconds = float((run.path / EXPECTED_FILE).read_text(encoding="utf-8"))
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    return None


def _by_example(run: Run, others: Sequence[Run]) -> float | None:
    """By the newest finished run that differs in nothing that makes a step longer."""
    for other in others:
        if other.id == run.id or other.status != "finished" or not run.readable or other.imported_from:
            continue
        if seconds := _as_long_as(run, other):
            return seconds
    return None


def _as_long_as(run: Run, other: Run) -> float | None:
    """What a run will take if each of its steps takes as long as those of another one; None where these differ."""
    steps, ending = other.progress().steps, other.progress().ending
    if len(steps) < 2 or not isinstance(ending, Finished) or any(isinstance(one, Resumed) for one in other.events()):
        return None
    if not {one.field.rpartition(": ")[2] for one in config_diff(run.config, other.config)} <= AS_LONG:
        return None
    training = steps[-1].time_unix_seconds - steps[0].time_unix_seconds
    more = sum(stage.training.steps for stage in run.config.stages) / (len(steps) - 1)
    return max(0.0, ending.seconds - training) + training * more
