"""The differentiable pieces of a Llama layer, each with the backward it deserves.

The base is frozen, so no weight gradient is computed for it, and each piece keeps only what its backward can't cheaply
make again: 12 to 14 KB per token and layer of a 135M model in bf16, a third of what autograd keeps. The forwards are
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
SOFTMAX_NUMBERS = 2**17  # of attention scores, how many are in fp32 at a time, about


# ---- linear layers with adapters


class Adapters:
    """The LoRA factors of linear layers that read the same x, as two matrices: y += (x Aᵀ) Bᵀ.

    A (R, C) holds the A_i of all layers, times the scale, B (O, R) their B_i on its diagonal blocks. One product for
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
        torch._foreach_mul_([x.a for x in adapters], [x.scale for x in adapters])
        ctx.adapters = adapters
        return tuple(matrix.detach() for x in adapters for matrix in (x.a, x.b))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        adapters: Sequence[Adapters] = ctx.adapters
        pairs = zip(adapters, gradients[::2], gradients[1::2], strict=True)
        blocks = [block for x, d_a, d_b in pairs for block in x.of_factors(d_a, d_b)]
        of_factors = [torch.empty_like(factor) for x in adapters for factor in x.factors]
        torch._foreach_copy_(of_factors, blocks)
        torch._foreach_mul_(of_factors[::2], [x.scale for x in adapters for _ in x.ranks])
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
    """How a batch lies in N = B · (s + T) flat rows. A prefix of P tokens that all B texts share is computed once,
    dealt out to them: text b has s = ⌈P / B⌉ tokens of the prefix, from b · s on, then its own T tokens. So all attend
    in the same products. Both are padded on the right."""

    prefix: int  # P
    rows: int  # B
    length: int  # T

    @property
    def share(self) -> int:
        """s, how many tokens of the prefix each text has."""
        return -(-self.prefix // self.rows)

    @property
    def dealt(self) -> int:
        """B · s, the prefix with its padding."""
        return self.share * self.rows

    @property
    def tokens(self) -> int:
        """N, how many flat rows there are."""
        return self.rows * (self.share + self.length)

    @property
    def positions(self) -> Tensor:
        """The position (N,) of each flat row in its text."""
        own = torch.arange(self.prefix, self.prefix + self.length)
        return self.lay(torch.arange(self.prefix), own.expand(self.rows, -1))

    def lay(self, shared: Tensor, own: Tensor) -> Tensor:
        """Flat rows (N, …) of what belongs to the prefix (P, …) and to the texts (B, T, …)."""
        padded = shared[torch.arange(self.dealt, device=shared.device).clamp(max=self.prefix - 1)]
        return torch.cat((padded.unflatten(0, (self.rows, self.share)), own), dim=1).flatten(0, 1)

    def parts(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Of flat rows (N, …) those of the dealt prefix (B, s, …) and of the texts (B, T, …): views."""
        shared, own = flat.unflatten(0, (self.rows, -1)).split([self.share, self.length], dim=1)
        return shared, own

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
        seen = self.dealt + self.length
        return self.tokens * heads.queries * (heads.size + seen) + 2 * self.rows * seen * heads.keys * heads.size

    def mask(self, per_group: int, like: Tensor) -> Mask:
        """What hides from each query what it may not look at: `per_group` queries of each token ask the same key."""
        ahead = float("-inf")
        own = like.new_zeros(self.length, self.dealt + self.length)
        own[:, self.prefix : self.dealt] = ahead
        own[:, self.dealt :] = like.new_full((self.length, self.length), ahead).triu_(1)
        of_prefix = like.new_zeros(self.share, self.dealt + self.length)
        of_prefix[:, self.dealt :] = ahead
        within = like.new_full((self.dealt, self.dealt), ahead).triu_(1).view(self.rows, 1, 1, self.share, self.dealt)
        return Mask(torch.cat((of_prefix, own)).repeat(per_group, 1), within if self.prefix else None)


@dataclass(frozen=True)
class Mask:
    """Zero where a query may look, -inf elsewhere, in two parts, of which the second is small."""

    everywhere: Tensor  # (H / K · (s + T), B · s + T): the same for all texts
    within: Tensor | None  # (B, 1, 1, s, B · s): inside the prefix, of which each text has other tokens

    def add_within(self, scores: Tensor) -> None:
        """Adds the second part to packed scores (B · K, H / K · (s + T), B · s + T)."""
        if self.within is not None:
            rows, _, _, share, dealt = self.within.shape
            tokens = share + scores.shape[2] - dealt
            of_texts = scores.unflatten(0, (rows, -1)).unflatten(2, (-1, tokens))
            of_texts[:, :, :, :share, :dealt].add_(self.within)


@dataclass(frozen=True)
class Heads:
    """Heads of grouped-query attention: the H / K query heads of a group are packed into one product with their key."""

    queries: int
    keys: int
    size: int

    @property
    def per_group(self) -> int:
        return self.queries // self.keys

    def pack(self, qkv: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of flat rows (N, (H + 2K) · D), packed for `attend`."""
        q, k, v = self.split(qkv)
        return self.pack_queries(q, layout.rows), self.pack_keys(k, layout), self.pack_keys(v, layout)

    def pack_queries(self, q: Tensor, rows: int) -> Tensor:
        """(B · L, H, D) -> (B · K, H / K · L, D)."""
        q = q.unflatten(0, (rows, -1)).unflatten(2, (self.keys, -1)).permute(0, 2, 3, 1, 4)  # (B, K, H / K, L, D)
        return q.reshape(rows * self.keys, -1, self.size)

    def unpack_queries(self, q: Tensor, rows: int, out: Tensor) -> None:
        """The way back, into `out` (B · L, H, D)."""
        packed = q.view(rows, self.keys, self.per_group, -1, self.size).permute(0, 3, 1, 2, 4)
        out.unflatten(0, (rows, -1)).unflatten(2, (self.keys, -1)).copy_(packed)

    def pack_keys(self, flat: Tensor, layout: Layout) -> Tensor:
        """Keys or values (N, K, D) -> (B · K, B · s + T, D): every text has the whole prefix before its own."""
        shared, own = layout.parts(flat)
        packed = flat.new_empty(layout.rows, self.keys, layout.dealt + layout.length, self.size)
        if layout.prefix:
            packed[:, :, : layout.dealt] = shared.flatten(0, 1).transpose(0, 1)
        packed[:, :, layout.dealt :] = own.transpose(1, 2)
        return packed.flatten(0, 1)

    def unpack_keys(self, packed: Tensor, layout: Layout, out: Tensor) -> None:
        """Gradients of what `pack_keys` was given, into `out` (N, K, D): the prefix collects from every text."""
        shared, own = layout.parts(out)
        packed = packed.unflatten(0, (layout.rows, -1))
        own.copy_(packed[:, :, layout.dealt :].transpose(1, 2))
        if layout.prefix:
            total = packed[:, :, : layout.dealt].sum(0, dtype=torch.float32)  # (K, B · s, D)
            shared.copy_(total.transpose(0, 1).unflatten(0, (layout.rows, -1)))

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, (H + 2K) · D) -> q (N, H, D), k (N, K, D), v (N, K, D), all views."""
        heads = qkv.view(-1, self.queries + 2 * self.keys, self.size)
        return heads.split([self.queries, self.keys, self.keys], dim=1)


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
    mask: Mask

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
        kept = attention(qkv, part.heads, part.layout, part.mask, out=place)
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
        d_qkv = attention_backward(d_mixed, kept, part.heads, part.layout, part.mask)
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


def softmax_rows(device: torch.device) -> int:
    """How many rows of logits are in fp32 at a time."""
    return SOFTMAX_ROWS if device.type == "cpu" else HEAD_CHUNK


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
        """How many rows there is room for in fp32."""
        return softmax_rows(self.matrix.device)

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
                # in place: a call that makes its own fp32 copy waits longer for that memory than it computes
                wide = head.wide(len(part)).copy_(part)
                wide.sub_(wide.amax(1, keepdim=True))
                of_target = wide.gather(1, of_part[:, None])
                normaliser = wide.exp_().sum(1, keepdim=True)
                total += (normaliser.log() - of_target).sum()
                if dx is not None:
                    p = wide.div_(normaliser)
                    part.copy_(p.scatter_add_(1, of_part[:, None], p.new_full((len(p), 1), -1.0)))
            if dx is not None:
                torch.mm(logits, head.matrix, out=dx[rows])
        ctx.save_for_backward(dx)
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> Any:
        (dx,) = ctx.saved_tensors
        return dx * d_total.to(dx.dtype), None, None
