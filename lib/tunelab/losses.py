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
from torch.utils.checkpoint import checkpoint

from tunelab.data.batches import Batch
from tunelab.model.attention import needs_mask
from tunelab.spec import TrainConfig

CHUNK = 256  # scored positions whose (chunk, V) logits exist at a time


class Loss(Protocol):
    """What the training loop needs: a sum, so that any window of batches can be normalised by its scored tokens."""

    fast: bool
    why_plain: str  # why it is the plain one; empty where it is fast, or nothing else was asked for
    attention: str
    model: Any

    def __call__(self, batch: Batch) -> Tensor:
        """The sum over the batch's scored tokens of -log p, in nats: a scalar in fp32, with its graph."""

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the head makes logits of at the positions (N, C) that predict the N scored tokens of the batch, with its
        graph, and those tokens (N,)."""

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (n, V) of hidden states (n, C)."""

    def forget_rows(self) -> None:
        """Drop what is kept of rows that were seen, for others come now."""

    def release(self) -> None:
        """Leave the model as it was found, if it was changed to compute with it."""


class PlainLoss:
    """The model's own forward, eager and readable. `neftune_alpha`: noise on the embeddings in training mode."""

    fast = False

    def __init__(self, model: Any, neftune_alpha: float = 0.0, why_plain: str = "") -> None:
        self.model, self.neftune_alpha, self.why_plain = model, neftune_alpha, why_plain
        self.attention = str(model.config._attn_implementation)
        self._head_is_last: bool | None = None  # None: not looked at yet

    def __call__(self, batch: Batch) -> Tensor:
        return in_chunks(self._nll, *self.hidden(batch))

    def _nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(self.head(hidden).float(), targets, reduction="sum")

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if not (self.neftune_alpha and self.model.training):
            return self._hidden(batch)
        hook = self.model.get_input_embeddings().register_forward_hook(noise(self.neftune_alpha, batch.lengths))
        try:
            return self._hidden(batch)
        finally:
            hook.remove()

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self._head_is_last is False:
            return scored_logits(self.model, batch)
        hidden, logits, targets = scored_hidden(self.model, batch)
        if self._head_is_last is None:
            # some models do something to their logits (Gemma 2 caps them): then logits stand in for hidden states
            with torch.no_grad():
                self._head_is_last = torch.equal(self.model.get_output_embeddings()(hidden[:1]), logits)
            return (hidden, targets) if self._head_is_last else scored_logits(self.model, batch)
        return hidden, targets

    def head(self, hidden: Tensor) -> Tensor:
        return hidden if self._head_is_last is False else self.model.get_output_embeddings()(hidden)

    def forget_rows(self) -> None:
        pass  # nothing is kept

    def release(self) -> None:
        pass  # nothing was changed


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
        base = self._base_hidden(batch)
        hidden, targets = self.loss.hidden(batch)
        total, nll = in_chunks(self._terms, hidden, targets, *([] if base is None else [base]))
        return total, nll.detach()

    def _terms(self, hidden: Tensor, targets: Tensor, base: Tensor | None = None) -> Tensor:
        """What is minimised and the loss alone (2,), of some of the scored positions."""
        log_p = functional.log_softmax(self.loss.head(hidden), dim=-1, dtype=torch.float32)
        nll = functional.nll_loss(log_p, targets, reduction="sum")
        total = (1 - self.smoothing) * nll - self.smoothing * log_p.mean(-1).sum()
        if base is not None and self.base is not None:
            with torch.no_grad(), self.base():
                base_log_p = functional.log_softmax(self.loss.head(base), dim=-1, dtype=torch.float32)
            total = total + self.kl_weight * functional.kl_div(log_p, base_log_p, reduction="sum", log_target=True)
        return torch.stack((total, nll))

    def _base_hidden(self, batch: Batch) -> Tensor | None:
        """What the base's head sees at the scored positions (N, C), without a graph."""
        if not self.kl_weight or self.base is None:
            return None
        model, training = self.loss.model, self.loss.model.training
        model.eval()  # a teacher without noise and without dropout
        try:
            with torch.no_grad(), self.base():
                return self.loss.hidden(batch)[0]
        finally:
            model.train(training)


def in_chunks(of: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """The sum of `of(*rows)` over chunks of the rows (N, …). What a chunk holds, logits above all, is made again in the
    backward, so that the (N, V) logits of all rows never exist at a time."""
    parts = list(zip(*(whole.split(CHUNK) for whole in rows), strict=True))
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.stack([of(*part) for part in parts]).sum(0)
    made = [checkpoint(of, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(made).sum(0)


@torch.no_grad()
def token_losses(loss: Loss, batch: Batch) -> Tensor:
    """-log p (N,) of each scored token of the batch, in nats, row after row."""
    hidden, targets = loss.hidden(batch)
    parts = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat([functional.cross_entropy(loss.head(h).float(), t, reduction="none") for h, t in parts])


def noise(alpha: float, lengths: Tensor) -> Callable[..., Tensor]:
    """A hook that adds uniform noise of size alpha / √(L C) to embeddings (B, T, C) of rows of L tokens.

    Source: Jain et al. 2024, "NEFTune: Noisy Embeddings Improve Instruction Finetuning", algorithm 1. L is a row's own
    length, so that padding changes nothing.
    """

    def add(_module: nn.Module, _inputs: Any, embeddings: Tensor) -> Tensor:
        size = alpha / (lengths * embeddings.shape[-1]).float().sqrt()
        return embeddings + torch.empty_like(embeddings).uniform_(-1, 1) * size[:, None, None].to(embeddings)

    return add


def scored_hidden(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What the head sees at the positions (N, C) that predict the N scored tokens of the batch; the model's logits
    (1, V) at the first of them; and those tokens (N,)."""
    seen: list[Tensor] = []

    def first_only(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden[:1]

    logits, targets = _at_scored(model, batch, first_only)
    return seen[0], logits, targets


def scored_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (N, V) that predict the N scored tokens of the batch, and those tokens (N,)."""
    return _at_scored(model, batch, lambda hidden: hidden)


def _at_scored(model: Any, batch: Batch, pick: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The model's logits of what `pick` takes of the hidden states (N, C) at scored positions, and the tokens (N,)."""
    targets_mask = batch.scored[:, 1:]
    length = batch.input_ids.shape[1]

    def keep_scored(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        # (B, P + T, C): virtual tokens of prompt tuning come first; the hidden state at i predicts token i + 1
        return (pick(inputs[0][:, -length:][:, :-1][targets_mask]),)

    hook = model.get_output_embeddings().register_forward_pre_hook(keep_scored)
    try:
        mask = None
        if needs_mask(model.config._attn_implementation, batch.input_ids.device):
            mask = (torch.arange(length, device=batch.lengths.device)[None] < batch.lengths[:, None]).long()
        logits = model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).logits
    finally:
        hook.remove()
    return logits, batch.input_ids[:, 1:][targets_mask]
