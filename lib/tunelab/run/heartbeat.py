"""A directory that a process works on says so by a heartbeat: a file that is touched every second. Whether the process
still lives follows from the file's age, on every system and after every crash.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEARTBEAT_SECONDS = 1.0
LOST_AFTER_SECONDS = 15.0


class Beating:
    """A directory that a process may be working on, and says so by a heartbeat."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def beat(self) -> None:
        """Say that a process is working on it."""
        (self.path / "heartbeat").touch()

    def end_beat(self) -> None:
        (self.path / "heartbeat").unlink(missing_ok=True)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Inside, a thread keeps the heartbeat young."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                self.beat()

        self.beat()
        thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.end_beat()

    @property
    def is_alive(self) -> bool:
        """Whether a process is working on it, by the age of its heartbeat."""
        try:
            return time.time() - (self.path / "heartbeat").stat().st_mtime < LOST_AFTER_SECONDS
        except FileNotFoundError:
            return False
