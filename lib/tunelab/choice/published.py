"""The open models that `known.toml` lists."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TABLE = Path(__file__).with_name("known.toml")


@dataclass(frozen=True)
class Published:
    """A model as its makers describe it."""

    id: str
    kind: Literal["instruct", "base"]  # base: goes on with a text, was never taught to answer
    parameters: int  # millions
    context: int  # positions
    licence: str
    languages: str
    shape: dict[str, Any]  # the fields of its configuration that memory and time follow from
    gated: bool = False  # whether terms have to be accepted before it is given out

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return int(self.shape["num_hidden_layers"])

    def config(self, layers: int | None = None) -> Any:
        """A configuration of these shapes, or of so many layers; what does not change memory or time is at its
        default."""
        from transformers import AutoConfig

        shape = self.shape | {"num_hidden_layers": layers or self.layers}
        return AutoConfig.for_model(shape.pop("model_type"), max_position_embeddings=self.context, **shape)

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return int(self.shape["vocab_size"])


@functools.cache
def published() -> tuple[Published, ...]:
    """Every model of the table, the smallest first."""
    with open(TABLE, "rb") as file:
        entries = tomllib.load(file)["model"]
    return tuple(sorted((Published(**entry) for entry in entries), key=lambda one: one.parameters))


def published_as(repo_id: str) -> Published | None:
    """The model of the table that has this id on the Hub."""
    return next((one for one in published() if one.id.lower() == repo_id.lower()), None)
