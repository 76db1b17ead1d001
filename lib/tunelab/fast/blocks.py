"""The two sublayers of a Llama layer, each as one differentiable function with the backward it deserves.

The base is frozen, so no weight gradient is computed for it, and each sublayer keeps only what its backward can't
cheaply make again: 12 to 14 KB per token and layer of a 135M model in bf16, a third of what autograd keeps. The
forwards are built from plain functions with a backward twin beside them. Each is tested against the plain formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from tunelab.fast.attention import attention, attention_backward, rotate_
from tunelab.fast.layout import Heads, Layout, Mask
from tunelab.fast.linear import Stack


def norm(x: Tensor, weight: Tensor, epsilon: float, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """y (N, C) and r (N, 1) of x (N, C), in fp32 inside, with g (C) the weight:

        r = 1 / √(mean(x · x) + epsilon)        the inverse of the root mean square of each row
        y = g · x̂   with x̂ = r · x

    Source: Zhang and Sennrich 2019, section 4, equation 4; epsilon as in Llama.
    """
    wide = x.float()
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    y = torch.empty_like(x) if out is None else out
    if wide is x:  # fp32: `float()` made no copy that could be overwritten
        return torch.mul(x, inverse, out=y).mul_(weight), inverse
    return y.copy_(wide.mul_(inverse)).mul_(weight), inverse


def normalised(x: Tensor, inverse: Tensor) -> Tensor:
    """x̂ = r · x (N, C) in fp32, from the r that `norm` gave."""
    return x * inverse if x.dtype == torch.float32 else x.float().mul_(inverse)


def norm_backward(dy: Tensor, x_hat: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of the x that `norm` was given, in dy's dtype:

        dx̂ = g · dy
        dx = r · (dx̂ - x̂ · mean(dx̂ · x̂))

    For x̂ = r · x, and r falls with x: ∂r/∂x_j = -r³ x_j / C = -r² x̂_j / C. So dx_j = r dx̂_j + Σ_i dx̂_i x_i ∂r/∂x_j,
    in which r x_i is x̂_i. g is frozen.
    """
    d_x_hat = (dy * weight).float()
    minus_mean = torch.linalg.vecdot(d_x_hat, x_hat)[:, None].div_(-dy.shape[-1])
    return d_x_hat.addcmul_(x_hat, minus_mean).mul_(inverse).to(dy.dtype)


def swiglu(gate_up: Tensor, out: Tensor | None = None) -> Tensor:
    """y = silu(a) · b (N, F) of gate a and up b, stacked (N, 2F), with silu(a) = a σ(a).

    Source: Shazeer 2020, section 2, equation 6, without biases.
    """
    gate, up = gate_up.chunk(2, dim=-1)
    return (functional.silu(gate) if out is None else torch.ops.aten.silu.out(gate, out=out)).mul_(up)


def swiglu_backward(dy: Tensor, gate_up: Tensor, silu: Tensor) -> Tensor:
    """Gradient of the gate a and up b that `swiglu` was given, stacked (N, 2F), from dy (N, F):

        da = dy · b · silu'(a)   with silu'(a) = σ(a) (1 + a (1 - σ(a)))
        db = dy · silu(a)

    by the product rule, and σ' = σ (1 - σ). `silu` is silu(a) (N, F).
    """
    gate, up = gate_up.chunk(2, dim=-1)
    both = torch.empty_like(gate_up)
    d_gate, d_up = both.chunk(2, dim=-1)
    torch.ops.aten.silu_backward.grad_input(dy * up, gate, grad_input=d_gate)
    torch.mul(dy, silu, out=d_up)
    return both


@dataclass
class AttentionPart:
    """What the first sublayer of a layer computes with, in this step."""

    norm_weight: Tensor
    epsilon: float
    qkv: Stack
    out: Stack
    heads: Heads
    layout: Layout
    rotation: tuple[Tensor, Tensor]  # cos and signed sin (N, 1, D)
    mask: Mask

    @property
    def matrices(self) -> tuple[Tensor | None, ...]:
        """The adapters', in the order of their gradients."""
        return self.qkv.matrices + self.out.matrices


