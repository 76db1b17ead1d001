"""Encoded rows as padded tensors, in an order that is a function of the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunelab.data.encode import Encoded

CHUNK_STEPS = 50  # length buckets: rows are sorted within chunks of this many steps


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right. Padding is told by `lengths`, never by a token id: the starter pads with its end of
    turn, which is a scored token."""

    input_ids: Tensor  # (B, T) int64
    scored: Tensor  # (B, T) bool; position 0 is never scored
    lengths: Tensor  # (B,) int64
    origin: Batch | None = None  # what was moved to a GPU: looking into it waits for nothing that is computed there

    @property
    def here(self) -> Batch:
        """The same rows on the CPU, where they come from there."""
        return self.origin or self

    @property
    def tokens(self) -> int:
        """Real tokens, padding excluded."""
        return int(self.here.lengths.sum())

    @property
    def scored_tokens(self) -> int:
        return int(self.here.scored.sum())

    def to(self, device: torch.device) -> Batch:
        tensors = {name: getattr(self, name).to(device) for name in ("input_ids", "scored", "lengths")}
        moved = self.input_ids.device.type == "cpu" != torch.device(device).type
        return replace(self, **tensors, origin=self if moved else self.origin)


def collate(rows: list[Encoded], pad_id: int | None) -> Batch:
    """The rows as one batch, (B, T) with T the longest row; without a token to pad with, any will do."""
    pad_id = pad_id or 0
    lengths = [len(row.input_ids) for row in rows]
    longest = max(lengths)
    ids = torch.tensor([row.input_ids + [pad_id] * (longest - n) for row, n in zip(rows, lengths, strict=True)])
    scored = torch.tensor([row.scored + [False] * (longest - n) for row, n in zip(rows, lengths, strict=True)])
    scored[:, 0] = False  # nothing stands before the first token
    return Batch(ids, scored, torch.tensor(lengths))


class BatchOrder:
    """Which rows the i-th optimiser step sees: a pure function of (seed, i), so that resuming needs no state.

    Each epoch holds every row once. With length buckets, rows of similar length share a step: fewer padded positions.
    A step has `batch_size` · `parts` rows, whether one forward pass takes them or several do, one after the other
    (gradient accumulation) or in several processes: splitting changes memory, not what is learned.
    """

    def __init__(
        self, lengths: list[int], batch_size: int, seed: int, length_buckets: bool = True, parts: int = 1
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.length_buckets = lengths, batch_size, seed, length_buckets
        self.step_size = batch_size * parts
        self.per_epoch = -(-len(lengths) // self.step_size)  # steps
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def step(self, index: int) -> list[int]:
        """Row indices of step `index` of an endless stream."""
        epoch, position = divmod(index, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._steps_of(epoch))
        return self._epoch[1][position]

    def batches(self, index: int) -> list[list[int]]:
        """The same rows in batches of `batch_size`; at the end of an epoch there can be fewer than `parts`."""
        rows = self.step(index)
        return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]

    def _steps_of(self, epoch: int) -> list[list[int]]:
        generator = random.Random(f"{self.seed}:{epoch}")
        rows = list(range(len(self.lengths)))
        generator.shuffle(rows)
        if self.length_buckets:
            chunk = self.step_size * CHUNK_STEPS
            chunks = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
            rows = [row for part in chunks for row in sorted(part, key=lambda r: self.lengths[r])]
        steps = [rows[start : start + self.step_size] for start in range(0, len(rows), self.step_size)]
        if self.length_buckets:
            generator.shuffle(steps)
        return steps
