"""A sweep: one configuration trained with several seeds, and, if asked for, with several learning rates and ranks.

    SweepConfig ──> Sweep (a directory) ──> climb.py trains and measures its runs ──> verdicts(sweep)

The data is divided alike in all runs, so that all are measured on the same rows. What differs between seeds is luck,
and a verdict on a setting counts it: its interval holds for other rows and for other seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from tunelab.config import Changes, RunConfig, changed
from tunelab.errors import UserError
from tunelab.measure.answered import read_rows
from tunelab.measure.series import Rung, Series, SeriesConfig
from tunelab.spec import DataSpec

if TYPE_CHECKING:
    import numpy

    from tunelab.measure.changes.rows import AnsweredRow
    from tunelab.measure.statistics import Measured, Verdict
    from tunelab.run.reports import Report

MOST_RUNS = 100


class SweepConfig(SeriesConfig):
    """What is trained, and what its runs differ in."""

    run: RunConfig = Field(description="Everything that the runs share.")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Of initialisation and order, one per run.")
    learning_rates: tuple[float, ...] = Field((), description="Each with every seed; none: as in the configuration.")
    ranks: tuple[int, ...] = Field((), description="LoRA's r, each with every seed; none: as in the configuration.")

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        for name in ("seeds", "learning_rates", "ranks"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} = {', '.join(map(str, values))}: one stands there twice; name each once")
        if len(set(self.settings)) < len(self.settings):
            rates = ", ".join(map(repr, self.learning_rates))
            raise ValueError(f"learning_rates = {rates}: two are the same to six digits; name each once")
        if self.ranks and not hasattr(self.run.technique, "r"):
            raise ValueError(f"ranks: {self.run.technique.kind} has no rank; leave them out, or take lora")
        if len(self.names) > MOST_RUNS:
            raise ValueError(f"{len(self.names)} runs are asked for; at most {MOST_RUNS}: name fewer seeds or settings")
        for name in self.names:
            self.run_config(name)
        return self

    @property
    def settings(self) -> list[str]:
        """What is compared, each with all seeds."""
        return [
            " ".join(part for part in parts if part) or "as configured"
            for parts in itertools.product(
                [f"lr={rate:g}" for rate in self.learning_rates] or [""], [f"r={rank}" for rank in self.ranks] or [""]
            )
        ]

    @property
    def names(self) -> Sequence[str]:
        return [f"{setting} seed={seed}" for setting in self.settings for seed in self.seeds]

    @property
    def rows_of(self) -> Sequence[DataSpec]:
        return [stage.data for stage in self.run.stages]

    def with_rows(self, rows: Sequence[DataSpec]) -> Self:
        stages = [stage.model_copy(update={"data": data}) for stage, data in zip(self.run.stages, rows, strict=True)]
        return self.model_copy(update={"run": self.run.model_copy(update={"stages": tuple(stages)})})

    def title(self, name: str) -> tuple[str, str]:
        return name, "not quantised" if self.run.model.quantization == "none" else self.run.model.quantization.upper()

    def run_config(self, name: str) -> RunConfig:
        """The configuration of a run."""
        told = dict(part.split("=") for part in name.removeprefix("as configured ").split())
        training: dict[str, float] = {"seed": int(told["seed"])}
        if "lr" in told:
            training |= {"learning_rate": next(rate for rate in self.learning_rates if f"{rate:g}" == told["lr"])}
        technique = {"r": int(told["r"])} if "r" in told else {}
        title = f"{self.run.name or self.run.method}, {name}"
        return changed(self.run, Changes(run={"name": title}, technique=technique, training=training))


class Sweep(Series[SweepConfig]):
    """A sweep's directory."""

    KIND: ClassVar[str] = "sweep"
    FILE: ClassVar[str] = "sweep.json"
    CONFIG: ClassVar[type[SeriesConfig]] = SweepConfig


def list_sweeps(root: str | Path | None = None) -> list[Sweep]:
    """Every sweep under the runs root that this version can read, the newest first."""
    return Sweep.every(root)


@dataclass(frozen=True)
class Swept:
    """A setting, its measured runs, and the verdict over all of them; none where nothing was answered."""

    setting: str
    runs: tuple[Rung, ...]
    verdict: Verdict | None


def verdicts(sweep: Sweep) -> list[Swept]:
    """A verdict on each measured setting, over rows and seeds, corrected for all settings judged at once."""
    from tunelab.measure.statistics import judge_all

    by_setting = {
        setting: [rung for seed in sweep.config.seeds if (rung := sweep.rung(f"{setting} seed={seed}")).report]
        for setting in sweep.config.settings
    }
    judged = {
        setting: measured
        for setting, rungs in by_setting.items()
        if rungs and (measured := _measured(sweep, rungs)) is not None
    }
    found = dict(zip(judged, judge_all(list(judged.values())), strict=True)) if judged else {}
    return [Swept(setting, tuple(rungs), found.get(setting)) for setting, rungs in by_setting.items() if rungs]


def _measured(sweep: Sweep, rungs: Sequence[Rung]) -> Measured | None:
    """The runs of a setting over the rows that all of them answered; None where nothing was answered."""
    from tunelab.measure.metrics import NAMED, score_sides
    from tunelab.measure.statistics import Measured
    from tunelab.measure.statistics.sums import mean

    report = rungs[0].report
    assert report is not None
    if report.main_metric is None:
        return None
    base, tuned = _paired(sweep, rungs)
    figure, metric = report.metrics[report.main_metric], NAMED.get(report.main_metric)
    if metric is not None:
        made = metric()
        answers = [[row.base for row in base], *([row.tuned for row in rows] for rows in tuned)]
        sums = list(score_sides(made, answers, [row.reference for row in base]).sums)
        value = made.value
    else:  # a figure of this task alone: its scores row by row
        sums = [_scores([row.base_scores for row in base], report.main_metric)]
        sums += [_scores([row.tuned_scores for row in rows], report.main_metric) for rows in tuned]
        value = mean
    cut = sum(row.tuned_ended is False for rows in tuned for row in rows) / sum(map(len, tuned))
    return Measured(
        figure.title, figure.unit, sums[0], sums[1], value, figure.higher_is_better, cut=cut, runs=tuple(sums[2:])
    )


def _scores(scores: Sequence[dict[str, float]], metric: str) -> numpy.ndarray:
    """What each row adds to the mean of its score (rows, 2)."""
    import numpy

    return numpy.array([[one[metric], 1.0] if metric in one else [0.0, 0.0] for one in scores])


def _paired(sweep: Sweep, rungs: Sequence[Rung]) -> tuple[list[AnsweredRow], list[list[AnsweredRow]]]:
    """The rows that every run answered, in one order: as the first run has them, and as each has.

    Raises:
        UserError: there are none.
    """
    every = [
        read_rows(sweep.root / str(rung.run) / rung.report.answers_file)
        for rung in rungs
        if rung.report and rung.report.answers_file
    ]
    by_key = [{(row.row, row.prompt, row.reference): row for row in rows} for rows in every]
    keys = [key for key in by_key[0] if all(key in other for other in by_key)]
    if not keys:
        raise UserError(
            f"The runs of sweep {sweep.id} have no answered row in common. Measure them again: remove its reports, and "
            "give the same command."
        )
    tuned = [[rows[key] for key in keys] for rows in by_key]
    return tuned[0], tuned


def figure_of(report: Report) -> tuple[str, float, float]:
    """The task's metric, or the loss where there is none: its title, the base's and the tuned figure."""
    figure = report.main or report.heldout_loss
    return figure.title, figure.base, figure.tuned
