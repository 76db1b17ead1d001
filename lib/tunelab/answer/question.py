"""One question to base and runs, and its answers as they grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from tunelab.errors import UserError
from tunelab.run.run import Run, list_runs

if TYPE_CHECKING:
    from tunelab.model.load import Base
    from tunelab.spec import ModelSpec

StopReason = Literal["end of turn", "length", "cancelled"]


@dataclass(frozen=True)
class Provenance:
    """Where an answer comes from, so that nobody has to believe it."""

    base: str
    base_sha256: str
    adapter: str | None  # id of the run; None: the base alone
    precision: str
    template: str
    decoding: str

    @property
    def text(self) -> str:
        """One line for people."""
        adapter = f"adapter {self.adapter} on" if self.adapter else "adapter off"
        return (
            f"{self.base} ({self.base_sha256[:8]}) · {adapter} · {self.precision} · {self.template} · {self.decoding}"
        )


@dataclass(frozen=True)
class Answer:
    label: str
    text: str
    tokens: int
    stop_reason: StopReason | None
    seconds: float
    provenance: Provenance


@dataclass(frozen=True)
class Comparison:
    """One prompt, the same decoding, one answer by the base and one by each adapter."""

    prompt: str
    system: str | None
    answers: tuple[Answer, ...]
    done: bool
    note: str | None = None


@dataclass(frozen=True)
class Question:
    """What is asked, of whom, and how it is decoded."""

    runs: tuple[Run, ...]
    prompt: str
    system: str | None
    max_new_tokens: int
    temperature: float
    seed: int
    cancel: threading.Event

    @cached_property
    def spec(self) -> ModelSpec:
        """The base of all its runs; looked up once, for it is asked before every token while others answer."""
        return self.runs[0].base_spec


def check_decoding(max_new_tokens: int, temperature: float) -> None:
    """Refuse settings out of their ranges."""
    if not 1 <= max_new_tokens <= 4096:
        raise UserError(f"max_new_tokens = {max_new_tokens}: allowed are 1 to 4096.")
    if not 0 <= temperature <= 5:
        raise UserError(f"temperature = {temperature}: allowed are 0 (greedy) to 5.")


def positions_taken(runs: Sequence[Run]) -> int:
    """The most that any run's own tokens take: every column has the same room for its answer."""
    return max(run.config.technique.positions_taken for run in runs)


class Talk:
    """The answers to a question on a base; `tell` hears of each token, and at the end."""

    def __init__(self, question: Question, base: Base, tell: Callable[[Comparison], None]) -> None:
        from tunelab.answer.generation import end_ids
        from tunelab.data import Message, encode_prompt, prompt_notes
        from tunelab.model.positions import answer_length

        self.question, self.base, self.tell = question, base, tell
        turns = [Message("user", question.prompt)]
        if system := question.system or _system_of(question.runs[0]):
            turns.insert(0, Message("system", system))
        self.system = system
        self.prompt = encode_prompt(turns, base.tokenizer)
        asked, taken = question.max_new_tokens, positions_taken(question.runs)
        self.longest = answer_length(base.model.config, len(self.prompt), asked, taken)
        self.end_ids = end_ids(base.tokenizer, base.model)
        self.answers = _blank_answers(base, question)
        cut = f"an answer ends after {self.longest} tokens: the model has no positions for more"
        said = [*prompt_notes(turns, base.tokenizer), *_notes(question.runs), *base.notes]
        self.note = _sentences(*said, cut if self.longest < asked else None)
        self.started = time.perf_counter()
        self._generated: dict[int, list[int]] = {}

    def begin(self) -> None:
        """What is heard from now on began now."""
        self.started = time.perf_counter()

    def hear(self, columns: Sequence[int], step: Sequence[int | None]) -> None:
        """The next token of some columns; None: that one has ended."""
        from tunelab.answer.generation import text_of

        for column, token in zip(columns, step, strict=True):
            if token is None:
                continue
            generated = self._generated.setdefault(column, [])
            if token not in self.end_ids:
                generated.append(token)
            self.answers[column] = replace(
                self.answers[column],
                text=text_of(self.base.tokenizer, generated),
                tokens=len(generated),
                stop_reason="end of turn" if token in self.end_ids else None,
                seconds=time.perf_counter() - self.started,
            )
        self.tell(Comparison(self.question.prompt, self.system, tuple(self.answers), False, self.note))

    def end(self) -> None:
        """No more tokens come."""
        ending: StopReason = "cancelled" if self.question.cancel.is_set() else "length"
        final = tuple(replace(answer, stop_reason=answer.stop_reason or ending) for answer in self.answers)
        self.tell(Comparison(self.question.prompt, self.system, final, True, self.note))


def _system_of(run: Run) -> str | None:
    return run.config.stages[run.progress().stage].data.system


def _blank_answers(base: Base, asked: Question) -> list[Answer]:
    decoding = "greedy" if asked.temperature == 0 else f"temperature {asked.temperature:g}, seed {asked.seed}"
    provenance = Provenance(
        base=base.spec.repo_id,
        base_sha256=base.sha256,
        adapter=None,
        precision=base.precision,
        template="the model's chat template" if base.tokenizer.chat_template else "plain template",
        decoding=decoding,
    )
    blank = Answer("base", "", 0, None, 0.0, provenance)
    tuned = [replace(blank, label=run.name, provenance=replace(provenance, adapter=run.id)) for run in asked.runs]
    return [blank, *tuned]


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = []
    for run in runs:
        if run.config.technique.changes_nothing(run.adapter_path):
            notes.append(f"{run.name} changes nothing: its adapter adds zero. Train it for more steps.")
    training = next((r for r in list_runs(runs[0].root) if r.is_alive), None)
    if training:
        notes.append(f"{training.name} is training on this machine, so answers come slower.")
    return notes


def _sentences(*notes: str | None) -> str | None:
    """Notes as sentences, one after the other; None where there is none."""
    sentences = [note if note.endswith(".") else f"{note[0].upper()}{note[1:]}." for note in notes if note]
    return " ".join(sentences) or None
