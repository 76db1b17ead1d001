"""`tunelab runs | label | delete | restore | diff`: runs as things that people keep.

tunelab runs --search 'tickets tag:good status:finished'
tunelab label tickets --name 'tickets, lower rate' --tag good v2 --note 'trained on the mended rows'
tunelab diff tickets docs
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from tunelab import terminal
from tunelab.errors import UserError, shown_name

if TYPE_CHECKING:
    from tunelab.run.run import Run


def add_commands(commands: Any) -> None:
    """Add them to the commands of a parser."""
    runs = terminal.add_command(commands, "runs", _runs, "list the runs")
    runs.add_argument("--json", action="store_true", help="one JSON object per line")
    runs.add_argument(
        "--search",
        metavar="WORDS",
        help="those that every word fits: in name, tags, note, method, data, model, status; or in one place, as in "
        "tag:good status:failed model:starter",
    )
    runs.add_argument("--deleted", action="store_true", help="those that were deleted and can be restored")

    label = terminal.add_command(commands, "label", _label, "call a run otherwise, tag it, note something about it")
    label.add_argument("run", help="id or name of the run, or 'latest'")
    label.add_argument("--name", help="its name from now on; '' takes it away")
    label.add_argument("--tag", nargs="*", metavar="TAG", help="its tags, in place of those before; none: no tags")
    label.add_argument("--note", help="a note; '' takes it away")

    delete = terminal.add_command(commands, "delete", _delete, "take a run out of the list; restore brings it back")
    delete.add_argument("run", nargs="?", help="id or name of the run")
    delete.add_argument(
        "--empty",
        type=float,
        metavar="DAYS",
        help="remove for good what was deleted at least so many days ago; 0: all of it",
    )
    restore = terminal.add_command(commands, "restore", _restore, "bring a deleted run back")
    restore.add_argument("run", help="id or name of the deleted run")

    diff = terminal.add_command(commands, "diff", _diff, "in which settings runs differ")
    diff.add_argument("run", nargs="+", help="id or name of two runs or more")
    diff.add_argument("--json", action="store_true", help="one JSON object per setting and line")


def _runs(options: argparse.Namespace) -> int:
    from tunelab.run.run import list_runs, runs_root
    from tunelab.run.search import search_runs

    if options.deleted:
        return _list_deleted(options)
    every = list_runs(options.root)
    found = search_runs(every, options.search or "")
    if not every and not options.json:
        print(f"No runs in {runs_root(options.root)} yet. Start one with `tunelab train --data FILE`.")
    elif not found and not options.json:
        print(f"None of {len(every)} runs fits {options.search!r}.")
    for run in found:
        print(json.dumps(_facts(run)) if options.json else "\n".join(_lines(run)))
    return 0


def _facts(run: Run) -> dict[str, Any]:
    progress, labels = run.progress(), run.labels
    return {
        "run": run.id,
        "name": run.name,
        "tags": labels.tags,
        "note": labels.note,
        "method": run.config.method if run.readable else "",
        "data": run.config.stages[0].data.title if run.readable else "",
        "status": progress.status,
        "step": progress.step,
        "heldout_loss": progress.heldout_loss,
        "message": progress.message,
        "lineage": run.lineage,
    }


def _lines(run: Run) -> list[str]:
    """A run in the list: a line, and more where there is something to say."""
    facts, labels = _facts(run), run.labels
    loss = f"held-out loss {facts['heldout_loss']:.3f}" if facts["heldout_loss"] is not None else ""
    lines = [f"{run.id}  {facts['method']:<8} {facts['data']:<20} {facts['status']:<10} {loss}".rstrip()]
    if labels.name or labels.tags:
        lines.append(f"    {' '.join([labels.name or '', *(f'#{tag}' for tag in labels.tags)]).strip()}")
    lines += [f"    {line}" for line in (*labels.note.splitlines(), labels.problem) if line]
    if facts["status"] in ("failed", "lost", "unreadable"):
        lines.append(f"    {facts['message']}")
    if facts["lineage"]:
        lines.append(f"    started from {' ← '.join(facts['lineage'])}")
    return lines


def _list_deleted(options: argparse.Namespace) -> int:
    from tunelab.run.deleting import deleted_runs

    found = deleted_runs(options.root)
    for one in found:
        facts = {"run": one.run.id, "name": one.run.name, "bytes": one.bytes}
        line = f"{one.run.id}  {shown_name(one.run.name)}  {size_text(one.bytes)}"
        print(json.dumps(facts) if options.json else line)
    if not options.json:
        total = size_text(sum(one.bytes for one in found))
        print(f"{len(found)} deleted, {total}. `tunelab restore RUN` brings one back." if found else "Nothing deleted.")
    return 0


def _label(options: argparse.Namespace) -> int:
    from tunelab.run.run import Run

    if options.name is None and options.tag is None and options.note is None:
        raise UserError("Nothing to change is given. Give --name, --tag or --note.")
    run = Run.open(options.run, options.root)
    run.label(name=options.name, tags=options.tag, note=options.note)
    print(*_lines(run), sep="\n")
    return 0


def _delete(options: argparse.Namespace) -> int:
    from tunelab.run.deleting import delete_run, empty_deleted
    from tunelab.run.run import Run

    if (options.run is None) == (options.empty is None):
        raise UserError("Give one of both: a run to delete, or --empty DAYS to remove what was deleted before.")
    if options.run is None:
        if not options.empty >= 0:
            raise UserError(f"--empty {options.empty:g}: give a number of days from 0 on.")
        freed = empty_deleted(options.root, options.empty * 86_400)
        print(f"Removed for good: {size_text(freed)}.")
        return 0
    gone = delete_run(Run.open(options.run, options.root))
    print(f"Deleted {gone.run.id} ({size_text(gone.bytes)}). Bring it back: tunelab restore {gone.run.id}")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from tunelab.run.deleting import restore_run

    run = restore_run(options.run, options.root)
    print(*_lines(run), sep="\n")
    return 0


def _diff(options: argparse.Namespace) -> int:
    from tunelab.run.run import Run
    from tunelab.run.settings import config_diff

    if len(options.run) < 2:
        raise UserError(f"{options.run[0]}: one run differs from nothing. Give two or more.")
    runs = [Run.open(name, options.root) for name in options.run]
    found = config_diff(*(run.pinned for run in runs))
    if options.json:
        for one in found:
            print(json.dumps({"field": one.field, **dict(zip((run.id for run in runs), one.values, strict=True))}))
    elif found:
        print(terminal.aligned([["", *(run.id for run in runs)], *([one.field, *one.values] for one in found)]))
    else:
        print("They were made with the same settings.")
    return 0


def size_text(count: int) -> str:
    """Bytes in the unit that people would choose."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
