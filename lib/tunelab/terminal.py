"""What commands share: how they are added to a parser, what they print beside their result, how a climb is shown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunelab.measure.series import Series


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], described: str, examples: str | None = None
) -> argparse.ArgumentParser:
    """A command with the flag that says where runs live. `examples`: a module's docstring, whose first line the help
    leaves out."""
    more = (examples or "").partition("\n\n")[2]
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=described,
        description=f"{described}\n\n{more}" if more else described,
        formatter_class=argparse.RawDescriptionHelpFormatter if more else argparse.HelpFormatter,
    )
    command.set_defaults(command=run)
    command.add_argument("--runs", metavar="DIR", dest="root", help="where runs live (default: the user's data folder)")
    return command


def say(message: str) -> None:
    """Tell something beside the result."""
    print(message, file=sys.stderr, flush=True)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def follow_climb(series: Series[Any], tell: Callable[[str], None] = print) -> bool:
    """Train and measure the runs of a series and tell each change; whether Ctrl-C stopped it."""
    from tunelab.chain import interruptible
    from tunelab.measure.climb import climb

    series.clear_requests()
    with interruptible() as interrupted:
        shown = None
        for rung in climb(series, interrupted):
            if (rung.name, rung.status) != shown:
                shown = (rung.name, rung.status)
                about = f": {rung.message}" if rung.status in ("done", "failed", "skipped", "stopped") else ""
                tell(f"{rung.title}: {rung.status}{about}")
                sys.stdout.flush()
        return interrupted()


def say_what_is_left(series: Series[Any]) -> None:
    """How to go on with a series that stopped before its end."""
    if any(rung.status in ("waiting", "stopped") for rung in series.rungs()):
        say(f"Stopped before its end; go on with the same command and --out {series.path}")
