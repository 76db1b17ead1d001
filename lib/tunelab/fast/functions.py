"""The differentiable pieces of a Llama layer, each with the backward it deserves.

The base is frozen, so no weight gradient is computed for it, and each piece keeps only what its backward can't cheaply
make again: about 12 KB per token and layer of a 135M model in bf16, a third of what autograd keeps. The forwards are
built from plain functions with a backward twin beside them. Each is tested against the plain modules.

Shapes: N tokens (the flat rows of a batch), C hidden size, F inner size of the MLP, H query heads, K key heads, D head
size, R sum of the ranks of stacked adapters, O sum of their output sizes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

HEAD_CHUNK = 256  # scored positions whose (chunk, V) logits exist at a time
SOFTMAX_ROWS = 16  # of those, how many are in fp32 at a time on a CPU: they stay in its cache


# ---- linear layers with adapters


class Adapters:
    """The LoRA factors of linear layers that read the same x, as two matrices: y += (x Aᵀ) Bᵀ.

    A (R, C) holds the A_i of all layers, B (O, R) their B_i on its diagonal blocks, times the scale. One product for
    all costs less than a thin one for each. Hu et al. 2021, section 4.1. The matrices are copies in the model's dtype;
    `Joined` makes them anew from the parameters.
    """

    def __init__(self, factors: Sequence[Tensor], scale: float, dtype: torch.dtype, b: Tensor | None = None) -> None:
        """`factors`: A_1 (r_1, C), B_1 (O_1, r_1), A_2, …; `b`: where B is to lie, zero."""
        self.factors = list(factors)
        self.ranks = [a.shape[0] for a in factors[::2]]
        self.widths = [b.shape[0] for b in factors[1::2]]
        self.scale = scale
        self.a = factors[0].new_zeros((sum(self.ranks), factors[0].shape[1]), dtype=dtype, requires_grad=False)
        self.b = self.a.new_zeros(sum(self.widths), sum(self.ranks)) if b is None else b
        self.blocks = self.of_factors(self.a, self.b)

    def of_factors(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Where the factors lie in matrices like A and B, in their order: views."""
        blocks: list[Tensor] = []
        rank = out = 0
        for r, width in zip(self.ranks, self.widths, strict=True):
            blocks += (a[rank : rank + r], b[out : out + width, rank : rank + r])
            rank, out = rank + r, out + width
        return blocks


class Joined(Function):
    """The matrices A and B of every stack, from the factors of all: apply to (adapters, *factors of all adapters).

    All at once, in both directions: there are hundreds of factors, and a call for each costs more than its copy.
    """

    @staticmethod
    def forward(ctx: Any, adapters: Sequence[Adapters], *factors: Tensor) -> tuple[Tensor, ...]:
        torch._foreach_copy_([block for x in adapters for block in x.blocks], list(factors))
        torch._foreach_mul_([x.b for x in adapters], [x.scale for x in adapters])
        ctx.adapters = adapters
        return tuple(matrix.detach() for x in adapters for matrix in (x.a, x.b))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        adapters: Sequence[Adapters] = ctx.adapters
        pairs = zip(adapters, gradients[::2], gradients[1::2], strict=True)
        blocks = [block for x, d_a, d_b in pairs for block in x.of_factors(d_a, d_b)]
        of_factors = [torch.empty_like(factor) for x in adapters for factor in x.factors]
        torch._foreach_copy_(of_factors, blocks)
        torch._foreach_mul_(of_factors[1::2], [x.scale for x in adapters for _ in x.ranks])
        return None, *of_factors


