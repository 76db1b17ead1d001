"""Measuring a run on rows it never saw: loss, answers and forgetting, tuned against base, row by row.

    python -m tunelab.measure.evaluation RUN_DIR [--rows N]        writes report.json into the run's folder

A `Side` is what one model makes of the rows; a `Report` compares two of them. What the base makes of rows is the same
for every run on it, and measured once (`known`).
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

from tunelab.data import chat_format, encode_prompt
from tunelab.errors import EXIT_USER_ERROR, UserError, explain
from tunelab.machine import libraries
from tunelab.measure import forgetting
from tunelab.measure.known import KnownBase, bases_folder
from tunelab.run.reports import REPORT_FILE, CutAnswers, Report
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.data import Encoded, Example
    from tunelab.losses import Loss
    from tunelab.measure.pool import Picked
    from tunelab.model.load import Base
    from tunelab.spec import DataSpec

ROWS = 100
LONGEST_ANSWER = 64
BATCH, BATCH_TOKENS = 8, 1024  # rows scored at once, and positions: (N, V) logits exist for them
PROBE_LENGTH = 2048  # tokens: every general instruction fits, whatever the run's max_length


class Side(BaseModel):
    """What one model makes of the rows: summed -log p and scored tokens of each, its answers, and the same losses on
    the general probe."""

    model_config = ConfigDict(frozen=True)
    losses: list[float]
    tokens: list[int]
    answers: list[str]
    cut_answers: int  # how many of them were still going on at max_new_tokens
    general_losses: list[float]
    general_tokens: list[int]


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
) -> Report:
    """The run's result measured on `rows` held-out rows of a stage (counted from 0; None: the last one); kept in the
    file `keep`, or as `report.json` in the run's folder.

    `data` names other data, all of whose rows count as held out: a file, a built-in set or a Hub id whose rows are read
    as the stage reads its own, or a specification. Rows that the run was trained on are left out, and those that chose
    which step's result was kept where there are enough others. What the base makes of rows is kept beside the runs, for
    others on it.

    Raises:
        UserError: the run's data is not what it was trained on any more (and `data` does not name it), the run has no
            adapter, nothing to be measured on, or a setting is out of its range.
    """
    from tunelab.measure.metrics import main_metric
    from tunelab.measure.pool import held_out, other_data, stage_of
    from tunelab.model.load import load_tokenizer

    started = time.perf_counter()
    _check(run, rows, max_new_tokens)
    number = stage_of(run, None if stage is None else stage + 1)
    pool = held_out(run, number) if data is None else other_data(run, number, data)
    picked = pool.pick(load_tokenizer(run.base_spec), _longest_row(run), rows)
    measured = _Measured(run, picked, max_new_tokens, on_progress)
    base = measured.base_side()
    tuned = measured.tuned_side()
    report = compare_sides(
        base,
        tuned,
        measured.references,
        # whether answers repeat shows in all rows, not in a few of them
        main=main_metric(pool.answers),
        seconds=time.perf_counter() - started,
        selected_on=picked.selected_on,
    ).model_copy(
        update={
            "data": pool.name,
            "left_out": picked.left_out,
            "too_long": measured.too_long,
            "notes": picked.notes,
            "max_new_tokens": max_new_tokens,
        }
    )
    report.write(keep or run.path / REPORT_FILE)
    return report


def _check(run: Run, rows: int, max_new_tokens: int) -> None:
    if rows < 2:
        raise UserError(f"rows = {rows}: at least 2 are needed to say how sure a difference is.")
    if not 1 <= max_new_tokens <= 4096:
        raise UserError(f"max_new_tokens = {max_new_tokens}: allowed are 1 to 4096.")
    if not run.has_adapter:
        raise UserError(
            f"Run {run.id} has no adapter yet ({run.progress().message}). Choose a finished or stopped run."
        )


class _Measured:
    """A run's model, loaded once, and the rows it is measured on."""

    def __init__(self, run: Run, picked: Picked, max_new_tokens: int, on_progress: Callable[[str], None]) -> None:
        from tunelab.answer.decoders import Resident, Result
        from tunelab.answer.generation import end_ids
        from tunelab.data.encode import encode_all
        from tunelab.fast import choose_loss
        from tunelab.fast.llama import FastLoss

        self.run, self.max_new_tokens, self.say = run, max_new_tokens, on_progress
        self.technique = run.config.technique
        self.base, self.model = loaded(run)
        self.loss = choose_loss(self.model, self.technique)
        self.result, self.ends = Result.of(run), end_ids(self.base.tokenizer, self.base.model)
        llama = self.loss.llama if isinstance(self.loss, FastLoss) else None
        self.resident = Resident.measured(self.base, self.result, self.model, llama)
        self.longest, self.probe_length = _longest_row(run), _longest_row(run, PROBE_LENGTH)
        self.answered = [example for example in picked.examples if self._can_answer(example)]
        self.too_long = len(picked.examples) - len(self.answered)
        self.rows = picked.blocks or rows_to_score(self.answered, self.base, self.longest)
        self.general, _notes = encode_all(forgetting.probe(), self.base.tokenizer, self.probe_length)

    def _can_answer(self, example: Example) -> bool:
        """Whether the prompt leaves the model a position to answer from; plain text is cut where it is too long."""
        from tunelab.model.positions import positions

        available = positions(self.base.model.config)
        if available is None or not example.messages:
            return True
        return self._prompt_length(example) < available - self.technique.positions_taken

    def _prompt_length(self, example: Example) -> int:
        return len(encode_prompt(example.asked, self.base.tokenizer))

    @property
    def references(self) -> list[str]:
        return [chat_format(self.base.tokenizer).words(example.answer) for example in self.answered]

    def base_side(self) -> Side:
        """The base's side; what has been measured before comes from disk."""
        known = KnownBase(bases_folder(self.run), self.base, self.loss.fast)

        def losses_of(rows: list[Encoded]) -> list[tuple[float, int]]:
            with self.technique.off(self.model):
                return base_losses(self.loss, rows, self.base, known)

        return self._side("base", losses_of, known)

    def tuned_side(self) -> Side:
        return self._side("tuned model", lambda rows: row_losses(self.loss, rows, self.base), None)

    def _side(
        self, who: str, losses_of: Callable[[list[Encoded]], list[tuple[float, int]]], known: KnownBase | None
    ) -> Side:
        self.say(f"measuring the {who} on {len(self.rows)} held-out rows")
        losses, general = losses_of(self.rows), losses_of(self.general)
        self.say(f"reading {len(self.answered)} answers of the {who}")
        prompts = [encode_prompt(example.asked, self.base.tokenizer) for example in self.answered]
        if known is None:
            answers, cut = self._answers(prompts, tuned=True)
        else:
            asked = [prompts, self._answer_lengths(prompts), sorted(self.ends)]
            answers, cut = known.ask("answers", asked, lambda: self._answers(prompts, tuned=False))
        return Side(
            losses=[loss for loss, _count in losses],
            tokens=[count for _loss, count in losses],
            answers=answers,
            cut_answers=cut,
            general_losses=[loss for loss, _count in general],
            general_tokens=[count for _loss, count in general],
        )

    def _answer_lengths(self, prompts: list[list[int]]) -> list[int]:
        from tunelab.model.positions import answer_length

        taken, config = self.technique.positions_taken, self.base.model.config
        return [answer_length(config, len(ids), self.max_new_tokens, taken) for ids in prompts]

    def _answers(self, prompts: list[list[int]], tuned: bool) -> tuple[list[str], int]:
        """The answers, and how many of them had not ended at `max_new_tokens`."""
        from tunelab.answer.generation import answer_many, text_of

        tokenizer = self.base.tokenizer
        words = chat_format(tokenizer).words
        texts, cut = [""] * len(prompts), 0
        lengths = self._answer_lengths(prompts)
        (one,) = self.resident.passes([self.result], columns=[int(tuned)])
        answered = answer_many(prompts, one.decoders, end_ids=self.ends, max_new_tokens=lengths, padded=one.padded)
        for indices, answers in answered:
            for index, columns in zip(indices, answers, strict=True):
                texts[index] = words(text_of(tokenizer, columns[0]))
                cut += len(columns[0]) >= lengths[index]  # one that ended has an end token there
        return texts, cut


