"""Runs as processes: start, queue, stop, resume. Knows nothing of the page.

A run asks to be trained by its `queued` file; one thread starts a worker for the oldest such run whenever none trains.
So a training outlives the page, the app and this thread, and an app that starts finds what is still queued.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playground.owners import Caller
from tunelab import Ladder, LadderConfig, Run, RunConfig, list_runs
from tunelab.chain import check_lineage
from tunelab.errors import UserError
from tunelab.measure.measurement import Measurement
from tunelab.measure.series import RESULTS_FILE, Series
from tunelab.measure.settings import Measuring
from tunelab.measure.sweep import Sweep, SweepConfig, list_sweeps
from tunelab.run.reports import REPORT_FILE
from tunelab.run.run import runs_root

POLL_SECONDS = 0.5
WORKER = (sys.executable, "-m", "tunelab.worker")
CLIMBER = (sys.executable, "-m", "tunelab.measure.climb")
MEASURER = (sys.executable, "-m", "tunelab.measure.measurement")
SEEDS = 3


class Jobs:
    """The queue of one runs root."""

    def __init__(
        self,
        root: Path | None = None,
        worker: Sequence[str] = WORKER,
        climber: Sequence[str] = CLIMBER,
        measurer: Sequence[str] = MEASURER,
    ) -> None:
        self.root = runs_root(root)
        self.worker, self.climber, self.measurer = tuple(worker), tuple(climber), tuple(measurer)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def watch(self) -> None:
        """Start queued runs from now on, in a thread of its own."""
        threading.Thread(target=self._watch, daemon=True, name="queue").start()

    def end(self) -> None:
        """Stop starting runs; the one that trains goes on."""
        self._ended.set()

    def start(self, config: RunConfig, caller: Caller | None = None) -> Run:
        """A new run of `config`, training now or when its turn comes.

        Raises:
            UserError: the run it is to start from does not fit.
        """
        if config.start_from:
            check_lineage(config, Run.open(config.start_from, self.root))
        run = Run.create(config, self.root)
        run.queue()
        self.start_next()
        return run

    def resume(self, run: Run, caller: Caller | None = None) -> None:
        """Go on with a run that was stopped, failed or got lost.

        Raises:
            UserError: the run is none of these.
        """
        if not run.can_resume:
            raise UserError(f"Run {run.name} can't be resumed: it is {run.status}.")
        run.queue()
        self.start_next()

    def stop(self, run: Run, caller: Caller | None = None) -> None:
        """Ask the run to stop after its step, or take it out of the queue."""
        if run.status not in ("running", "queued"):
            raise UserError(f"Run {run.name} is not training: it is {run.status}.")
        run.request_stop()

    def roll_back(self, run: Run, stage: int, caller: Caller | None = None) -> None:
        """Make the end of another stage the run's result."""
        run.roll_back(stage)

    def queued(self) -> list[Run]:
        """Runs that wait, the next one first."""
        waiting = [run for run in list_runs(self.root) if (run.path / "queued").exists() and not run.is_alive]
        return sorted(waiting, key=lambda run: (run.path / "queued").stat().st_mtime_ns)

    def place(self, run: Run) -> int | None:
        """1 for the run that is next; None for one that does not wait."""
        ids = [waiting.id for waiting in self.queued()]
        return ids.index(run.id) + 1 if run.id in ids else None

    def find(self, run_id: str | None) -> Run | None:
        """The run of that id, if it is still there."""
        run = Run(self.root / run_id) if run_id else None
        return run if run and run.path.is_dir() else None

    def state(self, run_id: str | None) -> list[Any]:
        """What a page that shows this run depends on, cheap to read: as long as it is the same, nothing has changed."""
        run = self.find(run_id)
        logs = [[one.id, _size(one.events_path)] for one in list_runs(self.root)]
        alive = run is not None and run.is_alive
        own = [run_id, _size(run.events_path) if run else 0, alive, self.measured(run)]
        return [*own, logs, [one.id for one in self.queued()], self._climbed()]

    def moment(self) -> list[Any]:
        """What pages follow at once: which runs there are and how they stand, without how far they are."""
        runs = [[run.id, run.status, run.has_adapter, *self.measured(run)[1:]] for run in list_runs(self.root)]
        return [runs, [[one.path.name, one.is_alive, _size(one.path / RESULTS_FILE)] for one in self._climbs()]]

    def start_next(self) -> None:
        """Start a worker for the oldest queued run, unless one trains."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            if any(run.is_alive for run in list_runs(self.root)):
                return
            waiting = self.queued()
            if waiting:
                run = waiting[0]
                self._process = self._spawn([*self.worker, str(run.path)], run.path / "worker.log")

    def measure(
        self, run: Run, settings: Measuring, against: Sequence[Run] = (), caller: Caller | None = None
    ) -> Measurement:
        """The run's measurement, in a process of its own that waits while another run trains or is measured.

        Raises:
            UserError: a setting is out of its range, there is nothing to measure, or it is being measured.
        """
        measurement = Measurement(run)
        measurement.ask(settings, against)
        self._spawn([*self.measurer, str(run.path)], measurement.path / "log.txt")
        return measurement

    def measure_on(self, run: Run, caller: Caller | None = None) -> None:
        """Go on with a measurement that was stopped, failed or got lost.

        Raises:
            UserError: it is being measured, or nobody has asked for it.
        """
        measurement = Measurement(run)
        measurement.again()
        self._spawn([*self.measurer, str(run.path)], measurement.path / "log.txt")

    def stop_measuring(self, run: Run, caller: Caller | None = None) -> None:
        """Ask for the end of a measurement; what was answered is kept."""
        Measurement(run).request_stop()

    def measured(self, run: Run | None) -> list[Any]:
        """What is shown of a run's measurement depends on this, cheap to read: how far it is, its state, its report."""
        if run is None:
            return [None, None, 0]
        standing = Measurement(run).standing()
        far = [standing.message, standing.share] if standing else None
        report = run.path / REPORT_FILE
        return [far, standing.state if standing else None, report.stat().st_mtime_ns if report.exists() else 0]

    def start_ladder(self, config: LadderConfig, caller: Caller | None = None) -> Ladder:
        """A new ladder, climbed by a process of its own."""
        ladder = Ladder.create(config, root=self.root)
        self.climb(ladder)
        return ladder

    def start_sweep(self, run: Run, caller: Caller | None = None, **measured: int) -> Sweep:
        """The run with other seeds, trained and measured by a process of its own; the run itself is the first.
        `measured`: how, as the fields of a series are named (`rows`, `max_new_tokens`).

        Raises:
            UserError: it has not finished, or can't be trained again.
        """
        if run.status != "finished" or run.imported_from:
            raise UserError(f"{run.name} can't be trained with other seeds: it is {run.status} or was made elsewhere.")
        own = run.config.stages[-1].training.seed
        config = SweepConfig(run=run.config, seeds=tuple(own + more for more in range(SEEDS)), **measured)
        sweep = Sweep.create(config, root=self.root)
        if all(stage.training.seed == own for stage in run.config.stages):
            sweep.remember(config.names[0], run=run.id)
        self.climb(sweep)
        return sweep

    def sweep_of(self, run: Run) -> Sweep | None:
        """The newest sweep that the run is a part of."""
        return next((one for one in list_sweeps(self.root) if _belongs(run, one)), None)

    def series(self, identity: str | None) -> Series[Any] | None:
        """The ladder or sweep of that id, if it is still there."""
        return next((one for one in self._series() if one.id == identity), None)

    def _series(self) -> list[Series[Any]]:
        return [*Ladder.every(self.root), *Sweep.every(self.root)]

    def _climbed(self) -> list[Any]:
        """What is shown of ladders and sweeps depends on this."""
        return [one.signature() if one.is_alive else one.path.name for one in self._climbs()]

    def _climbs(self) -> list[Series[Any]]:
        """As `_series`, also those that can't be read: pages ask often, and no configuration is read for it."""
        kinds: tuple[type[Series[Any]], ...] = (Ladder, Sweep)
        folders = [(kind, kind.folder(self.root)) for kind in kinds]
        found = [
            kind(path, self.root) for kind, folder in folders if folder.is_dir() for path in sorted(folder.iterdir())
        ]
        return [one for one in found if (one.path / one.FILE).is_file()]

    def climb(self, ladder: Series[Any], caller: Caller | None = None) -> None:
        """Go on with a ladder or a sweep in a process of its own; rungs that are done are left alone.

        Raises:
            UserError: it is being climbed already.
        """
        with self._lock:  # a button can be pressed twice
            if ladder.is_alive:
                raise UserError(f"{ladder.shown} is being climbed already.")
            ladder.beat()  # so that the page sees it at once
        ladder.clear_requests()
        self._spawn([*self.climber, str(ladder.path), "--runs", str(self.root)], ladder.path / "log.txt")

    def stop_climbing(self, series: Series[Any], caller: Caller | None = None) -> None:
        """Ask for the end of a ladder or a sweep after the step it is in; what is done is kept."""
        series.request_stop()

    def keep_upload(self, upload: str) -> str:
        """An upload's copy beside the runs, named by its content: the browser's own vanishes with the session."""
        path = Path(upload)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        folder = self.root / "uploads" / digest
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / path.name
        if not kept.exists():
            partial = folder / f".{secrets.token_hex(4)}"
            try:  # a copy that a full disk cut short must not pass for the file
                shutil.copyfile(path, partial)
                partial.replace(kept)
            finally:
                partial.unlink(missing_ok=True)
        return str(kept)

    @staticmethod
    def _spawn(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
        with open(log_path, "ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the app's terminal is not for the training
            )

    def _watch(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self.start_next()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _belongs(run: Run, sweep: Sweep) -> bool:
    return any((found := sweep.run_of(name)) is not None and found.id == run.id for name in sweep.config.names)
