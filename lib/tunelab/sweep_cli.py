"""`tunelab sweep RUN.YAML`: the same run with several seeds, and a verdict that counts the luck between them.

tunelab sweep run.yaml --seeds 3
tunelab sweep tickets --seeds 3 --learning-rates 1e-4 2e-4 --ranks 8 32 --out sweeps/tickets
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab import terminal
from tunelab.errors import EXIT_INTERRUPTED, UserError
from tunelab.flags import given, spec_flags

if TYPE_CHECKING:
    from tunelab.config import RunConfig
    from tunelab.measure.sweep import Sweep


def add_command(commands: Any) -> None:
    """Add `sweep` to the commands of a parser."""
    from tunelab.measure.series import SeriesConfig

    described = "the same run with several seeds, learning rates or ranks, and a verdict over all of them"
    command = terminal.add_command(commands, "sweep", _sweep, described, __doc__)
    command.add_argument("config", metavar="RUN.YAML", help="a RunConfig as YAML or JSON, or a run to take it from")
    command.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds, from 0 (default: 3)")
    command.add_argument("--learning-rates", type=float, nargs="+", default=[], metavar="RATE", help="to try, each")
    command.add_argument("--ranks", type=int, nargs="+", default=[], metavar="R", help="of LoRA, to try, each")
    command.add_argument("--out", metavar="DIR", help="where its results go; the same DIR goes on where it was")
    command.add_argument("--json", action="store_true", help="the results as JSON at the end")
    spec_flags(command, SeriesConfig, ("rows", "instructions", "max_new_tokens"))


def _sweep(options: argparse.Namespace) -> int:
    from tunelab.measure.sweep import Sweep, SweepConfig

    if options.seeds < 1:
        raise UserError(f"--seeds {options.seeds}: at least 1 is needed. 3 show how much of a gain is luck.")
    config = SweepConfig.model_validate(
        {
            "run": _config(options),
            "seeds": tuple(range(options.seeds)),
            "learning_rates": tuple(options.learning_rates),
            "ranks": tuple(options.ranks),
            **given(options, "SeriesConfig"),
        }
    )
    sweep = Sweep.create(config, Path(options.out) if options.out else None, options.root)
    stopped = terminal.follow_climb(sweep, terminal.say if options.json else print)
    _print(sweep, options.json)
    terminal.say_what_is_left(sweep)
    return EXIT_INTERRUPTED if stopped else 0


def _config(options: argparse.Namespace) -> RunConfig:
    """Of the file, or of a run."""
    from tunelab.config import RunConfig
    from tunelab.run.run import Run

    if Path(options.config).suffix.lower() in (".yaml", ".yml", ".json") or Path(options.config).is_file():
        return RunConfig.from_file(options.config)
    return Run.open(options.config, options.root).pinned


def _print(sweep: Sweep, as_json: bool) -> None:
    from tunelab.measure.sweep import figure_of, verdicts

    swept = verdicts(sweep)
    if as_json:
        found = [
            {
                "setting": one.setting,
                "runs": [rung.run for rung in one.runs],
                "verdict": json.loads(one.verdict.model_dump_json()) | {"sentence": one.verdict.sentence}
                if one.verdict
                else None,
            }
            for one in swept
        ]
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    rows = [["Run", "Figure", "Base", "Tuned", "Held-out loss", "Training"]]
    for one in swept:
        for rung in one.runs:
            assert rung.report is not None
            title, base, tuned = figure_of(rung.report)
            loss, seconds = rung.report.heldout_loss.tuned, f"{rung.seconds:,.0f} s" if rung.seconds else ""
            rows.append([rung.title, title, f"{base:.1f}", f"{tuned:.1f}", f"{loss:.3f}", seconds])
    print("\n" + terminal.aligned(rows))
    for one in swept:
        what = one.verdict.sentence if one.verdict else "nothing is answered, so the losses above are all there is"
        print(f"{one.setting}: {what}.")
