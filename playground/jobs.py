"""Runs as processes: start, queue, pause, stop, resume, delete. Knows nothing of the page.

A run asks to be trained by its `queued` file; one thread starts a worker for the oldest such run whenever none trains.
So a training outlives the page, the app and this thread, and an app that starts finds what is still queued.

Whatever changes a run takes the caller, who must own it (`owners`).
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.exports import Exports
from playground.measurings import CLIMBER, MEASURER, Measurings
from playground.owners import Caller
from playground.sources import check_config, check_model
from playground.training import Training
from tunelab import (
    Deleted,
    ModelSpec,
    Run,
    RunConfig,
    delete_run,
    deleted_runs,
    diagnose,
    empty_deleted,
    import_adapter,
    list_runs,
    restore_run,
)
from tunelab.chain import check_lineage
from tunelab.errors import UserError
from tunelab.run.deleting import find_deleted
from tunelab.run.run import DELETED
from tunelab.run.waiting import expect, seconds_left
from tunelab.train.forecast import seconds_text

log = logging.getLogger("playground")
POLL_SECONDS = 0.5
NEARLY_DONE = 0.9  # of the steps
WORKER = (sys.executable, "-m", "tunelab.worker")


@dataclass(frozen=True)
class Waiting:
    """Where a run stands that waits for its turn."""

    place: int  # 1: it is next
    seconds: float | None  # until its turn has come, about; None: not known

    @property
    def words(self) -> str:
        """'number 2 in line, its turn comes in about 4 minutes'."""
        if self.seconds is None:
            return f"number {self.place} in line; when its turn comes is not known"
        return f"number {self.place} in line, its turn comes in about {seconds_text(self.seconds)}"


class Jobs(Measurings):
    """The queue of one runs root, and what is measured there (`measurings`)."""

    def __init__(
        self,
        root: Path | None = None,
        worker: Sequence[str] = WORKER,
        climber: Sequence[str] = CLIMBER,
        measurer: Sequence[str] = MEASURER,
        on_nearly_done: Callable[[Run], None] = lambda run: None,
    ) -> None:
        """`on_nearly_done` hears once of each run that has a tenth of its steps left, or has finished before that was
        seen; in the thread that watches."""
        super().__init__(root, climber, measurer)
        self.exports = Exports(self.root)
        self._training = Training(worker)
        self._on_nearly_done, self._watched, self._said = on_nearly_done, "", ""
        self._ended = threading.Event()

    def watch(self) -> None:
        """Start queued runs from now on, in a thread of its own."""
        self._watched = next((run.id for run in list_runs(self.root) if run.is_alive), "")  # from before a restart
        threading.Thread(target=self._watch, daemon=True, name="queue").start()

    def end(self) -> None:
        """Stop starting runs; the one that trains goes on."""
        self._ended.set()

    def start(self, config: RunConfig, caller: Caller, expected_seconds: float | None = None) -> Run:
        """A new run of `config`, training now or when its turn comes; it is the caller's. `expected_seconds`: how long
        it was forecast to take, for those that wait behind it.

        Raises:
            UserError: the run it is to start from does not fit, or it reads what the caller may not.
        """
        check_config(config, self.owners, caller)
        if config.start_from:
            check_lineage(config, Run.open(config.start_from, self.root))
        run = Run.create(config, self.root)
        try:
            self.owners.remember(run, caller)
            if expected_seconds is not None:
                expect(run, expected_seconds)
            run.queue()
        except OSError:  # a full disk: nobody would ever train it
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        self.start_next()
        return run

    def resume(self, run: Run, caller: Caller) -> None:
        """Go on with a run that was stopped, paused, failed or got lost; a paused one from its old place on.

        Raises:
            UserError: the run is none of these, or somebody else's.
        """
        self.owners.check(run, caller)
        if not run.can_resume:
            raise UserError(f"Run {run.name} can't be resumed: it is {run.status}.")
        if run.status == "paused":
            run.go_on()
        else:
            run.queue()
        self.start_next()

    def pause(self, run: Run, caller: Caller) -> None:
        """Ask the run to stop after its step and to keep its place; it goes on when it is resumed, never by itself.

        Raises:
            UserError: it neither trains nor waits, or is somebody else's.
        """
        self.owners.check(run, caller)
        if run.status not in ("running", "queued"):
            raise UserError(f"Run {run.name} can't be paused: it is {run.status}.")
        run.pause()

    def stop(self, run: Run, caller: Caller) -> None:
        """Ask the run to stop after its step, or take it out of the queue.

        Raises:
            UserError: it neither trains nor waits, or is somebody else's.
        """
        self.owners.check(run, caller)
        if run.status not in ("running", "queued", "paused"):
            raise UserError(f"Run {run.name} is not training: it is {run.status}.")
        run.request_stop()

    def retry(self, run: Run, number: int, caller: Caller) -> Run:
        """The run that a fix of a failed or lost run means, training now or when its turn comes: a new one with other
        settings, or itself; `number`: of the fix, as `diagnose(run).fixes` has them.

        Raises:
            UserError: there is no such fix any more, or the run is somebody else's.
        """
        self.owners.check(run, caller)
        found = diagnose(run)
        fixes = found.fixes if found else ()
        if not 0 <= number < len(fixes):
            raise UserError(f"Run {run.name} has no such fix any more: it is {run.status}.")
        config = fixes[number].config
        if config is None:
            self.resume(run, caller)
            return run
        return self.start(config.model_copy(update={"name": run.given_name}), caller)

    def roll_back(self, run: Run, stage: int, caller: Caller) -> None:
        """Make the result what it was at the end of a stage, counted from 0.

        Raises:
            UserError: there is none of that stage, it trains, or is somebody else's.
        """
        self.owners.check(run, caller)
        run.roll_back(stage)

    def label(
        self,
        run: Run,
        caller: Caller,
        *,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        note: str | None = None,
    ) -> None:
        """Call the run otherwise; what is None stays as it is.

        Raises:
            UserError: a label is too long, or the run somebody else's.
        """
        self.owners.check(run, caller)
        run.label(name=name, tags=tags, note=note)

    def delete(self, run: Run, caller: Caller) -> Deleted:
        """Move the run out of every list; `restore` brings it back.

        Raises:
            UserError: it is trained, measured or exported, another run needs it, or it is somebody else's.
        """
        self.owners.check(run, caller)
        self.exports.check_idle(run)  # its process would make the folder anew
        with self._lock:  # no worker is started for it meanwhile
            return delete_run(run)

    def restore(self, run_id: str, caller: Caller) -> Run:
        """A deleted run, back in the lists.

        Raises:
            UserError: there is none of this id, or it is somebody else's.
        """
        self.owners.check(find_deleted(run_id, self.root).run, caller)
        return restore_run(run_id, self.root)

    def deleted(self) -> list[Deleted]:
        """What can be restored, the one that was deleted last first."""
        return deleted_runs(self.root)

    def empty_deleted(self, caller: Caller, older_than_seconds: float = 0.0) -> int:
        """Bytes that were freed: deleted runs are gone for good.

        Raises:
            UserError: the caller does not run the server.
        """
        self.owners.check_server(caller)
        return empty_deleted(self.root, older_than_seconds)

    def bring(self, upload: str, model: ModelSpec, name: str | None, caller: Caller) -> Run:
        """A finished run with the adapter of an uploaded zip; it is the caller's.

        Raises:
            UserError: the files are not safe or no adapter, it does not fit this base, or the caller may not load it.
        """
        check_model(model, self.owners, caller)
        run = import_adapter(upload, model, self.root, name)
        self.owners.remember(run, caller)
        return run

    def queued(self) -> list[Run]:
        """Runs that wait, the next one first."""
        waiting = [(since, run.id, run) for run in list_runs(self.root) if (since := run.queued_ns) is not None]
        return [run for _since, _id, run in sorted(waiting, key=lambda one: one[:2]) if not run.is_alive]

    def waiting(self, run: Run) -> Waiting | None:
        """Its place among those that wait, and when its turn will come; None for a run that does not wait."""
        queued = self.queued()
        ids = [one.id for one in queued]
        if run.id not in ids:
            return None
        every, place = list_runs(self.root), ids.index(run.id)
        before = [one for one in every if one.is_alive] + queued[:place]
        left = [seconds_left(one, every) for one in before]
        known = [seconds for seconds in left if seconds is not None]
        return Waiting(place + 1, sum(known) if len(known) == len(left) else None)

    def place(self, run: Run) -> int | None:
        """1 for the run that is next; None for one that does not wait."""
        ids = [waiting.id for waiting in self.queued()]
        return ids.index(run.id) + 1 if run.id in ids else None

    def find(self, run_id: str | None) -> Run | None:
        """The run of that id, if it is still there."""
        # the browser may send anything: a path, a folder that is none of a run, what no file can be called
        if not run_id or run_id != Path(run_id).name or run_id.startswith("."):
            return None
        run = Run(self.root / run_id)
        with suppress(OSError):  # too long
            return run if (run.path / "config.json").is_file() else None
        return None

    def state(self) -> list[Any]:
        """What pages depend on beside the moment, cheap to read: as long as both are the same, nothing has changed."""
        logs = [[_size(one.events_path), repr(one.labels)] for one in list_runs(self.root)]
        deleted = self.root / DELETED
        gone = deleted.stat().st_mtime_ns if deleted.is_dir() else 0
        return [logs, [one.id for one in self.queued()], self.climbed(), gone, self.exports.moment()]

    def state_of(self, run_id: str | None) -> list[Any]:
        """What a page depends on as far as it shows this run alone."""
        run = self.find(run_id)
        if run is None:
            return [run_id]
        waiting = self.waiting(run)
        stands = [run_id, repr(run.labels), run.status, run.has_adapter, _size(run.events_path)]
        return [*stands, waiting.words if waiting else "", self.exports.state(run), self.measured(run)]

    def moment(self) -> list[Any]:
        """What pages follow at once: which runs there are and how they stand, without how far they are."""
        every = list_runs(self.root)
        runs = [[run.id, run.name, run.status, run.has_adapter, *self.measured(run)[1:]] for run in every]
        return [runs, self.climbing()]

    def start_next(self) -> None:
        """Start a worker for the oldest queued run, unless one trains."""
        with self._lock:
            if self._training.goes_on() or any(run.is_alive for run in list_runs(self.root)):
                return
            if waiting := self.queued():
                self._training.start(waiting[0])

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

    def _watch(self) -> None:
        failure = ""
        while not self._ended.wait(POLL_SECONDS):
            try:
                self.start_next()
                self._look_ahead()
                failure = ""
            except Exception as error:  # a run that vanished, a full disk: whoever waits is not to wait for ever
                if repr(error) != failure:  # once, not twice a second
                    log.exception("the queue could not go on; it tries again")
                failure = repr(error)

    def _look_ahead(self) -> None:
        """Say of the run that trains that it is nearly done. Costs a file's size where nothing is new."""
        run = self._training.run or self.find(self._watched)
        if run is None or run.id == self._said:
            return
        self._watched = run.id
        progress = run.progress()
        nearly = progress.steps_total and progress.step >= NEARLY_DONE * progress.steps_total
        if (nearly and progress.status == "running") or progress.status == "finished":
            self._said = run.id
            try:
                self._on_nearly_done(run)
            except Exception:  # the queue goes on
                log.exception("what was to be made ready for %s was not", run.id)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
