"""What frozen layers make of a row, kept while training: it is the same at every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tunelab.data.batches import Batch
from tunelab.fast.layout import Layout
from tunelab.machine import hardware

FrozenLayers = Callable[[Callable[[], Tensor]], Tensor]


class FrozenCache:
    """What the layers below the lowest adapter make of each row, kept from its first batch on: it need not be computed
    again for a row that comes back, in the next epoch or the next evaluation. Right under a causal mask: what a row's
    tokens become depends on the row alone."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Tensor] = {}  # a row's tokens -> its hidden states (T, C)
        self.bytes = 0

    def of(self, batch: Batch, layout: Layout) -> FrozenLayers:
        """For a batch: hidden states (N, C) of its flat rows, from the cache, or as they are computed and then kept."""
        lengths = batch.here.lengths.tolist()
        keys = [ids[:n].cpu().numpy().tobytes() for ids, n in zip(batch.here.input_ids, lengths, strict=True)]

        def frozen(compute: Callable[[], Tensor]) -> Tensor:
            if all(key in self.rows for key in keys):
                return _laid_out([self.rows[key] for key in keys], layout)
            x = compute()
            if hardware.affords(self.bytes + x.nbytes, x.device):
                self._keep(keys, lengths, x, layout)
            return x

        return frozen

    def _keep(self, keys: list[bytes], lengths: list[int], x: Tensor, layout: Layout) -> None:
        shards, own = layout.parts(x)
        shared = shards.flatten(0, 1)[: layout.prefix]
        for key, length, row in zip(keys, lengths, own, strict=True):
            if key not in self.rows:
                self.rows[key] = torch.cat((shared, row[: length - layout.prefix]))
                self.bytes += self.rows[key].nbytes


def _laid_out(rows: list[Tensor], layout: Layout) -> Tensor:
    """Rows (T_i, C) as the flat rows (N, C) of a layout, padding zero."""
    own = rows[0].new_zeros(layout.rows, layout.length, rows[0].shape[1])
    for place, row in zip(own, rows, strict=True):
        place[: len(row) - layout.prefix] = row[layout.prefix :]
    return layout.lay(rows[0][: layout.prefix], own)
