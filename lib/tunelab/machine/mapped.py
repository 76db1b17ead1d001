"""Files that are mapped into memory while a model is read from them. What was read of one counts as the process's
memory until the file is let go: at the end of a large model that is all of it, beside the model itself. On Linux it is
given back on the way; elsewhere the system does so when memory gets short.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AT_ONCE = 400_000_000  # bytes that are read before they are given back, about
EVERY_SECONDS = 0.05
MOST_OF_TIME = 0.1  # that looking may take
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(/.*)")
DONT_NEED = 4  # MADV_DONTNEED


def most_mapped(size: int) -> int:
    """How much of files of this size lies in memory at a time while a model is read from them, in bytes."""
    return min(size, AT_ONCE) if sys.platform == "linux" else size


@contextmanager
def given_back_while_read(files: Collection[Path]) -> Iterator[None]:
    """Give back what was read of these files, many times a second."""
    over = threading.Event()

    def look() -> None:
        wait = EVERY_SECONDS
        while not over.wait(wait):
            began = time.monotonic()
            give_back(files)
            wait = max(EVERY_SECONDS, (time.monotonic() - began) / MOST_OF_TIME)

    thread = threading.Thread(target=look, name="mapped files", daemon=True)
    if sys.platform == "linux" and files:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()


def give_back(files: Collection[Path]) -> None:
    """Take what was read of mapped files out of this process's memory. Whoever asks for it again gets it again: from
    the system's cache, or from the disk. A mapping that was written to stays as it is."""
    if sys.platform != "linux":
        return
    names = {str(file.resolve()) for file in files}  # those of the Hub's cache are links
    with suppress(OSError, AttributeError):  # no /proc, or a libc without it
        advise = ctypes.CDLL(None).madvise
        for start, end in _unwritten(Path("/proc/self/smaps").read_text(), names):
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), DONT_NEED)


def _unwritten(smaps: str, names: Collection[str]) -> Iterator[tuple[int, int]]:
    """Start and end of the mappings of these files that hold nothing but what stands in them."""
    found: re.Match[str] | None = None
    for line in smaps.splitlines():
        if header := MAPPING.fullmatch(line):
            found = header if header[3] in names else None
        elif re.match("[0-9a-f]+-", line):  # one of no file
            found = None
        elif found and line.startswith("Anonymous:") and line.split()[1] == "0":
            yield int(found[1], 16), int(found[2], 16)
