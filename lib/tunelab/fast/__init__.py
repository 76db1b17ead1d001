"""Faster computations of what `PlainLoss` and `generate()` compute, for the models they are written for.

Each is switchable and tested for parity with the plain one; a model they do not know is computed by the plain one.

    linear, layout ──> attention ──> blocks ──> head ──> structure, frozen ──> llama (trains, scores), decode (answers)

Shapes: N tokens (the flat rows of a batch), C hidden size, F intermediate size of the MLP, H query heads, K key heads,
D head size, R sum of the ranks of stacked adapters, O sum of their output sizes, V vocabulary.

Equations: a b is the product of matrices, a · b that of their elements; dy, of y's shape, is the gradient of the loss
with respect to y. A change δy changes the loss by Σ dy · δy; with what a change δx makes of y put in for δy, dx is what
stands beside δx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunelab.losses import Loss, PlainLoss
from tunelab.spec import TrainConfig

if TYPE_CHECKING:
    from tunelab.techniques import Technique


def loss_settings(training: TrainConfig) -> tuple[Any, ...]:
    """The settings that decide which loss `choose_loss` makes: where they agree, one serves as well as another."""
    recomputed = training.gradient_checkpointing is True
    return training.fast, training.neftune_alpha, recomputed, training.cache_frozen


def choose_loss(model: Any, technique: Technique, training: TrainConfig | None = None) -> Loss:
    """The loss to train or score with: the fast one if it is asked for and computes this model, this technique and
    these settings, else the plain one."""
    from tunelab.fast.llama import FastLoss
    from tunelab.fast.structure import Unsupported

    training = training or TrainConfig()
    recomputed = training.gradient_checkpointing is True
    if not training.fast or not technique.rows_can_differ or training.neftune_alpha or recomputed:
        return PlainLoss(model, training.neftune_alpha)
    try:
        return FastLoss(model, training.cache_frozen)
    except Unsupported:
        return PlainLoss(model)