@dataclass
class Stack:
    """Frozen linear layers side by side with their adapters: y = [x, x Aᵀ] [W, B]ᵀ.

    With W and B side by side, one product gives what takes two: y in the forward, the gradients of x and of x Aᵀ in
    the backward. So the input comes with R columns of room behind it.
    """

    joined: Callable[[], Tensor]  # W and B: (O, C + R)
    inputs: int  # C
    a: Tensor | None = None  # (R, C); None: without adapters
    b: Tensor | None = None  # (O, R), for its gradient

    @property
    def matrices(self) -> tuple[Tensor | None, Tensor | None]:
        """The adapters', as a `Function` is applied to them."""
        return self.a, self.b

    def room(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """For the input of as many rows as `like` has: what `forward` takes (N, C + R), and the part to fill (N, C)."""
        whole = like.new_empty(len(like), self.inputs + (0 if self.a is None else len(self.a)))
        return whole, whole[:, : self.inputs]

    def inner(self, x: Tensor) -> Tensor:
        """x Aᵀ (N, R), as `forward` left it in what it was given: a copy, the rest need not stay."""
        return x[:, self.inputs :].clone()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """y (N, O) of x (N, C + R), whose room is filled; plus the residual."""
        if self.a is not None:
            torch.mm(x[:, : self.inputs], self.a.T, out=x[:, self.inputs :])
        weight = self.joined()[:, : x.shape[1]].T
        return x @ weight if residual is None else torch.addmm(residual, x, weight)

    def backward(self, dy: Tensor, x: Tensor, inner: Tensor, wanted: bool = True) -> tuple[Any, Any, Any]:
        """Gradients of x (N, C), None unless `wanted`, and of the adapters' A and B."""
        joined = self.joined()
        if self.a is None:
            return dy @ joined[:, : self.inputs] if wanted else None, None, None
        if not wanted:
            d_inner = dy @ joined[:, self.inputs :]
            return None, d_inner.T @ x, dy.T @ inner
        dx, d_inner = (dy @ joined).split([self.inputs, len(self.a)], dim=1)
        return dx.addmm_(d_inner, self.a), d_inner.T @ x, dy.T @ inner


# ---- the elementwise parts, forward and backward


def norm(x: Tensor, weight: Tensor, epsilon: float, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x / rms(x) · weight, in fp32 inside, and 1 / rms (N, 1). Zhang and Sennrich 2019."""
    wide = x.float()
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    y = torch.empty_like(x) if out is None else out
    if wide is x:  # fp32: `float()` made no copy that could be overwritten
        return torch.mul(x, inverse, out=y).mul_(weight), inverse
    return y.copy_(wide.mul_(inverse)).mul_(weight), inverse


def unscaled(x: Tensor, inverse: Tensor) -> Tensor:
    """x / rms(x) in fp32, from the 1 / rms that `norm` gave."""
    return x * inverse if x.dtype == torch.float32 else x.float().mul_(inverse)


def norm_backward(dy: Tensor, unscaled: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of x, in dy's dtype, from x / rms(x)."""
    d_unscaled = (dy * weight).float()
    inner = torch.linalg.vecdot(d_unscaled, unscaled)[:, None].div_(-dy.shape[-1])
    return d_unscaled.addcmul_(unscaled, inner).mul_(inverse).to(dy.dtype)


def swiglu(gate_up: Tensor, out: Tensor | None = None) -> Tensor:
    """silu(gate) · up of the stacked (N, 2F). Shazeer 2020."""
    gate, up = gate_up.chunk(2, dim=-1)
    return (functional.silu(gate) if out is None else torch.ops.aten.silu.out(gate, out=out)).mul_(up)


def swiglu_backward(d: Tensor, gate_up: Tensor, silu: Tensor) -> Tensor:
    """Gradient of gate_up (N, 2F), with silu(gate) as it was in the forward."""
    gate, up = gate_up.chunk(2, dim=-1)
    both = torch.empty_like(gate_up)
    d_gate, d_up = both.chunk(2, dim=-1)
    torch.ops.aten.silu_backward.grad_input(d * up, gate, grad_input=d_gate)
    torch.mul(d, silu, out=d_up)
    return both


def rotate_(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in place: x · cos + (x₂, x₁) · sin with x = (x₁, x₂) the halves of the last dimension,
    and `signed` sin (Su et al. 2021, section 3.2). Its backward is the rotation by -sin."""
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return x.mul_(cos).addcmul_(swapped, sin)


def signed(sin: Tensor) -> Tensor:
    """`sin` (…, D) with its first half negative, as `rotate_` wants it."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat((-first, second), dim=-1)


# ---- attention


@dataclass(frozen=True)
class Layout:
    """How a batch lies in N = P + B · S flat rows: a prefix of P tokens that all texts share and that is computed once,
    then B texts of S tokens each, padded on the right."""

    prefix: int
    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """How many flat rows there are."""
        return self.prefix + self.rows * self.length

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

    def kept(self, heads: Heads) -> int:
        """Numbers that the backward of attention needs, of one layer."""
        return self._packed(heads) if self.keeps_weights(heads) else self._flat(heads)

    def keeps_weights(self, heads: Heads) -> bool:
        """Whether packed q, k and v and the attention weights are kept for the backward. They grow with the square of
        the length: where they would take more than twice what flat q, k and v take, those are kept, and these made
        again."""
        return self._packed(heads) <= 2 * self._flat(heads)

    def _flat(self, heads: Heads) -> int:
        return self.tokens * (heads.queries + 2 * heads.keys) * heads.size

    def _packed(self, heads: Heads) -> int:
        total = 0
        for part, texts, shared in self.groups:
            own = self.prefix if part.start == 0 and self.prefix else self.length
            seen = shared + own
            total += texts * (own * heads.queries * (heads.size + seen) + 2 * seen * heads.keys * heads.size)
        return total

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

    def unpack_queries(self, q: Tensor, rows: int, out: Tensor) -> None:
        """The way back, into `out` (rows · T, H, D)."""
        packed = q.view(rows, self.keys, self.per_group, -1, self.size).permute(0, 3, 1, 2, 4)
        out.unflatten(0, (rows, -1)).unflatten(2, (self.keys, -1)).copy_(packed)

    def pack_keys(self, shared: Tensor, own: Tensor, rows: int) -> Tensor:
        """Keys or values of the prefix (P, K, D) and of the rows (rows · T, K, D) -> (rows · K, P + T, D)."""
        prefix = shared.shape[0]
        packed = own.new_empty(rows, self.keys, prefix + own.shape[0] // rows, self.size)
        if prefix:
            packed[:, :, :prefix] = shared.transpose(0, 1)
        packed[:, :, prefix:] = own.unflatten(0, (rows, -1)).transpose(1, 2)
        return packed.view(rows * self.keys, -1, self.size)

    def unpack_keys(self, d: Tensor, rows: int, shared: Tensor, own: Tensor) -> None:
        """Gradients of what `pack_keys` was given: of the rows into `own`, of the prefix, which collects from every
        row, added to `shared`."""
        d, prefix = d.view(rows, self.keys, -1, self.size), shared.shape[0]
        own.unflatten(0, (rows, -1)).copy_(d[:, :, prefix:].transpose(1, 2))
        if prefix:
            shared += d[:, :, :prefix].sum(0, dtype=torch.float32).transpose(0, 1)

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


def attention(qkv: Tensor, heads: Heads, layout: Layout, biases: list[Tensor], out: Tensor) -> list[Tensor]:
    """Mixed values of rotated qkv (N, (H + 2K) · D), into `out` (N, H · D): the prefix sees itself, a text the prefix
    too. Gives what the backward needs: of each group what `attend` was given and its weights, or qkv alone
    (`Layout.keeps_weights`)."""
    mixed = out.unflatten(1, (heads.queries, heads.size))
    kept: list[Tensor] = []
    keeps = layout.keeps_weights(heads)
    for (part, texts, shared), bias in zip(layout.groups, biases, strict=True):
        packed = heads.pack(qkv, part, texts, shared)
        values, weights = attend(*packed, bias)
        heads.unpack_queries(values, texts, out=mixed[part])
        if keeps:
            kept += (*packed, weights)
    return kept or [qkv]


def attention_backward(d: Tensor, kept: Sequence[Tensor], heads: Heads, layout: Layout, biases: list[Tensor]) -> Tensor:
    """Gradient of rotated qkv (N, (H + 2K) · D), from that of the mixed values."""
    d_qkv = d.new_empty(d.shape[0], (heads.queries + 2 * heads.keys) * heads.size)
    d_q, d_k, d_v = heads.split(d_qkv)
    d = d.unflatten(1, (heads.queries, heads.size))
    for i, ((part, texts, shared), bias) in enumerate(zip(layout.groups, biases, strict=True)):
        if len(kept) == 1:
            q, k, v = heads.pack(kept[0], part, texts, shared)
            weights = attend(q, k, v, bias)[1]
        else:
            q, k, v, weights = kept[4 * i : 4 * i + 4]
        of_q, of_k, of_v = attend_backward(heads.pack_queries(d[part], texts), q, k, v, weights)
        heads.unpack_queries(of_q, texts, out=d_q[part])
        for whole, gradient in ((d_k, of_k), (d_v, of_v)):
            # the prefix is the first group, so its own gradient is there already
            heads.unpack_keys(gradient, texts, shared=whole[:shared], own=whole[part])
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
    def matrices(self) -> tuple[Tensor | None, ...]:
        """The adapters', in the order of their gradients."""
        return self.qkv.matrices + self.out.matrices


class AttentionBlock(Function):
    """x + out(attention(qkv(norm(x)))) for x (N, C); apply to (x, part, *part.matrices)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: AttentionPart, *matrices: Tensor | None) -> Tensor:
        normed, place = part.qkv.room(x)
        _, inverse = norm(x, part.norm_weight, part.epsilon, out=place)
        qkv = part.qkv.forward(normed)
        rotate_(_turning(qkv, part.heads), *part.rotation)
        mixed, place = part.out.room(x)
        kept = attention(qkv, part.heads, part.layout, part.biases, out=place)
        y = part.out.forward(mixed, residual=x)
        ctx.part = part
        ctx.save_for_backward(x, inverse, part.qkv.inner(normed), mixed, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: AttentionPart = ctx.part
        x, inverse, inner_qkv, mixed, *kept = ctx.saved_tensors
        width = part.out.inputs
        d_mixed, *of_out = part.out.backward(dy, mixed[:, :width], mixed[:, width:])
        d_qkv = attention_backward(d_mixed, kept, part.heads, part.layout, part.biases)
        cos, sin = part.rotation
        rotate_(_turning(d_qkv, part.heads), cos, -sin)
        dx, *of_qkv = _through_norm(ctx, part.qkv, d_qkv, x, inverse, inner_qkv, dy)
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
    """x + down(swiglu(gate_up(norm(x)))) for x (N, C); apply to (x, part, *part.matrices)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: MLPPart, *matrices: Tensor | None) -> Tensor:
        normed, place = part.gate_up.room(x)
        _, inverse = norm(x, part.norm_weight, part.epsilon, out=place)
        gate_up = part.gate_up.forward(normed)
        mixed, place = part.down.room(x)
        swiglu(gate_up, out=place)
        y = part.down.forward(mixed, residual=x)
        ctx.part = part
        ctx.save_for_backward(x, inverse, gate_up, part.gate_up.inner(normed), part.down.inner(mixed))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        part: MLPPart = ctx.part
        x, inverse, gate_up, inner_gate_up, inner_down = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        silu = functional.silu(gate)
        d, *of_down = part.down.backward(dy, silu * up, inner_down)
        d_gate_up = swiglu_backward(d, gate_up, silu)
        dx, *of_gate_up = _through_norm(ctx, part.gate_up, d_gate_up, x, inverse, inner_gate_up, dy)
        return dx, None, *of_gate_up, *of_down


def _through_norm(
    ctx: Any, stack: Stack, d: Tensor, x: Tensor, inverse: Tensor, inner: Tensor, residual: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """From the gradient of what the first stack of a sublayer gave: that of x, with the residual's, and of the
    stack's matrices."""
    weight = ctx.part.norm_weight
    scaled = unscaled(x, inverse)
    dx, of_a, of_b = stack.backward(d, scaled.to(x.dtype).mul(weight), inner, wanted=ctx.needs_input_grad[0])
    if dx is not None:
        dx = norm_backward(dx, scaled, weight, inverse).add_(residual)
    return dx, of_a, of_b


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
        return norm_backward(dy, unscaled(x, inverse), weight, inverse), None, None


class Head:
    """The frozen output matrix E (V, C), with room for the logits of a chunk that is used again at every step: memory
    of that size comes from the operating system anew each time, which takes longer than what is computed in it."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.room: tuple[Tensor, Tensor] | None = None

    def logits(self, x: Tensor) -> Tensor:
        """x Eᵀ (n, V) of x (n, C): overwritten by the next."""
        return torch.mm(x, self.matrix.T, out=self._room()[0][: len(x)])

    def wide(self, rows: int) -> Tensor:
        """Room for rows of logits in fp32 (rows, V)."""
        return self._room()[1][:rows]

    @property
    def rows_at_a_time(self) -> int:
        return SOFTMAX_ROWS if self.matrix.device.type == "cpu" else HEAD_CHUNK

    def _room(self) -> tuple[Tensor, Tensor]:
        if self.room is None:
            width = self.matrix.shape[0]
            wide = self.matrix.new_empty(self.rows_at_a_time, width, dtype=torch.float32)
            self.room = self.matrix.new_empty(HEAD_CHUNK, width), wide
        return self.room


class ScoredHead(Function):
    """The sum over N scored positions of -log softmax(x Eᵀ)[target], with its gradient computed on the way; rows of x
    (N or more, C) without a target (N,) count nothing.

    The head is frozen, so the gradient of x is all there is: it is made in the forward, chunk by chunk, and the
    (N, V) logits never exist as a whole.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Head, targets: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        dx = torch.empty_like(x) if wanted else None
        total = x.new_zeros((), dtype=torch.float32)
        chunks = max(1, -(-len(x) // HEAD_CHUNK))
        size = -(-len(x) // chunks // SOFTMAX_ROWS) * SOFTMAX_ROWS or 1  # alike: few rows would cost as much as many
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            logits, known = head.logits(x[rows]), targets[rows]
            logits[len(known) :].zero_()
            parts = logits[: len(known)].split(head.rows_at_a_time)
            for part, of_part in zip(parts, known.split(head.rows_at_a_time), strict=True):
                log_p = torch.log_softmax(part, dim=-1, dtype=torch.float32, out=head.wide(len(part)))
                total -= log_p.gather(1, of_part[:, None]).sum()
                if dx is not None:
                    p = log_p.exp_()
                    part.copy_(p.scatter_add_(1, of_part[:, None], p.new_full((len(p), 1), -1.0)))
            if dx is not None:
                torch.mm(logits, head.matrix, out=dx[rows])
        ctx.save_for_backward(dx)
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> Any:
        (dx,) = ctx.saved_tensors
        return dx * d_total.to(dx.dtype), None, None
