"""Answers to several people's questions, made together on one base: who asks joins at the next token, who is done
leaves.

    Together(llama)  .join(questions)  reads their prompts and gives each its first token
                     .step()           the next token of every answer

Decoding is bound by reading the weights, so a row more costs little. Every row computes what it would alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunelab.answer.generation import chosen_tokens, padded_left
from tunelab.fast.decode import Factors, FastDecoder
from tunelab.fast.llama import FastLlama


@dataclass(eq=False)
class Asked:
    """A prompt, and a column for the base and each adapter that answers it."""

    prompt: list[int]
    adapters: Sequence[Factors | None]  # of each column; None: the base
    longest: int  # tokens of an answer
    end_ids: frozenset[int]
    tell: Callable[[list[int | None]], None]  # hears the new token of every column; None: that one has ended
    is_cancelled: Callable[[], bool] = lambda: False
    temperature: float = 0.0
    seed: int = 0
    made: int = field(default=0, init=False)  # tokens so far
    going: list[int] = field(init=False)  # columns that have not ended

    def __post_init__(self) -> None:
        self.going = list(range(len(self.adapters)))
        self._noise = torch.Generator().manual_seed(self.seed)

    def choose(self, logits: Tensor) -> list[int]:
        """The next token of each column that goes on, from its logits (columns, V)."""
        chosen: list[int] = chosen_tokens(logits, self.temperature, self._noise).tolist()
        self.made += 1
        step: list[int | None] = [None] * len(self.adapters)
        for column, token in zip(self.going, chosen, strict=True):
            step[column] = token
        self.tell(step)
        return chosen


class Together:
    """The answers in the making on one base."""

    def __init__(self, llama: FastLlama) -> None:
        self.llama = llama
        self.asked: list[Asked] = []
        self._decoder: FastDecoder | None = None  # a row for each column of each question that goes on, in this order
        self._last: list[int] = []  # the last token of each row

    @property
    def rows(self) -> int:
        return len(self._last)

    def join(self, questions: Sequence[Asked]) -> None:
        """Read prompts and give each question its first token; from then on `step` gives the next ones."""
        rows = [(one.prompt, adapter) for one in questions for adapter in one.adapters]
        ids, missing = padded_left([prompt for prompt, _adapter in rows])
        reading = FastDecoder(self.llama, [adapter for _prompt, adapter in rows], ids.shape[1])
        logits = reading(ids, missing)
        before = list(range(self.rows))
        self.asked += questions
        kept, last = self._chosen(questions, logits)
        self._last += last
        self._go_on([(self._decoder, before), (reading, kept)])

    def step(self) -> None:
        """The next token of every answer; who has cancelled leaves first."""
        kept, row = list[int](), 0
        for one in self.asked:
            rows = range(row, row + len(one.going))
            row = rows.stop
            if one.is_cancelled():  # asked once: it may change at any moment
                one.going = []
            else:
                kept += rows
        if len(kept) < row:
            self._last = [self._last[place] for place in kept]
            self._go_on([(self._decoder, kept)])
        if self._decoder is None:
            return
        logits = self._decoder(torch.tensor(self._last)[:, None])
        kept, self._last = self._chosen(self.asked, logits)
        if len(kept) < self._decoder.rows:
            self._go_on([(self._decoder, kept)])

    def _chosen(self, questions: Sequence[Asked], logits: Tensor) -> tuple[list[int], list[int]]:
        """The rows whose answers go on after their next token, and that token."""
        kept, last, row = list[int](), list[int](), 0
        for one, part in zip(questions, logits.float().cpu().split([len(one.going) for one in questions]), strict=True):
            chosen = one.choose(part)
            over = one.made >= one.longest
            going = [n for n, token in enumerate(chosen) if not over and token not in one.end_ids]
            kept += [row + n for n in going]
            last += [chosen[n] for n in going]
            row += len(chosen)
            one.going = [one.going[n] for n in going]
        return kept, last

    def _go_on(self, rows_of: Sequence[tuple[FastDecoder | None, list[int]]]) -> None:
        """With these rows, and room for what is left of their answers."""
        self.asked = [one for one in self.asked if one.going]
        parts = [(decoder, rows) for decoder, rows in rows_of if decoder and rows]
        room = max((one.longest - one.made for one in self.asked), default=0)
        self._decoder = FastDecoder.of_rows(parts, room) if parts else None
