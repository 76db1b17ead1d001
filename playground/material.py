"""The data in hand: what the Data room chose and the Train room trains on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tunelab import DataSpec


@dataclass(frozen=True)
class Material:
    """Data and how it is learned from; `summary` is one line for people (rows to train on, rows held out), `metric` the
    figure of its task, if it has one."""

    data: DataSpec = field(default_factory=lambda: DataSpec(source="python-docs"))
    learn: Literal["instructions", "text"] = "instructions"
    summary: str = ""
    metric: str | None = None

    @property
    def title(self) -> str:
        return self.data.title
