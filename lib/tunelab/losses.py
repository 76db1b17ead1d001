"""The loss of a batch: the negative log-likelihood of its scored tokens, and nothing else.

`PlainLoss` is the reference, for any model and any technique: the model's own forward, with the head applied to the
scored positions only (no (B, T, V) logits). `fast/` computes the same for the models it knows.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunelab.data.batches import Batch


class Loss(Protocol):
    """What the training loop needs: a sum, so that any window of batches can be normalised by its scored tokens."""

    fast: bool
    attention: str

    def __call__(self, batch: Batch) -> Tensor:
        """The sum over the batch's scored tokens of -log p, in nats: a scalar in fp32, with its graph."""


class PlainLoss:
    """The model's own forward, eager and readable."""

    fast = False

    def __init__(self, model: Any) -> None:
        self.model = model
        self.attention = str(model.config._attn_implementation)

    def __call__(self, batch: Batch) -> Tensor:
        logits, targets = scored_logits(self.model, batch)
        return functional.cross_entropy(logits.float(), targets, reduction="sum")


def scored_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (N, V) that predict the N scored tokens of the batch, and those tokens (N,)."""
    targets_mask = batch.scored[:, 1:]
    length = batch.input_ids.shape[1]

    def keep_scored(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        # (B, P + T, C): virtual tokens of prompt tuning come first; the hidden state at i predicts token i + 1
        hidden = inputs[0][:, -length:]
        return (hidden[:, :-1][targets_mask],)

    hook = model.get_output_embeddings().register_forward_pre_hook(keep_scored)
    try:
        mask = torch.arange(length, device=batch.lengths.device)[None] < batch.lengths[:, None]
        logits = model(input_ids=batch.input_ids, attention_mask=mask.long(), use_cache=False).logits
    finally:
        hook.remove()
    return logits, batch.input_ids[:, 1:][targets_mask]