def compare_sides(
    base: Side,
    tuned: Side,
    references: Sequence[str],
    *,
    main: str,
    seconds: float,
    selected_on: int = 0,
) -> Report:
    """Two sides of the same rows, with paired BCa intervals on every difference; `main` is the task's metric."""
    from tunelab.measure.metrics import METRICS
    from tunelab.measure.statistics import compared_rates, compared_scores

    metrics = {}
    if references:
        for name, metric in METRICS.items():
            before, after = (metric().rows(side.answers, references) for side in (base, tuned))
            metrics[name] = compared_scores(before, after)
    return Report(
        rows=len(base.losses),
        heldout_loss=compared_rates(base.losses, tuned.losses, base.tokens, higher_is_better=False),
        metrics=metrics,
        main_metric=main if references else None,
        general_loss=compared_rates(
            base.general_losses, tuned.general_losses, base.general_tokens, higher_is_better=False
        ),
        probe_rows=len(base.general_losses),
        seconds=seconds,
        selected_on=selected_on,
        cut_answers=CutAnswers(base=base.cut_answers, tuned=tuned.cut_answers),
    )


def heldout_losses(run: Run, examples: Sequence[Example]) -> list[RowLoss]:
    """The losses of each example that has something scored within the run's `max_length`; a longer text is measured in
    blocks of that length.

    Raises:
        UserError: the run has no adapter, or none of the examples has anything scored.
    """
    from tunelab.data import rows_alone
    from tunelab.fast import choose_loss

    base, model = loaded(run)
    technique = run.config.technique
    longest = _longest_row(run)
    by_example = [found for one in examples if (found := rows_alone(one, base.tokenizer, longest))]
    if not by_example:
        raise _nothing_to_score(len(examples))
    rows = [row for found in by_example for row in found]
    loss = choose_loss(model, technique)
    tuned = iter(row_losses(loss, rows, base))
    with technique.off(model):
        before = iter(base_losses(loss, rows, base, KnownBase(bases_folder(run), base, loss.fast)))
    losses = []
    for found in by_example:
        parts = [(next(before), next(tuned)) for _row in found]
        counts = sum(count for (_loss, count), _tuned in parts)
        losses.append(RowLoss(sum(b for (b, _), _ in parts), sum(t for _, (t, _) in parts), counts))
    return losses


