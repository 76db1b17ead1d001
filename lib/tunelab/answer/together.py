"""Answers to several people's questions, made together on one base: who asks joins at the next token, who is done
leaves.

    Together(llama)  .join(questions)  begins to read their prompts; short ones get their first token at once
                     .step()           the next token of every answer, and a part of what is still to be read

Decoding is bound by reading the weights, so a row more costs little. Every row computes what it would alone. What goes
wrong with one question ends that question (`Asked.error`), and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunelab.answer.generation import Noises, chosen_tokens, padded_left
from tunelab.fast.decode import Factors, FastDecoder
from tunelab.fast.llama import FastLlama

POSITIONS = 2048  # of prompts that are read between two tokens of those who are answered meanwhile
LEAST_READ = 16  # tokens of each prompt
ROOM = 64  # tokens for which there is space at first; a decoder grows
SIMILAR, APART = 2, 32  # prompts are read side by side up to so many times the shortest, and so many tokens more
FILLED = 0.75  # rows that have ended are taken out when fewer than this are left: it costs a copy of all others


@dataclass(eq=False)
class Asked:
    """A question: a row for each answer."""

    prompts: Sequence[list[int]]  # of each row
    adapters: Sequence[Factors | None]  # of each row; None: the base
    longest: int  # tokens of an answer
    end_ids: frozenset[int]
    tell: Callable[[list[int | None]], None]  # hears the new token of every row; None: that one has ended
    is_cancelled: Callable[[], bool] = lambda: False
    temperature: float = 0.0
    seeds: Sequence[int] = (0,)  # of each row, or one for all
    made: int = field(default=0, init=False)  # tokens so far
    going: list[int] = field(init=False)  # rows that have not ended
    last: dict[int, int] = field(default_factory=dict, init=False)  # the last token of each of these
    error: Exception | None = field(default=None, init=False)  # what ended it

    def __post_init__(self) -> None:
        self.going = list(range(len(self.prompts)))
        if len(self.seeds) == 1:
            self.seeds = [*self.seeds] * len(self.prompts)
        self._noises = Noises()

    @property
    def read(self) -> int:
        """Tokens of the longest row that goes on."""
        return max((len(self.prompts[row]) + self.made for row in self.going), default=0)

    def choose(self, logits: Tensor) -> None:
        """Take the next token of each row that goes on, from its logits (rows, V)."""
        noises = [self._noises[self.seeds[row]] for row in self.going]
        chosen = chosen_tokens(logits, self.temperature, noises).tolist()
        step: list[int | None] = [None] * len(self.prompts)
        for row, token in zip(self.going, chosen, strict=True):
            step[row] = token
        self.made += 1
        goes_on = {row: token for row, token in enumerate(step) if token is not None and token not in self.end_ids}
        self.last = goes_on if self.made < self.longest else {}
        self.going = list(self.last)
        try:
            self.tell(step)
        except Exception as error:  # of whoever listens: nobody else shall suffer for it
            self.fail(error)

    def fail(self, error: Exception) -> None:
        self.error, self.going = error, []


class Together:
    """The answers in the making on one base."""

    def __init__(self, llama: FastLlama) -> None:
        self.llama = llama
        self.asked: list[Asked] = []
        self._reading: list[_Reading] = []
        self._decoder: FastDecoder | None = None
        self._slots: list[tuple[Asked, int]] = []  # whose each of its rows is; some have ended

    @property
    def rows(self) -> int:
        """Answers that are not complete."""
        return sum(len(one.going) for one in self.asked)

    def bytes_with(self, questions: Sequence[Asked]) -> int:
        """What keys and values take when every answer, also to these questions, is as long as it may become. All rows
        have space for the longest one."""
        every = [*self.asked, *questions]
        left = max((one.longest - one.made for one in every), default=0)
        longest = max((one.read for one in every), default=0)
        return sum(len(one.going) for one in every) * (longest + left) * self.llama.bytes_of_token

    def bytes_now(self) -> int:
        """What keys and values take now."""
        decoders = [self._decoder, *(part.decoder for reading in self._reading for part in reading.parts)]
        return sum(2 * len(one.keys) * one.keys[0].nbytes for one in decoders if one is not None)

    def join(self, questions: Sequence[Asked]) -> None:
        """Begin to read prompts; from then on `step` gives the next tokens."""
        self.asked += questions
        try:
            self._reading.append(_Reading(self.llama, questions))
        except Exception as error:
            self._failed(questions, error)
        self._read()
        self._forget_ended()

    def step(self) -> None:
        """The next token of every answer; who has cancelled leaves first."""
        for one in self.asked:
            if one.is_cancelled():  # asked once: it may change at any moment
                one.going = []
        self._write()
        self._read()
        self._forget_ended()

    def _write(self) -> None:
        """The next token of every answer that has begun."""
        kept = [place for place, (one, row) in enumerate(self._slots) if row in one.going]
        if not kept or self._decoder is None:
            self._decoder, self._slots = None, []
            return
        longest = max(one.read for one, _row in self._slots)
        if len(kept) < FILLED * len(self._slots) or self._decoder.length > 2 * longest:
            self._go_on([(self._decoder, kept)], [self._slots[place] for place in kept])
        ids = torch.tensor([[one.last.get(row, 0)] for one, row in self._slots])
        _choose(self._slots, self._decoder(ids))

    def _read(self) -> None:
        """A part of the first prompts that are still to be read; when that was the last, their first tokens."""
        if not self._reading:
            return
        reading = self._reading[0]
        try:
            if not reading.step():
                return
            del self._reading[0]
            read = [part for part in reading.parts if part.is_read]
            if read:
                _choose([slot for part in read for slot in part.slots], torch.cat([part.logits for part in read]))
        except Exception as error:  # before anything of the others is touched
            self._reading = [one for one in self._reading if one is not reading]
            self._failed(reading.questions, error)
            return
        parts = [(self._decoder, self._slots), *((part.decoder, part.slots) for part in reading.parts)]
        going = [(made, [n for n, (one, row) in enumerate(slots) if row in one.going], slots) for made, slots in parts]
        self._go_on(
            [(made, rows) for made, rows, _slots in going if made is not None],
            [slots[n] for _made, rows, slots in going for n in rows],
        )

    def _go_on(self, parts: Sequence[tuple[FastDecoder, list[int]]], slots: list[tuple[Asked, int]]) -> None:
        """With these rows of decoders, which are used up."""
        room = min(ROOM, max((one.longest - one.made for one, _row in slots), default=0))
        parts = [(decoder, rows) for decoder, rows in parts if rows]
        self._decoder = FastDecoder.of_rows(parts, room) if parts else None
        self._slots = slots

    def _failed(self, questions: Sequence[Asked], error: Exception) -> None:
        for one in questions:
            one.fail(error)

    def _forget_ended(self) -> None:
        self.asked = [one for one in self.asked if one.going]
        if not self.asked:
            self._decoder, self._slots, self._reading = None, [], []


class _Reading:
    """Prompts of some questions, read a part at a time; those of similar length side by side."""

    def __init__(self, llama: FastLlama, questions: Sequence[Asked]) -> None:
        self.questions = questions
        slots = [(one, row) for one in questions for row in range(len(one.prompts))]
        slots.sort(key=lambda slot: len(slot[0].prompts[slot[1]]))  # stable: rows of a question stay in their order
        self.parts: list[_Part] = []
        while slots:
            one, row = slots[0]
            most = SIMILAR * len(one.prompts[row]) + APART
            count = sum(len(one.prompts[row]) <= most for one, row in slots)
            self.parts.append(_Part(llama, slots[:count]))
            slots = slots[count:]

    def step(self) -> bool:
        """Read on; whether everything is read. What nobody waits for any more is not."""
        for part in self.parts:
            if not part.is_read and any(row in one.going for one, row in part.slots):
                part.step()
                break
        return not any(not part.is_read and any(row in one.going for one, row in part.slots) for part in self.parts)


class _Part:
    """Rows whose prompts are read side by side, padded on the left."""

    def __init__(self, llama: FastLlama, slots: Sequence[tuple[Asked, int]]) -> None:
        self.slots = list(slots)
        self.ids, self._missing = padded_left([one.prompts[row] for one, row in slots])
        self.decoder = FastDecoder(llama, [one.adapters[row] for one, row in slots], self.ids.shape[1])
        self.logits = torch.empty(len(slots), 0, dtype=torch.float32)

    @property
    def is_read(self) -> bool:
        return self.decoder.length == self.ids.shape[1]

    def step(self) -> None:
        start = self.decoder.length
        count = max(LEAST_READ, POSITIONS // len(self.slots))
        self.logits = self.decoder(self.ids[:, start : start + count], None if start else self._missing)


def _choose(slots: Sequence[tuple[Asked, int]], logits: Tensor) -> None:
    """Give each question the logits of its rows that go on."""
    logits = logits.float().cpu()
    places: dict[Asked, dict[int, int]] = {}
    for place, (one, row) in enumerate(slots):
        places.setdefault(one, {})[row] = place
    for one, place_of in places.items():
        if one.going:
            one.choose(logits[[place_of[row] for row in one.going]])
