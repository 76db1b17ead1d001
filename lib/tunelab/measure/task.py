"""What the answers of a task are measured by, and what they can be guessed with: read from the training rows."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunelab.data.builtin import BUILTIN
from tunelab.data.examples import Example, Message
from tunelab.errors import UserError
from tunelab.measure.builtin_sets import metrics_of
from tunelab.measure.floors import Floor, floors_for
from tunelab.measure.metrics import METRICS, NAMED, Metric, load_metric, metrics_for, task_of
from tunelab.measure.metrics.propose import Task as Kind
from tunelab.measure.metrics.text import folded

LOOKED_AT = 20_000  # training rows that floors, labels and metrics are read from


@dataclass(frozen=True)
class Task:
    """Metrics (the one to report first stands first), and training rows to guess and to show examples from."""

    kind: Kind
    metrics: tuple[Metric, ...]
    labels: tuple[str, ...] = ()  # the different answers, in order, where they are labels
    train: Sequence[Example] = ()
    notes: tuple[str, ...] = ()
    _known: tuple[list[str], list[str]] = field(default=([], []), repr=False)

    def floors(self) -> dict[str, Floor]:
        """What answers can be guessed with, without a language model."""
        return floors_for(self._known[1]) if self.train else {}

    def guesses(self, floor: Floor, asked: Sequence[Example]) -> list[str]:
        """What a floor answers."""
        return floor(*self._known, [words_asked(example) for example in asked])

    def examples(self, count: int) -> list[Example]:
        """Training rows to show before a question, chosen by a fixed seed: single questions, and answers that differ
        where there are so many.

        Raises:
            UserError: there are not so many.
        """
        single = [one for one in self.train if [turn.role for turn in _talk(one)] == ["user", "assistant"]]
        random.Random(0).shuffle(single)
        first = {one.answer: one for one in reversed(single)}
        chosen = [one for one in single if first[one.answer] is one]
        chosen += [one for one in single if first[one.answer] is not one]
        if len(chosen) < count:
            raise UserError(
                f"examples = {count}: {len(chosen)} training rows are one question and one answer. Ask for fewer."
            )
        return chosen[:count]


def task_for(
    source: str | None,
    train: Sequence[Example],
    answers: Sequence[str],
    metric: Path | None = None,
    measured: Sequence[Example] = (),
) -> Task:
    """The task of rows from `source`.

    train: rows the run was trained on; none where they can't be read any more.
    answers: of the rows there are, which tell the kind of the task.
    metric: a file with a user's own metric, which comes first.
    measured: the rows that are measured, which may have labels that no training row has.

    Raises:
        UserError: the file holds no metric.
    """
    one = BUILTIN.get(source or "")
    known, notes = list(train), []
    every_answer = {example.answer for example in train} or set(answers)
    every_label = [*sorted(every_answer), *(example.answer for example in measured)]
    if len(known) > LOOKED_AT:
        known = random.Random(0).sample(known, LOOKED_AT)
        notes.append(f"floors know {LOOKED_AT:,} of the {len(train):,} training rows, chosen by a seed")
    answers = answers if len(answers) <= LOOKED_AT else random.Random(0).sample(list(answers), LOOKED_AT)
    prompts = [words_asked(example) for example in known]
    metrics = metrics_of(one) if one and one.heldout else metrics_for(answers, prompts, labels=every_label)
    own = [_own(metric, {*NAMED, *(each.name for each in metrics)})] if metric else []
    every = {each.name: each for each in (*own, *metrics, *(each() for each in METRICS.values()))}
    kind = task_of(answers, prompts)
    labels = tuple(sorted(filter(str.strip, every_answer))) if kind == "labels" else ()
    right = [example.answer for example in known]
    pairs = (prompts, _spelled_alike(right) if kind == "labels" else right)
    return Task(kind, tuple(every.values()), labels, known, tuple(notes), pairs)


def _spelled_alike(labels: Sequence[str]) -> list[str]:
    """Labels of which one that is spelled in several ways, which count as the same, is spelled as most often: it is
    guessed as often as it really is."""
    ways: dict[str, Counter[str]] = defaultdict(Counter)
    for label in labels:
        ways[folded(label)][label] += 1
    return [ways[folded(label)].most_common(1)[0][0] for label in labels]


def _own(file: Path, taken: set[str]) -> Metric:
    """The user's metric; where it has the name of another, the name says whose it is."""
    metric = load_metric(file)
    if metric.name in taken:
        kind: Any = type(metric)
        kind.name, kind.title = f"{metric.name}_own", f"{metric.title} (own)"
    return metric


def words_asked(example: Example) -> str:
    """What is asked, as one text: the last question, after what was said before it."""
    return "\n".join(turn.content for turn in example.asked if turn.role != "system") or example.prompt


def told(asked: Sequence[Message], system: str) -> tuple[Message, ...]:
    """The conversation with `system` as its system prompt, after the one that it has."""
    if asked and asked[0].role == "system":
        return (Message("system", f"{asked[0].content}\n\n{system}"), *asked[1:])
    return (Message("system", system), *asked)


def shown(asked: Sequence[Message], examples: Sequence[Example]) -> tuple[Message, ...]:
    """The conversation with examples before it, as turns."""
    start = [turn for turn in asked[:1] if turn.role == "system"]
    turns = [turn for example in examples for turn in _talk(example)]
    return (*start, *turns, *asked[len(start) :])


def _talk(example: Example) -> list[Message]:
    return [turn for turn in example.messages if turn.role != "system"]
