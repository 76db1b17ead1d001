"""The two sublayers of a decoder layer, each as one differentiable function with the backward it deserves.

A gradient is computed for what is trained alone, and each sublayer keeps only what its backward can't cheaply make
again: 12 to 14 KB per token and layer of a 135M Llama with LoRA in bf16, a third of what autograd keeps. The forwards
are built from plain functions with a backward twin beside them. Each is tested against the plain formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tunelab.fast.attention import attention, attention_backward, rotate_
from tunelab.fast.fused import Sight
from tunelab.fast.gate import SILU, Activation, gated, gated_backward
from tunelab.fast.layout import Heads, Layout, Mask
from tunelab.fast.linear import Gradients, Stack
from tunelab.fast.norm import RMS, HeadNorms, norm, norm_backward, normalised, weight_gradient


@dataclass(frozen=True)
class Around:
    """What stands around a sublayer f: x + multiplier · norm_out(f(norm_in(x))), where either norm may be missing.
    `is_open`: f(norm_in(x)) alone, for something that stands behind f is computed elsewhere."""

    norm_in: RMS | None
    norm_out: RMS | None = None
    multiplier: float = 1.0
    is_open: bool = False

    @property
    def trained(self) -> tuple[Tensor, ...]:
        """What of the norms is trained."""
        return tuple(tensor for rms in (self.norm_in, self.norm_out) if rms is not None for tensor in rms.trained)

    def enter(self, x: Tensor, stack: Stack) -> tuple[Tensor, Tensor | None]:
        """What the first stack takes, with norm_in(x) in it, and that norm's r."""
        buffer, place = stack.input_buffer(x)
        if self.norm_in is None:
            place.copy_(x)
            return buffer, None
        return buffer, norm(x, self.norm_in.weight, self.norm_in.epsilon, out=place)[1]

    def leave(self, x: Tensor, stack: Stack, buffer: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The sublayer's result from what its last stack takes, and what `leave_backward` needs."""
        if self.norm_out is None and stack.factors is None:
            return stack.forward(buffer, residual=None if self.is_open else x, alpha=self.multiplier), ()
        made = stack.product(buffer)
        y = stack.finished(made)
        if self.norm_out is not None:
            y, inverse = norm(y, self.norm_out.weight, self.norm_out.epsilon)
            made = (*made, inverse)
        return (y if self.is_open else torch.add(x, y, alpha=self.multiplier)), made

    def leave_backward(self, dy: Tensor, kept: Sequence[Tensor], stack: Stack, gradients: Gradients) -> Tensor:
        """Gradient of what the last stack's product gave."""
        d, made = dy if self.multiplier == 1 else dy * self.multiplier, kept
        if self.norm_out is not None:
            *made, inverse = kept
            y_hat = normalised(stack.finished(made), inverse)
            for parameter in self.norm_out.trained:
                gradients.add(parameter, weight_gradient(d, y_hat))
            d = norm_backward(d, y_hat, self.norm_out.weight, inverse)
        return stack.finished_backward(d, made, gradients)


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
    beside: Tensor | None = None  # keys and values that every text sees before its own (2, K, P, D)

    @property
    def trained(self) -> list[Tensor]:
        """What is given a gradient."""
        beside = () if self.beside is None else (self.beside,)
        norms = () if self.head_norms is None else self.head_norms.trained
        return [*self.qkv.trained, *self.out.trained, *self.around.trained, *norms, *beside]

    @property
    def makes_again(self) -> bool:
        """Whether the product with q, k and v is kept for the backward, and what attention was given is made of it
        again."""
        return self.head_norms is not None or self.qkv.factors is not None

    def turned(self, qkv: Tensor) -> Tensor:
        """qkv as it is asked: normed, which is a copy, and rotated in place."""
        if self.head_norms is not None:
            qkv = self.head_norms(qkv, self.heads)
        if self.rotation is not None:
            rotate_(self._rotated(qkv, self.rotation[0]), *self.rotation)
        return qkv

    def turned_backward_(self, d_qkv: Tensor, qkv: Tensor, gradients: Gradients) -> Tensor:
        """Makes the gradient of what `turned` was given out of that of what it gave, in place."""
        if self.rotation is not None:
            cos, sin = self.rotation
            rotate_(self._rotated(d_qkv, cos), cos, -sin)
        if self.head_norms is not None:
            of_trained = self.head_norms.backward_(d_qkv, qkv, self.heads)
            for parameter, gradient in zip(self.head_norms.trained, of_trained, strict=True):
                gradients.add(parameter, gradient)
        return d_qkv

    def _rotated(self, qkv: Tensor, cos: Tensor) -> Tensor:
        """The part of queries and keys that is rotated (N, H + K, D or less): a view."""
        both = qkv.view(qkv.shape[0], -1, self.heads.size)[:, : self.heads.queries + self.heads.keys]
        return both[..., : cos.shape[-1]]


class AttentionBlock(Function):
    """x + out(attention(turned(qkv(norm(x))))) for x (N, C), with what is `around` it; apply to (x, part,
    *part.trained).

    The backward is that of each part in turn, from the last; the residual adds dy to dx as it is. With norms of queries
    and keys, or factors, the product is kept as it was before them, and what attention needs is made of it again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: AttentionPart, *trained: Tensor) -> Tensor:
        normed, inverse = part.around.enter(x, part.qkv)
        made = part.qkv.product(normed)
        mixed, place = part.out.input_buffer(x)
        attended = attention(
            part.turned(part.qkv.finished(made)), part.heads, part.layout, part.mask, out=place, beside=part.beside
        )
        unscaled = part.out.scale_input_(place)
        y, leaving = part.around.leave(x, part.out, mixed)
        made, attended = (made, attended[3:]) if part.makes_again else ((), attended)
        low_rank = part.qkv.low_rank(normed)
        _keep(ctx, part, (x, inverse, low_rank, mixed), made, attended, unscaled, leaving)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: AttentionPart = ctx.part
        (x, inverse, low_rank, mixed), made, attended, unscaled, leaving = _kept(ctx)
        width, gradients, qkv = part.out.inputs, Gradients(), dy
        d = part.around.leave_backward(dy, leaving, part.out, gradients)
        d_mixed = part.out.backward(d, mixed[:, :width], mixed[:, width:], gradients)
        assert d_mixed is not None
        d_mixed = part.out.input_backward(d_mixed, unscaled, gradients)
        if part.makes_again:
            qkv = part.qkv.finished(made)
            # rotated in place: a copy, where nothing before it has made one
            attended = [part.turned(qkv if part.head_norms is not None else qkv.clone()), *attended]
        d_qkv, d_beside = attention_backward(d_mixed, attended, part.heads, part.layout, part.mask, part.beside)
        if part.beside is not None and d_beside is not None:
            gradients.add(part.beside, d_beside)
        part.turned_backward_(d_qkv, qkv, gradients)
        d_qkv = part.qkv.finished_backward(d_qkv, made, gradients)
        dx = _through_norm(ctx, part.qkv, d_qkv, x, inverse, low_rank, dy, gradients)
        return dx, None, *gradients.of(part.trained)


@dataclass
class MLPPart:
    """What the second sublayer of a layer computes with, in this step."""

    around: Around
    gate_up: Stack
    down: Stack
    activation: Activation = SILU

    @property
    def trained(self) -> list[Tensor]:
        """What is given a gradient."""
        return [*self.gate_up.trained, *self.down.trained, *self.around.trained]


class MLPBlock(Function):
    """x + down(gated(gate_up(norm(x)))) for x (N, C), with what is `around` it; apply to (x, part, *part.trained).

    The backward is that of each part in turn, from the last; the residual adds dy to dx as it is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: MLPPart, *trained: Tensor) -> Tensor:
        normed, inverse = part.around.enter(x, part.gate_up)
        made = part.gate_up.product(normed)
        mixed, place = part.down.input_buffer(x)
        gated(part.gate_up.finished(made), part.activation, out=place)
        part.down.scale_input_(place)
        y, leaving = part.around.leave(x, part.down, mixed)
        low_ranks = part.gate_up.low_rank(normed), part.down.low_rank(mixed)
        _keep(ctx, part, (x, inverse, *low_ranks), made, leaving)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: MLPPart = ctx.part
        (x, inverse, low_rank_gate_up, low_rank_down), made, leaving = _kept(ctx)
        gradients, gate_up = Gradients(), part.gate_up.finished(made)
        gate, up = gate_up.chunk(2, dim=-1)
        activated = part.activation.of(gate, None)
        mixed = activated * up
        unscaled = part.down.scale_input_(mixed)
        d = part.around.leave_backward(dy, leaving, part.down, gradients)
        d_mixed = part.down.backward(d, mixed, low_rank_down, gradients)
        assert d_mixed is not None
        d_mixed = part.down.input_backward(d_mixed, unscaled, gradients)
        d_gate_up = gated_backward(d_mixed, gate_up, activated, part.activation)
        d_gate_up = part.gate_up.finished_backward(d_gate_up, made, gradients)
        dx = _through_norm(ctx, part.gate_up, d_gate_up, x, inverse, low_rank_gate_up, dy, gradients)
        return dx, None, *gradients.of(part.trained)


