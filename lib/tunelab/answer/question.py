"""One question to some columns, and what is known of its answers: each says where it comes from."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunelab.answer.columns import Column, Turns, counted, labels_of
from tunelab.errors import UserError
from tunelab.run.run import Run, list_runs

if TYPE_CHECKING:
    from tunelab.data import Message
    from tunelab.spec import ModelSpec
    from tunelab.techniques import Technique

StopReason = Literal["end of turn", "length", "cancelled"]
MOST_SEEDS = 8
MOST_TOKENS, HOTTEST = 4096, 5
KNOWN = 256  # results of which is remembered whether they change anything


@dataclass(frozen=True)
class Provenance:
    """Where an answer comes from, so that nobody has to believe it."""

    base: str
    base_sha256: str
    adapter: str | None  # id of the run; None: the base alone
    precision: str
    template: str
    decoding: str
    strength: float = 1.0  # how much the adapter counts
    system: bool = False  # whether a system prompt stood before the question
    examples: int = 0  # how many answers were shown before it
    turns: int = 0  # of the conversation before it
    own: bool = False  # whether the column was asked otherwise than its run alone says: by strength, system, examples

    @property
    def text(self) -> str:
        """One line for people."""
        scale = "" if self.strength == 1 else f" × {self.strength:g}"
        adapter = f"adapter {self.adapter} on{scale}" if self.adapter else "adapter off"
        before = [
            "system prompt" if self.system else "no system prompt",
            counted(self.examples, "example") if self.examples else "no examples",
            *([counted(self.turns, "earlier turn")] if self.turns else []),
        ]
        parts = [f"{self.base} ({self.base_sha256[:8]})", adapter, self.precision, self.template, ", ".join(before)]
        return " · ".join([*parts, self.decoding])


@dataclass(frozen=True)
class Answer:
    label: str
    text: str
    tokens: int
    stop_reason: StopReason | None
    seconds: float
    provenance: Provenance
    column: int = 0  # whose it is, of the columns asked
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """One prompt, the same decoding, an answer by each column; by one seed after the other where there are several."""

    prompt: str
    system: str | None  # before the prompt in every column; None: there was none, or not the same
    answers: tuple[Answer, ...]
    done: bool
    note: str | None = None
    history: tuple[Turns, ...] = ()  # of each column: what was asked and answered before
    error: str | None = None  # why it can't be answered, of one of a set of prompts

    @property
    def is_cut(self) -> bool:
        """Whether somebody cancelled before every answer was complete."""
        return any(answer.stop_reason == "cancelled" for answer in self.answers)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(answer.seed for answer in self.answers))

    @property
    def by_column(self) -> tuple[tuple[Answer, ...], ...]:
        """Each column's answers, one of each seed."""
        columns = dict.fromkeys(answer.column for answer in self.answers)
        return tuple(tuple(answer for answer in self.answers if answer.column == column) for column in columns)

    @property
    def continued(self) -> tuple[Turns, ...]:
        """The `history` of what is asked next: each column goes on from its own answer, by the first seed."""
        before = self.history or ((),) * len(self.by_column)
        return tuple(
            (*turns, (self.prompt, answers[0].text)) for turns, answers in zip(before, self.by_column, strict=True)
        )

    def of_seed(self, seed: int) -> Comparison:
        """The comparison as if asked with one of its seeds alone."""
        return replace(self, answers=tuple(answer for answer in self.answers if answer.seed == seed))


@dataclass(frozen=True)
class Folded:
    """An answer that was given once or several times."""

    text: str
    seeds: tuple[int, ...]  # that gave it

    @property
    def count(self) -> int:
        return len(self.seeds)


