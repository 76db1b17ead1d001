"""What answers in the Compare room, as its cards say it, and what that means for the library. Knows no Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tunelab import Column, Run, UserError, list_runs
from tunelab.data import Example
from tunelab.run.trained import heldout_again
from tunelab.spec import base_differences

BASE = ""  # who answers where no run does
FEWEST, MOST = 2, 4
MOST_EXAMPLES = 8
SYSTEMS = ("trained", "none", "own")
System = Literal["trained", "none", "own"]


@dataclass(frozen=True)
class Pick:
    """A column, as its card says it."""

    who: str = BASE  # a run's id
    at: str = ""  # of a run: its result, or "40" a kept step, or "stage2"
    system: System = "trained"
    words: str = ""  # the system prompt, where it is an own one
    examples: int = 0
    strength: float = 1.0

    @property
    def name(self) -> str | None:
        """What the library opens."""
        return (f"{self.who}@{self.at}" if self.at else self.who) if self.who else None


def columns_of(picks: Sequence[Pick], root: Path, system: str | None = "") -> list[Column]:
    """The columns that are asked; `system`: what stands first in those that say nothing of it.

    Raises:
        UserError: there are no examples where some are wanted.
    """
    return [_column(pick, _run_of_rows(pick, picks), root, (system or "").strip()) for pick in picks]


def _column(pick: Pick, run: str, root: Path, system: str) -> Column:
    said = {"trained": system or None, "none": "", "own": pick.words}[pick.system]
    examples = taught(Run.open(run, root), pick.examples) if pick.examples and run else ()
    if pick.examples and not run:
        raise UserError("Examples are training rows of a run. Choose a run in another column, or take 0 examples.")
    return Column(pick.name, said, tuple(examples), pick.strength if pick.who else 1.0)


def _run_of_rows(pick: Pick, picks: Sequence[Pick]) -> str:
    """Whose training rows are shown to a column: its own run's, for the base those of the first run beside it."""
    return pick.who or next((other.who for other in picks if other.who), "")


def taught(run: Run, count: int) -> list[tuple[str, str]]:
    """Prompts and answers of training rows, spread evenly over them.

    Raises:
        UserError: they can't be had any more, or none is a question with an answer.
    """
    rows = heldout_again(run).train
    pairs = [(row.prompt, row.answer) for row in rows if row.answer.strip() and row.prompt.strip() and asks_once(row)]
    if len(pairs) < count:
        raise UserError(
            f"Run {run.name} has {len(pairs):,} training rows that are one question and one answer, so {count} can't "
            "be shown as examples. Take fewer."
        )
    return pairs[:: len(pairs) // count][:count]


def asks_once(row: Example) -> bool:
    """Whether it is one question and its answer."""
    return sum(turn.role != "system" for turn in row.asked) == 1


def problems(picks: Sequence[Pick], root: Path) -> list[str]:
    """Beside each column, why it can't stand there; "" where it can."""
    first: Run | None = None
    said = []
    for pick in picks:
        run = find(pick.who, root)
        problem = ""
        if pick.who and run is None:
            problem = "This run is not there any more. Choose another one."
        elif run and first is None:
            first = run
        elif run and first and (parts := base_differences(first.base_spec, run.base_spec)):
            here = ", ".join(f"{part} {getattr(run.base_spec, part)}" for part in parts)
            there = ", ".join(f"{part} {getattr(first.base_spec, part)}" for part in parts)
            problem = f"It stands on another base ({here}) than {first.name} ({there}), so they can't answer together."
        said.append(problem)
    return said


def fitting(pick: Pick, root: Path) -> Pick:
    """The column without what its run does not have: that can't be set on its card any more."""
    run = find(pick.who, root)
    at = pick.at if pick.at in [value for _name, value in results_of(run)] else ""
    return replace(pick, who=pick.who if run else BASE, at=at, strength=pick.strength if has_strength(run) else 1.0)


def find(run_id: str, root: Path) -> Run | None:
    """The run of that id, if it is there and can answer."""
    if not run_id or run_id != Path(run_id).name or run_id.startswith("."):  # the browser may send anything
        return None
    run = Run(root / run_id)
    return run if _answers(run) else None


def answering(root: Path) -> list[Run]:
    """Runs that have a result, the newest first."""
    return [run for run in list_runs(root) if _answers(run)]


def _answers(run: Run) -> bool:
    return run.has_adapter and run.readable


def results_of(run: Run | None) -> list[tuple[str, str]]:
    """What of a run can answer, with its name for people: its result, what was kept at a step or a stage's end."""
    found = [("its result", "")]
    if run is not None:
        stages = len(run.config.stages)
        kept = [stage for stage in range(stages) if stages > 1 and run.stage_path(stage).is_dir()]
        found += [(f"at the end of stage {stage + 1}", f"stage{stage + 1}") for stage in kept]
        found += [(f"as it was at step {step}", str(step)) for step in run.kept_steps]
    return found


def has_strength(run: Run | None) -> bool:
    """Whether its adapter can count more or less."""
    if run is None:
        return False
    try:
        run.config.technique.at_strength(0.5)
    except UserError:
        return False
    return True
