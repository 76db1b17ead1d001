"""The method ladder: every technique on the same rows, seed and budget.

A rung is a technique on a base; `series` has what a ladder shares with other series of runs, `pages` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from tunelab.config import RunConfig
from tunelab.measure.series import RESULTS_FILE, Rung, Series, SeriesConfig, weight_bytes
from tunelab.spec import DataSpec, ModelSpec, Stage, TrainConfig
from tunelab.techniques import IA3, BottleneckAdapter, FullFineTuning, LoRA, PrefixTuning, PromptTuning, Technique

__all__ = ["PAGE_FILE", "RESULTS_FILE", "RUNGS", "Ladder", "LadderConfig", "Rung", "list_ladders", "weight_bytes"]

LADDER_FILE, PAGE_FILE = "ladder.json", "ladder.html"
# name -> technique, quantisation of its base
RUNGS: dict[str, tuple[Technique, Literal["nf4", "none"]]] = {
    "full": (FullFineTuning(), "none"),
    "lora": (LoRA(), "none"),
    "qlora": (LoRA(), "nf4"),
    # the scale of LoRA r = 16, at four times the rank
    "qrslora": (LoRA(r=64, lora_alpha=16, use_rslora=True), "nf4"),
    "qdora": (LoRA(use_dora=True), "nf4"),
    "bottleneck": (BottleneckAdapter(), "none"),
    "prefix": (PrefixTuning(), "none"),
    "prompt": (PromptTuning(), "none"),
    "ia3": (IA3(), "none"),
}


class LadderConfig(SeriesConfig):
    """What all rungs share, and which rungs there are."""

    model: ModelSpec = Field(description="The base; each rung sets its own quantisation.")
    data: DataSpec
    techniques: tuple[str, ...] = Field(tuple(RUNGS), min_length=1, description=f"Rungs: {', '.join(RUNGS)}.")
    steps: int = Field(60, ge=1, description="Optimiser steps of every rung.")
    batch_size: int = Field(8, ge=1, le=1024, description="Rows per step.")
    seed: int = Field(0, ge=0, description="Seed of initialisation and order.")

    @model_validator(mode="after")
    def _rungs_exist(self) -> Self:
        if unknown := [name for name in self.techniques if name not in RUNGS]:
            raise ValueError(f"there are no techniques {', '.join(unknown)}; allowed: all, {', '.join(RUNGS)}")
        return self

    @property
    def names(self) -> Sequence[str]:
        return self.techniques

    @property
    def rows_of(self) -> Sequence[DataSpec]:
        return [self.data]

    def with_rows(self, rows: Sequence[DataSpec]) -> Self:
        return self.model_copy(update={"data": rows[0]})

    def title(self, name: str) -> tuple[str, str]:
        technique, quantization = RUNGS[name]
        model = self.model.model_copy(update={"quantization": quantization})
        return technique.title_on(model), "not quantised" if quantization == "none" else "NF4"

    def run_config(self, name: str) -> RunConfig:
        """The run of a rung.

        Raises:
            pydantic.ValidationError: the technique can't run on this base.
        """
        technique, quantization = RUNGS[name]
        model = self.model.model_copy(update={"quantization": quantization})
        training = TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.seed,
            # what is measured on the way costs no more than what is measured at the end, forgetting among it
            eval_every=max(8, self.steps // 4),
            eval_rows=min(self.rows, TrainConfig().eval_rows),
            forgetting_rows=0,
            # a checkpoint of every weight is 2 GB, so a ladder keeps few
            checkpoint_every=max(20, self.steps // 4),
        )
        return RunConfig(
            name=technique.title_on(model),
            model=model,
            technique=technique,
            stages=(Stage(data=self.data, training=training),),
        )


class Ladder(Series[LadderConfig]):
    """A ladder's directory."""

    KIND: ClassVar[str] = "ladder"
    FILE: ClassVar[str] = LADDER_FILE
    CONFIG: ClassVar[type[SeriesConfig]] = LadderConfig


def list_ladders(root: str | Path | None = None) -> list[Ladder]:
    """Every ladder under the runs root that this version can read, the newest first."""
    return Ladder.every(root)
