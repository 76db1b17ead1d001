"""The answers to one question on a base, as they grow: a row for each column and seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunelab.answer.columns import counted
from tunelab.answer.generation import end_ids, text_of
from tunelab.answer.question import Answer, Comparison, Provenance, Question, StopReason
from tunelab.data import encode_prompt, prompt_notes
from tunelab.errors import UserError
from tunelab.model.positions import positions

if TYPE_CHECKING:
    from tunelab.model.load import Base


@dataclass(frozen=True)
class Line:
    """What a row answers."""

    column: int
    seed: int
    prompt: list[int]


class Talk:
    """What is asked on this base, and what has been answered; `tell` hears of each token, and at the end, `failed` of
    what ended it before.

    Raises:
        UserError: what a column is asked does not fit into the model.
    """

    def __init__(
        self,
        question: Question,
        base: Base,
        tell: Callable[[Comparison], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.question, self.base, self.tell, self.failed = question, base, tell, failed
        self.error: BaseException | None = None  # what ended it
        prompts = [encode_prompt(turns, base.tokenizer) for turns in question.turns]
        self.longest = self._room(prompts)
        self.end_ids = end_ids(base.tokenizer, base.model)
        self.rows = [Line(n, seed, ids) for n, ids in enumerate(prompts) for seed in question.seeds]
        self.answers = [_blank(base, question, row) for row in self.rows]
        self.note = _sentences(*self._notes())
        self._going = set(range(len(self.rows)))  # rows that somebody writes, or will
        self._generated: list[list[int]] = [[] for _ in self.rows]
        self._started = [time.perf_counter()] * len(self.rows)

    @property
    def is_over(self) -> bool:
        return not self._going or self.error is not None

    def is_cancelled(self) -> bool:
        return self.question.cancel.is_set() or self.error is not None

    def begin(self, rows: Sequence[int]) -> None:
        """What is heard of these rows from now on began now."""
        for row in rows:
            self._started[row] = time.perf_counter()

    def waits(self, note: str) -> None:
        """Say why some of the answers come later."""
        self.tell(self._comparison(_sentences(self.note, note)))

    def hear(self, rows: Sequence[int], step: Sequence[int | None]) -> None:
        """The next token of some rows; None: that one has ended."""
        for row, token in zip(rows, step, strict=True):
            if token is None:
                continue
            ended, generated = token in self.end_ids, self._generated[row]
            if not ended:
                generated.append(token)
            self.answers[row] = replace(
                self.answers[row],
                text=text_of(self.base.tokenizer, generated),
                tokens=len(generated),
                stop_reason="end of turn" if ended else None,
                seconds=time.perf_counter() - self._started[row],
            )
        self.tell(self._comparison(self.note))

    def fail(self, error: BaseException) -> None:
        """End it, wherever its rows are."""
        if self.error is None:
            self.error = error
            self.failed(error)

    def end(self, rows: Sequence[int]) -> None:
        """No more tokens of these rows come; after the last ones, the comparison is done."""
        ending: StopReason = "cancelled" if self.question.cancel.is_set() else "length"
        ended = self._going & set(rows)
        for row in ended:
            answer = self.answers[row]
            self.answers[row] = replace(answer, stop_reason=answer.stop_reason or ending)
        self._going -= ended
        if ended and not self._going and self.error is None:
            self.tell(self._comparison(self.note, done=True))

    def _comparison(self, note: str | None, *, done: bool = False) -> Comparison:
        asked = self.question
        return Comparison(asked.prompt, asked.system, tuple(self.answers), done, note, asked.history)

    def _room(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many tokens every answer may have."""
        asked, taken = self.question.max_new_tokens, self.question.positions_taken
        available = positions(self.base.model.config)
        longest = max(map(len, prompts))
        if available is None or available - taken - longest >= asked:
            return asked
        if available - taken - longest < 1:
            place = max(range(len(prompts)), key=lambda n: len(prompts[n]))
            raise UserError(_too_long(self.question, place, len(prompts[place]), available, taken))
        return available - taken - longest

    def _notes(self) -> list[str | None]:
        tokenizer, question = self.base.tokenizer, self.question
        said = dict.fromkeys(note for turns in question.turns for note in prompt_notes(turns, tokenizer))
        cut = f"an answer ends after {self.longest} tokens: the model has no positions for more"
        short = self.longest < question.max_new_tokens
        return [*said, *question.notes(), *self.base.notes, cut if short else None]


def _too_long(question: Question, column: int, tokens: int, available: int, taken: int) -> str:
    asked = question.columns[column]
    virtual = f" ({taken} of them taken by virtual tokens)" if taken else ""
    earlier = len(question.history[column]) if question.history else 0
    longer = [
        *([counted(len(asked.examples), "example")] if asked.examples else []),
        *([counted(earlier, "earlier turn")] if earlier else []),
    ]
    beside = f", with {' and '.join(longer)}," if longer else ""
    advice = f"Shorten the prompt, its system part included, to less than {available - taken} tokens"
    if longer:
        advice += ", give fewer examples" * bool(asked.examples) + ", or begin a new conversation" * bool(earlier)
    who = f" of {question.labels[column]}" if len(set(question.turns)) > 1 else ""
    return (
        f"The prompt{who}{beside} has {tokens} tokens; the model has {available} positions{virtual}, and the answer "
        f"needs some as well. {advice}."
    )


def _blank(base: Base, question: Question, row: Line) -> Answer:
    column, turns = question.columns[row.column], question.turns[row.column]
    run = column.opened_run
    greedy = question.temperature == 0
    provenance = Provenance(
        base=base.spec.repo_id,
        base_sha256=base.sha256,
        adapter=run.id if run else None,
        precision=base.precision,
        template="the model's chat template" if base.tokenizer.chat_template else "plain template",
        decoding="greedy" if greedy else f"temperature {question.temperature:g}, seed {row.seed}",
        strength=column.strength,
        system=any(turn.role == "system" for turn in turns),
        examples=len(column.examples),
        turns=len(question.history[row.column]) if question.history else 0,
        own=column.strength != 1 or column.system is not None or bool(column.examples),
    )
    return Answer(question.labels[row.column], "", 0, None, 0.0, provenance, row.column, row.seed)


def _sentences(*notes: str | None) -> str | None:
    """Notes as sentences, one after the other; None where there is none."""
    sentences = []
    for note in filter(None, notes):
        ended = note if note.endswith((".", "…")) else f"{note}."
        sentences.append(note if note.endswith(".") else f"{ended[0].upper()}{ended[1:]}")
    return " ".join(sentences) or None
