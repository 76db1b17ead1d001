"""What is taken along from a run and takes a while to make: each by a process of its own, kept beside the run as long
as its result is the one it was made from.

    RUN_DIR/exports/VERSION/gguf-q8_0.gguf    what was made; VERSION follows from the result
    RUN_DIR/exports/VERSION/gguf-q8_0.log     what its process says
    RUN_DIR/exports/VERSION/gguf-q8_0.pid     which process that is: it outlives the app, and one that starts finds it

Knows nothing of the page.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil

from tunelab import ModelSpec, Run, UserError
from tunelab.export.gguf_file import check_family
from tunelab.export.merged import check_mergeable
from tunelab.machine.files import write_atomically

FOLDER = "exports"
MAKER = (sys.executable, "-m", "tunelab.cli")
LAST_WORDS_BYTES = 4000
UNKNOWN = 1000  # how a process ended whose parent is another one
SAYS = "tunelab: "  # how a process begins to say why it failed
SAME_SECONDS = 2.0  # when a process began, told twice: a number is given to another one later
INTERRUPTED = "It was interrupted. Press the button to make it again."
KILLED = "Its process was ended by the system, as happens when memory runs out. Close other programs, then try again."


@dataclass(frozen=True)
class Kind:
    """Something that can be made: how the command line calls it, and how the file ends; no suffix: a folder."""

    command: tuple[str, ...]
    suffix: str = ""
    needs: Literal["merging", "gguf", ""] = ""


KINDS = {
    "merged": Kind(("export", "--to", "merged"), needs="merging"),
    "gguf-q8_0": Kind(("export", "--to", "gguf", "--gguf-type", "q8_0"), ".gguf", needs="gguf"),
    "gguf-f16": Kind(("export", "--to", "gguf", "--gguf-type", "f16"), ".gguf", needs="gguf"),
    "ollama": Kind(("export", "--to", "ollama", "--gguf-type", "q8_0"), needs="gguf"),
    "card": Kind(("report",), ".html"),
}
Status = Literal["none", "making", "made", "failed"]


@dataclass(frozen=True)
class Made:
    """How an export of a run stands."""

    kind: str
    status: Status
    words: str = ""  # how far its process is, or why it failed
    path: Path | None = None

    @property
    def bytes(self) -> int:
        """What it takes on the disk."""
        if self.path is None or not self.path.is_dir():
            return self.path.stat().st_size if self.path and self.path.exists() else 0
        return sum(one.stat().st_size for one in self.path.rglob("*") if one.is_file())


class _Process(Protocol):
    def poll(self) -> int | None: ...


class _Found:
    """A process that an app from before has started."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    def poll(self) -> int | None:
        """None while it runs."""
        with suppress(psutil.NoSuchProcess):
            if self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
                return None
        return UNKNOWN


