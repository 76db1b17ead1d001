"""Runs that are deleted, and come back: `RUNS_ROOT/.deleted/ID`, moved there and back by one rename.

    delete_run(run) ──> .deleted/ID ──> restore_run(ID)
                                    └─> empty_deleted(older_than): gone for good

Other runs may have started from one that is deleted. As long as one does, its configuration, its log and the digests
of its rows are kept when it is emptied: by them is known what the others have learned.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunelab.errors import UserError, listed, shortened
from tunelab.machine.files import write_atomically
from tunelab.run.heartbeat import Beating
from tunelab.run.labels import LABELS_FILE
from tunelab.run.run import DELETED, Run, list_runs, runs_root
from tunelab.run.trained import TRAINED_FILE
from tunelab.run.turn import MEASURING

MARK_FILE, EMPTIED_FILE = "deleted", "emptied"
KEPT_FOR_OTHERS = {"config.json", "events.jsonl", TRAINED_FILE, LABELS_FILE, MARK_FILE, EMPTIED_FILE}


@dataclass(frozen=True)
class Deleted:
    """A run that was deleted and can be restored."""

    run: Run
    deleted_unix_seconds: float
    bytes: int  # that its files take on the disk


def delete_run(run: Run) -> Deleted:
    """The run, moved out of the list; `restore_run` brings it back. One that waits leaves the queue.

    Raises:
        UserError: it is trained or measured, or another run still needs its result.
    """
    run.check_whole()
    if run.root.name == DELETED or not run.path.is_dir():
        raise UserError(f"Run {run.id} is not in the list of runs any more, so there is nothing to delete.")
    _check_idle(run)
    if needing := [one.id for one in runs_from(run) if one.status != "finished"]:
        raise UserError(
            f"Run {run.id} can't be deleted: {listed(needing, 3)} started from it and still "
            f"{'needs' if len(needing) == 1 else 'need'} its result. Finish or delete that first."
        )
    for request in ("queued", "paused"):
        (run.path / request).unlink(missing_ok=True)
    target = run.root / DELETED / run.id
    target.parent.mkdir(exist_ok=True)
    (run.path / MARK_FILE).touch()
    run.path.rename(target)
    gone = Run(target)
    if gone.is_alive:  # a process began on it meanwhile
        _move_back(gone, run.path)
        _check_idle(run)
    return _deleted(gone)


def restore_run(name: str | Path, root: str | Path | None = None) -> Run:
    """The deleted run of this id or name, back in the list.

    Raises:
        UserError: no deleted run, or more than one, is called that, or its result was emptied.
    """
    run = find_deleted(name, root).run
    back = runs_root(root) / run.id
    if back.exists():
        raise UserError(f"Run {run.id} can't be restored: another one of this id is in {back.parent}. Move it away.")
    _move_back(run, back)
    return Run(back)


def find_deleted(name: str | Path, root: str | Path | None = None) -> Deleted:
    """The deleted run of this id or name.

    Raises:
        UserError: as `restore_run`.
    """
    text, every = str(name), deleted_runs(root)
    found = [one for one in every if one.run.id == text]
    found = found or [one for one in every if one.run.given_name == text or (text and one.run.id.startswith(text))]
    if len(found) == 1:
        return found[0]
    what = f"{len(found) or 'No'} deleted {'runs are' if found else 'run is'} called {shortened(text)}."
    if text in {one.id for one in _folders(root) if (one.path / EMPTIED_FILE).exists()}:
        what = f"Run {text} was emptied: its result is gone for good."
    known = listed([one.run.id for one in every], 5) or "none"
    raise UserError(f"{what} Can be restored: {known}. See all with `tunelab runs --deleted`.")


def deleted_runs(root: str | Path | None = None) -> list[Deleted]:
    """Every run that can be restored, the one that was deleted last first."""
    found = [_deleted(run) for run in _folders(root) if not (run.path / EMPTIED_FILE).exists()]
    return sorted(found, key=lambda one: one.deleted_unix_seconds, reverse=True)


def empty_deleted(root: str | Path | None = None, older_than_seconds: float = 0.0) -> int:
    """Bytes that were freed: runs that were deleted at least so long ago are gone for good, but for what others that
    started from them need to know of them."""
    latest = time.time() - older_than_seconds
    every = _folders(root)
    going = {run.id: run for run in every if (run.path / EMPTIED_FILE).exists() or _moment(run) <= latest}
    staying = [*list_runs(root), *(run for run in every if run.id not in going)]
    needed = {before for run in staying for before in run.lineage}
    before = sum(map(_bytes, (run.path for run in going.values())))
    for run in going.values():
        _empty(run) if run.id in needed else _remove(run.path)
    for left in _left_behind(root):  # by a process that ended while it removed them
        shutil.rmtree(left, ignore_errors=True)
    return before - sum(_bytes(run.path) for run in going.values() if run.path.is_dir())


def runs_from(run: Run) -> list[Run]:
    """The runs of its root that started from its result."""
    return [one for one in list_runs(run.root) if one.readable and one.config.start_from == run.id]


def run_bytes(run: Run) -> int:
    """What its files take on the disk."""
    return _bytes(run.path)


def _check_idle(run: Run) -> None:
    if run.is_alive:
        raise UserError(f"Run {run.id} is training. Stop it first (`tunelab stop {run.id}`), then delete it.")
    if Beating(run.path / MEASURING).is_alive:
        raise UserError(f"Run {run.id} is being measured. Stop that, or wait until it is done, then delete it.")


def _deleted(run: Run) -> Deleted:
    return Deleted(run, _moment(run), _bytes(run.path))


def _folders(root: str | Path | None) -> list[Run]:
    """What stands among the deleted runs, also what is kept of emptied ones."""
    folder = runs_root(root) / DELETED
    paths: Iterable[Path] = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ()
    return [Run(path) for path in paths if path.name[0] != "." and (path / "config.json").is_file()]


def _left_behind(root: str | Path | None) -> list[Path]:
    folder = runs_root(root) / DELETED
    return [path for path in folder.iterdir() if path.name[0] == "."] if folder.is_dir() else []


def _moment(run: Run) -> float:
    for name in (MARK_FILE, "config.json"):
        with suppress(OSError):
            return (run.path / name).stat().st_mtime
    return 0.0


def _move_back(run: Run, path: Path) -> None:
    run.path.rename(path)
    (path / MARK_FILE).unlink(missing_ok=True)


def _empty(run: Run) -> None:
    """Remove all but what tells others what it had learned."""
    write_atomically(run.path / EMPTIED_FILE, "")
    for path in run.path.iterdir():
        if path.name not in KEPT_FOR_OTHERS:
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or folder, so that at no moment a part of it passes for the whole."""
    if path.is_dir() and not path.is_symlink():
        gone = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _bytes(folder: Path) -> int:
    """Of all files below a folder; one that vanishes meanwhile counts nothing."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += 0 if file.is_symlink() or not file.is_file() else file.stat().st_size
    return total
