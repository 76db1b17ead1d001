"""What is asked of a run: to be trained, to pause, to stop. Each request is a file in its directory, so it works
between processes and survives all of them.

    queue()  ──> `queued`   its age is the run's place among those that wait
    pause()  ──> `paused`   stopped; the file keeps the age, so that `go_on` gives back the place
    request_stop() ──> `stop`
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod

from tunelab.run.events import Stopped, TrainingEvent
from tunelab.run.heartbeat import LOST_AFTER_SECONDS, Beating
from tunelab.run.progress import Progress

TAKEN_OUT = "taken out of the queue"
BEFORE_ALL = 1_000_000_000  # nanoseconds: so old is the request of a run that was training when it was paused


class Requests(Beating):
    """A directory that can be asked to be trained, to pause and to stop."""

    @abstractmethod
    def append(self, event: TrainingEvent) -> None: ...

    @abstractmethod
    def progress(self) -> Progress: ...

    @abstractmethod
    def check_whole(self) -> None: ...

    def queue(self) -> None:
        """Ask for the run to be trained, or resumed, when its turn comes; requests from before are void."""
        self.check_whole()
        for name in ("stop", "paused"):
            (self.path / name).unlink(missing_ok=True)
        (self.path / "queued").touch()

    def pause(self) -> None:
        """Ask the run to stop after the step it is in, and to keep its place: until `go_on` nobody trains it."""
        self.check_whole()
        paused = self.path / "paused"
        self._ask_to_stop(waited=not self.is_alive)  # first: a process may be starting on it
        try:
            (self.path / "queued").rename(paused)
        except FileNotFoundError:
            paused.touch()
            os.utime(paused, ns=(BEFORE_ALL, BEFORE_ALL))

    def go_on(self) -> None:
        """Ask for a paused run to be trained from its old place on."""
        self.check_whole()
        (self.path / "stop").unlink(missing_ok=True)
        try:
            (self.path / "paused").rename(self.path / "queued")
        except FileNotFoundError:
            self.queue()

    @property
    def is_paused(self) -> bool:
        return (self.path / "paused").exists()

    @property
    def queued_ns(self) -> int | None:
        """Since when it waits: of two runs the one with the lower number is trained first. None: it does not wait."""
        try:
            return (self.path / "queued").stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def request_stop(self) -> None:
        """Ask the process that trains to stop after the step it is in; a run that waits leaves the queue."""
        self.check_whole()
        (self.path / "paused").unlink(missing_ok=True)
        waited = (self.path / "queued").exists() and not self.is_alive
        self._ask_to_stop(waited)  # first, also where it seems to wait: a process may be starting on it
        if waited:
            (self.path / "queued").unlink(missing_ok=True)

    def _ask_to_stop(self, waited: bool) -> None:
        (self.path / "stop").touch()
        if waited:
            self.append(Stopped(step=self.progress().step, reason=TAKEN_OUT, adapter=None))

    @property
    def stop_requested(self) -> bool:
        return (self.path / "stop").exists()

    def begin(self) -> None:
        """Say that a process is about to train it. A request to stop that stands here was for the process that trained
        before, and is void, unless it was meant for this one as it started: it came while the run was queued, or took
        it out of the queue a moment ago."""
        self.check_whole()
        if not (self.path / "queued").exists() and not self._was_just_taken_out():
            for name in ("stop", "paused"):
                (self.path / name).unlink(missing_ok=True)

    def _was_just_taken_out(self) -> bool:
        try:
            age = time.time() - (self.path / "stop").stat().st_mtime
        except FileNotFoundError:
            return False
        ending = self.progress().ending
        return isinstance(ending, Stopped) and ending.reason == TAKEN_OUT and age < LOST_AFTER_SECONDS

    def take_from_queue(self) -> None:
        """Say that its turn has come. A request to stop that came meanwhile stands."""
        (self.path / "queued").unlink(missing_ok=True)

    def clear_requests(self) -> None:
        """Say that a process has ended its work: what was asked of it is done. A pause lasts until `go_on`."""
        for name in ("queued", "stop"):
            (self.path / name).unlink(missing_ok=True)
