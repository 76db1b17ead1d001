"""Measuring a run on rows it never saw: loss, answers and forgetting, tuned against base and baselines, row by row.

    python -m tunelab.measure.evaluation RUN_DIR [--rows N]        writes report.json into the run's folder

    pool (which rows) ──> sides (what base and tuned make of them) ──> compare_sides ──> Report, and the rows as JSONL

A `Report` compares two `Side`s, and the tuned one with what the answers can be guessed with.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from tunelab.errors import EXIT_USER_ERROR, UserError, explain
from tunelab.machine import libraries
from tunelab.measure.answered import answers_file, write_rows
from tunelab.measure.settings import LONGEST_ANSWER, ROWS, Measuring
from tunelab.run.reports import REPORT_FILE, Ability, Baseline, Compared, CutAnswers, Report
from tunelab.run.run import Run

if TYPE_CHECKING:
    import numpy

    from tunelab.data import Encoded, Example, Message
    from tunelab.measure.changes.rows import AnsweredRow
    from tunelab.measure.metrics import Metric
    from tunelab.measure.pool import Picked, Pool
    from tunelab.measure.probe.choices import Scores
    from tunelab.measure.sides import Answer, Sides
    from tunelab.measure.statistics import Measured as Judged
    from tunelab.measure.task import Task
    from tunelab.spec import DataSpec

PROBE_LENGTH = 2048  # tokens: every general instruction fits, whatever the run's max_length


class Side(BaseModel):
    """What one model makes of the rows: summed -log p and scored tokens of each, its answers and whether each ended by
    itself, and the same losses on the general instructions."""

    model_config = ConfigDict(frozen=True)
    losses: list[float]
    tokens: list[int]
    answers: list[str]
    ended: list[bool]
    general_losses: list[float]
    general_tokens: list[int]

    @property
    def loss_columns(self) -> numpy.ndarray:
        """What each row adds to the loss per token (rows, 2)."""
        import numpy

        return numpy.stack([numpy.array(self.losses), numpy.array(self.tokens, dtype=float)], axis=1)


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
    for run in runs:
        _check_result(run)
    first = runs[0]
    number = stage_of(first, None if stage is None else stage + 1)
    pool = pool_of(first, number, data, beside=runs[1:])
    task = task_for(pool.source, pool.train, pool.answers, settings.metric)
    picked = pool.pick(load_tokenizer(first.base_spec), min(map(longest_row, runs)), settings.rows)
    found: list[tuple[Report, Judged]] = []
    for run in runs:
        measured = _Measured(run, picked, task, settings, on_progress)
        report = measured.report(pool)
        if report.answers_file:
            write_rows(measured.answered_rows(), run.path / report.answers_file)
        found.append((report, measured.judged()))
        del measured  # before the next model is loaded
    reports = _with_verdicts(found)
    for run, report in zip(runs, reports, strict=True):
        report.write(keep if keep and run is first else run.path / REPORT_FILE)
    return reports


def _with_verdicts(found: Sequence[tuple[Report, Judged]]) -> list[Report]:
    """The reports with a verdict in words each, corrected for all of them."""
    from tunelab.measure.statistics import judge_all

    verdicts = judge_all([judged for _report, judged in found])
    reports = []
    for (report, _judged), verdict in zip(found, verdicts, strict=True):
        decision = None if verdict.decision == "different" else verdict.decision
        reports.append(report.model_copy(update={"sentence": verdict.sentence, "decision": decision}))
    return reports


def _check_result(run: Run) -> None:
    if not run.has_adapter:
        raise UserError(
            f"Run {run.id} has no adapter yet ({run.progress().message}). Choose a finished or stopped run."
        )


class _Measured:
    """A run's model and the rows it is measured on; each side is measured when it is asked for."""

    def __init__(
        self, run: Run, picked: Picked, task: Task, settings: Measuring, on_progress: Callable[[str], None]
    ) -> None:
        from tunelab.data.encode import encode_all
        from tunelab.measure.probe.read import instructions
        from tunelab.measure.scoring import rows_to_score
        from tunelab.measure.sides import Sides, longest_row

        self.run, self.picked, self.task, self.settings, self.say = run, picked, task, settings, on_progress
        self.began = time.perf_counter()
        self.sides: Sides = Sides(run, on_progress)
        base = self.sides.base
        self.answered = [one for one in picked.examples if self.sides.can_answer(one.asked)]
        self.rows = picked.blocks or rows_to_score(self.answered, base, longest_row(run))
        self.probe_length = longest_row(run, PROBE_LENGTH)
        probe = instructions()[: settings.instructions]
        self.general, _notes = encode_all(probe, base.tokenizer, self.probe_length)
        self.references = [self.sides.words(example.answer) for example in self.answered]
        self.notes: list[str] = []
        self.base = self._side(tuned=False)
        self.tuned = self._side(tuned=True)
        self.others = self._others() if self.answered else {}

    def _side(self, tuned: bool) -> Side:
        who = "tuned model" if tuned else "base"
        self.say(f"measuring the {who} on {len(self.rows)} held-out rows")
        losses = self.sides.losses(self.rows, tuned)
        general = self.sides.losses(self.general, tuned)
        answers = self._answers([one.asked for one in self.answered], tuned, who)
        return Side(
            losses=[value.loss for value in losses],
            tokens=[value.tokens for value in losses],
            answers=[answer.text for answer in answers],
            ended=[answer.ended for answer in answers],
            general_losses=[value.loss for value in general],
            general_tokens=[value.tokens for value in general],
        )

    def _answers(self, asked: Sequence[Sequence[Message]], tuned: bool, who: str) -> list[Answer]:
        if not asked:
            return []
        prompts = self.sides.prompts(asked)
        if self.settings.by == "answer":
            self.say(f"reading {len(asked)} answers of the {who}")
            return self.sides.answers(prompts, self.settings.max_new_tokens, tuned, who)
        labels = self.task.labels
        if not labels:
            raise UserError(
                "by = 'likelihood': the answers of this run are no labels (few different ones, each in several rows). "
                "Measure by written answers: --by answer."
            )
        self.say(f"reading the likelihood of {len(labels)} labels, {who}")
        return self.sides.likeliest(asked, prompts, labels, tuned, who)

    def _others(self) -> dict[str, list[str]]:
        """The answers that tuned is compared with beside the base's, by who gives them."""
        from tunelab.measure.task import told

        found: dict[str, list[str]] = {}
        if self.settings.system is not None:
            asked = [told(one.asked, self.settings.system) for one in self.answered]
            found |= self._prompted("base with a system prompt", asked)
        if self.settings.examples:
            found |= self._with_examples(self.settings.examples)
        for name, floor in self.task.floors().items():
            found[name] = [self.sides.words(text) for text in self.task.guesses(floor, self.answered)]
        return found

    def _prompted(self, name: str, asked: Sequence[Sequence[Message]]) -> dict[str, list[str]]:
        """The base's answers to other prompts; none, and a note, where one of them is too long for the model."""
        if not all(map(self.sides.can_answer, asked)):
            self.notes.append(f"the {name} was not measured: its prompts leave the model no position for an answer")
            return {}
        return {name: [answer.text for answer in self._answers(asked, False, name)]}

    def _with_examples(self, count: int) -> dict[str, list[str]]:
        """The base's answers with as many examples before the question as all prompts have room for."""
        from tunelab.measure.task import shown

        examples = self.task.examples(count)
        while examples:
            asked = [shown(one.asked, examples) for one in self.answered]
            if all(map(self.sides.can_answer, asked)):
                break
            examples = examples[:-1]
        if len(examples) < count:
            self.notes.append(f"of {count} examples before the question, {len(examples)} fit into the model's rows")
        if not examples:
            return {}
        return self._prompted(f"base with {len(examples)} example{'s' * (len(examples) > 1)}", asked)

    def ability(self) -> Ability | None:
        """General ability before and after, by questions; None where none are asked."""
        from tunelab.measure.probe.ability import compare_abilities
        from tunelab.measure.probe.read import read_probe

        if not self.settings.questions:
            return None
        probe = read_probe(self.settings.probe).first(self.settings.questions)

        def asked(tuned: bool) -> Scores:
            self.say(f"asking the {'tuned model' if tuned else 'base'} {len(probe.questions)} general questions")
            return self.sides.choices(probe, tuned, self.probe_length)

        return compare_abilities(probe, asked(False), asked(True))

    def judged(self) -> Judged:
        """The task's figure, or the loss where nothing is answered, for a verdict."""
        from tunelab.measure.metrics import score_sides
        from tunelab.measure.statistics import Measured
        from tunelab.measure.statistics.sums import mean

        if not self.answered:
            before, after = (side.loss_columns for side in (self.base, self.tuned))
            return Measured("loss per token", "nats", before, after, mean, higher_is_better=False)
        metric = self.task.metrics[0]
        answers = [self.base.answers, self.tuned.answers, *self.others.values()]
        base, tuned, *others = score_sides(metric, answers, self.references).sums
        return Measured(
            metric.title,
            metric.unit,
            base,
            tuned,
            metric.value,
            metric.higher_is_better,
            dict(zip(self.others, others, strict=True)),
            self.tuned.ended.count(False) / len(self.answered),
        )

    def report(self, pool: Pool) -> Report:
        """What all of it says."""
        report = compare_sides(
            self.base,
            self.tuned,
            self.references,
            self.task.metrics,
            others=self.others,
            seconds=0.0,
            selected_on=self.picked.selected_on,
        )
        ability = self.ability()
        return report.model_copy(
            update={
                "ability": ability,
                "by": self.settings.by,
                "data": pool.name,
                "left_out": self.picked.left_out,
                "too_long": len(self.picked.examples) - len(self.answered),
                "notes": (*self.picked.notes, *self.task.notes, *report.notes, *self.notes),
                "max_new_tokens": self.settings.max_new_tokens,
                "answers_file": answers_file(pool.name) if self.answered else None,
                "seconds": time.perf_counter() - self.began,
            }
        )

    def answered_rows(self) -> list[AnsweredRow]:
        """Each row with all answers to it and their scores."""
        from tunelab.measure.answered import answered_rows

        return answered_rows(
            self.answered,
            self.references,
            (self.base.answers, self.base.ended),
            (self.tuned.answers, self.tuned.ended),
            self.others,
            self.task,
        )