class Behind(Function):
    """f(x) of a small module with parameters, made again in the backward; apply to (x, f, *its parameters). Only x is
    kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Any, *parameters: Tensor) -> Tensor:
        ctx.f, ctx.parameters = f, parameters
        ctx.save_for_backward(x)
        return f(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.f(x)
        asked = [x, *(p for p in ctx.parameters if p.requires_grad)]
        dx, *of_parameters = torch.autograd.grad(y, asked, dy)
        found = iter(of_parameters)
        return dx, None, *(next(found) if p.requires_grad else None for p in ctx.parameters)


def _keep(ctx: Any, part: Any, *groups: Sequence[Tensor | None]) -> None:
    """For the backward: the part, and tensors in groups."""
    ctx.part, ctx.sizes = part, [len(group) for group in groups]
    ctx.save_for_backward(*chain.from_iterable(groups))


def _kept(ctx: Any) -> list[Any]:
    """The groups as `_keep` was given them."""
    saved = iter(ctx.saved_tensors)
    return [[next(saved) for _ in range(size)] for size in ctx.sizes]


def _through_norm(
    ctx: Any,
    stack: Stack,
    d: Tensor,
    x: Tensor,
    inverse: Tensor | None,
    low_rank: Tensor,
    residual: Tensor,
    gradients: Gradients,
) -> Tensor | None:
    """Gradient of x, None where nothing below is trained: from the gradient of what a sublayer's first stack gave, and
    the residual's."""
    around, needs_dx = ctx.part.around, ctx.needs_input_grad[0]
    rms = around.norm_in
    if rms is None or inverse is None:
        dx = stack.backward(d, x, low_rank, gradients, needs_dx)
        return dx if dx is None or around.is_open else dx.add_(residual)
    x_hat = normalised(x, inverse)
    normed = _scaled(x_hat, rms.weight, x.dtype)
    dx = stack.backward(d, normed, low_rank, gradients, needs_dx or bool(rms.trained))
    for parameter in rms.trained:
        assert dx is not None
        gradients.add(parameter, weight_gradient(dx, x_hat))
    if dx is None or not needs_dx:
        return None
    dx = norm_backward(dx, x_hat, rms.weight, inverse)
    return dx if around.is_open else dx.add_(residual)


def _scaled(x_hat: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """What `norm` gave, from its x̂ in fp32."""
    if weight.dtype == torch.float32:
        return (x_hat * weight).to(dtype)
    return x_hat.to(dtype).mul(weight)
