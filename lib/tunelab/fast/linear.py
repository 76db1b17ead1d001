"""Linear layers that read the same input, and what techniques add to them, as one product: forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class Adapters:
    """The LoRA factors of linear layers that read the same x, as two matrices: y += (x Aᵀ) Bᵀ.

    Layer i alone adds scale · x A_iᵀ B_iᵀ. A (R, C) holds scale · A_i of all layers below each other, B (O, R) their
    B_i on its diagonal blocks, zero elsewhere. One product for all costs less than a thin one for each. The matrices
    are copies in the model's dtype; `Joined` makes them anew from the parameters.

    Source: Hu et al. 2021, section 4.1, equation 3, with scale = lora_alpha / r.
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

    The gradients of the factors are the blocks where they lie: dA_i = scale · (rows i of dA), dB_i = block i of dB;
    what dB holds beside the blocks belongs to zeros that nobody trains. All at once, in both directions: there are
    hundreds of factors, and a call for each costs more than its copy.
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


class Gradients:
    """What a sublayer's backward gives its trained tensors, as it finds it."""

    def __init__(self) -> None:
        self._found: dict[int, Tensor] = {}

    def add(self, tensor: Tensor, gradient: Tensor) -> None:
        """The gradient of a tensor, in any precision."""
        self._found[id(tensor)] = gradient.to(tensor.dtype)

    def of(self, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """In the order of the tensors; None where there is none."""
        return [self._found.get(id(tensor)) for tensor in tensors]


@dataclass
class Stack:
    """Linear layers side by side with their adapters, for x (N, C) and its low-rank part h = x Aᵀ (N, R):

        u = x Wᵀ + h Bᵀ = [x, h] [W, B]ᵀ        (N, O), plus the bias of layers that have one
        y = f · u                               with factors f (O,); y = u without

        du = f · dy
        df = Σ_n dy · u                         (O,)
        [g, dh] = du [W, B]                     (N, C + R), g through W alone
        dx = g + dh A                           (N, C), through W and through h
        dA = dhᵀ x                              (R, C)
        dB = duᵀ h                              (O, R)
        dW = duᵀ x                              (O, C), where W is trained

    For u changes by δx Wᵀ + δh Bᵀ + h δBᵀ + x δWᵀ and h by δx Aᵀ + x δAᵀ. With W and B side by side, one product gives
    what takes two: u in the forward, g and dh in the backward. So x lies in a buffer with R spare columns behind it,
    for h. The factors are the learned ones of IA³, or with `lengths` n (O,), those of the rows of W + B A, f = m / n
    for learned lengths m (DoRA). n counts as a constant in the backward.

    Source: Hu et al. 2021, section 4.1, equation 3; Liu, S.-Y., et al. 2024 (DoRA), equation 5 and section 4.3; Liu,
    H., et al. 2022 (IA³), section 3.3; the gradients are derived here.
    """

    joined: Callable[[], Tensor]  # W and B: (O, C + R)
    inputs: int  # C
    a: Tensor | None = None  # (R, C); None: without adapters
    b: Tensor | None = None  # (O, R): lies in `joined`, stands here to be given its gradient
    bias: Tensor | None = None  # (O,)
    factors: Tensor | None = None  # (O,), in fp32: f, or m where there are `lengths`
    lengths: Callable[[Tensor], Tensor] | None = None  # [W, B] -> n (O,), in fp32
    bias_behind: bool = False  # y = f · u + bias, and u without it (DoRA)
    input_factors: Tensor | None = None  # (C,), in fp32: x is what was given times them
    weights: Sequence[tuple[slice, Tensor]] = ()  # the trained ones of W, and which rows of it they are
    biases: Sequence[tuple[slice, Tensor]] = ()  # likewise

    @property
    def trained(self) -> list[Tensor]:
        """What is given a gradient, as a `Function` is applied to it."""
        changes = (self.a, self.b, self.factors, self.input_factors)
        own = (tensor for _rows, tensor in (*self.weights, *self.biases))
        return [*(tensor for tensor in changes if tensor is not None), *own]

    def input_buffer(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """For the input of as many rows as `like` has: what `forward` takes (N, C + R), and the part to fill (N, C)."""
        buffer = like.new_empty(len(like), self.inputs + (0 if self.a is None else len(self.a)))
        return buffer, buffer[:, : self.inputs]

    def low_rank(self, buffer: Tensor) -> Tensor:
        """h = x Aᵀ (N, R), as `forward` left it in its buffer: a copy, the rest need not stay."""
        return buffer[:, self.inputs :].clone()

    def scale_input_(self, x: Tensor) -> tuple[Tensor, ...]:
        """Multiplies by the factors of the input, in place; keeps what it was, where there are some."""
        if self.input_factors is None:
            return ()
        given = x.clone()
        x.copy_(_times(given, self.input_factors))
        return (given,)

    def forward(self, buffer: Tensor, residual: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """y (N, O) of the x in a buffer (N, C + R), whose spare columns are filled; or residual + alpha · y. Of a stack
        without factors."""
        return self._product(self.joined(), buffer, self.bias, residual, alpha)

    def product(self, buffer: Tensor) -> tuple[Tensor, ...]:
        """What `finished` makes y of, and all that the backward needs for it: u, or y itself without factors, and
        1 / n, if there are lengths."""
        joined = self.joined()
        u = self._product(joined, buffer, None if self.bias_behind else self.bias)
        return (u,) if self.lengths is None else (u, self.lengths(joined).reciprocal_())

    def finished(self, made: Sequence[Tensor]) -> Tensor:
        """y (N, O): a new tensor with factors."""
        u = made[0]
        if self.factors is None:
            return u
        y = _times(u, self._factors(made))
        return y.add_(self.bias) if self.bias_behind and self.bias is not None else y

    def finished_backward(self, dy: Tensor, made: Sequence[Tensor], gradients: Gradients) -> Tensor:
        """Gradient of u (N, O), from that of y."""
        of_bias = dy
        if self.factors is not None:
            d_factors = (dy.float() * made[0].float()).sum(0)
            gradients.add(self.factors, d_factors if self.lengths is None else d_factors * made[1])
            dy = _times(dy, self._factors(made))
        for rows, bias in self.biases:
            gradients.add(bias, (of_bias if self.bias_behind else dy)[:, rows].sum(0))
        return dy

    def backward(
        self, du: Tensor, x: Tensor, low_rank: Tensor, gradients: Gradients, needs_dx: bool = True
    ) -> Tensor | None:
        """Gradient of x (N, C), None unless `needs_dx`, from du (N, O), x and h."""
        joined = self.joined()
        for rows, weight in self.weights:
            gradients.add(weight, du[:, rows].T @ x)
        if self.a is None or self.b is None:
            return du @ joined[:, : self.inputs] if needs_dx else None
        gradients.add(self.b, du.T @ low_rank)
        if not needs_dx:
            gradients.add(self.a, (du @ joined[:, self.inputs :]).T @ x)
            return None
        dx, d_low_rank = (du @ joined).split([self.inputs, len(self.a)], dim=1)
        gradients.add(self.a, d_low_rank.T @ x)
        return dx.addmm_(d_low_rank, self.a)

    def input_backward(self, dx: Tensor, kept: Sequence[Tensor], gradients: Gradients) -> Tensor:
        """Gradient of what `scale_input_` was given, from that of x, and what it kept."""
        if self.input_factors is None:
            return dx
        (given,) = kept
        gradients.add(self.input_factors, (dx.float() * given.float()).sum(0))
        return _times(dx, self.input_factors)

    def _factors(self, made: Sequence[Tensor]) -> Tensor:
        assert self.factors is not None
        return self.factors if self.lengths is None else self.factors * made[1]

    def _product(
        self, joined: Tensor, buffer: Tensor, bias: Tensor | None, residual: Tensor | None = None, alpha: float = 1.0
    ) -> Tensor:
        if self.a is not None:
            torch.mm(buffer[:, : self.inputs], self.a.T, out=buffer[:, self.inputs :])
        weight = joined[:, : buffer.shape[1]].T
        if residual is None:
            return buffer @ weight if bias is None else torch.addmm(bias, buffer, weight)
        y = torch.addmm(residual, buffer, weight, alpha=alpha)
        return y if bias is None else y.add_(bias, alpha=alpha)


def _times(x: Tensor, factors: Tensor) -> Tensor:
    """x (N, O) times factors (O,) in fp32, rounded once. PyTorch's product of two precisions takes ten times as long
    on a CPU as one after a copy."""
    return (x.float() * factors).to(x.dtype)


def row_lengths(joined: Tensor, squares: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """‖w + b A‖ (O,) of each row w of W and b of B, in fp32, from [W, B] (O, C + R) and `squares`, w · w (O,):

        ‖w + b A‖² = w · w + (2 w Aᵀ + b (A Aᵀ)) · b

    W is frozen, so w · w is computed once; all that is left are thin products. Where layers stand side by side, b is
    zero in the columns of the others, and their rows of A add nothing.
    """
    crossed = (joined[:, : a.shape[1]] @ a.T).float()  # (O, R)
    wide_a, wide_b = a.float(), b.float()
    change = crossed.mul_(2).addmm_(wide_b, wide_a @ wide_a.T).mul_(wide_b).sum(1)
    return change.add_(squares).clamp_(min=0).sqrt_()
