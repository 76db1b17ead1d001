"""The differentiable pieces of a Llama layer, each with the backward it deserves.

The base is frozen, so no weight gradient is computed for it and each piece keeps only what its backward reads. Shapes:
N tokens, C hidden size, r rank, T positions, B rows, V vocabulary. Each function is tested against the plain modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

HEAD_CHUNK = 256  # scored positions whose (chunk, V) logits exist at a time


class StackedLoRALinear(Function):
    """y_i = x W_iᵀ + s · (x A_iᵀ) B_iᵀ for linear layers i that read the same x, their outputs side by side.

    Stacking q/k/v and gate/up makes one product of three or two, and reads x once. `weight` gives the stacked W
    (sum of out_i, C) when it is needed, so that quantised weights need not stay unpacked. Hu et al. 2021, section 4.1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Callable[[], Tensor], scale: float, *factors: Tensor) -> Tensor:
        a = torch.cat(factors[::2]).to(x.dtype)  # (sum of r_i, C)
        b = [factor.to(x.dtype) for factor in factors[1::2]]  # each (out_i, r_i)
        inner = (x @ a.T).mul_(scale)  # (N, sum of r_i)
        y = x @ weight().T  # (N, sum of out_i)
        out = rank = 0
        for b_i in b:
            y[:, out : out + b_i.shape[0]].addmm_(inner[:, rank : rank + b_i.shape[1]], b_i.T)
            out, rank = out + b_i.shape[0], rank + b_i.shape[1]
        ctx.save_for_backward(x, inner, a, *b)
        ctx.weight, ctx.scale, ctx.dtypes = weight, scale, [f.dtype for f in factors]
        ctx.ranks = [f.shape[0] for f in factors[::2]]
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, inner, a, *b = ctx.saved_tensors
        d_inner = torch.empty_like(inner)
        d_b = []
        out = rank = 0
        for b_i in b:
            dy_i = dy[:, out : out + b_i.shape[0]]
            columns = slice(rank, rank + b_i.shape[1])
            torch.mm(dy_i, b_i, out=d_inner[:, columns]) if len(b) == 1 else d_inner[:, columns].copy_(dy_i @ b_i)
            d_b.append(dy_i.T @ inner[:, columns])
            out, rank = out + b_i.shape[0], rank + b_i.shape[1]
        d_inner.mul_(ctx.scale)
        d_a = (d_inner.T @ x).split(ctx.ranks)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ ctx.weight()).addmm_(d_inner, a)
        gradients = [g for pair in zip(d_a, d_b, strict=True) for g in pair]
        return dx, None, None, *(g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True))


class FrozenLinear(Function):
    """y = x Wᵀ for a frozen W: the backward needs W alone, so x is not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        ctx.weight = weight
        return x @ weight().T

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return dy @ ctx.weight(), None


class RMSNorm(Function):
    """x / rms(x) · weight over the last dimension, in fp32 inside (Zhang and Sennrich 2019). `weight` is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(epsilon))
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, inverse = ctx.saved_tensors
        normed = x.float().mul_(inverse)
        d_normed = (dy * weight).float()
        inner = (d_normed * normed).mean(-1, keepdim=True)
        return d_normed.sub_(normed.mul_(inner)).mul_(inverse).to(x.dtype), None, None


class SwiGLU(Function):
    """silu(gate) · up for the stacked (N, 2F) input; keeps the input, not the intermediate (Shazeer 2020)."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        d = torch.empty_like(gate_up)
        half = gate.shape[-1]
        d[:, :half] = torch.ops.aten.silu_backward(dy * up, gate)
        torch.mul(dy, functional.silu(gate), out=d[:, half:])
        return d


class Rotate(Function):
    """Rotary position embedding of x (…, T, D); its backward is the rotation back (Su et al. 2021, section 3.2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return rotate(dy, cos, -sin), None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x · cos + (-x₂, x₁) · sin, with x = (x₁, x₂) the halves of the last dimension."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class ScoredHead(Function):
    """The sum over N scored positions of -log softmax(x Eᵀ)[target], with its gradient computed on the way.

    The head is frozen, so the gradient of x is all there is: it is made in the forward, chunk by chunk, and the
    (N, V) logits never exist as a whole.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        dx = torch.empty_like(x) if wanted else None
        total = x.new_zeros((), dtype=torch.float32)
        for start in range(0, x.shape[0], HEAD_CHUNK):
            rows = slice(start, start + HEAD_CHUNK)
            logits = (x[rows] @ head.T).float()
            log_sum = logits.logsumexp(-1, keepdim=True)
            picked = logits.gather(1, targets[rows, None])
            total += (log_sum - picked).sum()
            if dx is not None:
                probabilities = logits.sub_(log_sum).exp_()
                probabilities.scatter_add_(1, targets[rows, None], torch.full_like(picked, -1.0))
                dx[rows] = probabilities.to(x.dtype) @ head
        ctx.save_for_backward(dx)
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> Any:
        (dx,) = ctx.saved_tensors
        return dx * d_total.to(dx.dtype), None, None


def attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
    """Grouped-query attention: q (B, H, T, D), k and v (B, K, S, D) -> (B, T, H · D).

    The H / K query heads of a group are packed into one product with their key head. `hidden` (T, S) or (B, 1, T, S)
    is True where a query must not look; None: everything is visible.
    """
    rows, heads, length, size = q.shape
    groups = k.shape[1]
    packed = q.reshape(rows * groups, heads // groups * length, size)
    keys, values = k.reshape(rows * groups, -1, size), v.reshape(rows * groups, -1, size)
    scores = torch.bmm(packed, keys.transpose(1, 2)) * size**-0.5
    if hidden is not None:
        scores = scores.view(rows, heads, length, -1).masked_fill(hidden, float("-inf")).view_as(scores)
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    mixed = torch.bmm(weights, values).view(rows, heads, length, size)
    return mixed.transpose(1, 2).reshape(rows, length, heads * size)
