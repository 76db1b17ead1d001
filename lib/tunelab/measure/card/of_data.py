"""The rows a run learned from, and what the data doctor says of them: read again, where they are what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunelab.data.checkup import tokenizer_and_limit
from tunelab.data.doctor import Examination, examine_rows
from tunelab.data.split import file_of
from tunelab.errors import UserError, explain
from tunelab.measure.card.facts import Examined, Found, FoundRow, StageData
from tunelab.measure.card.shown import one_line
from tunelab.run.public import name_of, stage_names, without_paths
from tunelab.run.trained import heldout_again

if TYPE_CHECKING:
    from tunelab.data.examples import DataSplit
    from tunelab.run.run import Run
    from tunelab.spec import DataSpec

Say = Callable[[str], None]


def data_of(run: Run, rows: int, say: Say) -> tuple[tuple[StageData, ...], list[str]]:
    """The data of each stage, with at most `rows` examples of a finding, and the answers that the last stage was
    trained on; none where they can't be read."""
    if run.imported_from:
        return (), []
    found = []
    answers: list[str] = []
    for number, name in enumerate(stage_names(run)):
        split, why_not = _read_again(run, number, say)
        examined = _examined(run, number, split, rows, say) if split else None
        found.append(_stage(run, number, name, examined, why_not))
        answers = [example.answer for example in split.train] if split else []
    return tuple(found), answers


def _read_again(run: Run, number: int, say: Say) -> tuple[DataSplit | None, str | None]:
    """The rows as they were, or why they can't be looked at."""
    data = run.config.stages[number].data
    started = run.progress().started
    if started is None:
        return None, "The run has not started: its rows have not been read yet."
    for file in map(file_of, (data.source, data.heldout)):
        if file and not file.is_file():
            return None, f"{name_of(str(file))} is not where it was, so its rows were not examined. Bring it back."
    say(f"reading {name_of(data.title)}")
    try:
        return heldout_again(run, number), None
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        return None, f"The rows were not examined. {without_paths(known, run)}"


def _examined(run: Run, number: int, split: DataSplit, rows: int, say: Say) -> Examined:
    say(f"examining {len(split.train):,} rows")
    try:
        tokenizer, max_length = tokenizer_and_limit(run.base_spec)
    except UserError:
        tokenizer, max_length = None, run.config.model.max_length
    seed = run.config.stages[number].data.seed
    found = examine_rows(
        split.train, split.heldout, tokenizer=tokenizer, max_length=max_length, seed=seed, on_progress=say
    )
    return _facts(found, rows)


def _facts(examination: Examination, rows: int) -> Examined:
    return Examined(
        rows=examination.rows,
        heldout_rows=examination.heldout_rows,
        findings=tuple(
            Found(
                severity=finding.severity,
                title=finding.title,
                why=finding.why,
                fix=f"{finding.fix.name}: {finding.fix.does}" if finding.fix else None,
                examples=tuple(
                    FoundRow(row=one.row, text=one.text, heldout=one.heldout) for one in finding.examples[:rows]
                ),
            )
            for finding in examination.findings
        ),
        measures=examination.measures,
        notes=examination.notes,
    )


def _stage(run: Run, number: int, name: str, examined: Examined | None, why_not: str | None) -> StageData:
    stage = run.config.stages[number]
    started = run.progress().started
    return StageData(
        name=one_line(name),
        source=one_line(name_of(stage.data.title)),
        learn=stage.learn,
        rows=started.train_rows[number] if started else None,
        heldout_rows=started.heldout_rows[number] if started else None,
        sha256=started.data_sha256[number] if started else None,
        columns=(started.columns_of(number) if started else None) or stage.data.columns or {},
        held_out_by=_held_out_by(stage.data),
        fixes=stage.data.fixes,
        replay=_replay(run, number),
        examined=examined,
        not_examined=why_not,
    )


def _held_out_by(data: DataSpec) -> str:
    """How held-out rows were chosen, for people."""
    if data.heldout_rows is not None:
        return "rows of their own"
    if data.heldout == "auto":
        return f"the data's own test part if it has one, else a tenth, seed {data.seed}"
    if isinstance(data.heldout, str):
        return f"{name_of(data.heldout)}, a file of its own"
    if data.heldout < 1:
        return f"{data.heldout:.3g} of the rows, seed {data.seed}"
    return f"{data.heldout:,.0f} rows, seed {data.seed}"


def _replay(run: Run, number: int) -> str | None:
    stage = run.config.stages[number]
    if not stage.training.replay_share:
        return None
    return f"{stage.training.replay_share:.0%} of the rows are general ones, of {name_of(stage.replayed.title)}"
