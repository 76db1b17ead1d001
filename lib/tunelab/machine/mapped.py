"""Files that are mapped into memory while a model is read from them. What was read of one counts as the process's
memory until the file is let go: at the end of a large model that is all of it, beside the model itself. On Linux it is
given back on the way; elsewhere the system does so when memory gets short.

The system is asked to page it out, which loses nothing whatever lies there: what is wanted again is read again. The
price is that the file has to come from the disk then, so small files stay.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AT_ONCE = 400_000_000  # bytes of files that lie in memory before they are given back, about
EVERY_SECONDS = 0.1
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(/.*)")
PAGE_OUT = 21  # MADV_PAGEOUT, of Linux 5.4


def most_mapped(size: int) -> int:
    """How much of files of this size lies in memory at a time while a model is read from them, in bytes."""
    return min(size, AT_ONCE) if sys.platform == "linux" else size


@contextmanager
def given_back_while_read(files: Collection[Path]) -> Iterator[None]:
    """Give back what was read of these files, several times a second."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(EVERY_SECONDS):
            give_back(files)

    thread = threading.Thread(target=look, name="mapped files", daemon=True)
    if are_large(files):
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()


def give_back(files: Collection[Path]) -> None:
    """Take what was read of mapped files out of this process's memory, where they are large."""
    if not are_large(files):
        return
    names = {str(file.resolve()) for file in files}  # those of the Hub's cache are links
    with suppress(OSError, AttributeError):  # no /proc, or a libc without it
        advise = ctypes.CDLL(None).madvise
        for line in os.fsdecode(Path("/proc/self/maps").read_bytes()).split("\n"):
            if (found := MAPPING.fullmatch(line)) and found[3] in names:
                start, end = (int(place, 16) for place in found.group(1, 2))
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), PAGE_OUT)


def are_large(files: Collection[Path]) -> bool:
    """Whether it is worth giving back what is read of files."""
    return sys.platform == "linux" and sum(file.stat().st_size for file in files if file.is_file()) > AT_ONCE
