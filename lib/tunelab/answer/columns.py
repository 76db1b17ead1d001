"""What answers a question: the base or a run, with what stands before the prompt, and how much its adapter counts.

Column()                              the base of the other columns
Column(system="Be brief.")            the same, prompted: what tuning has to beat
Column(run="tickets", strength=0.5)   half of what a run learned
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunelab.data.examples import Message
from tunelab.errors import UserError
from tunelab.model.hub import at_commit
from tunelab.run.run import Run
from tunelab.spec import ModelSpec, base_differences

MOST_COLUMNS = 4
MOST_EXAMPLES = 32
STRONGEST = 1.5
AUTO = "auto"

Turns = tuple[tuple[str, str], ...]  # what was asked, and what was answered


@dataclass(frozen=True)
class Column:
    """What answers. `system` None: the system prompt that the run was trained with; "": none."""

    run: Run | str | None = None  # a run, its id, name or step ('NAME@40', 'NAME@stage2'); None: the base
    system: str | None = None  # before the prompt
    examples: Turns = ()  # prompts and answers that are shown before the question, as turns
    strength: float = 1.0  # how much the adapter counts: 0 is the base, 1 the run, up to 1.5
    model: ModelSpec | None = None  # the base, where no other column has a run

    def __post_init__(self) -> None:
        object.__setattr__(self, "examples", tuple(tuple(pair) for pair in self.examples))

    @property
    def label(self) -> str:
        """What it is, for people: 'base with 3 examples', 'tickets × 0.5'."""
        return f"{self._who}{self._beside}"

    @property
    def opened_run(self) -> Run | None:
        """The run, of a column that `opened` has made."""
        assert not isinstance(self.run, str), self.run
        return self.run

    def opened(self, root: str | Path | None) -> Column:
        """The column with its run, which is there and can answer so.

        Raises:
            UserError: the run has no result or no strength, or a setting is out of its range.
        """
        run = Run.open_to_ask(self.run, root) if isinstance(self.run, str) else self.run
        opened = replace(self, run=run, system=_said(self.system))
        opened._check()
        if run is not None:
            _ = run.config  # one of another version says so
            run.check_result()
            if self.strength != 1:
                run.config.technique.at_strength(self.strength)
        return opened

    def before(self, system: str | None, history: Turns = ()) -> list[Message]:
        """The turns before the prompt; `system`: what stands first where the column says nothing of it."""
        said = system if self.system is None else self.system
        turns = [Message("system", said)] if said else []
        for asked, answered in (*self.examples, *history):
            turns += [Message("user", asked), Message("assistant", answered)]
        return turns

    def _check(self) -> None:
        if not 0 <= self.strength <= STRONGEST:
            raise UserError(
                f"{self._who}: strength = {self.strength:g}: allowed are 0 (the base) to {STRONGEST:g}; 1 is the "
                "trained adapter."
            )
        if self.run is None and self.strength != 1:
            raise UserError("The base has no strength: there is no adapter to count more or less. Choose a run.")
        if self.run is not None and self.model is not None:
            raise UserError(
                f"{self._who}: a column is a run, which names its base, or a model. Leave out one of the two."
            )
        if len(self.examples) > MOST_EXAMPLES:
            raise UserError(f"{self._who}: {len(self.examples)} examples: give at most {MOST_EXAMPLES}.")
        for number, example in enumerate(self.examples, 1):
            if len(example) != 2 or not all(isinstance(part, str) and part.strip() for part in example):
                raise UserError(
                    f"{self._who}: example {number} lacks its prompt or its answer. Write both, or take it out."
                )

    @property
    def _who(self) -> str:
        if self.run is None:
            return "base"
        name = self.run.name if isinstance(self.run, Run) else self.run
        return name if self.strength == 1 else f"{name} × {self.strength:g}"

    @property
    def _beside(self) -> str:
        shown = f" with {counted(len(self.examples), 'example')}" if self.examples else ""
        if self.system:
            return " with system prompt" + shown.replace(" with", " and")
        return shown if self.system is None else f" without system prompt{shown.replace(' with', ', with')}"


def counted(number: int, one: str) -> str:
    """'1 example', '3 examples'."""
    return f"{number} {one}{'s'[: number != 1]}"


def opened(columns: Sequence[Column], root: str | Path | None) -> tuple[Column, ...]:
    """The columns of a question, each with its run.

    Raises:
        UserError: there are none or too many, or one can't answer.
    """
    if not 1 <= len(columns) <= MOST_COLUMNS:
        raise UserError(f"{len(columns)} columns: give 1 to {MOST_COLUMNS} that answer side by side.")
    return tuple(column.opened(root) for column in columns)


def base_of(columns: Sequence[Column]) -> ModelSpec:
    """The one base that opened columns stand on.

    Raises:
        UserError: they name none, or several.
    """
    of_runs = [(run.name, at_commit(run.base_spec)) for column in columns if (run := column.opened_run)]
    named = [("base", at_commit(column.model)) for column in columns if column.model]
    if of_runs:  # 'auto' leaves the choice
        dtype = of_runs[0][1].dtype
        named = [(name, m.model_copy(update={"dtype": dtype}) if m.dtype == AUTO else m) for name, m in named]
    specs = [*of_runs, *named]
    if not specs:
        raise UserError("No base is named: a column is the base of the runs beside it. Choose a run, or give a model.")
    if differing := base_differences(*(spec for _name, spec in specs)):
        said = (f"{name} ({', '.join(f'{one} {getattr(spec, one)}' for one in differing)})" for name, spec in specs)
        raise UserError(f"These runs stand on different bases: {'; '.join(said)}. Compare runs of one base.")
    revision = next((spec.revision for _name, spec in specs if spec.revision), None)
    return specs[0][1].model_copy(update={"revision": revision})


def labels_of(columns: Sequence[Column]) -> list[str]:
    """The columns' labels, no two the same."""
    made: list[str] = []
    for column in columns:
        numbered = (f"{column.label} ({number})" for number in itertools.count(2))
        made.append(next(label for label in itertools.chain([column.label], numbered) if label not in made))
    return made


def system_of(run: Run) -> str | None:
    """The system prompt that a run was trained with."""
    return run.config.stages[run.stage].data.system


def _said(system: str | None) -> str | None:
    """A system prompt of blanks says nothing, as an empty one."""
    return system if system is None or system.strip() else ""
