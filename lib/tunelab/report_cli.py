"""`tunelab report RUN`: the run as one page to show, and the same facts as JSON.

tunelab report tickets
tunelab report latest --out tickets.html --rows 3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tunelab import terminal


def add_command(commands: Any) -> None:
    """Add `report` to the commands of a parser."""
    described = "a run as one page: data, settings, curves, result, wins and losses, cost, limits"
    command = terminal.add_command(commands, "report", _report, described, __doc__)
    command.add_argument("run", help="id or name of the run, or 'latest'")
    command.add_argument("--out", metavar="FILE", help="an .html file (default: card.html in the run's folder)")
    command.add_argument(
        "--rows", type=int, default=5, help="rows of the data that are shown of each kind; 0: none (default: 5)"
    )


def _report(options: argparse.Namespace) -> int:
    from tunelab.measure.card import report
    from tunelab.measure.card.writing import CARD_FILE, json_file
    from tunelab.run.run import Run

    run = Run.open(options.run, options.root)
    out = Path(options.out).expanduser() if options.out else run.path / CARD_FILE
    card = report(run, out=out, rows=options.rows, on_progress=terminal.say)
    print(f"{card.headline.words}. {card.headline.sentence}".strip())
    print(f"Card: {out}\nFacts: {json_file(out)}")
    return 0
