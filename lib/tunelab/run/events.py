"""What training reports, one line of `events.jsonl` each: a tagged union with the units in the field names.

`train()` yields these objects, the run appends them to disk, and the app, the notebooks and the command line read
them back. Status, charts and tables follow from them alone.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tunelab.errors import Cause


class Event(BaseModel):
    # "ignore": a log written by a newer version stays readable
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")
    time_unix_seconds: float = Field(default_factory=time.time)


class Preparing(Event):
    """Work before the first step: 'waiting for …', 'loading the model', 'reading the data'."""

    event: Literal["Preparing"] = "Preparing"
    message: str


class Started(Event):
    """What the run really uses; a resumed run reads its measured choices here."""

    event: Literal["Started"] = "Started"
    device: str
    dtype: str
    quantization: str
    attention: str
    fast: bool
    why_plain: str = ""  # why the fast path does not compute it; of the first stage that trains
    threads: int
    base_sha256: str
    base_revision: str = ""  # the commit of the base on the Hub; '' for one that comes from elsewhere
    trainable_parameters: int
    total_parameters: int
    steps_total: int  # over all stages
    learning_rates: tuple[float, ...]  # one per stage
    train_rows: tuple[int, ...]
    heldout_rows: tuple[int, ...]
    data_sha256: tuple[str, ...]
    columns: tuple[dict[str, str], ...] = ()  # of each stage: the column of each role, as they were read
    forecast_bytes: int = 0  # of memory at the peak, the whole process; 0 where none could be made
    forecast_seconds: float = 0.0  # of the whole run, start-up included; 0 where none could be made
    gradient_checkpointing: bool = False
    optimizer: str = ""  # of the first stage, 'auto' settled; '' in older logs: as the configuration says
    libraries_bytes: int = 0  # what the process held before the model was loaded; part of the forecast
    notes: tuple[str, ...] = ()  # rows dropped, columns detected, warnings

    def columns_of(self, stage: int) -> dict[str, str] | None:
        """By which columns a stage's rows were read; None for a run that did not keep them."""
        return self.columns[stage] if self.columns else None


class StepDone(Event):
    event: Literal["StepDone"] = "StepDone"
    step: int  # optimiser steps since the start of the run, all stages
    stage: int
    loss: float  # mean over the scored tokens of the step, nats
    scored_tokens: int
    tokens: int  # real tokens, padding excluded
    seconds: float
    gradient_norm: float  # before clipping
    learning_rate: float
    penalty: float = 0.0  # what regularisation adds to the loss, per scored token, nats


class Noticed(Event):
    """Something about the run itself that people should know: it is much slower than was forecast."""

    event: Literal["Noticed"] = "Noticed"
    step: int
    message: str


class Evaluated(Event):
    event: Literal["Evaluated"] = "Evaluated"
    step: int
    stage: int
    heldout_loss: float  # mean over the scored tokens, nats
    base_loss: float | None = None  # the same rows, before training; None where it was not measured
    rows: int
    scored_tokens: int
    seconds: float
    best: bool
    best_by: str = "loss"  # by what it is the best: the held-out loss, or the name of a metric
    metric: str | None = None  # its name; None: none was measured
    metric_value: float | None = None
    base_metric: float | None = None  # of the same rows, before training; None where it was not measured
    metric_rows: int = 0
    answer_seconds: float = 0.0  # of `seconds`, to write answers: for the metric, and those that are shown
    general_loss: float | None = None  # on general instructions, mean over the scored tokens, nats
    base_general_loss: float | None = None
    general_rows: int = 0
    general_seconds: float = 0.0


class Sampled(Event):
    """An answer during training, to see what the loss can't tell."""

    event: Literal["Sampled"] = "Sampled"
    step: int
    stage: int = 0
    of_base: bool = False  # the base's, which is asked once in a stage
    prompt: str
    answer: str


class Saved(Event):
    event: Literal["Saved"] = "Saved"
    step: int
    path: str  # inside the run's directory
    bytes: int


class StageDone(Event):
    event: Literal["StageDone"] = "StageDone"
    step: int
    stage: int
    restored_step: int | None  # the step whose adapter was restored; None: the last one is kept
    best_by: str = "loss"  # by what it was chosen: the held-out loss, or the name of a metric

    @property
    def kept(self) -> str | None:
        """What to say of an adapter that was restored; None where the last one is kept."""
        best = "the lowest held-out loss" if self.best_by == "loss" else f"the best {self.best_by}"
        return f"the adapter of step {self.restored_step} had {best} and is kept" if self.restored_step else None


class Resumed(Event):
    """Training goes on from `step`: whatever the log says of later steps is void."""

    event: Literal["Resumed"] = "Resumed"
    step: int


class Finished(Event):
    event: Literal["Finished"] = "Finished"
    step: int
    seconds: float  # of training, this process
    heldout_loss: float | None
    adapter: str  # inside the run's directory
    peak_memory_bytes: int
    gpu_peak_memory_bytes: int = 0


class Stopped(Event):
    """Ended early, as asked or by early stopping; the adapter is kept and the run can be resumed."""

    event: Literal["Stopped"] = "Stopped"
    step: int
    reason: str
    adapter: str | None


class RolledBack(Event):
    """The result was replaced by the one at the end of an earlier (or later) stage; all of them are kept."""

    event: Literal["RolledBack"] = "RolledBack"
    step: int
    stage: int


class Failed(Event):
    event: Literal["Failed"] = "Failed"
    message: str  # what the user sees
    detail: str = ""  # the traceback, for a bug report
    cause: Cause = ""  # what the machine lacked


TrainingEvent = (
    Preparing
    | Started
    | StepDone
    | Noticed
    | Evaluated
    | Sampled
    | Saved
    | StageDone
    | Resumed
    | Finished
    | Stopped
    | RolledBack
    | Failed
)
_adapter: TypeAdapter[TrainingEvent] = TypeAdapter(Annotated[TrainingEvent, Field(discriminator="event")])


def parse_event(line: str | bytes) -> TrainingEvent:
    """The event that one line of `events.jsonl` holds.

    Raises:
        pydantic.ValidationError: the line is no event of this version.
    """
    return _adapter.validate_json(line)
