"""`tunelab evaluate RUN`: is it better than its base, than other runs, and than what needs no tuning at all?

tunelab evaluate tickets --rows 300 --examples 3 --system 'Answer with JSON only.'
tunelab evaluate tickets --against tickets-r64 --data new_tickets.csv
tunelab evaluate intents --by likelihood
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab import terminal
from tunelab.errors import UserError
from tunelab.flags import columns_of

if TYPE_CHECKING:
    from tunelab.measure.answered import Form
    from tunelab.measure.changes.rows import AnsweredRow
    from tunelab.measure.settings import Measuring
    from tunelab.run.reports import Report
    from tunelab.run.run import Run
    from tunelab.spec import DataSpec


def add_command(commands: Any) -> None:
    """Add `evaluate` to the commands of a parser."""
    described = "measure a run on held-out rows: loss, answers, forgetting, and what does as well"
    command = terminal.add_command(commands, "evaluate", _evaluate, described, __doc__)
    command.add_argument("run", help="id or name of the run, or 'latest'")
    command.add_argument("--against", nargs="+", default=[], metavar="RUN", help="other runs, on the same rows")
    _number(command, "rows", "held-out rows to measure on")
    _number(command, "max_new_tokens", "longest answer in tokens")
    command.add_argument(
        "--by",
        choices=("answer", "likelihood"),
        default="answer",
        help="answers are written, or the label with the highest likelihood is taken (default: answer)",
    )
    _what_to_compare_with(command)
    command.add_argument("--stage", type=int, help="whose held-out rows, counted from 1 (default: the last stage's)")
    command.add_argument("--data", metavar="FILE", help="other data to measure on; rows trained on are left out")
    command.add_argument(
        "--columns", nargs="+", metavar="ROLE=COLUMN", help="columns of that data (default: as in the run)"
    )
    command.add_argument("--template", help="template of that data (default: as in the run)")
    command.add_argument(
        "--out",
        metavar="FILE",
        help="a file for the rows with all answers and scores; with --against one more for each other run, "
        "its id behind FILE's name",
    )
    command.add_argument(
        "--form",
        choices=("rows", "lm-eval", "comparator"),
        default="rows",
        help="of that file: a JSON line per row, samples as lm-evaluation-harness logs them, or LLM Comparator's JSON",
    )
    command.add_argument("--json", action="store_true", help="the report as JSON; a list of them with --against")


def _what_to_compare_with(command: argparse.ArgumentParser) -> None:
    command.add_argument("--system", metavar="TEXT", help="ask the base with this system prompt as well")
    _number(command, "examples", "show the base so many training rows as well; 0: do not ask it so")
    command.add_argument("--metric", metavar="FILE.py", help="a metric of your own: score(prediction, reference)")
    command.add_argument("--probe", metavar="FILE", help="questions of general ability, in HellaSwag's columns")
    _number(command, "questions", "how many questions of general ability; 0: none")
    command.add_argument("--memorisation", action="store_true", help="look at training rows as well: what comes out")
    command.add_argument("--canaries", metavar="FILE", help="codes planted in the training rows: prompt, completion")
    command.add_argument("--safety", action="store_true", help="ask harmful requests as well: are they declined")
    _number(command, "instructions", "general instructions forgetting is measured on")


def _number(command: argparse.ArgumentParser, name: str, described: str) -> None:
    """A flag for a number of `Measuring`, with its default."""
    from tunelab.measure.settings import Measuring

    default = getattr(Measuring, name)
    flag = f"--{name.replace('_', '-')}"
    command.add_argument(flag, type=int, default=default, metavar="N", help=f"{described} (default: {default})")


def _evaluate(options: argparse.Namespace) -> int:
    from tunelab.measure.answered import rows_of
    from tunelab.measure.evaluation import evaluate_all
    from tunelab.measure.pool import stage_of
    from tunelab.run.run import Run

    runs = [Run.open(name, options.root) for name in (options.run, *options.against)]
    run = runs[0]
    if repeated := {one.id for one in runs if [other.id for other in runs].count(one.id) > 1}:
        raise UserError(f"--against {', '.join(sorted(repeated))}: the run is named twice. Name other runs.")
    reports = evaluate_all(
        runs,
        _settings(options),
        stage=stage_of(run, options.stage),
        data=_other_data(options, run),
        on_progress=terminal.say,
    )
    if options.json:
        every = [report.as_json() for report in reports]
        print(json.dumps(every if options.against else every[0], ensure_ascii=False, indent=1))
    else:
        _print(runs, reports)
    for one in runs if options.out else ():
        _write(rows_of(one), _path_of(one, run, Path(options.out)), options.form, one)
    return 0


def _path_of(one: Run, first: Run, path: Path) -> Path:
    """Where the rows of a run are written: the first one's where it was asked for, the others' beside it."""
    return path if one.id == first.id else path.with_name(f"{path.stem}-{one.id}{path.suffix}")


def _print(runs: Sequence[Run], reports: Sequence[Report]) -> None:
    from tunelab.run.report_words import in_words

    several = len(runs) > 1
    for one, report in zip(runs, reports, strict=True):
        if several:
            print(f"{one.id}, {one.config.method}")
        print(in_words(report), end="\n\n" if several else "\n")
    if several:
        _print_against(runs[0], reports[0], runs[1:])


def _write(rows: Sequence[AnsweredRow], path: Path, form: Form, run: Run) -> None:
    """
    Raises:
        UserError: the file can't be written.
    """
    from tunelab.measure.answered import write_as

    if not rows:
        terminal.say(f"rows: nothing is answered here, so nothing is written to {path}")
        return
    for written in write_as(rows, path, form, run):
        terminal.say(f"rows: {written}")


def _settings(options: argparse.Namespace) -> Measuring:
    from tunelab.measure.settings import Measuring

    return Measuring(
        rows=options.rows,
        max_new_tokens=options.max_new_tokens,
        by=options.by,
        system=options.system,
        examples=options.examples,
        questions=options.questions,
        instructions=options.instructions,
        probe=Path(options.probe) if options.probe else None,
        metric=Path(options.metric) if options.metric else None,
        memorisation=options.memorisation,
        canaries=Path(options.canaries) if options.canaries else None,
        safety=options.safety,
    )


def _print_against(run: Run, report: Report, others: Sequence[Run]) -> None:
    """The run and each other one on the same rows, by the scores that stand beside their answers; all differences are
    judged at once."""
    from tunelab.measure.answered import rows_of
    from tunelab.measure.sides_compared import compare_runs
    from tunelab.measure.statistics import ALPHA, holm

    if not report.metrics:
        print("Nothing is answered here, so the losses above are all that runs can be compared by.")
        return
    rows = rows_of(run)
    found = [
        (other, figure) for other in others for figure in compare_runs(rows, rows_of(other), report.metrics).values()
    ]
    corrected = holm([1.0 if figure.change.p is None else figure.change.p for _other, figure in found])
    shown = None
    for (other, figure), p in zip(found, corrected, strict=True):
        if other is not shown:
            print(f"{run.id} against {other.id}, on the rows that both answered:")
            shown = other
        change = figure.change
        print(
            f"  {figure.title}: {figure.base:.1f} and {figure.tuned:.1f}; the second is {change.value:+.1f} "
            f"[{change.low:+.1f}, {change.high:+.1f}], {figure.verdict if p <= ALPHA else 'not enough evidence'} "
            f"({change.n} rows)"
        )
    if len(found) > 1:
        print(f"Verdicts on runs against each other are corrected for {len(found)} judged at once.")


def _other_data(options: argparse.Namespace, run: Run) -> DataSpec | None:
    """The data that the flags name; what they leave open is as in the run."""
    from tunelab.measure.pool import read_alike, stage_of
    from tunelab.spec import DataSpec

    described = {"template": options.template} if options.template is not None else {}
    if options.columns:
        described["columns"] = columns_of(options.columns)
    if options.data:
        own = run.config.stages[stage_of(run, options.stage)].data
        return DataSpec.model_validate({**read_alike(own), "source": options.data, **described})
    if described:
        raise UserError("--columns and --template describe other data than the run's. Name it: --data FILE.")
    return None
