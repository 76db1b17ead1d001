"""The process that trains a run, as the app that started it sees it: one at a time, and how each of them ended."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from playground.measurings import spawn
from tunelab import Run
from tunelab.run.events import Preparing
from tunelab.run.process import note_exit


class Training:
    """The worker that was started last."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self.run: Run | None = None  # that it trains; None: its end has been seen
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_ns: int | None = None  # when the request was made that it was started for

    def start(self, run: Run) -> None:
        """Have a run trained by a process of its own."""
        self._asked_ns = run.queued_ns
        self._process = spawn([*self.command, str(run.path)], run.path / "worker.log")
        self.run = run

    def goes_on(self) -> bool:
        """Whether it still runs; of one that has ended, how is noted in its run."""
        if self._process is None:
            return False
        code = self._process.poll()
        if code is not None and self.run:
            run, self.run = self.run, None
            if run.path.is_dir():
                self._note_end(run, code)
        return code is None

    def _note_end(self, run: Run, code: int) -> None:
        note_exit(run.path, code)
        if code < 0:
            run.end_beat()  # whoever beat is gone
        if code and run.queued_ns is not None and run.queued_ns == self._asked_ns:
            # it ended before it took the run from the queue: one that did so again and again would hold up all others
            run.append(Preparing(message="starting"))  # so it is not one that was never begun
            run.take_from_queue()
