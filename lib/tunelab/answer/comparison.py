"""Base and tuned, side by side, on one resident base.

    Comparer.ask(columns, prompt)      one question, every column's answer as it grows
            .batch(columns, prompts)   a set of prompts, each comparison when it is done
            .stream(runs, prompt), .answers(runs, prompts)   the same for the base and some runs
    compare(runs, prompt)              a finished comparison

Columns are the base or runs, with what stands before the prompt (`columns`). One thread owns the models (`owner`):
questions that come meanwhile join those that are being answered. Every answer says where it comes from.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tunelab.answer.columns import Column, Turns, base_of, opened, system_of
from tunelab.answer.owner import Owner
from tunelab.answer.question import (
    Comparison,
    Question,
    check_decoding,
    check_prompt,
    checked_seeds,
    notes_on,
    problem_of,
    runs_of,
)
from tunelab.answer.requests import Request
from tunelab.data.examples import Message
from tunelab.errors import UserError
from tunelab.run.run import Run

MAX_COLUMNS = 9  # the base and runs
AT_ONCE = 32  # answers of a set of prompts that are made at once; others come in between two such groups


def compare(
    runs: Run | str | Sequence[Run | str],
    prompt: str,
    *,
    root: str | Path | None = None,
    **decoding: Any,
) -> Comparison:
    """The finished comparison of base and runs on one prompt; `decoding` as in `Comparer.stream`.

    Raises:
        UserError: a run has no adapter, or a setting is out of its range.
    """
    chosen = [runs] if isinstance(runs, (Run, str)) else list(runs)
    with Comparer(root) as comparer:
        *_, last = comparer.stream(chosen, prompt, **decoding)
    return last


class Comparer:
    """Answers questions on one base that is resident. Close it, or use it in a `with`."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = root
        self._owner: Owner | None = None
        self._start = threading.Lock()

    def __enter__(self) -> Comparer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer what was asked before, end the thread that owns the model and release it."""
        with self._start:
            if self._owner:
                self._owner.close()
                self._owner = None

    def prepare(self, run: Run) -> None:
        """Make the base of a run resident before it is asked: soon, unless questions come first, or there is no memory
        for it. Comes back at once."""
        with self._start:
            if self._owner is None:
                self._owner = Owner()
            self._owner.wish(run.base_spec)

    def ask(
        self,
        columns: Sequence[Column],
        prompt: str,
        *,
        history: Sequence[Turns] = (),
        seeds: Sequence[int] | int = (0,),
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        cancel: threading.Event | None = None,
    ) -> Iterator[Comparison]:
        """The comparison of one to four columns as it grows, a token per answer each time; the last one is `done`.

        `history`: of each column, what was asked and answered before (`Comparison.continued` of the last one); none: a
        new conversation. `seeds` (or how many): at a `temperature` above 0, an answer of each column by each seed.

        Closing the iterator, or setting `cancel`, stops at the next token. What waits is told in `note`.

        Raises:
            UserError: a column can't answer, they stand on different bases, what is asked does not fit into the model,
                or a setting is out of its range.
        """
        check_prompt(prompt)
        question = self._asker(opened(columns, self.root), max_new_tokens, temperature, seeds, cancel)
        return self._grown(question(prompt, history=history))

    def batch(
        self,
        columns: Sequence[Column],
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] | int = (0,),
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        cancel: threading.Event | None = None,
    ) -> Iterator[Comparison]:
        """The comparison on every prompt when it is done, in the order of the prompts: after n of them, `prompts[n:]`
        is what is left. Settings as in `ask`. A prompt that can't be answered has an `error`, and no answers.

        Closing the iterator, or setting `cancel`, stops; what is not complete by then is not given.

        Raises:
            UserError: as `ask`, but for what concerns one prompt.
        """
        question = self._asker(opened(columns, self.root), max_new_tokens, temperature, seeds, cancel)
        return self._done([question(prompt, problem=problem_of(prompt)) for prompt in prompts])

    def stream(
        self,
        runs: Sequence[Run | str],
        prompt: str,
        *,
        system: str | None = None,
        strength: float = 1.0,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        cancel: threading.Event | None = None,
    ) -> Iterator[Comparison]:
        """As `ask`, with the base and each run as columns. `system` stands before the prompt in all of them; None: that
        of the first run. `strength`: how much the adapters count.

        Raises:
            UserError: a run has no adapter, the runs have different bases, or a setting is out of its range.
        """
        check_prompt(prompt)
        columns = self._base_and(runs, strength)
        question = self._asker(columns, max_new_tokens, temperature, (seed,), cancel)
        yield from self._grown(question(prompt, system=system or system_of(runs_of(columns)[0])))

    def answers(
        self,
        runs: Sequence[Run | str],
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int = 128,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> list[list[str]]:
        """Greedy answers to many prompts: for each prompt, the base's and each run's. Many rows are decoded at once.

        `prompts` are the turns up to the answer (`Example.asked`); `on_progress` hears how many are done.

        Raises:
            UserError: a run has no adapter, the runs have different bases, or a prompt does not fit into the model.
        """
        columns = self._base_and(runs)
        question = self._asker(columns, max_new_tokens, 0.0, (0,), None)
        # prompts of similar length are decoded at once, and the longest are first: if one is too long, it shows at once
        order = sorted(range(len(prompts)), key=lambda index: -sum(len(turn.content) for turn in prompts[index]))
        everything: list[list[str]] = [[] for _ in prompts]
        asked = [question("", turns=(tuple(prompts[index]),) * len(columns)) for index in order]
        for done, (index, comparison) in enumerate(zip(order, self._done(asked), strict=True), 1):
            if comparison.error is not None:
                raise UserError(comparison.error)
            everything[index] = [answer.text for answer in comparison.answers]
            on_progress(done)
        return everything

    def _base_and(self, runs: Sequence[Run | str], strength: float = 1.0) -> tuple[Column, ...]:
        if not runs:
            raise UserError("No run is chosen to compare with the base. Choose one; if there is none yet, train one.")
        if len(runs) >= MAX_COLUMNS:
            raise UserError(f"{len(runs)} runs: give 1 to {MAX_COLUMNS - 1} to compare with the base.")
        return (Column(), *(Column(run, strength=strength).opened(self.root) for run in runs))

    def _asker(
        self,
        columns: tuple[Column, ...],
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int] | int,
        cancel: threading.Event | None,
    ) -> Callable[..., Question]:
        """What makes questions to these columns."""
        check_decoding(max_new_tokens, temperature)
        decoding = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "seeds": checked_seeds(seeds, temperature),
            "cancel": cancel or threading.Event(),
            "notes": functools.cache(partial(notes_on, columns)),
        }
        return partial(_question, columns, base_of(columns), _systems(columns), decoding)

    def _grown(self, question: Question) -> Iterator[Comparison]:
        try:
            for _place, comparison in self._submit(Request([question], growing=True)):
                yield comparison
        finally:
            question.cancel.set()

    def _done(self, questions: Sequence[Question]) -> Iterator[Comparison]:
        """The finished comparisons, in their order, a group at a time."""
        each = len(questions[0].columns) * len(questions[0].seeds) if questions else 1
        count = max(1, AT_ONCE // each)
        try:
            for start in range(0, len(questions), count):
                if questions[start].cancel.is_set():
                    return
                yield from self._group(questions[start : start + count])
        finally:
            for question in questions[:1]:  # they share it
                question.cancel.set()

    def _group(self, questions: Sequence[Question]) -> Iterator[Comparison]:
        early: dict[int, Comparison] = {}
        following = 0
        for place, comparison in self._submit(Request(questions, growing=False)):
            early[place] = comparison
            while following in early:
                made = early.pop(following)
                if made.is_cut or not (made.answers or made.error):
                    return
                yield made
                following += 1

    def _submit(self, request: Request) -> Iterator[tuple[int, Comparison]]:
        with self._start:
            if self._owner is None or not self._owner.ask(request):
                self._owner = Owner()
                self._owner.ask(request)
        return request.updates()


def _systems(columns: Sequence[Column]) -> list[str | None]:
    """The system prompt of each column that says nothing of it: that of its run, and for the base that of the first
    run beside it."""
    of_runs = [system_of(column.opened_run) if column.opened_run else None for column in columns]
    first = next((place for place, column in enumerate(columns) if column.opened_run), 0)
    return [own if column.opened_run else of_runs[first] for own, column in zip(of_runs, columns, strict=True)]


def _question(
    columns: tuple[Column, ...],
    spec: Any,
    systems: Sequence[str | None],
    decoding: dict[str, Any],
    prompt: str,
    *,
    system: str | None = None,
    history: Sequence[Turns] = (),
    turns: tuple[tuple[Message, ...], ...] | None = None,
    problem: str | None = None,
) -> Question:
    """A question; `system`: what stands first in columns that say nothing of it, in place of their own."""
    if history and len(history) != len(columns):
        raise UserError(f"{len(history)} histories for {len(columns)} columns: give each column its own, or none.")
    before = tuple(tuple((asked, answered) for asked, answered in one) for one in history)
    if turns is None:
        said = [Message("user", prompt)]
        turns = tuple(
            (*column.before(system or own, before[place] if before else ()), *said)
            for place, (column, own) in enumerate(zip(columns, systems, strict=True))
        )
    return Question(columns, spec, prompt, turns, history=before, problem=problem, **decoding)
