"""The differentiable pieces of a Llama layer, each with the backward it deserves.

The base is frozen, so no weight gradient is computed for it, and each piece keeps only what its backward can't cheaply
make again: about 12 KB per token and layer of a 135M model in bf16, a third of what autograd keeps. The forwards are
built from plain functions with a backward twin beside them. Each is tested against the plain modules.

Shapes: N tokens (the flat rows of a batch), C hidden size, F inner size of the MLP, H query heads, K key heads, D head
size, R sum of the ranks of stacked adapters, O sum of their output sizes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from tunelab.fast.weights import Weight

HEAD_CHUNK = 128  # scored positions whose (chunk, V) logits exist at a time


# ---- linear layers with adapters


class Adapters:
    """The LoRA factors of linear layers that read the same x, as two matrices: y += (x Aᵀ) B.

    A (R, C) holds the A_i of all layers, B (R, O) their transposed B_i on its diagonal blocks, times the scale. One
    product for all costs less than a thin one for each. Hu et al. 2021, section 4.1. The matrices are copies in the
    model's dtype; `refresh` makes them anew from the parameters.
    """

    def __init__(self, factors: Sequence[Tensor], scale: float, dtype: torch.dtype) -> None:
        """`factors`: A_1 (r_1, C), B_1 (O_1, r_1), A_2, …"""
        self.factors = list(factors)
        self.ranks = [a.shape[0] for a in factors[::2]]
        self.widths = [b.shape[0] for b in factors[1::2]]
        self.scale = scale
        self.fp32_scale = factors[0].new_full((1,), scale, dtype=torch.float32)
        self.a = factors[0].new_zeros((sum(self.ranks), factors[0].shape[1]), dtype=dtype, requires_grad=False)
        self.b = self.a.new_zeros(sum(self.ranks), sum(self.widths))
        pairs = zip(self.a.split(self.ranks), self.blocks(self.b), strict=True)
        self.targets = [target for a, b in pairs for target in (a, b.T)]

    def blocks(self, b: Tensor) -> list[Tensor]:
        """The diagonal blocks (r_i, O_i) of a matrix like B: views."""
        blocks, rank, out = [], 0, 0
        for r, width in zip(self.ranks, self.widths, strict=True):
            blocks.append(b[rank : rank + r, out : out + width])
            rank, out = rank + r, out + width
        return blocks

    def gradients(self, d_a: Tensor, d_b: Tensor) -> list[Tensor]:
        """Gradients of the factors, in their order, in fp32."""
        gradients: list[Tensor] = []
        for a, block in zip(d_a.float().split(self.ranks), self.blocks(d_b), strict=True):
            b = self.fp32_scale.new_empty(block.shape[1], block.shape[0])
            gradients += (a, torch.mul(block.T, self.fp32_scale, out=b))
        return gradients


@torch.no_grad()
def refresh(adapters: Sequence[Adapters]) -> None:
    """Bring the matrices up to date with the parameters."""
    if adapters:
        torch._foreach_copy_([t for x in adapters for t in x.targets], [f for x in adapters for f in x.factors])
        torch._foreach_mul_([x.b for x in adapters], [x.scale for x in adapters])


@dataclass
class Stack:
    """Frozen linear layers side by side: y = x Wᵀ, plus their adapters."""

    weight: Weight  # (O, C)
    adapters: Adapters | None

    @property
    def factors(self) -> list[Tensor]:
        """The adapters' parameters."""
        return self.adapters.factors if self.adapters else []

    def forward(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """y (N, O) of x (N, C), with `residual` added, and x Aᵀ (N, R) for the backward."""
        y = self.weight.times(x, residual)
        if self.adapters is None:
            return y, None
        inner = x @ self.adapters.a.T
        return y.addmm_(inner, self.adapters.b), inner

    def backward(self, dy: Tensor, x: Tensor, inner: Tensor | None, wanted: bool = True) -> tuple[Any, list[Tensor]]:
        """Gradient of x (None unless `wanted`) and of the adapters' factors."""
        dx = self.weight.back(dy) if wanted else None
        if self.adapters is None or inner is None:
            return dx, []
        d_inner = dy @ self.adapters.b.T  # (N, R)
        gradients = self.adapters.gradients(d_inner.T @ x, inner.T @ dy)
        return dx.addmm_(d_inner, self.adapters.a) if dx is not None else None, gradients


# ---- the elementwise parts, forward and backward


def norm(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x / rms(x) · weight, in fp32 inside, and 1 / rms (N, 1). Zhang and Sennrich 2019."""
    wide = x.float()
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return _normed(x, wide, weight, inverse), inverse


def norm_again(x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """What `norm` gave, from the 1 / rms it gave."""
    return _normed(x, x.float(), weight, inverse)


def _normed(x: Tensor, wide: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    if wide is x:  # fp32: `float()` made no copy that could be overwritten
        return x * inverse * weight
    return wide.mul_(inverse).to(x.dtype).mul_(weight)


def norm_backward(dy: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of x, in x's dtype."""
    normed = x.float() * inverse
    d_normed = (dy * weight).float()
    inner = torch.linalg.vecdot(d_normed, normed)[:, None].div_(-x.shape[-1])
    return torch.addcmul(d_normed, normed, inner).mul_(inverse).to(x.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up of the stacked (N, 2F). Shazeer 2020."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)


def swiglu_backward(d: Tensor, gate_up: Tensor, silu: Tensor) -> Tensor:
    """Gradient of gate_up (N, 2F), with silu(gate) as it was in the forward."""
    gate, up = gate_up.chunk(2, dim=-1)
    both = torch.empty_like(gate_up)
    d_gate, d_up = both.chunk(2, dim=-1)
    torch.ops.aten.silu_backward.grad_input(d * up, gate, grad_input=d_gate)
    torch.mul(d, silu, out=d_up)
    return both


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, x · cos + (-x₂, x₁) · sin with x = (x₁, x₂) the halves of the last dimension (Su et
    al. 2021, section 3.2). Its backward is the rotation by -sin."""
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((-second, first), dim=-1), sin)


# ---- attention


@dataclass(frozen=True)
class Layout:
    """How a batch lies in N = P + B · S flat rows: a prefix of P tokens that all texts share and that is computed once,
    then B texts of S tokens each, padded on the right."""

    prefix: int
    rows: int
    length: int

    @property
    def positions(self) -> list[int]:
        """The position of each flat row in its text."""
        own = list(range(self.prefix, self.prefix + self.length))
        return [*range(self.prefix), *own * self.rows]

    @property
    def groups(self) -> list[tuple[slice, int, int]]:
        """What attends together: (flat rows, texts in them, tokens of the prefix that they see as well)."""
        texts = (slice(self.prefix, None), self.rows, self.prefix)
        return [(slice(0, self.prefix), 1, 0), texts] if self.prefix else [texts]

    def biases(self, per_group: int, like: Tensor) -> list[Tensor]:
        """For each group (H / K · T, P + T): zero where a query may look, -inf at what lies ahead of it."""
        return [
            causal_bias(shared, self.prefix if part.start == 0 and self.prefix else self.length, per_group, like)
            for part, _texts, shared in self.groups
        ]


@dataclass(frozen=True)
class Heads:
    """Heads of grouped-query attention: the H / K query heads of a group are packed into one product with their key."""

    queries: int
    keys: int
    size: int

    @property
    def per_group(self) -> int:
        return self.queries // self.keys

    def pack(self, qkv: Tensor, part: slice, texts: int, shared: int) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of a group of texts, packed for `attend`; keys and values begin with the shared prefix."""
        q, k, v = self.split(qkv)
        keys, values = (self.pack_keys(whole[:shared], whole[part], texts) for whole in (k, v))
        return self.pack_queries(q[part], texts), keys, values

    def pack_queries(self, q: Tensor, rows: int) -> Tensor:
        """(rows · T, H, D) -> (rows · K, H / K · T, D)."""
        q = q.unflatten(0, (rows, -1)).unflatten(2, (self.keys, -1)).permute(0, 2, 3, 1, 4)  # (rows, K, H / K, T, D)
        return q.reshape(rows * self.keys, -1, self.size)

    def unpack_queries(self, q: Tensor, rows: int) -> Tensor:
        """The way back: (rows · T, H, D)."""
        q = q.view(rows, self.keys, self.per_group, -1, self.size).permute(0, 3, 1, 2, 4)
        return q.reshape(-1, self.queries, self.size)

    def pack_keys(self, shared: Tensor, own: Tensor, rows: int) -> Tensor:
        """Keys or values of the prefix (P, K, D) and of the rows (rows · T, K, D) -> (rows · K, P + T, D)."""
        prefix = shared.shape[0]
        packed = own.new_empty(rows, self.keys, prefix + own.shape[0] // rows, self.size)
        packed[:, :, :prefix] = shared.transpose(0, 1)
        packed[:, :, prefix:] = own.unflatten(0, (rows, -1)).transpose(1, 2)
        return packed.view(rows * self.keys, -1, self.size)

    def unpack_keys(self, d: Tensor, prefix: int, rows: int) -> tuple[Tensor, Tensor]:
        """Gradients of what `pack_keys` was given; the prefix collects from every row."""
        d = d.view(rows, self.keys, -1, self.size)
        shared = d[:, :, :prefix].sum(0, dtype=torch.float32).to(d.dtype).transpose(0, 1)
        return shared, d[:, :, prefix:].transpose(1, 2).reshape(-1, self.keys, self.size)

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, (H + 2K) · D) -> q (N, H, D), k (N, K, D), v (N, K, D), all views."""
        heads = qkv.view(-1, self.queries + 2 * self.keys, self.size)
        return heads.split([self.queries, self.keys, self.keys], dim=1)


def causal_bias(prefix: int, length: int, per_group: int, like: Tensor) -> Tensor:
    """(H / K · T, P + T): zero where a query may look, -inf at what lies ahead of it."""
    own = torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)
    return torch.cat((own.new_zeros(length, prefix), own), dim=1).repeat(per_group, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Packed q (G, M, D), k and v (G, S, D) -> mixed values (G, M, D) and attention weights (G, M, S)."""
    scores = (
        torch.bmm(q, k.transpose(1, 2)).mul_(q.shape[-1] ** -0.5)
        if bias is None
        else torch.baddbmm(bias, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    )
    weights = functional.softmax(scores, dim=-1)  # in fp32 inside
    return torch.bmm(weights, v), weights


def attend_backward(d: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of packed q, k and v."""
    d_v = torch.bmm(weights.transpose(1, 2), d)
    d_weights = torch.bmm(d, v.transpose(1, 2))
    d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(q.shape[-1] ** -0.5)
    return torch.bmm(d_scores, k), torch.bmm(d_scores.transpose(1, 2), q), d_v


def attention(qkv: Tensor, heads: Heads, layout: Layout, biases: list[Tensor]) -> Tensor:
    """Mixed values (N, H · D) of rotated qkv (N, (H + 2K) · D): the prefix sees itself, a text the prefix too."""
    mixed = qkv.new_empty(qkv.shape[0], heads.queries, heads.size)
    for (part, texts, shared), bias in zip(layout.groups, biases, strict=True):
        q, k, v = heads.pack(qkv, part, texts, shared)
        mixed[part] = heads.unpack_queries(attend(q, k, v, bias)[0], texts)
    return mixed.view(qkv.shape[0], -1)


def attention_backward(d: Tensor, qkv: Tensor, heads: Heads, layout: Layout, biases: list[Tensor]) -> Tensor:
    """Gradient of qkv. The attention weights are made again: kept, they would grow with the square of the length."""
    d_qkv = torch.empty_like(qkv)
    d_q, d_k, d_v = heads.split(d_qkv)
    d = d.view(-1, heads.queries, heads.size)
    for (part, texts, shared), bias in zip(layout.groups, biases, strict=True):
        q, k, v = heads.pack(qkv, part, texts, shared)
        weights = attend(q, k, v, bias)[1]
        packed_q, *packed = attend_backward(heads.pack_queries(d[part], texts), q, k, v, weights)
        d_q[part] = heads.unpack_queries(packed_q, texts)
        for whole, gradient in zip((d_k, d_v), packed, strict=True):
            of_prefix, whole[part] = heads.unpack_keys(gradient, shared, texts)
            whole[:shared] += of_prefix  # the prefix is the first group, so its own gradient is there already
    return d_qkv


# ---- the sublayers of a decoder layer


@dataclass
class AttentionPart:
    """What the first sublayer of a layer computes with, in this step."""

    norm_weight: Tensor
    epsilon: float
    qkv: Stack
    out: Stack
    heads: Heads
    layout: Layout
    rotation: tuple[Tensor, Tensor]  # cos and sin (N, 1, D)
    biases: list[Tensor]

    @property
    def factors(self) -> list[Tensor]:
        """The adapters' parameters, in the order of their gradients."""
        return self.qkv.factors + self.out.factors


class AttentionBlock(Function):
    """x + out(attention(qkv(norm(x)))) for x (N, C); apply to (x, part, *part.factors)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: AttentionPart, *factors: Tensor) -> Tensor:
        normed, inverse = norm(x, part.norm_weight, part.epsilon)
        qkv, inner_qkv = part.qkv.forward(normed)
        turned = _turning(qkv, part.heads)
        turned.copy_(rotate(turned, *part.rotation))
        mixed = attention(qkv, part.heads, part.layout, part.biases)
        y, inner_out = part.out.forward(mixed, residual=x)
        ctx.part = part
        ctx.save_for_backward(x, inverse, qkv, inner_qkv, mixed, inner_out)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: AttentionPart = ctx.part
        x, inverse, qkv, inner_qkv, mixed, inner_out = ctx.saved_tensors
        d_mixed, of_out = part.out.backward(dy, mixed, inner_out)
        d_qkv = attention_backward(d_mixed, qkv, part.heads, part.layout, part.biases)
        turned, (cos, sin) = _turning(d_qkv, part.heads), part.rotation
        turned.copy_(rotate(turned, cos, -sin))
        normed = norm_again(x, part.norm_weight, inverse)
        dx, of_qkv = part.qkv.backward(d_qkv, normed, inner_qkv, wanted=ctx.needs_input_grad[0])
        if dx is not None:
            dx = norm_backward(dx, x, part.norm_weight, inverse).add_(dy)
        return dx, None, *of_qkv, *of_out


@dataclass
class MLPPart:
    """What the second sublayer of a layer computes with, in this step."""

    norm_weight: Tensor
    epsilon: float
    gate_up: Stack
    down: Stack

    @property
    def factors(self) -> list[Tensor]:
        return self.gate_up.factors + self.down.factors


class MLPBlock(Function):
    """x + down(swiglu(gate_up(norm(x)))) for x (N, C); apply to (x, part, *part.factors)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: MLPPart, *factors: Tensor) -> Tensor:
        normed, inverse = norm(x, part.norm_weight, part.epsilon)
        gate_up, inner_gate_up = part.gate_up.forward(normed)
        y, inner_down = part.down.forward(swiglu(gate_up), residual=x)
        ctx.part = part
        ctx.save_for_backward(x, inverse, gate_up, inner_gate_up, inner_down)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: MLPPart = ctx.part
        x, inverse, gate_up, inner_gate_up, inner_down = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        silu = functional.silu(gate)
        d, of_down = part.down.backward(dy, silu * up, inner_down)
        d_gate_up = swiglu_backward(d, gate_up, silu)
        normed = norm_again(x, part.norm_weight, inverse)
        dx, of_gate_up = part.gate_up.backward(d_gate_up, normed, inner_gate_up, wanted=ctx.needs_input_grad[0])
        if dx is not None:
            dx = norm_backward(dx, x, part.norm_weight, inverse).add_(dy)
        return dx, None, *of_gate_up, *of_down


def _turning(qkv: Tensor, heads: Heads) -> Tensor:
    """The part that is rotated, q and k (N, H + K, D): a view."""
    return qkv.view(qkv.shape[0], -1, heads.size)[:, : heads.queries + heads.keys]


# ---- the head


class Norm(Function):
    """`norm` alone, for the last one before the head. Its weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        y, inverse = norm(x, weight, epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, inverse = ctx.saved_tensors
        return norm_backward(dy, x, weight, inverse), None, None


class ScoredHead(Function):
    """The sum over N scored positions of -log softmax(x Eᵀ)[target], with its gradient computed on the way.

    The head is frozen, so the gradient of x is all there is: it is made in the forward, chunk by chunk, and the
    (N, V) logits never exist as a whole.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Weight, targets: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        dx = torch.empty_like(x) if wanted else None
        total = x.new_zeros((), dtype=torch.float32)
        for start in range(0, x.shape[0], HEAD_CHUNK):
            rows = slice(start, start + HEAD_CHUNK)
            log_p = functional.log_softmax(head.times(x[rows]), dim=-1, dtype=torch.float32)
            total -= log_p.gather(1, targets[rows, None]).sum()
            if dx is not None:
                d_logits = log_p.exp_()
                d_logits.scatter_add_(1, targets[rows, None], d_logits.new_full((len(d_logits), 1), -1.0))
                dx[rows] = head.back(d_logits.to(x.dtype))
        ctx.save_for_backward(dx)
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> Any:
        (dx,) = ctx.saved_tensors
        return dx * d_total.to(dx.dtype), None, None
