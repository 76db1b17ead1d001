"""How the answers to a few prompts changed while a run trained: what a slider over its steps shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tunelab.run.events import Sampled
from tunelab.run.progress import history
from tunelab.run.run import Run


class StepAnswer(NamedTuple):
    """An answer after so many optimiser steps; step 0 is before the first one."""

    step: int
    answer: str


@dataclass(frozen=True)
class AnswersOverSteps:
    """One prompt's answers, in the order of their steps, one for each step."""

    prompt: str
    answers: tuple[StepAnswer, ...]

    def at(self, step: int) -> StepAnswer | None:
        """The newest answer of a step or of one before it; None where there is none yet."""
        return next((one for one in reversed(self.answers) if one.step <= step), None)

    @property
    def changed(self) -> tuple[StepAnswer, ...]:
        """The answers that differ from the one before them, and the first one: where a slider has something to show."""
        before: list[str | None] = [None, *(one.answer for one in self.answers)]
        return tuple(one for one, previous in zip(self.answers, before, strict=False) if one.answer != previous)


def answers_over_steps(run: Run) -> tuple[AnswersOverSteps, ...]:
    """The answers of a run while it trained, prompt by prompt as they were first asked; empty where none was asked for.
    Those of steps that a resumed run went back behind do not count."""
    prompts: dict[str, dict[int, str]] = {}
    for event in history(run.events()):
        if isinstance(event, Sampled):
            prompts.setdefault(event.prompt, {})[0 if event.of_base else event.step] = event.answer
    return tuple(
        AnswersOverSteps(prompt, tuple(StepAnswer(step, answers[step]) for step in sorted(answers)))
        for prompt, answers in prompts.items()
    )
