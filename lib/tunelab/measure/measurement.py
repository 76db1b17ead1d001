"""A run's measurement as a process of its own, which outlives whoever asked for it.

    Measurement(run).ask(settings)                    what is wanted, in the run's folder `measuring/`
    python -m tunelab.measure.measurement RUN_DIR     waits for its turn, measures, says how far it is
    Measurement(run).standing()                       how far it is, for whoever looks

What has been answered is kept row by row (`known`), so one that was stopped or lost goes on where it was.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunelab.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, explain
from tunelab.machine import libraries
from tunelab.machine.files import write_atomically
from tunelab.measure.counting import Course
from tunelab.measure.settings import Measuring
from tunelab.run.heartbeat import Beating
from tunelab.run.run import Run
from tunelab.run.turn import MEASURING, Turn, lock_of

REQUEST_FILE, STANDING_FILE = "request.json", "standing.json"
LOOK_SECONDS = 0.3
SILENT_SECONDS = 1.0  # after a request to stop
LOST = "its process has ended and said nothing; often the machine has too little memory: close other programs"
State = Literal["waiting", "measuring", "done", "stopped", "failed", "lost"]


class Request(BaseModel):
    """What is measured; `against`: ids of other runs, measured on the same rows."""

    model_config = ConfigDict(frozen=True)
    settings: Measuring = Field(default_factory=Measuring)
    against: tuple[str, ...] = ()


class Standing(BaseModel):
    """How far a measurement is: in which part (the base's answers, the tuned model's, …), after how many of all rows
    that are read, and how long the others will take, as far as that is known."""

    model_config = ConfigDict(frozen=True)
    state: State
    message: str = ""
    part: int = 0  # counted from 1
    parts: int = 0
    rows_done: int = 0
    rows: int = 0
    share: float = 0.0  # of the work, which is not alike for all rows
    seconds_left: float | None = None


class Measurement(Beating):
    """The measurement of a run, in the folder `measuring` of the run's."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.path / MEASURING)
        self.run = run

    def ask(self, settings: Measuring, against: Sequence[Run] = ()) -> None:
        """Note what is wanted, for the process that measures.

        Raises:
            UserError: a setting is out of its range, there is nothing to measure, or it is being measured.
        """
        settings.check()
        for run in (self.run, *against):
            run.check_whole()
            run.check_result()
        if self.run.id in (one.id for one in against):
            raise UserError(f"{self.run.name} is to be compared with itself. Choose other runs beside it.")
        self.path.mkdir(exist_ok=True)
        request = Request(settings=settings, against=tuple(one.id for one in against))
        self.again(request)

    def again(self, request: Request | None = None) -> None:
        """Note that it goes on, with what was asked before unless something else is.

        Raises:
            UserError: it is being measured, or nobody has asked for a measurement yet.
        """
        if self.is_alive:
            raise UserError(f"{self.run.name} is being measured already. Wait for it, or stop it first.")
        if request is None and self.request() is None:
            raise UserError(f"Nobody has asked yet to measure {self.run.name}. Press Measure this run.")
        if request is not None:
            write_atomically(self.path / REQUEST_FILE, request.model_dump_json(indent=1))
        (self.path / "stop").unlink(missing_ok=True)
        self._tell(Standing(state="waiting", message="starting"))
        self.beat()  # so that it is seen at once

    def request(self) -> Request | None:
        """What was asked for last, if it can be read."""
        try:
            return Request.model_validate_json((self.path / REQUEST_FILE).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def standing(self) -> Standing | None:
        """How far it is; None where none was asked for."""
        try:
            told = Standing.model_validate_json((self.path / STANDING_FILE).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None
        if told.state in ("waiting", "measuring") and not self.is_alive:
            return told.model_copy(update={"state": "lost", "message": LOST})
        return told

    def request_stop(self) -> None:
        """Ask the process that measures to stop; what was answered is kept."""
        (self.path / "stop").touch()

    def carry_out(self) -> int:
        """Measure what was asked for; the exit code."""
        lock = lock_of(self.path / "measuring.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return 0  # another process does it
        try:
            with self.beating(), self._interrupted_when_asked():
                return self._measure()
        except KeyboardInterrupt:
            self._tell(Standing(state="stopped"))
            return EXIT_INTERRUPTED
        finally:
            lock.release()

    def _measure(self) -> int:
        from tunelab.measure.evaluation import evaluate_all

        try:
            request = self.request() or Request()
            others = [Run.open(identity, self.run.root) for identity in request.against]
            turn = self._come()
            try:
                course = Course(1 + len(others))
                evaluate_all([self.run, *others], request.settings, on_progress=lambda said: self._hear(said, course))
            finally:
                turn.close()
        except Exception as error:
            known = explain(error)
            if known is None:
                traceback.print_exc()
            self._tell(Standing(state="failed", message=known or f"{type(error).__name__}: {error}"))
            return EXIT_USER_ERROR if known else EXIT_FAILED
        self._tell(Standing(state="done"))
        return 0

    def _come(self) -> Turn:
        """The run's turn, once it has come."""
        turn, said = Turn(self.run), ""
        while not turn.come():
            if (message := turn.awaited) != said:
                said = message
                self._tell(Standing(state="waiting", message=message))
        return turn

    def _hear(self, message: str, course: Course) -> None:
        """Note what an evaluation says of its progress.

        Raises:
            KeyboardInterrupt: it was asked to stop.
        """
        if self._is_asked_to_stop:
            raise KeyboardInterrupt
        course.hear(message)
        self._tell(
            Standing(
                state="measuring",
                message=message,
                part=max(1, course.part),
                parts=max(1, course.parts),
                rows_done=course.rows_done,
                rows=course.rows,
                share=course.share,
                seconds_left=course.seconds_left,
            )
        )
        print(message, flush=True)

    def _tell(self, standing: Standing) -> None:
        write_atomically(self.path / STANDING_FILE, standing.model_dump_json())

    @property
    def _is_asked_to_stop(self) -> bool:
        return (self.path / "stop").exists()

    @contextmanager
    def _interrupted_when_asked(self) -> Iterator[None]:
        """Inside, a request to stop interrupts the process where it says nothing of its progress for a while. An
        interrupt alone would not do: it can get lost."""
        ended = threading.Event()

        def look() -> None:
            while not self._is_asked_to_stop:
                if ended.wait(LOOK_SECONDS):
                    return
            if not ended.wait(SILENT_SECONDS):
                _thread.interrupt_main()

        threading.Thread(target=look, daemon=True, name="stop").start()
        try:
            yield
        finally:
            ended.set()


def main(arguments: Sequence[str]) -> int:
    """Measure the run of a directory, as it was asked for; the exit code."""
    (directory,) = arguments
    libraries.prepare()
    # whoever was started in the background may have been told to ignore it; a request to stop comes as one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return Measurement(Run(Path(directory).resolve())).carry_out()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
