"""Where a run stands, as it follows from its events alone. Reads no file and knows no directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from tunelab.run.events import (
    Evaluated,
    Failed,
    Finished,
    Noticed,
    Resumed,
    RolledBack,
    StageDone,
    Started,
    StepDone,
    Stopped,
    TrainingEvent,
)

Status = Literal["queued", "running", "finished", "stopped", "failed", "lost", "unreadable"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands, from its events alone (those voided by a resume left out)."""

    status: Status
    message: str  # one line for people
    step: int = 0
    steps_total: int | None = None
    started: Started | None = None
    steps: list[StepDone] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    stages: list[StageDone] = field(default_factory=list)
    ending: Finished | Stopped | Failed | RolledBack | None = None
    notices: list[Noticed] = field(default_factory=list)

    @property
    def heldout_loss(self) -> float | None:
        """That of the adapter of a finished run. Before, the lowest of the last stage that was measured: the losses of
        stages are of different rows."""
        if isinstance(self.ending, Finished) and self.ending.heldout_loss is not None:
            return self.ending.heldout_loss
        last = self.evaluations[-1].stage if self.evaluations else None
        return min((e.heldout_loss for e in self.evaluations if e.stage == last), default=None)

    @property
    def base_loss(self) -> float | None:
        """The base's loss on the same rows."""
        last = self.evaluations[-1].stage if self.evaluations else None
        return next((e.base_loss for e in self.evaluations if e.stage == last and e.base_loss is not None), None)

    @property
    def tokens_per_second(self) -> float | None:
        """Over the last ten steps."""
        last = self.steps[-10:]
        return sum(s.tokens for s in last) / max(sum(s.seconds for s in last), 1e-9) if last else None

    @property
    def seconds_left(self) -> float | None:
        """Expected time to the last step, from the mean of the last ten."""
        last = self.steps[-10:]
        if not last or self.steps_total is None or self.status != "running":
            return None
        return (self.steps_total - self.step) * sum(s.seconds for s in last) / len(last)


def how_it_finished(ending: Finished, started: Started | None, stages: list[StageDone]) -> str:
    """One line: the steps, whether it ended early, and which step's adapter was kept."""
    message = f"finished after {ending.step} steps"
    if started and ending.step < started.steps_total:
        message = f"finished early, after {ending.step} of {started.steps_total} steps: the held-out loss fell no more"
    restored = stages[-1].restored_step if stages else None
    return message + (f"; the adapter of step {restored} had the lowest held-out loss and is kept" if restored else "")


def history(events: Iterable[TrainingEvent]) -> list[TrainingEvent]:
    """The events that count: those of steps a resume went back behind are left out."""
    kept: list[TrainingEvent] = []
    for event in events:
        if isinstance(event, Resumed):
            kept = [e for e in kept if not _is_later(e, event.step)]
        kept.append(event)
    return kept


def _is_later(event: TrainingEvent, step: int) -> bool:
    if isinstance(event, (Finished, Stopped, Failed, RolledBack)):
        return True
    return isinstance(event, (StepDone, Evaluated, StageDone, Noticed)) and event.step > step
