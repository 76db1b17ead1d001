"""The log of a run, read as it grows: every line is parsed once, however often somebody looks.

The app looks at every run once a second while one trains, and a long run has a hundred thousand lines. What follows
from the events (`progress.summarise`) is kept as well until there are new ones.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from tunelab.run.events import TrainingEvent, parse_event
from tunelab.run.progress import Summary, summarise

END_BYTES = 256  # of what was read: by them it is seen whether the file is still the one it was


class Log:
    """`events.jsonl` of one run, in this process. Lines that are torn, or of an event nobody knows, are passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._events: list[TrainingEvent] = []
        self._summary: Summary | None = None
        self._inode, self._offset, self._end = 0, 0, b""
        self._looked_at: tuple[int, ...] = ()

    def events(self) -> list[TrainingEvent]:
        """Every event up to now, in order."""
        with self._lock:
            self._read_on()
            return list(self._events)

    def summary(self) -> Summary:
        """What follows from the events up to now."""
        with self._lock:
            self._read_on()
            if self._summary is None:
                self._summary = summarise(self._events)
            return self._summary

    def _forget(self) -> None:
        self._events, self._summary = [], None
        self._inode, self._offset, self._end = 0, 0, b""
        self._looked_at = ()

    def _read_on(self) -> None:
        try:
            found = os.stat(self.path)
            if (seen := (found.st_ino, found.st_size, found.st_mtime_ns)) == self._looked_at:
                return
            with open(self.path, "rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if self._inode != inode or not self._continues(file):
                    self._forget()
                self._inode = inode
                file.seek(self._offset)
                whole, newline, _torn = file.read().rpartition(b"\n")
        except FileNotFoundError:
            self._forget()
            return
        # what was appended since `stat` is read already, and once more looked for
        self._looked_at = seen
        self._offset += len(whole) + len(newline)
        self._end = (self._end + whole + newline)[-END_BYTES:]
        for line in whole.split(b"\n"):
            if line.strip():
                try:
                    self._events.append(parse_event(line))
                    self._summary = None
                except ValidationError:
                    continue

    def _continues(self, file: IO[bytes]) -> bool:
        """Whether what was read still stands in the file, which then has only grown."""
        file.seek(max(0, self._offset - END_BYTES))
        return file.read(min(self._offset, END_BYTES)) == self._end


@lru_cache(maxsize=1024)
def log_of(path: Path) -> Log:
    """The log of a file: the same object for everybody in this process who asks."""
    return Log(path)
