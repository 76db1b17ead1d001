"""Files and directories that are whole or not there, whenever the power goes."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import platformdirs


def cache_root() -> Path:
    """Where what can be made again is kept, models and measurements: $TUNELAB_CACHE, else the platform's user cache
    directory."""
    given = os.environ.get("TUNELAB_CACHE")
    return Path(given).expanduser().resolve() if given else platformdirs.user_cache_path("tunelab")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that a reader, or a crash, sees the old content or the new one, never a part."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write bit by bit, which takes the place of `path` when the block ends well, else vanishes."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary directory that takes the place of `target` when the block ends well, else vanishes. Of several that
    do so at the same time the last one stays."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    old = temporary.with_name(f"{temporary.name}.old")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            flush(file)
        while temporary.exists():
            with suppress(FileNotFoundError):
                os.rename(target, old)
            try:
                os.rename(temporary, target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another one was faster
                    with suppress(FileNotFoundError):
                        os.rename(old, target)
                    raise
            shutil.rmtree(old, ignore_errors=True)
        flush(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush(path: Path) -> None:
    """Have a file or directory on disk, not only in the system's memory."""
    if os.name == "nt" and path.is_dir():  # Windows can't open a directory
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
