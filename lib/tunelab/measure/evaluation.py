"""Measuring a run on rows it never saw: loss, answers and forgetting, tuned against base and baselines, row by row.

    python -m tunelab.measure.evaluation RUN_DIR [--rows N]        writes report.json into the run's folder

    pool (which rows) ──> sides (what base and tuned make of them) ──> compare_sides ──> Report, and the rows as JSONL

A `Report` compares two `Side`s, and the tuned one with what the answers can be guessed with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.errors import EXIT_USER_ERROR, UserError, explain
from tunelab.machine import libraries
from tunelab.measure.answered import write_rows
from tunelab.measure.measured_run import MeasuredRun
from tunelab.measure.settings import LONGEST_ANSWER, ROWS, Measuring
from tunelab.run.reports import (
    REPORT_FILE,
    Report,
)
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.data import Encoded, Example
    from tunelab.measure.changes.rows import AnsweredRow
    from tunelab.measure.statistics import Measured as Judged
    from tunelab.spec import DataSpec


@dataclass(frozen=True)
class RowLoss:
    """-log p of one row's scored tokens, summed, in nats."""

    base: float
    tuned: float
    tokens: int


def evaluate(
    run: Run,
    *,
    rows: int = ROWS,
    max_new_tokens: int = LONGEST_ANSWER,
    stage: int | None = None,
    data: DataSpec | str | Path | None = None,
    keep: Path | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
    **others: Any,
) -> Report:
    """The run's result measured on `rows` held-out rows of a stage (counted from 0; None: the last one); kept in the
    file `keep`, or as `report.json` in the run's folder. Rows, answers and scores stand in the run's folder too.

    `data` names other data, all of whose rows count as held out: a file, a built-in set or a Hub id whose rows are read
    as the stage reads its own, or a specification. Rows that the run was trained on are left out, and those that chose
    which step's result was kept where there are enough others. What the base makes of rows is kept beside the runs, for
    others on it; a measurement that was interrupted goes on where it was. `others` are fields of `Measuring`.

    Raises:
        UserError: the run's data is not what it was trained on any more (and `data` does not name it), the run has no
            adapter, nothing to be measured on, or a setting is out of its range.
    """
    settings = Measuring(rows=rows, max_new_tokens=max_new_tokens, **others)
    (report,) = evaluate_all([run], settings, stage=stage, data=data, keep=keep, on_progress=on_progress)
    return report


def evaluate_all(
    runs: Sequence[Run],
    settings: Measuring,
    *,
    stage: int | None = None,
    data: DataSpec | str | Path | None = None,
    keep: Path | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> list[Report]:
    """As `evaluate`: a report of each run on the same rows, those of the first one that none of them was trained on."""
    from tunelab.measure.pool import pool_of, stage_of
    from tunelab.measure.sides import longest_row
    from tunelab.measure.task import task_for
    from tunelab.model.load import load_tokenizer

    settings.check()
    _check_files(settings)
    for run in runs:
        run.check_whole()
        run.check_result()
    libraries.load()
    first = runs[0]
    number = stage_of(first, None if stage is None else stage + 1)
    pool = pool_of(first, number, data, beside=runs[1:])
    task = task_for(pool.source, pool.train, pool.answers, settings.metric, pool.examples)
    picked = pool.pick(load_tokenizer(first.base_spec), min(map(longest_row, runs)), settings.rows)
    if picked.blocks:
        _check_same_tokens(runs)
        if settings.by == "likelihood":
            raise UserError("by = 'likelihood': plain text has no answers, and so no labels. Leave it out.")
    found: list[tuple[Report, Judged]] = []
    answered: list[list[AnsweredRow]] = []
    for run in runs:
        measured = MeasuredRun(run, picked, task, settings, on_progress)
        found.append((measured.report(pool, _flags(run, runs, number)), measured.judged()))
        answered.append(measured.answered_rows)
        del measured  # before the next model is loaded
    reports = _with_verdicts(found)
    for run, report, rows_of_run in zip(runs, reports, answered, strict=True):
        if report.answers_file:  # only now: until there is a new report, the old one shows its own rows
            write_rows(rows_of_run, run.path / report.answers_file)
        report.write(keep if keep and run is first else run.path / REPORT_FILE)
    return reports


def _flags(run: Run, runs: Sequence[Run], stage: int) -> dict[str, str]:
    """The stage, where it is not the last one, and the runs measured beside this one, whose verdicts were corrected
    together with its own."""
    found = {} if stage == len(run.config.stages) - 1 else {"stage": str(stage + 1)}
    others = [one.id for one in runs if one is not run]
    return found | ({"against": " ".join(others)} if others else {})


def _with_verdicts(found: Sequence[tuple[Report, Judged]]) -> list[Report]:
    """The reports with a verdict in words each, corrected for all of them."""
    from tunelab.measure.statistics import judge_all

    verdicts = judge_all([judged for _report, judged in found])
    reports = []
    for (report, _judged), verdict in zip(found, verdicts, strict=True):
        reports.append(report.model_copy(update={"sentence": verdict.sentence, "decision": verdict.decision}))
    return reports


def _check_files(settings: Measuring) -> None:
    """What is asked from files is read before anything is answered.

    Raises:
        UserError: one can't be read.
    """
    from tunelab.measure.drift import read_canaries
    from tunelab.measure.probe.read import read_probe

    if settings.probe and settings.questions:
        read_probe(settings.probe)
    if settings.canaries:
        read_canaries(settings.canaries)


def _check_same_tokens(runs: Sequence[Run]) -> None:
    """Plain text is measured in blocks of tokens, which are those of one base.

    Raises:
        UserError: the runs stand on several.
    """
    bases = {started.base_sha256 if (started := run.progress().started) else run.config.model.repo_id for run in runs}
    if len(bases) > 1:
        raise UserError(
            f"Runs {runs[0].id} and {runs[1].id} stand on different bases, and losses on plain text are of each base's "
            "own tokens. Measure each alone."
        )


def heldout_losses(run: Run, examples: Sequence[Example]) -> list[RowLoss]:
    """The losses of each example that has something scored within the run's `max_length`; a longer text is measured in
    blocks of that length.

    Raises:
        UserError: the run has no adapter, or none of the examples has anything scored.
    """
    from tunelab.data import rows_alone
    from tunelab.measure.scoring import nothing_to_score
    from tunelab.measure.sides import Sides, longest_row

    run.check_whole()
    run.check_result()
    sides = Sides(run)
    by_example = [found for one in examples if (found := rows_alone(one, sides.base.tokenizer, longest_row(run)))]
    if not by_example:
        raise nothing_to_score(len(examples))
    rows: list[Encoded] = [row for found in by_example for row in found]
    before, after = (iter(sides.losses(rows, tuned)) for tuned in (False, True))
    losses = []
    for found in by_example:
        parts = [(next(before), next(after)) for _row in found]
        losses.append(
            RowLoss(sum(b.loss for b, _ in parts), sum(t.loss for _, t in parts), sum(b.tokens for b, _ in parts))
        )
    return losses


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a run, as the ladder does it in a process of its own; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tunelab.measure.evaluation")
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--max-new-tokens", type=int, default=LONGEST_ANSWER)
    parser.add_argument("--instructions", type=int, default=Measuring.instructions)
    parser.add_argument("--questions", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args(arguments)
    libraries.prepare()
    try:
        evaluate(
            Run(options.run.resolve()),
            rows=options.rows,
            max_new_tokens=options.max_new_tokens,
            instructions=options.instructions,
            questions=options.questions,
            keep=options.keep,
            on_progress=lambda message: print(message, flush=True),
        )
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        print(known, file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