def fold_equal(answers: Sequence[Answer]) -> list[Folded]:
    """The distinct answers, the most frequent first, of equals the one that came first."""
    seeds: dict[str, list[int]] = {}
    for answer in answers:
        seeds.setdefault(answer.text, []).append(answer.seed)
    return sorted((Folded(text, tuple(gave)) for text, gave in seeds.items()), key=lambda one: -one.count)


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked, of whom, and how it is decoded. What it is about is looked up before it is put to a model."""

    columns: tuple[Column, ...]  # opened
    spec: ModelSpec  # the base of all of them
    prompt: str
    turns: tuple[tuple[Message, ...], ...]  # of each column, up to its answer
    max_new_tokens: int
    temperature: float
    seeds: tuple[int, ...]
    cancel: threading.Event
    history: tuple[Turns, ...] = ()
    notes: Callable[[], Sequence[str]] = tuple  # on its columns: they need torch, which who asks does not wait for
    problem: str | None = None  # why it can't be answered, where that shows already

    @functools.cached_property
    def labels(self) -> list[str]:
        return labels_of(self.columns)

    @property
    def system(self) -> str | None:
        """What stands first in every column; None: nothing, or not the same."""
        first = [next((turn.content for turn in turns[:1] if turn.role == "system"), None) for turns in self.turns]
        return first[0] if len(set(first)) == 1 else None

    @property
    def runs(self) -> list[Run]:
        return runs_of(self.columns)

    @property
    def positions_taken(self) -> int:
        """The most that any run's own tokens take: every column has the same room for its answer."""
        return max((run.config.technique.positions_taken for run in self.runs), default=0)

    def untold(self, note: str | None = None, *, done: bool = False, error: str | None = None) -> Comparison:
        """The comparison before there is an answer."""
        return Comparison(self.prompt, self.system, (), done, note, self.history, error)


def problem_of(prompt: str) -> str | None:
    """Why nothing is asked; None where something is."""
    return None if prompt.strip() else "The prompt is empty. Write a question, or choose one of the examples."


def check_prompt(prompt: str) -> None:
    """Refuse one that asks nothing."""
    if problem := problem_of(prompt):
        raise UserError(problem)


def checked_seeds(seeds: Sequence[int] | int, temperature: float) -> tuple[int, ...]:
    """The seeds asked for, or the first so many.

    Raises:
        UserError: none or too many, the same twice, or several where nothing is drawn.
    """
    made = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not 1 <= len(made) <= MOST_SEEDS or len(set(made)) < len(made) or not all(0 <= seed < 2**63 for seed in made):
        raise UserError(f"seeds = {list(made)[:9]}: give 1 to {MOST_SEEDS} different ones, each 0 or more.")
    if len(made) > 1 and temperature == 0:
        raise UserError(
            f"{len(made)} seeds at temperature 0: the most likely token is the same with every seed. Raise "
            "temperature, or give one seed."
        )
    return made


def check_decoding(max_new_tokens: int, temperature: float) -> None:
    """Refuse settings out of their ranges."""
    if not 1 <= max_new_tokens <= MOST_TOKENS:
        raise UserError(f"max_new_tokens = {max_new_tokens}: allowed are 1 to {MOST_TOKENS}.")
    if not 0 <= temperature <= HOTTEST:
        raise UserError(f"temperature = {temperature}: allowed are 0 (greedy) to {HOTTEST}.")


def runs_of(columns: Sequence[Column]) -> list[Run]:
    """The runs of opened columns, each once."""
    return list({run.id: run for column in columns if (run := column.opened_run)}.values())


def notes_on(columns: Sequence[Column]) -> tuple[str, ...]:
    """What to know of columns before they answer, a sentence each."""
    runs = runs_of(columns)
    notes = [
        f"{run.name} changes nothing: its adapter adds zero. Train it for more steps."
        for run in runs
        if _changes_nothing(run.config.technique, run.adapter_path, run.adapter_path.stat().st_mtime_ns)
    ]
    training = next((run for run in list_runs(runs[0].root) if run.is_alive), None) if runs else None
    if training:
        notes.append(f"{training.name} is training on this machine, so answers come slower.")
    return tuple(notes)


@functools.lru_cache(KNOWN)
def _changes_nothing(technique: Technique, folder: Path, changed: int) -> bool:
    """Read once for each result: `changed` is when it came to be."""
    return technique.changes_nothing(folder)
