"""Where the tokens of a batch lie: flat rows, what they begin with once, and heads packed for attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tunelab.data.batches import Batch

SHORTEST_PREFIX = 8  # tokens; below, sharding it costs more than it saves
STEP = 16  # of sizes that are rounded
STEPS_BELOW = 3  # an eighth of the power of two below: so much at most is padding


@dataclass(frozen=True)
class Layout:
    """How a batch lies in N = B · (s + T) flat rows.

    A prefix of P tokens that all B texts begin with is computed once. It is sharded over the texts, so that all tokens
    attend in the same products: text b holds one shard of s = ⌈P / B⌉ tokens of the prefix, from b · s on, and then its
    own T tokens. Its queries are those of its shard and its own; its keys are the whole prefix and its own, since the
    shards' keys are gathered again before they are asked. Prefix and texts are padded on the right. Of a prefix of
    three tokens 0 1 2, and two texts that go on with a b and c d:

        text 0:  0 1 | a b
        text 1:  2 . | c d       s = 2, B · s = 4, one of them padding
    """

    prefix: int  # P
    rows: int  # B
    length: int  # T
    beside: int = 0  # keys and values that every text sees besides, at the positions before its own

    @property
    def shard(self) -> int:
        """s, how many tokens of the prefix each text holds."""
        return -(-self.prefix // self.rows)

    @property
    def sharded(self) -> int:
        """B · s, how many tokens the shards hold: the prefix with its padding."""
        return self.shard * self.rows

    @property
    def tokens(self) -> int:
        """N, how many flat rows there are."""
        return self.rows * (self.shard + self.length)

    @property
    def positions(self) -> Tensor:
        """The position (N,) of each flat row in its text."""
        own = torch.arange(self.prefix, self.prefix + self.length)
        return self.beside + self.lay(torch.arange(self.prefix), own.expand(self.rows, -1))

    @property
    def seen(self) -> int:
        """How many keys a text has: what is beside, the prefix with its padding, and its own."""
        return self.beside + self.sharded + self.length

    def lay(self, shared: Tensor, own: Tensor) -> Tensor:
        """Flat rows (N, …) of what belongs to the prefix (P, …) and to the texts (B, T, …)."""
        padded = shared[torch.arange(self.sharded, device=shared.device).clamp(max=self.prefix - 1)]
        return torch.cat((padded.unflatten(0, (self.rows, self.shard)), own), dim=1).flatten(0, 1)

    def parts(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Of flat rows (N, …) those of the shards (B, s, …) and of the texts (B, T, …): views."""
        shared, own = flat.unflatten(0, (self.rows, -1)).split([self.shard, self.length], dim=1)
        return shared, own

    def kept(self, heads: Heads, weights: bool, again: bool = False) -> int:
        """Numbers that the backward of attention needs, of one layer; `weights`: attention weights are kept; `again`:
        where q, k and v are made again of what was before their norms or factors."""
        if not weights:
            return self._flat(heads)
        return self._flat(heads) + self._weights(heads) if again else self._packed(heads)

    def keeps_weights(self, heads: Heads) -> bool:
        """Whether packed q, k and v and the attention weights are kept for the backward. They grow with the square of
        the length: where they would take more than twice what flat q, k and v take, those are kept, and these made
        again."""
        return self._packed(heads) <= 2 * self._flat(heads)

    def _flat(self, heads: Heads) -> int:
        return self.tokens * (heads.queries + 2 * heads.keys) * heads.size

    def _weights(self, heads: Heads) -> int:
        return self.tokens * heads.queries * self.seen

    def _packed(self, heads: Heads) -> int:
        of_keys = self.rows * self.seen * heads.keys * heads.size
        return self._weights(heads) + self.tokens * heads.queries * heads.size + 2 * of_keys

    def mask(self, per_group: int, like: Tensor, window: int | None = None) -> Mask:
        """What hides from each query what it may not look at: `per_group` queries of each token ask the same key.
        `window`: a query sees so many tokens, the last of them itself; None: all before it."""
        hidden, device = float("-inf"), like.device
        before = torch.arange(self.beside + self.sharded, device=device)  # what is beside, and the shards
        shards = before[self.beside :]
        texts = self.beside + torch.arange(self.prefix, self.prefix + self.length, device=device)
        own = like.new_zeros(self.length, self.seen)
        own.masked_fill_(_unseen(texts, torch.cat((before, texts)), window), hidden)
        own[:, self.beside + self.prefix : self.beside + self.sharded] = hidden
        of_prefix = like.new_zeros(self.shard, self.seen)
        of_prefix[:, len(before) :] = hidden
        everywhere = torch.cat((of_prefix, own)).repeat(per_group, 1)
        if not self.prefix:
            return Mask(everywhere, None)
        within = like.new_zeros(self.sharded, len(before)).masked_fill_(_unseen(shards, before, window), hidden)
        return Mask(everywhere, within.view(self.rows, 1, 1, self.shard, len(before)))


