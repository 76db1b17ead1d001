"""The loss of a batch: the negative log-likelihood of its scored tokens, and what regularisation adds to it.

`PlainLoss` is the reference, for any model and any technique: the model's own forward, with the head applied to the
scored positions only (no (B, T, V) logits). `fast/` computes the same for the models it knows. `Objective` is what is
minimised: the loss, or the loss with label smoothing and a pull towards the base.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunelab.data.batches import Batch
from tunelab.spec import TrainConfig


class Loss(Protocol):
    """What the training loop needs: a sum, so that any window of batches can be normalised by its scored tokens."""

    fast: bool
    attention: str
    model: Any

    def __call__(self, batch: Batch) -> Tensor:
        """The sum over the batch's scored tokens of -log p, in nats: a scalar in fp32, with its graph."""

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N, V) that predict the N scored tokens of the batch, with their graph, and those tokens (N,)."""


class PlainLoss:
    """The model's own forward, eager and readable. `neftune_alpha`: noise on the embeddings in training mode."""

    fast = False

    def __init__(self, model: Any, neftune_alpha: float = 0.0) -> None:
        self.model, self.neftune_alpha = model, neftune_alpha
        self.attention = str(model.config._attn_implementation)

    def __call__(self, batch: Batch) -> Tensor:
        logits, targets = self.logits(batch)
        return functional.cross_entropy(logits.float(), targets, reduction="sum")

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.neftune_alpha and self.model.training:
            hook = self.model.get_input_embeddings().register_forward_hook(noise(self.neftune_alpha, batch.lengths))
            try:
                return scored_logits(self.model, batch)
            finally:
                hook.remove()
        return scored_logits(self.model, batch)


class Objective:
    """What a step minimises, as sums over the scored tokens: (1 - ε) nll + ε smoothing + λ KL(base ‖ tuned).

    Label smoothing ε: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7, with the uniform
    distribution over the vocabulary. The pull λ towards the base keeps p close where the data says nothing: Li and
    Hoiem 2016, "Learning without Forgetting", equation 4, with the base's full distribution as the soft target.
    """

    def __init__(
        self, loss: Loss, training: TrainConfig, base: Callable[[], AbstractContextManager[Any]] | None = None
    ) -> None:
        """`base()`: inside, the loss computes what the base computes."""
        self.loss, self.smoothing, self.kl_weight, self.base = loss, training.label_smoothing, training.kl_weight, base
        assert base is not None or not self.kl_weight, "a pull towards the base needs the base"

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is minimised, with its graph, and the loss alone: both sums over the scored tokens, in nats."""
        if not self.smoothing and not self.kl_weight:
            nll = self.loss(batch)
            return nll, nll.detach()
        base = self._base_log_p(batch)
        logits, targets = self.loss.logits(batch)
        log_p = functional.log_softmax(logits, dim=-1, dtype=torch.float32)
        nll = functional.nll_loss(log_p, targets, reduction="sum")
        total = (1 - self.smoothing) * nll - self.smoothing * log_p.mean(-1).sum()
        if base is not None:
            total = total + self.kl_weight * functional.kl_div(log_p, base, reduction="sum", log_target=True)
        return total, nll.detach()

    def _base_log_p(self, batch: Batch) -> Tensor | None:
        """log p (N, V) of the base at the scored positions, without a graph."""
        if not self.kl_weight or self.base is None:
            return None
        model, training = self.loss.model, self.loss.model.training
        model.eval()  # a teacher without noise and without dropout
        try:
            with torch.no_grad(), self.base():
                logits, _targets = self.loss.logits(batch)
                return functional.log_softmax(logits, dim=-1, dtype=torch.float32)
        finally:
            model.train(training)


def noise(alpha: float, lengths: Tensor) -> Callable[..., Tensor]:
    """A hook that adds uniform noise of size alpha / √(L C) to embeddings (B, T, C) of rows of L tokens.

    Source: Jain et al. 2024, "NEFTune: Noisy Embeddings Improve Instruction Finetuning", algorithm 1. L is a row's own
    length, so that padding changes nothing.
    """

    def add(_module: nn.Module, _inputs: Any, embeddings: Tensor) -> Tensor:
        size = alpha / (lengths * embeddings.shape[-1]).float().sqrt()
        return embeddings + torch.empty_like(embeddings).uniform_(-1, 1) * size[:, None, None].to(embeddings)

    return add


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
