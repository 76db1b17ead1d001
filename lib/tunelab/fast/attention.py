"""Grouped-query attention of a batch that lies as `layout.py` says, its backward, and the rotation of q and k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tunelab.fast.layout import Heads, Layout, Mask

SOFTMAX_NUMBERS = 2**17  # of attention scores, how many are in fp32 at a time, about


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in place: x · cos + (x₂, x₁) · sin with x = (x₁, x₂) the halves of the last dimension,
    and `signed` sin (Su et al. 2021, section 3.2). Its backward is the rotation by -sin."""
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return x.mul_(cos).addcmul_(swapped, sin)


def signed(sin: Tensor) -> Tensor:
    """`sin` (…, D) with its first half negative, as `rotate_` wants it."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat((-first, second), dim=-1)


def softmax(scores: Tensor) -> Tensor:
    """Over the last dimension of (G, M, S), in fp32 inside; may overwrite the scores."""
    if scores.device.type != "cpu" or scores.dtype == torch.float32:
        return functional.softmax(scores, dim=-1)
    # to fp32 and back by hand: PyTorch's own for half precision takes twice as long at most lengths
    for part in scores.split(-(-SOFTMAX_NUMBERS // scores[0].numel())):
        part.copy_(functional.softmax(part, dim=-1, dtype=torch.float32))
    return scores


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """Packed q (G, M, D), k and v (G, S, D) -> mixed values (G, M, D) and attention weights (G, M, S)."""
    scores = torch.baddbmm(mask.everywhere, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    mask.add_within(scores)
    weights = softmax(scores)
    return torch.bmm(weights, v), weights


def attend_backward(d: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of packed q, k and v."""
    d_v = torch.bmm(weights.transpose(1, 2), d)
    d_weights = torch.bmm(d, v.transpose(1, 2))
    d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(q.shape[-1] ** -0.5)
    return torch.bmm(d_scores, k), torch.bmm(d_scores.transpose(1, 2), q), d_v


def attention(qkv: Tensor, heads: Heads, layout: Layout, mask: Mask, out: Tensor) -> tuple[Tensor, ...]:
    """Mixed values of rotated qkv (N, (H + 2K) · D), into `out` (N, H · D). Gives what the backward needs: packed q, k
    and v and the weights, or qkv alone (`Layout.keeps_weights`)."""
    q, k, v = heads.pack(qkv, layout)
    values, weights = attend(q, k, v, mask)
    heads.unpack_queries(values, layout.rows, out=out.unflatten(1, (heads.queries, heads.size)))
    return (q, k, v, weights) if layout.keeps_weights(heads) else (qkv,)


def attention_backward(d: Tensor, kept: Sequence[Tensor], heads: Heads, layout: Layout, mask: Mask) -> Tensor:
    """Gradient of rotated qkv (N, (H + 2K) · D), from that of the mixed values (N, H · D)."""
    if len(kept) == 1:
        q, k, v = heads.pack(kept[0], layout)
        weights = attend(q, k, v, mask)[1]
    else:
        q, k, v, weights = kept
    d = heads.pack_queries(d.unflatten(1, (heads.queries, heads.size)), layout.rows)
    of_q, of_k, of_v = attend_backward(d, q, k, v, weights)
    d_qkv = d.new_empty(layout.tokens, (heads.queries + 2 * heads.keys) * heads.size)
    d_q, d_k, d_v = heads.split(d_qkv)
    heads.unpack_queries(of_q, layout.rows, out=d_q)
    heads.unpack_keys(of_k, layout, out=d_k)
    heads.unpack_keys(of_v, layout, out=d_v)
    return d_qkv
