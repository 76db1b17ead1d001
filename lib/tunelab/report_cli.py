"""`tunelab report RUN`: the run as one page to show, and the same facts as JSON.

tunelab report tickets
tunelab report latest --out tickets.html --rows 3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:
    """Add `report` to the commands of a parser."""
    described = "a run as one page: data, settings, curves, result, wins and losses, cost, limits"
    command = commands.add_parser(
        "report",
        help=described,
        description=f"{described}\n\n{(__doc__ or '').partition(chr(10) * 2)[2]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=_report)
    command.add_argument("--runs", metavar="DIR", dest="root", help="where runs live (default: the user's data folder)")
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
    card = report(
        run, out=out, rows=options.rows, on_progress=lambda message: print(message, file=sys.stderr, flush=True)
    )
    print(f"{card.headline.words}. {card.headline.sentence}".strip())
    print(f"Card: {out}\nFacts: {json_file(out)}")
    return 0
