"""Faster computations of what `PlainLoss` and `generate()` compute, for the decoders whose parts they know.

Each is switchable and tested for parity with the plain one; a model they do not know is computed by the plain one.

    linear, layout ──> attention, norm, gate ──> blocks ──> head ──> changes ──> structure, reading, frozen
        ──> replay (on a GPU) ──> llama (trains, scores), decode (answers)
        ──> probe (whether both compute what the model's own code does)

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
    """The loss to train or score with: the fast one if it is asked for and computes this model, what the technique
    added to it and these settings, else the plain one, which says why."""
    from tunelab.fast.changes import Unsupported
    from tunelab.fast.llama import FastLoss
    from tunelab.fast.probe import check

    training = training or TrainConfig()
    if settings := _why_not(training):
        return PlainLoss(model, training.neftune_alpha, why_plain=settings)
    try:
        check(model)
        return FastLoss(model, training.cache_frozen, joins=not technique.exchanges_weights)
    except Unsupported as reason:
        return PlainLoss(model, why_plain=str(reason))


def _why_not(training: TrainConfig) -> str:
    """The setting that the fast path does not compute; nothing where there is none."""
    if not training.fast:
        return "fast = false"
    if training.neftune_alpha:
        return f"neftune_alpha = {training.neftune_alpha:g}"
    return "gradient_checkpointing = true" if training.gradient_checkpointing is True else ""