class Exports:
    """The exports of the runs of one root."""

    def __init__(self, root: Path, maker: Sequence[str] = MAKER) -> None:
        self.root, self.maker = root, tuple(maker)
        self._lock = threading.Lock()
        self._making: dict[Path, _Process] = dict(_going_on(self.root))  # by the log
        self._codes: dict[Path, int] = {}

    def make(self, run: Run, kind: str) -> None:
        """Begin to make it, anew where there is one. One is made at a time: each holds a whole model in memory.

        Raises:
            UserError: it can't be made of this run, or another one is being made.
        """
        if kind not in KINDS:
            raise UserError(f"{kind[:40]}: nothing of this name can be taken along. There are: {', '.join(KINDS)}.")
        if reason := self.refusal(run, kind):
            raise UserError(reason)
        with self._lock:
            self.check_idle()
            folder = self._folder(run, kind)
            self._clear(run, kind, folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._start(run, kind, folder)

    def check_idle(self, run: Run | None = None) -> None:
        """Refuse what can't be done while something is made, of this run or of any.

        Raises:
            UserError: with what is being made.
        """
        for log in list(self._making):  # one that has ended leaves them
            if (run is None or log.is_relative_to(run.path)) and self._alive(log):
                raise UserError(f"{log.stem} of {log.parents[2].name} is being made. Wait until it is done.")

    def all(self, run: Run) -> list[Made]:
        """How each export of the run stands."""
        return [self.one(run, kind) for kind in KINDS]

    def one(self, run: Run, kind: str) -> Made:
        """How an export of the run stands."""
        folder = self._folder(run, kind)
        path, log = folder / f"{kind}{KINDS[kind].suffix}", folder / f"{kind}.log"
        if self._alive(log):
            return Made(kind, "making", _last_line(log) or "starting")
        if path.exists():
            return Made(kind, "made", path=path)
        if not log.exists():
            return Made(kind, "none")
        code, said = self._codes.get(log, UNKNOWN), _last_line(log)
        if code == UNKNOWN and not said.startswith(SAYS):
            return Made(kind, "failed", INTERRUPTED)
        return Made(kind, "failed", KILLED if code < 0 else said.removeprefix(SAYS))

    def refusal(self, run: Run, kind: str) -> str | None:
        """Why it can't be made of this run, as far as that is known before; None: it may be possible."""
        try:
            _ = run.config
            if KINDS[kind].needs:
                check_mergeable(run)
            if KINDS[kind].needs == "gguf":
                _check_gguf(run.base_spec, "f16" if kind == "gguf-f16" else "q8_0")
        except UserError as error:
            return str(error)
        return None

    def state(self, run: Run) -> list[Any]:
        """What follows from how they stand: as long as it is the same, nothing has changed."""
        if not (run.path / FOLDER).is_dir():
            return []
        return [[made.status, made.words] for made in self.all(run)]

    def moment(self) -> list[Any]:
        """What all exports depend on: what is being made and how far it is, and how much has ended."""
        return [
            [[str(log), _last_line(log)] for log in list(self._making) if self._alive(log)],
            sorted(map(str, self._codes)),
        ]

    def _start(self, run: Run, kind: str, folder: Path) -> None:
        out, log_path = folder / f"{kind}{KINDS[kind].suffix}", folder / f"{kind}.log"
        name, *more = KINDS[kind].command
        gently = ("nice", "-n", "10") if shutil.which("nice") else ()  # a training goes first
        command = [*gently, *self.maker, name, run.id, *more, "--out", str(out), "--runs", str(run.root)]
        self._codes.pop(log_path, None)
        with open(log_path, "wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._making[log_path] = process
        with suppress(psutil.NoSuchProcess):  # it has ended already
            noted = f"{process.pid} {psutil.Process(process.pid).create_time()}"
            write_atomically(log_path.with_suffix(".pid"), noted)

    def _alive(self, log: Path) -> bool:
        process = self._making.get(log)
        if process is None:
            return False
        code = process.poll()
        if code is None:
            return True
        self._codes[log] = code
        self._making.pop(log, None)
        return False

    def _folder(self, run: Run, kind: str) -> Path:
        return run.path / FOLDER / _version(run, kind)

    @staticmethod
    def _clear(run: Run, kind: str, folder: Path) -> None:
        """Remove what was made from an earlier result, and this one if it is made again."""
        for old in (run.path / FOLDER).glob("*"):
            for end in (KINDS[kind].suffix, ".json", ".log", ".pid"):
                path = old / f"{kind}{end}"
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if old != folder and not any(old.iterdir()):
                old.rmdir()


def _going_on(root: Path) -> Iterator[tuple[Path, _Process]]:
    """What is being made, by its log, by processes that an app from before has started."""
    for path in root.glob(f"*/{FOLDER}/*/*.pid"):
        with suppress(OSError, ValueError, psutil.Error):
            number, began = path.read_text(encoding="utf-8").split()
            process = psutil.Process(int(number))
            if abs(process.create_time() - float(began)) < SAME_SECONDS:
                yield path.with_suffix(".log"), _Found(process)


@lru_cache(maxsize=64)
def _check_gguf(model: ModelSpec, kind: str) -> None:
    """Refuse a base that can't be written as GGUF."""
    from tunelab.model.folder import read_config
    from tunelab.model.load import find

    check_family(read_config(find(model)), kind)


def _version(run: Run, kind: str) -> str:
    """What an export follows from: the result, and for the card whatever was measured and noted."""
    paths = [run.path / name for name in ("adapter", "model")]
    if kind == "card":
        paths += [run.path / name for name in ("report.json", "labels.json", "events.jsonl", "evaluations")]
    stats = [path.stat() if path.exists() else None for path in paths]
    facts = [(one.st_mtime_ns, one.st_ino) if one else None for one in stats]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


def _last_line(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_WORDS_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
