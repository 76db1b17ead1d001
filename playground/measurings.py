"""What is measured, as processes: a run's measurement, ladders of techniques, sweeps over seeds. Knows no page.

Whatever changes one takes the caller, who must own it (`owners`).
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playground.owners import Caller, Owners
from playground.sources import check_data, check_model
from tunelab import Ladder, LadderConfig, Run
from tunelab.errors import UserError
from tunelab.measure.measurement import Measurement
from tunelab.measure.series import RESULTS_FILE, Series
from tunelab.measure.settings import Measuring
from tunelab.measure.sweep import Sweep, SweepConfig, list_sweeps
from tunelab.run.reports import REPORT_FILE
from tunelab.run.run import runs_root

CLIMBER = (sys.executable, "-m", "tunelab.measure.climb")
MEASURER = (sys.executable, "-m", "tunelab.measure.measurement")
SEEDS = 3


class Measurings:
    """The measurements, ladders and sweeps of one runs root."""

    def __init__(self, root: Path | None, climber: Sequence[str], measurer: Sequence[str]) -> None:
        self.root = runs_root(root)
        self.owners = Owners(self.root)
        self.climber, self.measurer = tuple(climber), tuple(measurer)
        self._lock = threading.Lock()

    def measure(self, run: Run, settings: Measuring, against: Sequence[Run], caller: Caller) -> Measurement:
        """The run's measurement, in a process of its own that waits while another run trains or is measured.

        Raises:
            UserError: a setting is out of its range, there is nothing to measure, it is being measured, or the run is
                somebody else's.
        """
        self.owners.check(run, caller)
        measurement = Measurement(run)
        measurement.ask(settings, against)
        spawn([*self.measurer, str(run.path)], measurement.path / "log.txt")
        return measurement

    def measure_on(self, run: Run, caller: Caller) -> None:
        """Go on with a measurement that was stopped, failed or got lost.

        Raises:
            UserError: it is being measured, nobody has asked for it, or the run is somebody else's.
        """
        self.owners.check(run, caller)
        measurement = Measurement(run)
        measurement.again()
        spawn([*self.measurer, str(run.path)], measurement.path / "log.txt")

    def stop_measuring(self, run: Run, caller: Caller) -> None:
        """Ask for the end of a measurement; what was answered is kept.

        Raises:
            UserError: the run is somebody else's.
        """
        self.owners.check(run, caller)
        Measurement(run).request_stop()

    def measured(self, run: Run | None) -> list[Any]:
        """What is shown of a run's measurement depends on this, cheap to read: how far it is, its state, its report."""
        if run is None:
            return [None, None, 0]
        standing = Measurement(run).standing()
        far = [standing.message, standing.rows_done] if standing else None
        report = run.path / REPORT_FILE
        return [far, standing.state if standing else None, report.stat().st_mtime_ns if report.exists() else 0]

    def start_ladder(self, config: LadderConfig, caller: Caller) -> Ladder:
        """A new ladder, climbed by a process of its own; it is the caller's.

        Raises:
            UserError: it reads what the caller may not.
        """
        check_model(config.model, self.owners, caller)
        check_data(config.data, self.owners, caller)
        ladder = Ladder.create(config, root=self.root)
        self.owners.remember(ladder, caller)
        self.climb(ladder, caller)
        return ladder

    def start_sweep(self, run: Run, caller: Caller, **measured: int) -> Sweep:
        """The run with other seeds, trained and measured by a process of its own; the run itself is the first.
        `measured`: how, as the fields of a series are named (`rows`, `max_new_tokens`).

        Raises:
            UserError: it has not finished, can't be trained again, or is somebody else's.
        """
        self.owners.check(run, caller)
        if run.status != "finished" or run.imported_from:
            raise UserError(f"{run.name} can't be trained with other seeds: it is {run.status} or was made elsewhere.")
        own = run.config.stages[-1].training.seed
        config = SweepConfig(run=run.pinned, seeds=tuple(own + more for more in range(SEEDS)), **measured)
        sweep = Sweep.create(config, root=self.root)
        if all(stage.training.seed == own for stage in run.config.stages):
            sweep.remember(config.names[0], run=run.id)
        self.owners.remember(sweep, caller)
        self.climb(sweep, caller)
        return sweep

    def climb(self, series: Series[Any], caller: Caller) -> None:
        """Go on with a ladder or a sweep in a process of its own; rungs that are done are left alone.

        Raises:
            UserError: it is being climbed already, or is somebody else's.
        """
        self.owners.check(series, caller)
        with self._lock:  # a button can be pressed twice
            if series.is_alive:
                raise UserError(f"{series.shown} is being climbed already.")
            series.beat()  # so that the page sees it at once
        series.clear_requests()
        spawn([*self.climber, str(series.path), "--runs", str(self.root)], series.path / "log.txt")

    def stop_climbing(self, series: Series[Any], caller: Caller) -> None:
        """Ask the process that climbs to stop after its step.

        Raises:
            UserError: the series is somebody else's.
        """
        self.owners.check(series, caller)
        series.request_stop()

    def sweep_of(self, run: Run) -> Sweep | None:
        """The newest sweep that sets the run beside others; one of a single run says nothing about luck."""
        return next((one for one in list_sweeps(self.root) if len(one.config.names) > 1 and _belongs(run, one)), None)

    def series(self, identity: str | None) -> Series[Any] | None:
        """The ladder or sweep of that id, if it is still there."""
        return next((one for one in self._series() if one.id == identity), None)

    def climbed(self) -> list[Any]:
        """What is shown of ladders and sweeps depends on this."""
        return [one.signature() if one.is_alive else one.path.name for one in self._climbs()]

    def climbing(self) -> list[Any]:
        """Which ladders and sweeps there are and how they stand, without how far they are."""
        return [[one.path.name, one.is_alive, _size(one.path / RESULTS_FILE)] for one in self._climbs()]

    def _series(self) -> list[Series[Any]]:
        return [*Ladder.every(self.root), *Sweep.every(self.root)]

    def _climbs(self) -> list[Series[Any]]:
        """As `_series`, also those that can't be read: pages ask often, and no configuration is read for it."""
        kinds: tuple[type[Series[Any]], ...] = (Ladder, Sweep)
        folders = [(kind, kind.folder(self.root)) for kind in kinds]
        found = [
            kind(path, self.root) for kind, folder in folders if folder.is_dir() for path in sorted(folder.iterdir())
        ]
        return [one for one in found if (one.path / one.FILE).is_file()]


def spawn(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    """A process that outlives this one; what it writes goes to its log."""
    with open(log_path, "ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the app's terminal is not for the training
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _belongs(run: Run, sweep: Sweep) -> bool:
    return any((found := sweep.run_of(name)) is not None and found.id == run.id for name in sweep.config.names)
