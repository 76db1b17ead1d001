"""The data in hand: what the Data room chose and the Train room trains on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tunelab import DataSpec, Stage, TrainConfig


@dataclass(frozen=True)
class Material:
    """Data and how it is learned from; `summary` is one line for people (rows to train on, rows held out), `metric` the
    figure of its task, if it has one. `name` and `replay` are those of a stage that is trained again."""

    data: DataSpec = field(default_factory=lambda: DataSpec(source="python-docs"))
    learn: Literal["instructions", "text"] = "instructions"
    summary: str = ""
    metric: str | None = None
    name: str | None = None
    replay: DataSpec | None = None

    @classmethod
    def of(cls, stage: Stage) -> Material:
        """What a stage of a run learned from."""
        return cls(stage.data, stage.learn, metric=stage.training.metric, name=stage.name, replay=stage.replay)

    def stage(self, training: TrainConfig) -> Stage:
        """A stage that learns from it."""
        return Stage(data=self.data, training=training, learn=self.learn, name=self.name, replay=self.replay)

    @property
    def title(self) -> str:
        return self.data.title
