"""What a model made of rows before, kept on disk row by row: a base never changes, so all runs on it share what it has
been asked; and a measurement that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.model.load import Base

FORMAT = 2  # another number where the same question is answered in another way
KEPT = 200_000  # values
FILE = "known.sqlite"
TABLE = "CREATE TABLE IF NOT EXISTS known (key TEXT PRIMARY KEY, value TEXT NOT NULL, used REAL NOT NULL)"
AT_ONCE = 500  # keys that one question to SQLite holds


class Known:
    """Values that JSON holds, each under a digest of everything that it depends on. A file that is damaged or can't be
    written costs time, and nothing else."""

    def __init__(self, folder: Path, of: Sequence[object]) -> None:
        self._file, self._of = folder / FILE, list(of)

    def ask(
        self,
        what: str,
        asked: Sequence[object],
        measure: Callable[[list[int]], Iterable[tuple[int, Any]]],
    ) -> list[Any]:
        """The value of each question: from disk where it has been asked before; else as `measure` gives it for their
        indices, in any order, each kept as it comes. `what` and a question say everything that its value depends on.
        """
        keys = [self._key(what, one) for one in asked]
        found = self._read(keys)
        missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in found}
        if missing:
            with self._keeping() as keep:
                for index, value in measure(sorted(missing.values())):
                    text = json.dumps(value, ensure_ascii=False)
                    found[keys[index]] = json.loads(text)  # as it will be read
                    keep(keys[index], text)
        return [found[key] for key in keys]

    def _key(self, what: str, asked: object) -> str:
        text = json.dumps([FORMAT, self._of, what, asked], ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _read(self, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if not self._file.is_file():
            return found
        try:
            with closing(self._open()) as file, file:
                for start in range(0, len(keys), AT_ONCE):
                    some = keys[start : start + AT_ONCE]
                    places = ",".join("?" * len(some))
                    rows = file.execute(f"SELECT key, value FROM known WHERE key IN ({places})", some)
                    found |= {key: json.loads(value) for key, value in rows}
                    file.execute(f"UPDATE known SET used = ? WHERE key IN ({places})", [time.time(), *some])
        except sqlite3.DatabaseError as error:
            self._mend(error)
        except ValueError:
            self._remove()
        return found

    @contextmanager
    def _keeping(self) -> Iterator[Callable[[str, str], None]]:
        """A function that keeps a value, so that it is there after a crash; one that does nothing where it can't."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            file = self._open()
        except (OSError, sqlite3.Error):
            yield lambda _key, _value: None
            return

        def keep(key: str, value: str) -> None:
            with suppress(sqlite3.Error), file:
                file.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", (key, value, time.time()))

        with closing(file):
            yield keep
            with suppress(sqlite3.Error), file:
                file.execute(
                    "DELETE FROM known WHERE key IN (SELECT key FROM known ORDER BY used DESC LIMIT -1 OFFSET ?)",
                    [KEPT],
                )

    def _open(self) -> sqlite3.Connection:
        file = sqlite3.connect(self._file, timeout=20)
        try:
            file.execute("PRAGMA synchronous=OFF")  # it is a cache
            file.execute(TABLE)
        except sqlite3.DatabaseError as error:
            file.close()
            if not self._mend(error):
                raise
            return self._open()
        return file

    def _mend(self, error: sqlite3.DatabaseError) -> bool:
        """Removes a file that is none of SQLite's, or a damaged one; whether it did. One that is busy or can't be
        written is left alone."""
        if isinstance(error, sqlite3.OperationalError):
            return False
        return self._remove()

    def _remove(self) -> bool:
        with suppress(OSError):
            self._file.unlink()
            return True
        return False


def known_base(run: Run, base: Base, fast: bool) -> Known:
    """What the base of a run has been asked, kept beside the runs. Another precision, another library or another way of
    computing is another base: its rounding differs."""
    return Known(bases_folder(run), _computed(base, fast))


def known_result(run: Run, base: Base, fast: bool) -> Known:
    """What a run's result has been asked, kept in its folder. A result that was trained further or rolled back is
    another one."""
    return Known(run.path, [*_computed(base, fast), _digest(run.adapter_path)])


def bases_folder(run: Run) -> Path:
    """Where it is kept what bases have been asked: beside the runs."""
    return run.root / "bases"


def _computed(base: Base, fast: bool) -> list[object]:
    import torch
    import transformers

    libraries = [torch.__version__, transformers.__version__]
    return [base.sha256, base.precision, base.device.type, fast, libraries]


def _digest(folder: Path) -> str:
    """Of all files of a result."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.name.encode("utf-8", "surrogatepass"))
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
