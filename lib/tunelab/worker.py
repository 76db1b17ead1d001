"""A run's own process: `python -m tunelab.worker RUN_DIR` trains or resumes the run and then ends.

The app starts it and may go away: everything it does stands in the run's directory. A ladder has what was trained
measured there as well, with what follows the directory (`python -m tunelab.measure.evaluation --help`); a run that is
finished already is only measured.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from tunelab.chain import train_run
from tunelab.errors import EXIT_FAILED, EXIT_USER_ERROR, explain
from tunelab.machine import libraries
from tunelab.run.run import Run
from tunelab.run.turn import lock_of

LOCK_FILE = "worker.lock"


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 finished or stopped as asked, 2 the user can act on the failure, 1 anything else."""
    directory, *measuring = arguments
    run = Run(Path(directory).resolve())
    with _alone(run) as is_alone:
        return _carry_out(run, measuring) if is_alone else 0


@contextmanager
def _alone(run: Run) -> Iterator[bool]:
    """Whether no other worker is at this run: an app that starts while one begins does not see it yet, and two would
    take each other's requests away."""
    if not run.path.is_dir():  # it will be said
        yield True
        return
    lock = lock_of(run.path / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _carry_out(run: Run, measuring: Sequence[str]) -> int:
    libraries.prepare()
    try:
        if not measuring or run.status != "finished":
            for _event in train_run(run):
                pass
    except Exception as error:
        known = explain(error)
        print(known or f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR if known else EXIT_FAILED
    if measuring and run.status == "finished":
        from tunelab.measure import evaluation

        gc.collect()  # of the model that was trained
        return evaluation.main([str(run.path), *measuring])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
