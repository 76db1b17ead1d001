"""Where exports go: a new file or folder, whole or not at all, and never over something that is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunelab.errors import UserError
from tunelab.machine.files import flush


@dataclass(frozen=True)
class Exported:
    path: Path
    notes: tuple[str, ...] = ()  # what to know about it, a sentence each


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        UserError: it is a file, or is not empty.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        what = "is a file" if folder.is_file() else "is not empty"
        raise UserError(f"{folder} {what}, and an export never overwrites. Choose a new folder.")


@contextmanager
def new_file(path: Path, suffix: str) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the block ends well, else vanishes.

    Raises:
        UserError: `path` is taken, or its name does not end in `suffix`.
    """
    check_file(path, suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_file(path: Path, suffix: str) -> None:
    """Refuse a file name that is taken, or ends in something else than `suffix`."""
    if path.suffix.lower() != suffix:
        raise UserError(f"{path}: the file's name must end in {suffix}, e.g. {path.name or 'export'}{suffix}.")
    if path.exists():
        raise UserError(f"{path} is there already, and an export never overwrites. Choose a new name.")