def _longest_row(run: Run, max_length: int | None = None) -> int:
    """The longest row in tokens that the run's model takes, at most `max_length`; None: the run's own."""
    from tunelab.model.load import find
    from tunelab.model.positions import row_limit

    model = run.config.model
    return row_limit(find(model), model, run.config.technique.positions_taken, max_length).tokens


def loaded(run: Run) -> tuple[Base, Any]:
    """The base of a run, and the model with the run's result on it, in evaluation mode."""
    from tunelab.model.load import load

    base = load(run.base_spec)
    run.check_base(base.spec.repo_id, base.sha256)
    return base, run.config.technique.load(base, run.adapter_path).eval()


def rows_to_score(examples: Sequence[Example], base: Base, max_length: int) -> list[Encoded]:
    """The examples that have something scored within `max_length`, encoded.

    Raises:
        UserError: none has.
    """
    from tunelab.data.encode import encode_all

    rows, _notes = encode_all(examples, base.tokenizer, max_length)
    if not rows:
        raise _nothing_to_score(len(examples))
    return rows


def _nothing_to_score(count: int) -> UserError:
    return UserError(f"None of the {count} rows has anything to score. Raise max_length.")


def row_losses(loss: Loss, rows: Sequence[Encoded], base: Base) -> list[tuple[float, int]]:
    """-log p of each row's scored tokens, summed, in nats, and how many tokens those are."""
    from tunelab.data.batches import collate
    from tunelab.losses import token_losses

    measured = [(0.0, 0)] * len(rows)
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    while by_length:
        size = max(1, min(BATCH, BATCH_TOKENS // len(rows[by_length[-1]].input_ids)))
        indices, by_length = by_length[-size:], by_length[:-size]
        batch = collate([rows[index] for index in indices], base.pad_id).to(base.device)
        counts = batch.scored[:, 1:].sum(1).tolist()
        for index, part, count in zip(indices, token_losses(loss, batch).split(counts), counts, strict=True):
            measured[index] = (float(part.sum()), count)
    return measured


def base_losses(loss: Loss, rows: Sequence[Encoded], base: Base, known: KnownBase) -> list[tuple[float, int]]:
    """`row_losses` of the base alone, measured once."""
    asked = [[row.input_ids, list(map(int, row.scored))] for row in rows]
    return [(value, count) for value, count in known.ask("losses", asked, lambda: row_losses(loss, rows, base))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a run, as the ladder does it in a process of its own; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tunelab.measure.evaluation")
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--max-new-tokens", type=int, default=LONGEST_ANSWER)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args(arguments)
    libraries.prepare()
    try:
        evaluate(
            Run(options.run.resolve()),
            rows=options.rows,
            max_new_tokens=options.max_new_tokens,
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
