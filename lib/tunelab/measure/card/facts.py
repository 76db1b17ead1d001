"""What stands on a run's card: typed facts, which the page writes out and which are the JSON beside it.

Seconds, bytes, optimiser steps and nats per scored token, as in a run's events. None, or nothing in a list: not known.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from tunelab.run.reports import Report

FORMAT: Final = "tunelab run card 1"
Tone = Literal["better", "worse", "open", "none"]


class Facts(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class Headline(Facts):
    """The result in large words, and the sentence that goes with it."""

    words: str
    sentence: str
    tone: Tone


class Trained(Facts):
    """What was trained, on which base."""

    method: str
    base: str
    base_published_as: str | None  # None: there is no result yet that says it
    base_note: str | None
    revision: str | None
    base_sha256: str | None
    precision: str | None  # the base's while it was trained
    trainable_parameters: int | None
    total_parameters: int | None
    device: str | None
    attention: str | None
    fast: bool | None
    why_plain: str | None = None  # why it was not computed by the fast path
    threads: int | None
    steps: int
    steps_total: int | None
    learning_rates: tuple[float, ...]  # one per stage
    heldout_loss: float | None  # as it was measured while training
    base_loss: float | None  # on the same rows
    started_unix_seconds: float | None
    imported_from: str | None
    started_from: tuple[str, ...]  # ids of runs, the nearest first


class FoundRow(Facts):
    row: int
    text: str
    heldout: bool


class Found(Facts):
    """A finding of the data doctor."""

    severity: Literal["high", "medium", "low"]
    title: str
    why: str
    fix: str | None  # its name and what it does
    examples: tuple[FoundRow, ...]


class Examined(Facts):
    """What the data doctor says of the rows of a stage."""

    rows: int
    heldout_rows: int
    findings: tuple[Found, ...]  # the most important first
    measures: dict[str, float]
    notes: tuple[str, ...]


class StageData(Facts):
    """The rows of one stage."""

    name: str
    source: str
    learn: Literal["instructions", "text"]
    rows: int | None
    heldout_rows: int | None
    sha256: str | None
    columns: dict[str, str]  # the column of each role
    held_out_by: str
    fixes: tuple[str, ...]
    replay: str | None
    examined: Examined | None
    not_examined: str | None  # why


class Setting(Facts):
    """A setting, its value in each stage (one value: in all), and its default where one of them is another."""

    group: Literal["model", "technique", "training"]
    name: str
    values: tuple[str, ...]
    default: str | None


class Curve(Facts):
    """A chart of lines over optimiser steps, and in words what it shows."""

    title: str
    series: dict[str, tuple[tuple[float, float], ...]]
    last_step: float
    limits: tuple[float, float] | None  # of the axis of values, if it has some
    stages: tuple[tuple[float, str], ...]
    said: str


class ShownRow(Facts):
    """A row that changed, as it is shown: personal data masked, long texts cut."""

    row: int
    prompt: str
    reference: str
    base: str
    tuned: str
    base_score: float
    tuned_score: float
    gain: float  # positive: the tuned answer is the better one


class Slice(Facts):
    title: str
    rows: int
    base: float
    tuned: float
    verdict: str


class Word(Facts):
    word: str
    base: int
    tuned: int


class Label(Facts):
    """How many answers of each side a rule complains of, of those it could judge."""

    title: str
    base: int
    tuned: int
    judged: int


class Changed(Facts):
    """What changed in the answers, by the score of one metric."""

    metric: str
    improved: tuple[ShownRow, ...]
    worsened: tuple[ShownRow, ...]
    better: int
    worse: int
    same: int
    slices: tuple[Slice, ...]
    more_said: tuple[Word, ...]
    less_said: tuple[Word, ...]
    labels: tuple[Label, ...]
    notes: tuple[str, ...]


class Cost(Facts):
    """What the run took."""

    training_seconds: float | None  # of the steps alone
    evaluating_seconds: float | None  # of the held-out losses on the way
    total_seconds: float | None  # from start to end; of a resumed run, since it was resumed
    forecast_seconds: float | None
    tokens: int | None
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    gpu_peak_memory_bytes: int | None
    forecast_memory_bytes: int | None
    result_bytes: int | None
    measuring_seconds: float | None


class Repeat(Facts):
    """How to do it again."""

    commands: tuple[str, ...]
    configuration: str  # YAML
    notes: tuple[str, ...]


class RunCard(Facts):
    """Everything that is known of a run, for a reader who was not there. Where a part is missing, `missing` says what
    to run to have it, by the part's name."""

    format: Literal["tunelab run card 1"] = FORMAT
    run: str
    name: str
    status: str
    message: str
    written_unix_seconds: float
    headline: Headline
    trained: Trained
    stages: tuple[StageData, ...]
    settings: tuple[Setting, ...]
    notes: tuple[str, ...]  # of the run's events
    curves: tuple[Curve, ...]
    report: Report | None
    changed: Changed | None
    cost: Cost
    limits: tuple[str, ...]
    repeat: Repeat
    missing: dict[str, str]
