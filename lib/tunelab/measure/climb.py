"""Climb a method ladder, or go through a sweep: train and measure its runs, one after the other, and write what came
out.

    climb() ──> a run per rung, each trained and then measured in a process of its own
                results.json  the table;  of a ladder ladder.html  the table and the chart, without a server

Rungs whose run is finished are not trained again, so what was interrupted goes on where it was; a rung that can't run
on this base is skipped with its reason.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import Timeout
from pydantic import ValidationError

from tunelab.errors import EXIT_USER_ERROR, UserError, explain
from tunelab.machine import libraries
from tunelab.machine.files import write_atomically
from tunelab.measure.ladder import PAGE_FILE, Ladder
from tunelab.measure.pages import ladder_page
from tunelab.measure.series import RESULTS_FILE, Rung, Series
from tunelab.measure.sweep import Sweep
from tunelab.run.events import Failed
from tunelab.run.process import note_exit
from tunelab.run.reports import read_report
from tunelab.run.run import Run
from tunelab.run.turn import lock_of

POLL_SECONDS = 1.5


def climb(ladder: Series[Any], should_stop: Callable[[], bool] = lambda: False) -> Iterator[Rung]:
    """Every rung as it changes, trained and measured one after the other; those that are done are left alone.

    Each is a process of its own, so that a rung's peak memory is its own: that of training, read before it is measured.
    Stops after a step when asked by `should_stop` or by `ladder.request_stop()`.

    Raises:
        UserError: another process climbs this ladder.
    """

    def stop() -> bool:
        return ladder.stop_requested or should_stop()

    with _the_only_one(ladder), ladder.beating():
        ladder.pin_data()
        for name in ladder.config.names:
            before = None
            for _look in _climb_one(ladder, name, stop):
                rung = ladder.rung(name)
                if before is None or before.status != rung.status:
                    write_results(ladder)
                if rung != before:
                    yield rung
                before = rung
            if stop():
                break
        ladder.clear_requests()
        write_results(ladder)


@contextmanager
def _the_only_one(ladder: Series[Any]) -> Iterator[None]:
    """Inside, nobody else climbs this ladder: a lock, which the operating system releases when its holder dies.

    Raises:
        UserError: somebody does.
    """
    lock = lock_of(ladder.path / "climbing.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{ladder.shown} is being climbed by another process. Wait for it, or stop it first.") from None
    try:
        yield
    finally:
        lock.release()


def write_results(ladder: Series[Any]) -> None:
    """Write the table (`results.json`) and a ladder's page (`ladder.html`) as they stand now."""
    rows = [asdict(r) | {"report": r.report.as_json() if r.report else None} for r in ladder.rungs()]
    results = {"config": ladder.config.model_dump(mode="json"), "rungs": rows}
    write_atomically(ladder.path / RESULTS_FILE, json.dumps(results, ensure_ascii=False, indent=1))
    if isinstance(ladder, Ladder):
        write_atomically(ladder.path / PAGE_FILE, ladder_page(ladder))


def _climb_one(ladder: Series[Any], name: str, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Train and measure one rung; yields when there may be something new to see. One that was skipped before is tried
    again: what was in its way may be gone."""
    run = ladder.run_of(name)
    if run is None:
        try:
            run = Run.create(ladder.config.run_config(name), ladder.root)
        except ValidationError as error:
            ladder.remember(name, skipped=str(explain(error)))
            yield
            return
    ladder.remember(name, run=run.id)
    report = ladder.report_path(name)
    if run.status != "finished" or read_report(report) is None:
        command = [sys.executable, "-m", "tunelab.worker", str(run.path), "--rows", str(ladder.config.rows)]
        command += ["--max-new-tokens", str(ladder.config.max_new_tokens)]
        command += ["--instructions", str(ladder.config.instructions)]
        command += ["--keep", str(report)]
        try:
            failure = yield from _watched(command, ladder, should_stop, run)
        finally:
            run.clear_requests()  # the last one came when it had ended
        if failure and run.status == "finished":
            ladder.remember(name, run=run.id, failed=f"it can't be measured: {failure}")
        elif failure:
            run.end_beat()  # whoever beat is gone
            ladder.remember(name, run=run.id, failed=_last_words(run) or failure)
    yield


def _last_words(run: Run) -> str | None:
    """What a run that failed said of it; None for one that could say nothing."""
    ending = run.progress().ending
    return ending.message if isinstance(ending, Failed) else None


def _watched(
    command: list[str], ladder: Series[Any], should_stop: Callable[[], bool], run: Run
) -> Generator[None, None, str | None]:
    """A look at a child process every second or two until it ends; why it failed, if it did. When it is time to stop,
    or nobody looks any more, it is asked to stop after a step, and ended while it measures. It is asked again until it
    ends: what was asked before it had started says nothing to it."""
    with (
        open(ladder.path / "log.txt", "ab") as log,
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=errors) as child,
    ):
        asked = False

        def end() -> None:
            nonlocal asked
            if run.status == "finished":
                child.terminate()
            else:
                run.request_stop()
            asked = True

        try:
            while child.poll() is None:
                yield
                time.sleep(POLL_SECONDS)
                if should_stop():
                    end()
        finally:
            while child.poll() is None:
                end()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_SECONDS)
        note_exit(run.path, child.returncode)
        errors.seek(0)
        lines = errors.read().strip().splitlines()
    if child.returncode < 0 and not asked:
        return f"its process was ended by signal {-child.returncode}; often the machine has too little memory"
    return (lines[-1] if lines else "no message") if child.returncode > 0 and not asked else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Climb a ladder, or go through a sweep, that was made before, as the app does it in a process of its own; the exit
    code."""
    parser = argparse.ArgumentParser(prog="python -m tunelab.measure.climb")
    parser.add_argument("ladder", type=Path)
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args(arguments)
    libraries.prepare()
    path = options.ladder.resolve()
    kind: type[Series[Any]] = Sweep if (path / Sweep.FILE).is_file() else Ladder
    ladder = kind(path, options.runs)
    try:
        for _rung in climb(ladder):
            pass
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
