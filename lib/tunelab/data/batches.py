"""Encoded rows as padded tensors, in an order that is a function of the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunelab.data.encode import Encoded

CHUNK_BATCHES = 50  # length buckets: rows are sorted within chunks of this many batches


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right. Padding is told by `lengths`, never by a token id: the starter pads with its end of
    turn, which is a scored token."""

    input_ids: Tensor  # (B, T) int64
    scored: Tensor  # (B, T) bool; position 0 is never scored
    lengths: Tensor  # (B,) int64

    @property
    def tokens(self) -> int:
        """Real tokens, padding excluded."""
        return int(self.lengths.sum())

    @property
    def scored_tokens(self) -> int:
        return int(self.scored.sum())

    def to(self, device: torch.device) -> Batch:
        tensors = {name: getattr(self, name).to(device) for name in ("input_ids", "scored", "lengths")}
        return replace(self, **tensors)


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
    """Which rows form the i-th batch: a pure function of (seed, i), so that resuming needs no state.

    Each epoch holds every row once. With length buckets, rows of similar length share a batch: fewer padded positions.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int, length_buckets: bool = True) -> None:
        self.lengths, self.batch_size, self.seed, self.length_buckets = lengths, batch_size, seed, length_buckets
        self.per_epoch = -(-len(lengths) // batch_size)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def batch(self, index: int) -> list[int]:
        """Row indices of batch `index` of an endless stream."""
        epoch, position = divmod(index, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._batches_of(epoch))
        return self._epoch[1][position]

    def _batches_of(self, epoch: int) -> list[list[int]]:
        generator = random.Random(f"{self.seed}:{epoch}")
        rows = list(range(len(self.lengths)))
        generator.shuffle(rows)
        if self.length_buckets:
            chunk = self.batch_size * CHUNK_BATCHES
            chunks = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
            rows = [row for part in chunks for row in sorted(part, key=lambda r: self.lengths[r])]
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        if self.length_buckets:
            generator.shuffle(batches)
        return batches
