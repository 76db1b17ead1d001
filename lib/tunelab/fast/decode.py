"""Decoding several answers at once on one base: row i with adapter i, or with none.

Decoding is bound by reading the weights, so a second row costs almost nothing. The low-rank factors of all adapters
stand side by side, and a mask (rows, sum of ranks) holds each row's scale where its adapter stands and zero elsewhere:
a row without an adapter adds exact zeros, so it computes what the bare base computes. Rows that share an adapter share
its factors, each at a scale of its own.

Keys and values take memory as they come: a decoder that is full grows by a half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tunelab.fast.attention import rotate_
from tunelab.fast.blocks import Around
from tunelab.fast.gate import gated
from tunelab.fast.llama import FastLlama, within
from tunelab.fast.norm import RMS, norm
from tunelab.fast.structure import Layer, Linears
from tunelab.fast.tree import Tree
from tunelab.fast.weights import Weight

LEAST_GROWTH = 64  # tokens
READ_AT_ONCE = 512  # tokens of a prompt: what each of them sees is written down for so many at a time

# name of a layer in the base -> A (r, in), B (out, r), scale
Factors = dict[str, tuple[Tensor, Tensor, float]]


@dataclass
class _Mixed:
    """Stacked linear layers with the factors of every adapter: y = x Wᵀ + ((x Aᵀ) ∘ mask) Bᵀ."""

    weight: Weight  # (O, C)
    a: Tensor | None  # (C, R) with R the sum of all ranks
    b: Tensor | None  # (R, O), zero where a factor belongs to another layer of the stack
    mask: Tensor | None  # (rows, 1, R)
    bias: Tensor | None = None  # (O,)

    def __call__(self, x: Tensor) -> Tensor:
        """x (rows, T, C) -> (rows, T, O)."""
        y = self.weight.times(x)
        if self.bias is not None:
            y += self.bias
        if self.a is not None and self.b is not None and self.mask is not None:
            y += ((x @ self.a) * self.mask) @ self.b
        return y


class FastDecoder:
    """Next-token logits of rows, each with its own adapter or none."""

    @torch.inference_mode()
    def __init__(self, llama: FastLlama, adapters: Sequence[Factors | None], capacity: int) -> None:
        self.llama, self.rows, self.length, self.adapters = llama, len(adapters), 0, list(adapters)
        self.padding: Tensor | None = None
        self.last_hidden = llama.embedding.new_empty(0)  # (rows, C) of the last tokens, before the last norm
        heads = llama.heads
        shape = (self.rows, heads.keys, capacity, heads.size)
        self.keys = [llama.embedding.new_empty(shape) for _ in llama.layers]
        self.values = [llama.embedding.new_empty(shape) for _ in llama.layers]
        self.layers = [
            tuple(_mix(*part, adapters, llama) for part in zip(layer.linears, weights, strict=True))
            for layer, weights in zip(llama.layers, llama.weights(), strict=True)
        ]

    @classmethod
    @torch.inference_mode()
    def of_rows(cls, parts: Sequence[tuple[FastDecoder, Sequence[int]]], room: int) -> FastDecoder:
        """One decoder that goes on with rows of others, in this order, with space for `room` tokens. What a row has
        read is copied and nothing is computed again; shorter rows are padded on the left. The others are used up: each
        layer of theirs is let go as soon as it is copied."""
        if len(parts) == 1 and list(parts[0][1]) == list(range(parts[0][0].rows)):
            return parts[0][0]
        rows = [(decoder, row) for decoder, chosen in parts for row in chosen]
        own = [decoder.length - (0 if decoder.padding is None else int(decoder.padding[row])) for decoder, row in rows]
        longest = max(own)
        made = cls(parts[0][0].llama, [decoder.adapters[row] for decoder, row in rows], longest + room)
        for layer, (keys, values) in enumerate(zip(made.keys, made.values, strict=True)):
            keys[:, :, :longest] = values[:, :, :longest] = 0
            for place, ((decoder, row), count) in enumerate(zip(rows, own, strict=True)):
                read = slice(decoder.length - count, decoder.length)
                keys[place, :, longest - count : longest] = decoder.keys[layer][row, :, read]
                values[place, :, longest - count : longest] = decoder.values[layer][row, :, read]
            for decoder, _chosen in parts:
                decoder.keys[layer] = decoder.values[layer] = keys.new_empty(0)
        made.length = longest
        made.last_hidden = torch.stack([decoder.last_hidden[row] for decoder, row in rows])
        missing = torch.tensor([longest - count for count in own], device=made.last_hidden.device)
        made.padding = missing if missing.any() else None
        return made

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, padding: Tensor | None = None) -> Tensor:
        """Logits (rows, V) after input_ids (rows, T), which follow everything given before; `padding` (rows,) tokens at
        the left of each row, given with the first ones, are hidden from all others."""
        llama = self.llama
        if padding is not None:
            self.padding = padding.to(llama.embedding.device)
        self._hold(self.length + input_ids.shape[1])
        for part in input_ids.split(READ_AT_ONCE, dim=1):
            end = self.length + part.shape[1]
            places = torch.arange(self.length, end, device=llama.embedding.device)
            hidden = self._blocks(part, places, places[:, None] >= torch.arange(end, device=places.device)[None])
            self.length, self.last_hidden = end, hidden[:, -1]
        return llama.logits(_normed(self.last_hidden, llama.norm))

    @torch.inference_mode()
    def tree_log_p(self, tree: Tree) -> Tensor:
        """log p (rows, E) of every edge of a tree that follows everything given before, in fp32. The decoder stays
        where it is; its capacity has to hold the nodes as well."""
        llama, start, count = self.llama, self.length, len(tree.tokens)
        assert start, "a tree follows a prompt"
        device = llama.embedding.device
        before = self.last_hidden[:, None]  # (rows, 1, C)
        if count:
            sees = torch.cat([torch.ones(count, start, dtype=torch.bool), tree.sees()], 1).to(device)
            places = start + torch.tensor(tree.depths, device=device)
            ids = torch.tensor(tree.tokens)[None].expand(self.rows, -1)
            before = torch.cat([before, self._blocks(ids, places, sees)], 1)
        nodes, tokens = (torch.tensor(part, device=device) for part in zip(*tree.edges, strict=True))
        found = []
        for row in before:  # the logits of one row at a time: (1 + N, V)
            log_p = functional.log_softmax(llama.logits(_normed(row, llama.norm)).float(), dim=-1)
            found.append(log_p[nodes + 1, tokens])
        return torch.stack(found)

    @torch.inference_mode()
    def follow(self, input_ids: Tensor, places: Tensor, sees: Tensor, before: Tensor) -> Tensor:
        """Hidden states (rows, T, C) behind the last block of input_ids (rows, T), which follow everything given before
        and stand at `places` (rows, T): each sees of what is there and of them what `sees` (rows, T, length + T) says.
        `before` (rows, length): where what is there stands."""
        device = self.llama.embedding.device
        hidden = self._blocks(input_ids, places.to(device), sees.to(device), before.to(device))
        self.length += input_ids.shape[1]
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """(N, V), of hidden states (N, C) behind the last block."""
        return self.llama.logits(_normed(hidden, self.llama.norm))

    def _blocks(self, input_ids: Tensor, places: Tensor, sees: Tensor, before: Tensor | None = None) -> Tensor:
        """Hidden states (rows, T, C) behind the last block of input_ids (rows, T), which stand at `places` (T,) and see
        those before them and each other as `sees` (T, length + T) says. Their keys and values lie behind the others.
        Rows that differ have `places` (rows, T), `sees` (rows, T, length + T), and stand at `before` (rows, length)."""
        llama, start, end = self.llama, self.length, self.length + input_ids.shape[1]
        self._hold(end)
        x = llama.embedded(input_ids.to(llama.embedding.device))
        rotations, biases = self._rotations(places, x), self._biases(sees, places, before, x)
        for layer, (qkv, out, gate_up, down), keys, values in zip(
            llama.layers, self.layers, self.keys, self.values, strict=True
        ):
            made = qkv(_normed(x, layer.around.norm_in))
            queries, new_keys, new_values = self._turned(made, layer, rotations[layer.rope])
            keys[:, :, start:end] = new_keys.transpose(1, 2)
            values[:, :, start:end] = new_values.transpose(1, 2)
            mixed = self._attend(queries, keys[:, :, :end], values[:, :, :end], biases[layer.window])
            x = _left(x, out(mixed), layer.around)
            gate = gate_up(_normed(x, layer.around_mlp.norm_in))
            x = _left(x, down(gated(gate, layer.activation)), layer.around_mlp)
        return x

    def _turned(
        self, qkv: Tensor, layer: Layer, rotation: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (rows, T, H or K, D) of a layer's qkv (rows, T, (H + 2K) · D)."""
        heads, count = self.llama.heads, qkv.shape[1]
        if layer.head_norms is not None:
            qkv = layer.head_norms(qkv.flatten(0, 1), heads)
        parts = qkv.view(self.rows, count, -1, heads.size)
        if rotation is not None:
            rotate_(parts[:, :, : heads.queries + heads.keys, : rotation[0].shape[-1]], *rotation)
        queries, keys, values = parts.split([heads.queries, heads.keys, heads.keys], dim=2)
        return queries, keys, values

    def _hold(self, tokens: int) -> None:
        """Make space for so many tokens, where there is less: a layer at a time, so that little is held twice."""
        rows, heads, capacity, size = self.keys[0].shape
        if tokens <= capacity:
            return
        shape = (rows, heads, max(tokens, capacity + max(LEAST_GROWTH, capacity // 2)), size)
        for kept in (self.keys, self.values):
            for layer, before in enumerate(kept):
                kept[layer] = before.new_empty(shape)
                kept[layer][:, :, : self.length] = before[:, :, : self.length]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Mixed values (rows, T, H · D) of queries (rows, T, H, D), keys and values (rows, K, S, D). The query heads of
        a group stand below each other, so that one product takes them all."""
        count, heads = queries.shape[1], self.llama.heads
        grouped = queries.unflatten(2, (heads.keys, -1)).permute(0, 2, 3, 1, 4)  # (rows, K, H / K, T, D)
        grouped = grouped.reshape(self.rows, heads.keys, -1, heads.size)
        if heads.cap is None:
            mixed = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=bias, scale=heads.scale)
        else:
            scores = (grouped @ keys.transpose(2, 3)).mul_(heads.scale / heads.cap).tanh_().mul_(heads.cap)
            scores = scores if bias is None else scores + bias
            mixed = functional.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype) @ values
        mixed = mixed.view(self.rows, heads.keys, heads.per_group, count, heads.size).permute(0, 3, 1, 2, 4)
        return mixed.reshape(self.rows, count, -1)

    def _rotations(self, places: Tensor, x: Tensor) -> dict[str | None, tuple[Tensor, Tensor] | None]:
        """cos and signed sin of tokens at `places`, (T, 1, D), or (rows, T, 1, D) where rows differ, of each kind of
        layers."""
        if self.padding is None and places.ndim == 1:
            return self.llama.rotations(places, x)
        own = places if self.padding is None else (places - self.padding[:, None]).clamp(min=0)  # (rows, T)
        found: dict[str | None, tuple[Tensor, Tensor] | None] = {}
        for rope, rotation in self.llama.rotations(own.flatten(), x).items():
            if rotation is not None:
                cos, sin = rotation
                rotation = cos.unflatten(0, own.shape), sin.unflatten(0, own.shape)
            found[rope] = rotation
        return found

    def _biases(
        self, sees: Tensor, places: Tensor, before: Tensor | None, x: Tensor
    ) -> dict[int | None, Tensor | None]:
        """`_bias` of each window that layers have."""
        found: dict[int | None, Tensor | None] = {}
        for window in {layer.window for layer in self.llama.layers}:
            seen, limit = sees, within(window, sees.shape[-1])
            if limit is not None:
                if before is None:
                    before = torch.arange(self.length, device=places.device)
                of_keys = torch.cat((before, places), -1)
                seen = sees & (places[..., :, None] - of_keys[..., None, :] < limit)
            found[window] = self._bias(seen, x, limit is not None)
        return found

    def _bias(self, sees: Tensor, x: Tensor, windowed: bool) -> Tensor | None:
        """-inf where a query (T) may not look at a key (S), ahead, at padding and before its window: (H / K · T, S), or
        (rows, 1, H / K · T, S) where rows differ; None where there is nothing to hide."""
        hidden, (count, end) = ~sees, sees.shape[-2:]
        if self.padding is None and sees.ndim == 2 and count == 1 and not windowed:  # a single one sees all before it
            return None
        if sees.ndim == 3:
            hidden = hidden[:, None]
        if self.padding is not None:
            # padding looks at itself: a softmax over nothing would be NaN, and spread
            key = torch.arange(end, device=x.device)[None]
            query = torch.arange(end - count, end, device=x.device)[:, None]
            hidden = hidden | ((key < self.padding[:, None, None, None]) & (key != query))  # (rows, 1, T, S)
        bias = x.new_zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
        return torch.cat([bias] * self.llama.heads.per_group, dim=-2)


def _normed(x: Tensor, rms: RMS | None) -> Tensor:
    return x if rms is None else norm(x, rms.weight, rms.epsilon)[0]


def _left(x: Tensor, y: Tensor, around: Around) -> Tensor:
    """The residual with what a sublayer gave."""
    return torch.add(x, _normed(y, around.norm_out), alpha=around.multiplier)


def _mix(group: Linears, weight: Weight, adapters: Sequence[Factors | None], llama: FastLlama) -> _Mixed:
    """A stack with its adapters' factors, which come as they were read from their files, where the base is."""
    like, width = llama.embedding, sum(group.widths)
    a_parts, b_parts, masks = [], [], []
    start = 0
    for name, out in zip(group.names, group.widths, strict=True):
        rows_of: dict[int, list[int]] = {}  # rows that share an adapter share its factors
        for row, adapter in enumerate(adapters):
            if adapter is not None and name in adapter:
                rows_of.setdefault(id(adapter[name][0]), []).append(row)
        for rows in rows_of.values():
            a, b, _scale = _of(adapters[rows[0]], name)
            rank = a.shape[0]
            placed = like.new_zeros(rank, width)
            placed[:, start : start + out] = b.T
            mask = like.new_zeros(len(adapters), 1, rank)
            mask[rows] = like.new_tensor([_of(adapters[row], name)[2] for row in rows])[:, None, None]
            a_parts.append(a.T.to(like))
            b_parts.append(placed)
            masks.append(mask)
        start += out
    if not a_parts:
        return _Mixed(weight, None, None, None, group.bias)
    return _Mixed(weight, torch.cat(a_parts, 1).contiguous(), torch.cat(b_parts), torch.cat(masks, -1), group.bias)


def _of(adapter: Factors | None, name: str) -> tuple[Tensor, Tensor, float]:
    """A, B and scale of a layer that the adapter has."""
    assert adapter is not None
    return adapter[name]
