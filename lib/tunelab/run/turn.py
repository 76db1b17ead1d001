"""Whose turn it is: one run of a runs root trains, or is measured by the app, at a time.

A lock says so, which the operating system releases when its holder dies. Beside it stands the id of the run that holds
it, for those who wait: they need not look into any run's log to say for whom.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.machine.files import write_atomically
from tunelab.run.heartbeat import Beating
from tunelab.run.run import Run

if TYPE_CHECKING:
    from filelock import FileLock

LOCK_FILE, HOLDER_FILE = "training.lock", "training.holder"
MEASURING = "measuring"  # the folder of a run's measurement, in the run's
PATIENCE_SECONDS = 0.3


def lock_of(path: Path) -> FileLock:
    """A lock between processes, and between any two of these objects. It may be released by another thread than took
    it: a generator can end in any."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, thread_local=False)


class Turn:
    """The right to train or to measure a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = lock_of(run.root / LOCK_FILE)

    def come(self) -> bool:
        """Whether it has come; waits a moment for it."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=PATIENCE_SECONDS)
        except Timeout:
            return False
        with suppress(OSError):  # a full disk: others wait without knowing for whom
            write_atomically(self.run.root / HOLDER_FILE, self.run.id)
        return True

    def close(self) -> None:
        self._lock.release()

    @property
    def awaited(self) -> str:
        """What it waits for, in words."""
        try:
            holder = Run(self.run.root / (self.run.root / HOLDER_FILE).read_text(encoding="utf-8"))
        except OSError:
            return "waiting for its turn"
        if holder.id != self.run.id and holder.is_alive:
            return f"waiting until {holder.id} has finished: one run trains at a time"
        if Beating(holder.path / MEASURING).is_alive:
            return f"waiting until {holder.id} is measured: that takes all cores as well"
        return "waiting for its turn"
