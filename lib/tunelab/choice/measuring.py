"""How well a model knows rows: bits a byte, tokens a row, and the share of rows that fit.

    bits a byte = Σ -log₂ p(learned tokens) / Σ bytes of the learned text

A loss in nats a token can't be compared between tokenizers, for a larger vocabulary writes the same text in fewer
tokens; the same text has the same bytes everywhere. The end of an answer is among what is predicted.
Source: Gao et al. 2020, "The Pile", section 3.1.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunelab.data import Encoded, Example
from tunelab.data.encode import encode_whole
from tunelab.machine import hardware
from tunelab.measure.scoring import row_losses
from tunelab.model.load import find, load, load_tokenizer
from tunelab.model.positions import row_limit
from tunelab.spec import ModelSpec, TrainConfig
from tunelab.techniques import LoRA

if TYPE_CHECKING:
    from tunelab.losses import Loss
    from tunelab.model.load import Base

PROBE_STEPS = 20
PROBE = TrainConfig(steps=PROBE_STEPS, keep_best=False)


@dataclass(frozen=True)
class Split:
    """Some of the rows as one model splits them."""

    rows: list[list[Encoded]]  # of each example; empty: nothing of it is learned
    limit: int  # tokens that a row may have

    @property
    def fitting(self) -> set[int]:
        """The places of the examples that are not cut and teach something."""
        return {
            place
            for place, rows in enumerate(self.rows)
            if rows and all(len(row.input_ids) <= self.limit for row in rows)
        }

    @property
    def tokens_per_row(self) -> float:
        counts = [sum(len(row.input_ids) for row in rows) for rows in self.rows]
        return sum(counts) / len(counts)

    @property
    def share_fitting(self) -> float:
        return len(self.fitting) / len(self.rows)


@dataclass(frozen=True)
class Knows:
    """What a model makes of rows: bits of each, over the same examples for all models."""

    bits: list[float]
    bytes: list[int]
    probed: list[float] = field(default_factory=list)  # the same after the probe; empty where there was none

    @property
    def bits_per_byte(self) -> float:
        return sum(self.bits) / sum(self.bytes)

    @property
    def probed_bits_per_byte(self) -> float | None:
        return sum(self.probed) / sum(self.bytes) if self.probed else None

    @property
    def deciding(self) -> list[float]:
        """The bits a byte of each row that a choice goes by: after the probe, where there was one."""
        return [bits / size for bits, size in zip(self.probed or self.bits, self.bytes, strict=True)]


def learned_bytes(example: Example) -> int:
    """Bytes of what is learned from an example: its answers, or its text."""
    if example.text is not None:
        return len(example.text.encode("utf-8", "surrogatepass"))
    answers = (message.content for message in example.messages if message.is_answer)
    return sum(len(content.encode("utf-8", "surrogatepass")) for content in answers)


def split_by(spec: ModelSpec, examples: Sequence[Example]) -> Split:
    """The examples as the model of `spec` splits them.

    Raises:
        UserError: its template does not take them.
    """
    limit = row_limit(find(spec), spec).tokens
    return Split(encode_whole(examples, load_tokenizer(spec)), limit)


def known_by(spec: ModelSpec, rows: Sequence[list[Encoded]], sizes: list[int], train: Sequence[Encoded] = ()) -> Knows:
    """What the model of `spec` makes of the rows of each example; with rows to train on, also after a short run.

    Raises:
        UserError: it can't be loaded.
    """
    from tunelab.losses import PlainLoss

    base = load(spec)
    try:
        bits = _bits(PlainLoss(base.model), rows, base)
        return Knows(bits, sizes, _after_probe(base, rows, train) if train else [])
    finally:
        del base
        gc.collect()  # modules with adapters form cycles, and the next model needs the memory
        hardware.release_free_memory()


def _bits(loss: Loss, rows: Sequence[list[Encoded]], base: Base) -> list[float]:
    """Bits of the learned tokens of each example."""
    flat = [row for one in rows for row in one]
    sums = iter(row_losses(loss, flat, base))
    return [sum(next(sums).loss for _row in one) / math.log(2) for one in rows]


def _after_probe(base: Base, rows: Sequence[list[Encoded]], train: Sequence[Encoded]) -> list[float]:
    """The same after a LoRA was trained for a few steps on other rows."""
    import torch

    from tunelab.fast import choose_loss
    from tunelab.train.loop import StageData, Trainer

    technique = LoRA()
    torch.manual_seed(PROBE.seed)
    model: Any = technique.attach(base, train)
    loss = choose_loss(model, technique, PROBE)
    data = StageData(list(train), [])
    for _event in Trainer(model, loss, data, PROBE, technique.default_learning_rate, pad_id=base.pad_id).train():
        pass
    model.eval()
    return _bits(loss, rows, base)
