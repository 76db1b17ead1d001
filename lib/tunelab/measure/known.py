"""What a base makes of rows, kept on disk: a base never changes, so it is measured once for all runs on it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tunelab.machine.files import write_atomically
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.model.load import Base

T = TypeVar("T")
FORMAT = 1  # another number where the same question is answered in another way
KEPT = 400  # files


def bases_folder(run: Run) -> Path:
    """Where the sides of bases are kept: beside the runs."""
    return run.root / "bases"


class KnownBase:
    """A base, and what it has been asked before. Another precision, another library or another path of computing is
    another base: its rounding differs."""

    def __init__(self, folder: Path, base: Base, fast: bool) -> None:
        import torch
        import transformers

        self._folder = folder
        libraries = [torch.__version__, transformers.__version__]
        self._of = [FORMAT, base.sha256, base.precision, base.device.type, fast, libraries]

    def ask(self, what: str, asked: object, measure: Callable[[], T]) -> T:
        """What `measure()` gives, a value that JSON holds, from disk where it has been asked before; `what` and `asked`
        say everything that it depends on."""
        key = json.dumps([self._of, what, asked], ensure_ascii=False)
        path = self._folder / f"{what}-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"
        with suppress(OSError, ValueError):
            known: Any = json.loads(path.read_text(encoding="utf-8"))
            os.utime(path)
            return known
        value = measure()
        with suppress(OSError):  # a full disk costs time, and nothing else
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(value, ensure_ascii=False))
            self._forget()
        return value

    def _forget(self) -> None:
        """Removes what has not been asked for the longest time."""
        files = sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[:-KEPT]:
            file.unlink(missing_ok=True)
