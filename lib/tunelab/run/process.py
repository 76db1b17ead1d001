"""What is known of the process that trained a run and could not say how it ended.

    process.json  written when it begins: the system's counters of processes ended because memory ran out
    exit.json     written by whoever started it, when it has ended: its exit code, and the counters then

`evidence()` compares them. Where nobody saw the process end, the counters of now are compared with those of its start.
"""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunelab.machine.containers import Kills, memory_kills
from tunelab.machine.files import write_atomically

SIGKILL = 9  # also where the system knows no signals
PROCESS_FILE, EXIT_FILE = "process.json", "exit.json"


@dataclass(frozen=True)
class Evidence:
    """How a process ended, as far as it can be told."""

    code: int | None = None  # its exit code; below 0: the signal that ended it; None: nobody saw it end
    memory_kills: int = 0  # processes that the system ended for want of memory while it ran, in its own group
    memory_kills_anywhere: int = 0  # and on the whole machine
    counted: bool = False  # the system tells of these
    restarted: bool = False  # the machine was restarted since

    @property
    def signal_name(self) -> str:
        """'SIGKILL'; empty where no signal ended it."""
        with suppress(ValueError, TypeError):
            return signal.Signals(-int(self.code or 0)).name
        return f"signal {-self.code}" if self.code and self.code < 0 else ""

    @property
    def is_for_memory(self) -> bool:
        """Whether the system ended it because memory ran out, for all that is known."""
        return self.code in (None, -SIGKILL) and bool(self.memory_kills or self.memory_kills_anywhere)

    @property
    def is_certain(self) -> bool:
        """Whether that leaves no doubt: it was seen to be killed, and the system counts a kill in its own group."""
        return self.code == -SIGKILL and self.memory_kills > 0

    @property
    def words(self) -> str:
        """A clause for a status; empty where nothing is known."""
        if self.is_for_memory and self.is_certain:
            return "the system ended its process because memory ran out"
        if self.is_for_memory:
            return "the system has ended processes because memory ran out, probably this one too"
        if self.code is not None and self.code < 0:
            return f"its process was ended by {self.signal_name}"
        if self.code:
            return f"its process ended with exit code {self.code} and could not write why"
        return "the machine was restarted while it trained" if self.restarted else ""


def note_start(folder: Path) -> None:
    """Note, in a run's folder, that a process begins to train it."""
    with suppress(OSError):  # a full disk: it will be said elsewhere
        (folder / EXIT_FILE).unlink(missing_ok=True)
        write_atomically(folder / PROCESS_FILE, json.dumps(asdict(memory_kills())))


def note_exit(folder: Path, code: int) -> None:
    """Note the exit code of the process that trained a run, as whoever started it saw it."""
    with suppress(OSError):  # the run may be gone
        write_atomically(folder / EXIT_FILE, json.dumps({"code": code, **asdict(memory_kills())}))


def evidence(folder: Path) -> Evidence:
    """What is known of how a run's last process ended."""
    start, end = _read(folder / PROCESS_FILE), _read(folder / EXIT_FILE)
    code = end.get("code")
    seen = code if isinstance(code, int) else None
    if not start:
        return Evidence(seen)
    then, now = _kills(start), _kills(end) if end else memory_kills()
    if then.boot != now.boot:
        return Evidence(seen, restarted=True)
    here, anywhere = _rise(then.here, now.here), _rise(then.anywhere, now.anywhere)
    return Evidence(seen, here or 0, anywhere or 0, counted=(here, anywhere) != (None, None))


def _rise(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def _kills(content: dict[str, Any]) -> Kills:
    here, anywhere = (v if isinstance(v := content.get(k), int) else None for k in ("here", "anywhere"))
    return Kills(here, anywhere, str(content.get("boot", "")))


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}
