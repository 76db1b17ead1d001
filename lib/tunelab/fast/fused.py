"""Attention on a GPU: PyTorch's fused kernels, which make no (T, T) scores, in memory that grows with the length.

They take no mask but the causal one without reading a tensor of (T, T) for it. So every text attends by itself: what
all texts begin with is computed once everywhere else, and stands before each of them here. A window is cut into blocks
of queries, each with the keys that it reaches; capped scores, for which there is no kernel, are made in such blocks and
never kept. For the backward attention is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tunelab.fast.layout import Heads, Layout

CAPPED_NUMBERS = 2**24  # of capped scores, how many exist at a time, about


@dataclass(frozen=True)
class Sight:
    """What a token sees: those before it and itself, or the last `window` of them."""

    window: int | None

    def blocks(self, tokens: int, most: int) -> Iterator[tuple[slice, slice]]:
        """The queries of so many tokens in blocks of `most`, each with the keys that one of it sees."""
        for start in range(0, tokens, most):
            stop = min(start + most, tokens)
            first = 0 if self.window is None else max(0, start - self.window + 1)
            yield slice(start, stop), slice(first, stop)

    def of(self, queries: slice, keys: slice, device: torch.device) -> Tensor:
        """Whether queries (L,) see keys (S,), by their places: (L, S), bool."""
        asking, asked = (torch.arange(part.start, part.stop, device=device) for part in (queries, keys))
        back = asking[:, None] - asked[None]
        return back >= 0 if self.window is None else (back >= 0) & (back < self.window)


def is_fused(device: torch.device) -> bool:
    """Whether attention is computed here on this device."""
    return device.type == "cuda"


def attention(qkv: Tensor, heads: Heads, layout: Layout, sight: Sight, out: Tensor) -> None:
    """Mixed values of rotated qkv (N, (H + 2K) · D), into `out` (N, H · D)."""
    values = mixed(*_of_texts(qkv, heads, layout), heads, sight).transpose(1, 2)  # (B, S, H, D)
    flat = layout.lay(values[0, : layout.prefix], values[:, layout.prefix :])
    out.unflatten(1, (heads.queries, heads.size)).copy_(flat)


def attention_backward(d: Tensor, qkv: Tensor, heads: Heads, layout: Layout, sight: Sight) -> Tensor:
    """Gradient of rotated qkv (N, (H + 2K) · D), from that of the mixed values (N, H · D). What the texts begin with
    has one result, taken from the first of them, and collects its gradient from all."""
    q, k, v = given = _of_texts(qkv.detach(), heads, layout)
    for part in given:
        part.requires_grad_()
    with torch.enable_grad():
        values = mixed(q, k, v, heads, sight)
    shared, own = layout.parts(d.unflatten(1, (heads.queries, heads.size)))
    d_values = values.new_zeros(values.transpose(1, 2).shape)
    d_values[0, : layout.prefix] = shared.flatten(0, 1)[: layout.prefix]
    d_values[:, layout.prefix :] = own
    found = torch.autograd.grad(values, given, d_values.transpose(1, 2))
    whole = torch.cat([part.transpose(1, 2) for part in found], dim=2)  # (B, S, H + 2K, D)
    d_qkv = qkv.new_zeros(layout.tokens, *whole.shape[2:])
    shared, own = layout.parts(d_qkv)
    own.copy_(whole[:, layout.prefix :])
    if layout.prefix:
        total = whole[:, : layout.prefix].sum(0, dtype=torch.float32)
        padded = functional.pad(total, (0, 0, 0, 0, 0, layout.sharded - layout.prefix))
        shared.copy_(padded.unflatten(0, shared.shape[:2]))
    return d_qkv.flatten(1)


def _of_texts(qkv: Tensor, heads: Heads, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, H, S, D), k and v (B, K, S, D) of flat rows (N, (H + 2K) · D): every text whole, S = P + T."""
    shared, own = layout.parts(qkv.unflatten(1, (-1, heads.size)))
    if layout.prefix:
        prefix = shared.flatten(0, 1)[: layout.prefix]
        own = torch.cat((prefix.expand(layout.rows, *prefix.shape), own), dim=1)
    q, k, v = own.transpose(1, 2).split([heads.queries, heads.keys, heads.keys], dim=1)
    return q, k, v


def mixed(q: Tensor, k: Tensor, v: Tensor, heads: Heads, sight: Sight) -> Tensor:
    """Mixed values (B, H, S, D) of q (B, H, S, D), k and v (B, K, S, D), with their graph. The keys are repeated for
    the queries of their group: where they are not, kernels other than flash attention's fall back to (S, S) scores."""
    if heads.per_group > 1:
        k, v = (part.repeat_interleave(heads.per_group, dim=1) for part in (k, v))
    if heads.cap is None and sight.window is None:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=heads.scale)
    made, tokens = [], q.shape[2]
    capped = max(1, CAPPED_NUMBERS // (tokens * q.shape[0] * q.shape[1]))
    most = sight.window or tokens if heads.cap is None else capped
    for queries, keys in sight.blocks(tokens, most):
        seen = sight.of(queries, keys, q.device)
        parts = q[:, :, queries], k[:, :, keys], v[:, :, keys]
        if heads.cap is None:
            made.append(functional.scaled_dot_product_attention(*parts, attn_mask=seen, scale=heads.scale))
        else:
            made.append(checkpoint(_capped, *parts, seen, heads, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(made, dim=2)


def _capped(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, heads: Heads) -> Tensor:
    """As `attention.attend`, with its cap."""
    assert heads.cap is not None
    scores = heads.cap * torch.tanh(q @ k.transpose(2, 3) * (heads.scale / heads.cap))
    weights = functional.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1, dtype=torch.float32)
    return weights.to(v.dtype) @ v
