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
    Sampled,
    StageDone,
    Started,
    StepDone,
    Stopped,
    TrainingEvent,
)

Status = Literal["queued", "running", "finished", "stopped", "paused", "failed", "lost", "unreadable"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands, from its events alone (those voided by a resume left out)."""

    status: Status
    message: str  # one line for people
    step: int = 0  # of what the run is: after a rollback an earlier one than was trained
    steps_total: int | None = None
    started: Started | None = None
    steps: list[StepDone] = field(default_factory=list)
    evaluations: list[Evaluated] = field(default_factory=list)
    stages: list[StageDone] = field(default_factory=list)
    ending: Finished | Stopped | Failed | RolledBack | None = None
    notices: list[Noticed] = field(default_factory=list)

    @property
    def stage(self) -> int:
        """The stage, counted from 0, whose result the run is: the one it was rolled back to, else the last one."""
        if isinstance(self.ending, RolledBack):
            return self.ending.stage
        return self.steps[-1].stage if self.steps else 0

    @property
    def kept(self) -> Evaluated | None:
        """The measurement of what a finished run is: of the step whose adapter was restored at the end of its stage, or
        of the last one. None where that was not measured, and before the end."""
        done = next((done for done in reversed(self.stages) if done.stage == self.stage), None)
        if done is None or not isinstance(self.ending, (Finished, RolledBack)):
            return None
        step = done.step if done.restored_step is None else done.restored_step
        return next((e for e in self.evaluations if (e.stage, e.step) == (done.stage, step)), None)

    @property
    def heldout_loss(self) -> float | None:
        """That of what a finished run is. Before, the lowest of the last stage that was measured: the losses of stages
        are of different rows."""
        if isinstance(self.ending, Finished) and self.ending.heldout_loss is not None:
            return self.ending.heldout_loss
        if self.kept:
            return self.kept.heldout_loss
        return min((e.heldout_loss for e in self._of_one_stage()), default=None)

    @property
    def base_loss(self) -> float | None:
        """The base's loss on the same rows."""
        return next((e.base_loss for e in self._of_one_stage() if e.base_loss is not None), None)

    def _of_one_stage(self) -> list[Evaluated]:
        """The measurements of the stage a run was rolled back to, else of the last one that was measured."""
        stage = self.evaluations[-1].stage if self.evaluations else 0
        if isinstance(self.ending, RolledBack):
            stage = self.ending.stage
        return [e for e in self.evaluations if e.stage == stage]

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


@dataclass(frozen=True)
class Summary:
    """The events of a run that count, by kind: those voided by a resume left out."""

    started: Started | None  # the newest
    steps: list[StepDone]
    evaluations: list[Evaluated]
    stages: list[StageDone]
    notices: list[Noticed]
    last: TrainingEvent | None

    @property
    def ending(self) -> Finished | Stopped | Failed | RolledBack | None:
        return self.last if isinstance(self.last, (Finished, Stopped, Failed, RolledBack)) else None


def summarise(events: Iterable[TrainingEvent]) -> Summary:
    """What counts of the events of a run."""
    counting = history(events)
    return Summary(
        started=next((e for e in reversed(counting) if isinstance(e, Started)), None),
        steps=[e for e in counting if isinstance(e, StepDone)],
        evaluations=[e for e in counting if isinstance(e, Evaluated)],
        stages=[e for e in counting if isinstance(e, StageDone)],
        notices=[e for e in counting if isinstance(e, Noticed)],
        last=counting[-1] if counting else None,
    )


def how_it_finished(ending: Finished, started: Started | None, stages: list[StageDone]) -> str:
    """One line: the steps, whether it ended early, and which step's adapter was kept."""
    message, last = f"finished after {ending.step} steps", stages[-1] if stages else None
    if started and ending.step < started.steps_total:
        by = last.best_by if last else "loss"
        reason = "the held-out loss fell no more" if by == "loss" else f"{by} got no better"
        message = f"finished early, after {ending.step} of {started.steps_total} steps: {reason}"
    return message + (f"; {last.kept}" if last and last.kept else "")


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
    return isinstance(event, (StepDone, Evaluated, Sampled, StageDone, Noticed)) and event.step > step
