"""Which rows a run is measured on: its own held-out rows as they were, or other data that is named; in either case
none that it was trained on.

    held_out(run, stage) or other_data(run, stage, data) ──> Pool ──> pick() ──> Picked: rows to score and to answer
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunelab.data import Encoded, Example, read_examples, rows_alone
from tunelab.errors import UserError
from tunelab.run.run import Run
from tunelab.run.trained import TrainedRows, heldout_again, known_rows
from tunelab.spec import DataSpec

FEWEST = 2  # rows that can say how sure a difference is


@dataclass(frozen=True)
class Candidate:
    """A row that may be measured: a conversation, or a block of a plain text."""

    example: Example
    chose: bool  # it was one of those that chose which step's result was kept
    block: Encoded | None = None


@dataclass(frozen=True)
class Picked:
    """The rows that are measured. Plain text comes as blocks, and has no examples to answer."""

    examples: list[Example]
    blocks: list[Encoded]
    selected_on: int  # how many of them chose which step's result was kept
    left_out: int  # how many there were besides that the run was trained on
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Pool:
    """Rows to pick from. `name` is that of other data, None for the run's own held-out rows, of which the first
    `choosing` chose which step's result was kept."""

    examples: Sequence[Example]
    known: TrainedRows
    answers: Sequence[str]  # answers of the task, which tell the metric that fits
    train: Sequence[Example] = ()  # rows the run was trained on, where they can still be read
    source: str | None = None  # what the rows were read from
    name: str | None = None
    choosing: int = 0
    notes: tuple[str, ...] = ()

    def pick(self, tokenizer: Any, max_length: int, count: int) -> Picked:
        """At most `count` rows that the run was not trained on, first those that did not choose its result.

        Raises:
            UserError: the run was trained on all of other data.
        """
        everything = self._candidates(tokenizer, max_length)
        unseen = self._unseen(everything, tokenizer)
        left_out, notes = len(everything) - len(unseen), self.notes
        if len(unseen) < FEWEST and left_out:
            if self.name is not None:
                raise UserError(
                    f"{self.name}: the run was trained on {left_out:,} of {len(everything):,} rows, so {len(unseen)} "
                    f"are left to measure it on; at least {FEWEST} are needed. Give data that it has not seen."
                )
            unseen, left_out = everything, 0
            notes = (*notes, "the run was trained on these rows, so the figures say how well it remembers them")
        chosen = sorted(unseen, key=lambda one: one.chose)[:count]
        return Picked(
            examples=[one.example for one in chosen if one.block is None],
            blocks=[one.block for one in chosen if one.block is not None],
            selected_on=sum(one.chose for one in chosen),
            left_out=left_out,
            notes=notes,
        )

    def _candidates(self, tokenizer: Any, max_length: int) -> list[Candidate]:
        found, start = [], 0
        for index, example in enumerate(self.examples):
            if example.text is None:
                chose = index < self.choosing if self.name is None else self.known.chosen_by(example)
                found.append(Candidate(example, chose))
                continue
            for block in rows_alone(example, tokenizer, max_length):
                # while training, documents are joined before they are cut
                found.append(Candidate(example, start < self.choosing * max_length, block))
                start += len(block.input_ids)
        return found

    def _unseen(self, everything: list[Candidate], tokenizer: Any) -> list[Candidate]:
        """Those that the run was not trained on. Other data may hold parts of the texts that it was."""
        unseen, before = [], None  # the block before, of the same document
        for one in everything:
            learned = self.known.learned(one.example)
            if not learned and one.block and self.name is not None:
                found = self.known.learned_passage(str(tokenizer.decode(one.block.input_ids, skip_special_tokens=True)))
                if found is None:  # too short to tell: as its neighbour
                    found = before is not None and before.example is one.example and before not in unseen[-1:]
                learned = found
            if not learned:
                unseen.append(one)
            before = one
        return unseen


def pool_of(run: Run, stage: int, data: DataSpec | str | Path | None, beside: Sequence[Run] = ()) -> Pool:
    """The rows to measure a run's stage on: its own held-out ones, or those of other `data`. Rows that a run `beside`
    was trained on count as trained on.

    Raises:
        UserError: as `held_out` and `other_data`.
    """
    pool = held_out(run, stage) if data is None else other_data(run, stage, data)
    known, notes = pool.known, list(pool.notes)
    for other in beside:
        more, said = known_rows(other)
        known, notes = known | more, [*notes, *said]
    return replace(pool, known=known, notes=tuple(dict.fromkeys(notes)))


def held_out(run: Run, stage: int) -> Pool:
    """The held-out rows of a run's stage.

    Raises:
        UserError: its data is not what it was any more; with what has changed.
    """
    split = heldout_again(run, stage)
    known, notes = known_rows(run)
    answers = [example.answer for example in split.train]
    own = run.config.stages[stage]
    return Pool(
        split.heldout,
        known,
        answers,
        split.train,
        _source(own.data),
        choosing=own.training.choosing_rows,
        notes=tuple(notes),
    )


def other_data(run: Run, stage: int, data: DataSpec | str | Path) -> Pool:
    """Every row of other data, in an order that follows from its seed; of a file, a built-in set or a Hub id the rows
    are read as the stage reads its own.

    Raises:
        UserError: the data can't be read.
    """
    own = run.config.stages[stage]
    if not isinstance(data, DataSpec):
        data = DataSpec(source=str(data), **read_alike(own.data))
    examples = read_examples(data, own.learn)
    random.Random(data.seed).shuffle(examples)  # files are often sorted, and the first rows are measured
    known, notes = known_rows(run)
    try:
        train = heldout_again(run, stage).train
    except UserError:
        train = ()
        notes.append("the rows the run was trained on can't be read any more, so nothing is guessed from them")
    answers = [example.answer for example in examples]
    return Pool(examples, known, answers, train, _source(data), data.title, notes=tuple(notes))


def _source(data: DataSpec) -> str | None:
    return data.source if isinstance(data.source, str) else None


def read_alike(data: DataSpec) -> dict[str, Any]:
    """The fields that say how rows are read, for other data of the same shape."""
    return {name: getattr(data, name) for name in ("columns", "template", "system", "header", "labels")}


def stage_of(run: Run, number: int | None) -> int:
    """A stage of the run, counted from 0, by its number counted from 1; None: the last one.

    Raises:
        UserError: there is no such stage.
    """
    count = len(run.config.stages)
    if number is not None and not 1 <= number <= count:
        raise UserError(f"stage = {number}: run {run.id} has the stages 1 to {count}.")
    return count - 1 if number is None else number - 1
