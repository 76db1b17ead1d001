"""Grouped-query attention of a batch that lies as `layout.py` says, its backward, and the rotation of q and k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tunelab.fast import fused
from tunelab.fast.fused import Sight
from tunelab.fast.layout import Heads, Layout, Mask

SOFTMAX_NUMBERS = 2**17  # of attention scores, how many are in fp32 at a time, about


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x (…, D), in place, with x = (x₁, x₂) the halves of its last dimension:

        (x₁, x₂) -> (x₁ · cos - x₂ · sin, x₂ · cos + x₁ · sin)  =  x · cos + (x₂, x₁) · signed(sin)

    A rotation's transpose is its inverse: the gradient of x is the gradient of what it became, turned by -sin.

    Source: Su et al. 2021, section 3.4.2, with halves where they pair neighbours, as Llama has it.
    """
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


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, cap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Mixed values o (G, M, D) and attention weights P (G, M, S) of packed q (G, M, D), k and v (G, S, D), with the
    scale c, most often 1 / √D, and with a cap m, if there is one:

        S = c q kᵀ                  scores
        S' = m · tanh(S / m)        or S itself
        P = softmax(S' + mask)      over each row; the mask is 0 or -inf
        o = P v

    Source: Vaswani et al. 2017, section 3.2.1; the cap: Gemma Team 2024 (Gemma 2), section 2.
    """
    if cap is None:
        scores = torch.baddbmm(mask.everywhere, q, k.transpose(1, 2), alpha=scale)
    else:
        scores = _tanh_of_scores(q, k, scale / cap).mul_(cap).add_(mask.everywhere)
    mask.add_within(scores)
    weights = softmax(scores)
    return torch.bmm(weights, v), weights


def _tanh_of_scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    return torch.bmm(q, k.transpose(1, 2)).mul_(scale).tanh_()


def attend_backward(
    d_o: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor, scale: float, cap: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the packed q, k and v that `attend` was given, from do (G, M, D) and P:

        dv = Pᵀ do
        dP = do vᵀ
        dS' = P · (dP - rowsum(P · dP))
        dS = dS' · (1 - tanh²(S / m))       or dS' itself
        dq = c dS k
        dk = c dSᵀ q

    The softmax of a row: ∂P_j/∂S'_i = P_j (1[i = j] - P_i), so dS'_i = Σ_j dP_j ∂P_j/∂S'_i = P_i (dP_i - Σ_j P_j dP_j).
    Where the mask hides a key, P is 0, and dS with it: the backward needs no mask.

    Source: Dao et al. 2022, appendix B.2, without its tiles.
    """
    d_v = torch.bmm(weights.transpose(1, 2), d_o)
    d_weights = torch.bmm(d_o, v.transpose(1, 2))
    d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
    if cap is not None:
        d_scores.mul_(_tanh_of_scores(q, k, scale / cap).square_().neg_().add_(1))
    d_scores.mul_(scale)
    return torch.bmm(d_scores, k), torch.bmm(d_scores.transpose(1, 2), q), d_v


def attention(
    qkv: Tensor, heads: Heads, layout: Layout, mask: Mask | Sight, out: Tensor, beside: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Mixed values of rotated qkv (N, (H + 2K) · D), into `out` (N, H · D). `beside`: keys and values (2, K, P, D) that
    every text sees before its own. Gives what the backward needs: packed q, k and v and the weights, or qkv alone
    (`Layout.keeps_weights`, and on a GPU, where no mask is made)."""
    if isinstance(mask, Sight):
        assert beside is None, "what stands beside is attended to by a mask"
        fused.attention(qkv, heads, layout, mask, out)
        return (qkv,)
    q, k, v = heads.pack(qkv, layout, beside)
    values, weights = attend(q, k, v, mask, heads.scale, heads.cap)
    heads.unpack_queries(values, layout.rows, out=out.unflatten(1, (heads.queries, heads.size)))
    return (q, k, v, weights) if layout.keeps_weights(heads) else (qkv,)


def attention_backward(
    d: Tensor, kept: Sequence[Tensor], heads: Heads, layout: Layout, mask: Mask | Sight, beside: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of rotated qkv (N, (H + 2K) · D), and of what is beside (2, K, P, D), from that of the mixed values
    (N, H · D). `kept`: what `attention` gave, or qkv and the weights."""
    if isinstance(mask, Sight):
        return fused.attention_backward(d, kept[0], heads, layout, mask), None
    if len(kept) == 4:
        q, k, v, weights = kept
    else:
        q, k, v = heads.pack(kept[0], layout, beside)
        weights = kept[1] if len(kept) == 2 else attend(q, k, v, mask, heads.scale, heads.cap)[1]
    d = heads.pack_queries(d.unflatten(1, (heads.queries, heads.size)), layout.rows)
    of_q, of_k, of_v = attend_backward(d, q, k, v, weights, heads.scale, heads.cap)
    d_qkv = d.new_empty(layout.tokens, (heads.queries + 2 * heads.keys) * heads.size)
    d_q, d_k, d_v = heads.split(d_qkv)
    heads.unpack_queries(of_q, layout.rows, out=d_q)
    of_beside = [heads.unpack_keys(packed, layout, out=part) for packed, part in ((of_k, d_k), (of_v, d_v))]
    return d_qkv, None if beside is None else torch.stack(of_beside)