def compare_sides(
    base: Side,
    tuned: Side,
    references: Sequence[str],
    metrics: Sequence[Metric],
    *,
    seconds: float,
    others: dict[str, list[str]] | None = None,
    selected_on: int = 0,
) -> Report:
    """Two sides of the same rows, and tuned against `others` who answered them, with intervals on every difference. The
    first of the metrics is the task's."""
    compared: dict[str, dict[str, Compared]] = {}
    notes: list[str] = []
    if references:
        answers = {"base": base.answers, **(others or {})}
        for metric in metrics:
            for who, figure in _compared(metric, answers, tuned.answers, references, notes).items():
                compared.setdefault(who, {})[metric.name] = figure
    return Report(
        rows=len(base.losses),
        heldout_loss=_compared_losses(base.losses, tuned.losses, base.tokens),
        metrics=compared.get("base", {}),
        main_metric=metrics[0].name if references else None,
        baselines=tuple(Baseline(name=name, metrics=compared[name]) for name in others or {} if references),
        general_loss=_compared_losses(base.general_losses, tuned.general_losses, base.general_tokens),
        probe_rows=len(base.general_losses),
        seconds=seconds,
        selected_on=selected_on,
        cut_answers=CutAnswers(base=base.ended.count(False), tuned=tuned.ended.count(False)),
        notes=tuple(notes),
    )


