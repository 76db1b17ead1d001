"""The two sublayers of a decoder layer, each as one differentiable function with the backward it deserves.

The base is frozen, so no weight gradient is computed for it, and each sublayer keeps only what its backward can't
cheaply make again: 12 to 14 KB per token and layer of a 135M Llama in bf16, a third of what autograd keeps. The
forwards are built from plain functions with a backward twin beside them. Each is tested against the plain formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tunelab.fast.attention import attention, attention_backward, rotate_
from tunelab.fast.fused import Sight
from tunelab.fast.gate import SILU, Activation, gated, gated_backward
from tunelab.fast.layout import Heads, Layout, Mask
from tunelab.fast.linear import Stack
from tunelab.fast.norm import RMS, HeadNorms, norm, norm_backward, normalised


@dataclass(frozen=True)
class Around:
    """What stands around a sublayer f: x + multiplier · norm_out(f(norm_in(x))), where either norm may be missing."""

    norm_in: RMS | None
    norm_out: RMS | None = None
    multiplier: float = 1.0

    def enter(self, x: Tensor, stack: Stack) -> tuple[Tensor, Tensor | None]:
        """What the first stack takes, with norm_in(x) in it, and that norm's r."""
        buffer, place = stack.input_buffer(x)
        if self.norm_in is None:
            place.copy_(x)
            return buffer, None
        return buffer, norm(x, self.norm_in.weight, self.norm_in.epsilon, out=place)[1]

    def leave(self, x: Tensor, stack: Stack, buffer: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sublayer's result from what its last stack takes, and what `leave_backward` needs."""
        if self.norm_out is None:
            return stack.forward(buffer, residual=x, alpha=self.multiplier), ()
        y = stack.forward(buffer)
        normed, inverse = norm(y, self.norm_out.weight, self.norm_out.epsilon)
        return torch.add(x, normed, alpha=self.multiplier), (y, inverse)

    def leave_backward(self, dy: Tensor, kept: Sequence[Tensor]) -> Tensor:
        """Gradient of what the last stack gave."""
        d = dy if self.multiplier == 1 else dy * self.multiplier
        if self.norm_out is None:
            return d
        y, inverse = kept
        return norm_backward(d, normalised(y, inverse), self.norm_out.weight, inverse)

    @property
    def kept(self) -> int:
        """How many tensors `leave` keeps."""
        return 0 if self.norm_out is None else 2


@dataclass
class AttentionPart:
    """What the first sublayer of a layer computes with, in this step."""

    around: Around
    qkv: Stack
    out: Stack
    heads: Heads
    layout: Layout
    rotation: tuple[Tensor, Tensor] | None  # cos and signed sin (N, 1, D or less); None: without positions
    mask: Mask | Sight
    head_norms: HeadNorms | None = None

    @property
    def matrices(self) -> tuple[Tensor | None, ...]:
        """The adapters', in the order of their gradients."""
        return self.qkv.matrices + self.out.matrices

    def turned(self, qkv: Tensor) -> Tensor:
        """qkv as it is asked: normed, which is a copy, and rotated in place."""
        if self.head_norms is not None:
            qkv = self.head_norms(qkv, self.heads)
        if self.rotation is not None:
            rotate_(self._rotated(qkv, self.rotation[0]), *self.rotation)
        return qkv

    def turned_backward_(self, d_qkv: Tensor, qkv: Tensor) -> Tensor:
        """Makes the gradient of what `turned` was given out of that of what it gave, in place."""
        if self.rotation is not None:
            cos, sin = self.rotation
            rotate_(self._rotated(d_qkv, cos), cos, -sin)
        if self.head_norms is not None:
            self.head_norms.backward_(d_qkv, qkv, self.heads)
        return d_qkv

    def _rotated(self, qkv: Tensor, cos: Tensor) -> Tensor:
        """The part of queries and keys that is rotated (N, H + K, D or less): a view."""
        both = qkv.view(qkv.shape[0], -1, self.heads.size)[:, : self.heads.queries + self.heads.keys]
        return both[..., : cos.shape[-1]]


class AttentionBlock(Function):
    """x + out(attention(turned(qkv(norm(x))))) for x (N, C), with what is `around` it; apply to (x, part,
    *part.matrices).

    The backward is that of each part in turn, from the last; the residual adds dy to dx as it is. With norms of queries
    and keys, qkv is kept as it was before them, and what attention needs is made of it again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: AttentionPart, *matrices: Tensor | None) -> Tensor:
        normed, inverse = part.around.enter(x, part.qkv)
        qkv = part.qkv.forward(normed)
        mixed, place = part.out.input_buffer(x)
        kept = attention(part.turned(qkv), part.heads, part.layout, part.mask, out=place)
        if part.head_norms is not None:
            kept = (qkv, *kept[3:])
        y, of_norm = part.around.leave(x, part.out, mixed)
        ctx.part = part
        ctx.save_for_backward(x, inverse, part.qkv.low_rank(normed), mixed, *of_norm, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: AttentionPart = ctx.part
        x, inverse, low_rank_qkv, mixed, *rest = ctx.saved_tensors
        of_norm, kept = rest[: part.around.kept], rest[part.around.kept :]
        width, qkv = part.out.inputs, kept[0]
        d = part.around.leave_backward(dy, of_norm)
        d_mixed, *of_out = part.out.backward(d, mixed[:, :width], mixed[:, width:])
        if part.head_norms is not None:
            kept[0] = part.turned(qkv)
        d_qkv = attention_backward(d_mixed, kept, part.heads, part.layout, part.mask)
        part.turned_backward_(d_qkv, qkv)
        dx, *of_qkv = _through_norm(ctx, part.qkv, d_qkv, x, inverse, low_rank_qkv, dy)
        return dx, None, *of_qkv, *of_out


@dataclass
class MLPPart:
    """What the second sublayer of a layer computes with, in this step."""

    around: Around
    gate_up: Stack
    down: Stack
    activation: Activation = SILU

    @property
    def matrices(self) -> tuple[Tensor | None, ...]:
        return self.gate_up.matrices + self.down.matrices


class MLPBlock(Function):
    """x + down(gated(gate_up(norm(x)))) for x (N, C), with what is `around` it; apply to (x, part, *part.matrices).

    The backward is that of each part in turn, from the last; the residual adds dy to dx as it is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: MLPPart, *matrices: Tensor | None) -> Tensor:
        normed, inverse = part.around.enter(x, part.gate_up)
        gate_up = part.gate_up.forward(normed)
        mixed, place = part.down.input_buffer(x)
        gated(gate_up, part.activation, out=place)
        y, of_norm = part.around.leave(x, part.down, mixed)
        ctx.part = part
        low_ranks = part.gate_up.low_rank(normed), part.down.low_rank(mixed)
        ctx.save_for_backward(x, inverse, gate_up, *low_ranks, *of_norm)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: MLPPart = ctx.part
        x, inverse, gate_up, low_rank_gate_up, low_rank_down, *of_norm = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        activated = part.activation.of(gate, None)
        d = part.around.leave_backward(dy, of_norm)
        d, *of_down = part.down.backward(d, activated * up, low_rank_down)
        d_gate_up = gated_backward(d, gate_up, activated, part.activation)
        dx, *of_gate_up = _through_norm(ctx, part.gate_up, d_gate_up, x, inverse, low_rank_gate_up, dy)
        return dx, None, *of_gate_up, *of_down


def _through_norm(
    ctx: Any, stack: Stack, d: Tensor, x: Tensor, inverse: Tensor | None, low_rank: Tensor, residual: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, None where nothing below is trained, and of the matrices of a sublayer's first stack: from the
    gradient of what that stack gave, and the residual's."""
    rms, needs_dx = ctx.part.around.norm_in, ctx.needs_input_grad[0]
    if rms is None or inverse is None:
        dx, of_a, of_b = stack.backward(d, x, low_rank, needs_dx)
        return (dx if dx is None else dx.add_(residual)), of_a, of_b
    x_hat = normalised(x, inverse)
    dx, of_a, of_b = stack.backward(d, _scaled(x_hat, rms.weight, x.dtype), low_rank, needs_dx)
    if dx is not None:
        dx = norm_backward(dx, x_hat, rms.weight, inverse).add_(residual)
    return dx, of_a, of_b


def _scaled(x_hat: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """What `norm` gave, from its x̂ in fp32."""
    if weight.dtype == torch.float32:
        return (x_hat * weight).to(dtype)
    return x_hat.to(dtype).mul(weight)