def _unseen(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Whether the keys (S,) are hidden from the queries (L,), both by their positions: (L, S)."""
    back = queries[:, None] - keys[None]
    return back < 0 if window is None else (back < 0) | (back >= window)


@dataclass(frozen=True)
class Mask:
    """Zero where a query may look, -inf elsewhere, in two parts, of which the second is small."""

    everywhere: Tensor  # (H / K · (s + T), P' + B · s + T): the same for all texts; P' is what is beside
    within: Tensor | None  # (B, 1, 1, s, P' + B · s): inside the prefix, of which each text has other tokens

    def add_within(self, scores: Tensor) -> None:
        """Adds the second part to packed scores (B · K, H / K · (s + T), P' + B · s + T)."""
        if self.within is not None:
            rows, _, _, shard, before = self.within.shape
            tokens = shard + scores.shape[2] - before
            of_texts = scores.unflatten(0, (rows, -1)).unflatten(2, (-1, tokens))
            of_texts[:, :, :, :shard, :before].add_(self.within)


@dataclass(frozen=True)
class Heads:
    """Heads of grouped-query attention: the H / K query heads of a group are packed into one product with their key."""

    queries: int
    keys: int
    size: int
    scaling: float | None = None  # of the scores; None: 1 / √size
    cap: float | None = None  # scores s become cap · tanh(s / cap) (Gemma 2)

    @property
    def per_group(self) -> int:
        return self.queries // self.keys

    @property
    def scale(self) -> float:
        return self.size**-0.5 if self.scaling is None else self.scaling

    def pack(self, qkv: Tensor, layout: Layout, beside: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of flat rows (N, (H + 2K) · D), packed for `attend`; `beside`: keys and values (2, K, P, D)."""
        q, k, v = self.split(qkv)
        keys, values = (None, None) if beside is None else beside
        packed = self.pack_queries(q, layout.rows)
        return packed, self.pack_keys(k, layout, keys), self.pack_keys(v, layout, values)

    def pack_queries(self, q: Tensor, rows: int) -> Tensor:
        """(B · L, H, D) -> (B · K, H / K · L, D)."""
        q = q.unflatten(0, (rows, -1)).unflatten(2, (self.keys, -1)).permute(0, 2, 3, 1, 4)  # (B, K, H / K, L, D)
        return q.reshape(rows * self.keys, -1, self.size)

    def unpack_queries(self, q: Tensor, rows: int, out: Tensor) -> None:
        """The way back, into `out` (B · L, H, D)."""
        packed = q.view(rows, self.keys, self.per_group, -1, self.size).permute(0, 3, 1, 2, 4)
        out.unflatten(0, (rows, -1)).unflatten(2, (self.keys, -1)).copy_(packed)

    def pack_keys(self, flat: Tensor, layout: Layout, beside: Tensor | None = None) -> Tensor:
        """Keys or values (N, K, D) -> (B · K, S, D): every text has what is beside (K, P, D) and the whole prefix
        before its own."""
        shared, own = layout.parts(flat)
        packed = flat.new_empty(layout.rows, self.keys, layout.seen, self.size)
        start, end = layout.beside, layout.beside + layout.sharded
        if beside is not None:
            packed[:, :, :start] = beside
        if layout.prefix:
            packed[:, :, start:end] = shared.flatten(0, 1).transpose(0, 1)
        packed[:, :, end:] = own.transpose(1, 2)
        return packed.flatten(0, 1)

    def unpack_keys(self, packed: Tensor, layout: Layout, out: Tensor) -> Tensor:
        """Gradients of what `pack_keys` was given, into `out` (N, K, D): the prefix collects from every text. Gives
        those of what is beside (K, P, D), which does as well, in fp32."""
        shared, own = layout.parts(out)
        packed = packed.unflatten(0, (layout.rows, -1))
        start, end = layout.beside, layout.beside + layout.sharded
        own.copy_(packed[:, :, end:].transpose(1, 2))
        if layout.prefix:
            total = packed[:, :, start:end].sum(0, dtype=torch.float32)  # (K, B · s, D)
            shared.copy_(total.transpose(0, 1).unflatten(0, (layout.rows, -1)))
        return packed[:, :, :start].sum(0, dtype=torch.float32)

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, (H + 2K) · D) -> q (N, H, D), k (N, K, D), v (N, K, D), all views."""
        heads = qkv.view(-1, self.queries + 2 * self.keys, self.size)
        return heads.split([self.queries, self.keys, self.keys], dim=1)


def layout_of(batch: Batch, before: int = 0, beside: int = 0, rounds: bool = False) -> Layout:
    """How the rows of a batch lie flat, with what they all begin with once: so many virtual tokens `before` the text,
    too. `beside`: how many keys and values they see besides. `rounds`: their own tokens are padded, so that batches are
    of few sizes."""
    rows, length = batch.input_ids.shape
    prefix = shared_prefix(batch)
    if rounds:
        prefix -= prefix % SHORTEST_PREFIX
        return Layout(before + prefix, rows, rounded(length - prefix), beside)
    return Layout(before + prefix, rows, length - prefix, beside)


def rounded(count: int) -> int:
    """The next of few sizes, at most an eighth larger, or the next multiple of STEP."""
    step = max(STEP, 1 << max(0, count.bit_length() - 1 - STEPS_BELOW))
    return -(-count // step) * step


def shared_prefix(batch: Batch) -> int:
    """How many tokens all rows begin with, those that predict a scored token left out; 0 where it is not worth it."""
    if len(batch.input_ids) == 1:
        return 0
    differs = (batch.input_ids != batch.input_ids[:1]).any(0)
    predicts = batch.scored.any(0).roll(-1)
    ends = (differs | predicts).nonzero()
    length = int(ends[0]) if len(ends) else 0
    return length if length >= SHORTEST_PREFIX else 0