def _compared(
    metric: Metric,
    answers: dict[str, list[str]],
    tuned: Sequence[str],
    references: Sequence[str],
    notes: list[str],
) -> dict[str, Compared]:
    """Tuned against each of those who answered, by one metric."""
    from tunelab.measure.metrics import score_sides
    from tunelab.measure.statistics import compared

    scored = score_sides(metric, [tuned, *answers.values()], references)
    notes += [note.rstrip(".") for note in scored.notes]
    after, *sides = scored.sums
    found = {}
    whole, better = 100.0 if metric.unit == "%" else None, metric.higher_is_better is not False
    for who, before in zip(answers, sides, strict=True):
        figure = compared(before, after, metric.value, higher_is_better=better, whole=whole)
        found[who] = figure.model_copy(update={"title": metric.title, "unit": metric.unit})
    return found


def _compared_losses(before: Sequence[float], after: Sequence[float], tokens: Sequence[int]) -> Compared:
    """Loss per scored token: sums over sums, so that long rows count by their length."""
    from tunelab.measure.statistics import compared_rates

    figure = compared_rates(before, after, tokens, higher_is_better=False)
    return figure.model_copy(update={"title": "loss per token", "unit": "nats"})


def compare_runs(first: Sequence[AnsweredRow], second: Sequence[AnsweredRow]) -> dict[str, Compared]:
    """The scores of two runs' answers to the same rows, by metric: `base` is the first run, `tuned` the second. A
    metric that is no mean over rows (macro-F1) is left out.

    Raises:
        UserError: they share no row.
    """
    from tunelab.measure.metrics import NAMED, RowMetric
    from tunelab.measure.statistics import compared_scores

    by_row = {(row.row, row.prompt, row.reference): row for row in second}
    pairs = [(row, other) for row in first if (other := by_row.get((row.row, row.prompt, row.reference)))]
    if not pairs:
        raise UserError("The two runs have no row in common that both answered. Measure them on the same data.")
    found = {}
    for name in pairs[0][0].tuned_scores:
        metric = NAMED.get(name)
        scores = [(a.tuned_scores.get(name), b.tuned_scores.get(name)) for a, b in pairs]
        both = [(a, b) for a, b in scores if a is not None and b is not None]
        if not both or (metric is not None and not issubclass(metric, RowMetric)):
            continue
        before, after = ([pair[side] for pair in both] for side in (0, 1))
        figure = compared_scores(before, after, higher_is_better=metric is None or metric.higher_is_better is not False)
        said = {"title": metric.title, "unit": metric.unit} if metric else {"title": name}
        found[name] = figure.model_copy(update=said)
    return found


def heldout_losses(run: Run, examples: Sequence[Example]) -> list[RowLoss]:
    """The losses of each example that has something scored within the run's `max_length`; a longer text is measured in
    blocks of that length.

    Raises:
        UserError: the run has no adapter, or none of the examples has anything scored.
    """
    from tunelab.data import rows_alone
    from tunelab.measure.scoring import nothing_to_score
    from tunelab.measure.sides import Sides, longest_row

    _check_result(run)
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
