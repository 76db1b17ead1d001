"""Faster computations of what `PlainLoss` and `generate()` compute, for the models they are written for.

Each is switchable and tested for parity with the plain one; a model they do not know is computed by the plain one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunelab.losses import Loss, PlainLoss

if TYPE_CHECKING:
    from tunelab.techniques import Technique


def choose_loss(model: Any, technique: Technique, fast: bool) -> Loss:
    """The loss to train with: the fast one if asked for and the model and technique allow it, else the plain one."""
    from tunelab.fast.llama import FastLoss, Unsupported

    if not fast or not technique.rows_can_differ:
        return PlainLoss(model)
    try:
        return FastLoss(model)
    except Unsupported:
        return PlainLoss(model)
