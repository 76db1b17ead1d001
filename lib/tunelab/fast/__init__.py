"""Faster computations of what `PlainLoss` and `generate()` compute, for the models they are written for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from tunelab.losses import Loss, PlainLoss

if TYPE_CHECKING:
    from tunelab.models import Base
    from tunelab.spec import RunConfig


def choose_loss(model: nn.Module, base: Base, config: RunConfig) -> Loss:
    """The loss to train with: the plain one."""
    return PlainLoss(model)