class AttentionBlock(Function):
    """x + out(attention(rotate(qkv(norm(x))))) for x (N, C); apply to (x, part, *part.matrices).

    The backward is that of each part in turn, from the last; the residual adds dy to dx as it is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: AttentionPart, *matrices: Tensor | None) -> Tensor:
        normed, place = part.qkv.input_buffer(x)
        _, inverse = norm(x, part.norm_weight, part.epsilon, out=place)
        qkv = part.qkv.forward(normed)
        rotate_(_queries_and_keys(qkv, part.heads), *part.rotation)
        mixed, place = part.out.input_buffer(x)
        kept = attention(qkv, part.heads, part.layout, part.mask, out=place)
        y = part.out.forward(mixed, residual=x)
        ctx.part = part
        ctx.save_for_backward(x, inverse, part.qkv.low_rank(normed), mixed, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: AttentionPart = ctx.part
        x, inverse, low_rank_qkv, mixed, *kept = ctx.saved_tensors
        width = part.out.inputs
        d_mixed, *of_out = part.out.backward(dy, mixed[:, :width], mixed[:, width:])
        d_qkv = attention_backward(d_mixed, kept, part.heads, part.layout, part.mask)
        cos, sin = part.rotation
        rotate_(_queries_and_keys(d_qkv, part.heads), cos, -sin)
        dx, *of_qkv = _through_norm(ctx, part.qkv, d_qkv, x, inverse, low_rank_qkv, dy)
        return dx, None, *of_qkv, *of_out


@dataclass
class MLPPart:
    """What the second sublayer of a layer computes with, in this step."""

    norm_weight: Tensor
    epsilon: float
    gate_up: Stack
    down: Stack

    @property
    def matrices(self) -> tuple[Tensor | None, ...]:
        return self.gate_up.matrices + self.down.matrices


class MLPBlock(Function):
    """x + down(swiglu(gate_up(norm(x)))) for x (N, C); apply to (x, part, *part.matrices).

    The backward is that of each part in turn, from the last; the residual adds dy to dx as it is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: MLPPart, *matrices: Tensor | None) -> Tensor:
        normed, place = part.gate_up.input_buffer(x)
        _, inverse = norm(x, part.norm_weight, part.epsilon, out=place)
        gate_up = part.gate_up.forward(normed)
        gated, place = part.down.input_buffer(x)
        swiglu(gate_up, out=place)
        y = part.down.forward(gated, residual=x)
        ctx.part = part
        ctx.save_for_backward(x, inverse, gate_up, part.gate_up.low_rank(normed), part.down.low_rank(gated))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: MLPPart = ctx.part
        x, inverse, gate_up, low_rank_gate_up, low_rank_down = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        silu = functional.silu(gate)
        d, *of_down = part.down.backward(dy, silu * up, low_rank_down)
        d_gate_up = swiglu_backward(d, gate_up, silu)
        dx, *of_gate_up = _through_norm(ctx, part.gate_up, d_gate_up, x, inverse, low_rank_gate_up, dy)
        return dx, None, *of_gate_up, *of_down


def _through_norm(
    ctx: Any, stack: Stack, d: Tensor, x: Tensor, inverse: Tensor, low_rank: Tensor, residual: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, None where nothing below is trained, and of the matrices of a sublayer's first stack: from the
    gradient of what that stack gave, and the residual's."""
    weight = ctx.part.norm_weight
    x_hat, needs_dx = normalised(x, inverse), ctx.needs_input_grad[0]
    dx, of_a, of_b = stack.backward(d, x_hat.to(x.dtype).mul(weight), low_rank, needs_dx)
    if dx is not None:
        dx = norm_backward(dx, x_hat, weight, inverse).add_(residual)
    return dx, of_a, of_b


def _queries_and_keys(qkv: Tensor, heads: Heads) -> Tensor:
    """The part that is rotated (N, H + K, D): a view."""
    return qkv.view(qkv.shape[0], -1, heads.size)[:, : heads.queries + heads.keys]
