"""Measuring a run on rows it never saw: the loss of every row, by the base and by the tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunelab.errors import UserError
from tunelab.runs import Run

if TYPE_CHECKING:
    from tunelab.data import Example


@dataclass(frozen=True)
class RowLoss:
    """-log p of one row's scored tokens, summed, in nats."""

    base: float
    tuned: float
    tokens: int


def heldout_losses(run: Run, examples: Sequence[Example]) -> list[RowLoss]:
    """The losses of each example that has something scored within the run's `max_length`.

    Raises:
        UserError: the run has no adapter, or none of the examples has anything scored.
    """
    import torch

    from tunelab.data.batches import collate
    from tunelab.data.encode import encode_all
    from tunelab.fast import choose_loss
    from tunelab.models import load

    base = load(run.base_spec)
    technique = run.config.technique
    rows, _notes = encode_all(examples, base.tokenizer, run.config.model.max_length)
    if not rows:
        raise UserError(f"None of the {len(examples)} rows has anything to score. Raise max_length.")
    model = technique.load(base, run.adapter_path).eval()
    loss = choose_loss(model, technique)
    pad: int = base.tokenizer.pad_token_id
    measured = []
    with torch.no_grad():
        for row in rows:
            batch = collate([row], pad).to(base.device)
            with technique.off(model):
                before = float(loss(batch))
            measured.append(RowLoss(before, float(loss(batch)), batch.scored_tokens))
    return measured
